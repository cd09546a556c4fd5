//! Reading records, wherever they are cut.

use std::fmt;
use std::ops::Range;

use super::kind;

/// What a look at the bytes found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of them were used.
    More,
    /// Some of the response; never empty.
    Stdout(Range<usize>),
    /// Some of a message; never empty.
    Stderr(Range<usize>),
    /// The response is at its end.
    StdoutEnd,
    /// The record that ends the request begins.
    EndRequest,
    /// That record is complete: what follows is no part of this request.
    Finished,
}

/// A header that is no such thing; displayed in the words of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRecord {
    #[allow(missing_docs)]
    Version(u8),
    #[allow(missing_docs)]
    Type(u8),
    #[allow(missing_docs)]
    IdHigh(u8),
    #[allow(missing_docs)]
    IdLow(u8),
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadRecord::Version(byte) => {
                write!(f, "upstream sent unsupported FastCGI protocol version: {byte}")
            }
            BadRecord::Type(byte) => write!(f, "upstream sent invalid FastCGI record type: {byte}"),
            BadRecord::IdHigh(byte) => {
                write!(f, "upstream sent unexpected FastCGI request id high byte: {byte}")
            }
            BadRecord::IdLow(byte) => {
                write!(f, "upstream sent unexpected FastCGI request id low byte: {byte}")
            }
        }
    }
}

/// Where in a record the next byte is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// That byte of the header.
    #[default]
    Version,
    Type,
    IdHigh,
    IdLow,
    LengthHigh,
    LengthLow,
    PaddingLength,
    Reserved,
    Data,
    Padding,
}

/// Takes records apart.
#[derive(Clone, Debug, Default)]
pub struct Records {
    state: State,
    kind: u8,
    /// Bytes of content to come.
    length: usize,
    /// Bytes of padding to come.
    padding: usize,
}

impl Records {
    /// Reads on from `at`, which moves.
    pub fn step(&mut self, bytes: &[u8], at: &mut usize) -> Result<Part, BadRecord> {
        loop {
            match self.state {
                State::Padding => {
                    let used = self.padding.min(bytes.len() - *at);
                    *at += used;
                    self.padding -= used;
                    if self.padding > 0 {
                        return Ok(Part::More);
                    }
                    self.state = State::Version;
                    if self.kind == kind::END_REQUEST {
                        return Ok(Part::Finished);
                    }
                }
                State::Data => {
                    let from = *at;
                    let used = self.length.min(bytes.len() - from);
                    *at += used;
                    self.length -= used;
                    let more = self.length > 0;
                    if !more {
                        self.state = State::Padding;
                    }
                    match self.kind {
                        kind::STDOUT if used > 0 => return Ok(Part::Stdout(from..*at)),
                        kind::STDERR if used > 0 => return Ok(Part::Stderr(from..*at)),
                        _ if more => return Ok(Part::More),
                        _ => {}
                    }
                }
                _ => {
                    let Some(byte) = bytes.get(*at) else { return Ok(Part::More) };
                    *at += 1;
                    if let Some(part) = self.header(*byte)? {
                        return Ok(part);
                    }
                }
            }
        }
    }

    /// Takes a byte of a header.
    fn header(&mut self, byte: u8) -> Result<Option<Part>, BadRecord> {
        self.state = match self.state {
            State::Version if byte != super::VERSION => return Err(BadRecord::Version(byte)),
            State::Version => State::Type,
            State::Type => match byte {
                kind::STDOUT | kind::STDERR | kind::END_REQUEST => {
                    self.kind = byte;
                    State::IdHigh
                }
                _ => return Err(BadRecord::Type(byte)),
            },
            State::IdHigh if byte != 0 => return Err(BadRecord::IdHigh(byte)),
            State::IdHigh => State::IdLow,
            State::IdLow if byte != 1 => return Err(BadRecord::IdLow(byte)),
            State::IdLow => State::LengthHigh,
            State::LengthHigh => {
                self.length = usize::from(byte) << 8;
                State::LengthLow
            }
            State::LengthLow => {
                self.length |= usize::from(byte);
                State::PaddingLength
            }
            State::PaddingLength => {
                self.padding = usize::from(byte);
                State::Reserved
            }
            State::Reserved | State::Data | State::Padding => State::Data,
        };
        Ok(match (self.state, self.kind) {
            (State::Data, kind::END_REQUEST) => Some(Part::EndRequest),
            (State::Data, kind::STDOUT) if self.length == 0 => Some(Part::StdoutEnd),
            _ => None,
        })
    }

    /// The last `n` bytes of the [`Part::Stdout`] that was just found are to be found again.
    pub fn give_back(&mut self, n: usize) {
        if n > 0 {
            self.length += n;
            self.state = State::Data;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::upstream::fastcgi::header;
    use proptest::prelude::*;

    /// A stream of records, and what it says on both channels.
    fn written(list: &[(bool, Vec<u8>, u8)]) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let (mut wire, mut out, mut err) = (Vec::new(), Vec::new(), Vec::new());
        for (is_out, content, padding) in list {
            let kind = if *is_out { kind::STDOUT } else { kind::STDERR };
            wire.extend_from_slice(&header(kind, content.len() as u16, *padding));
            wire.extend_from_slice(content);
            wire.resize(wire.len() + usize::from(*padding), 0);
            if *is_out { &mut out } else { &mut err }.extend_from_slice(content);
        }
        wire.extend_from_slice(&header(kind::STDOUT, 0, 3));
        wire.extend_from_slice(&[0; 3]);
        wire.extend_from_slice(&header(kind::END_REQUEST, 8, 2));
        wire.extend_from_slice(&[0; 10]);
        (wire, out, err)
    }

    #[test]
    fn what_is_wrong_is_told() {
        let read = |bytes: &[u8]| Records::default().step(bytes, &mut 0).unwrap_err().to_string();
        assert_eq!(read(&[2]), "upstream sent unsupported FastCGI protocol version: 2");
        assert_eq!(read(&[1, 5]), "upstream sent invalid FastCGI record type: 5");
        assert_eq!(read(&[1, 6, 9]), "upstream sent unexpected FastCGI request id high byte: 9");
        assert_eq!(read(&[1, 6, 0, 2]), "upstream sent unexpected FastCGI request id low byte: 2");
    }

    proptest! {
        #[test]
        fn records_read_back_wherever_they_are_cut(
            list in proptest::collection::vec(
                (any::<bool>(), proptest::collection::vec(any::<u8>(), 1..300), 0u8..12), 0..6),
            cut in 1usize..50,
        ) {
            let (wire, out, err) = written(&list);
            let (mut records, mut got_out, mut got_err, mut marks) =
                (Records::default(), Vec::new(), Vec::new(), Vec::new());
            for piece in wire.chunks(cut) {
                let mut at = 0;
                loop {
                    match records.step(piece, &mut at).unwrap() {
                        Part::More => break,
                        Part::Stdout(range) => got_out.extend_from_slice(&piece[range]),
                        Part::Stderr(range) => got_err.extend_from_slice(&piece[range]),
                        mark => marks.push(mark),
                    }
                }
                prop_assert_eq!(at, piece.len());
            }
            prop_assert_eq!(got_out, out);
            prop_assert_eq!(got_err, err);
            prop_assert_eq!(marks, vec![Part::StdoutEnd, Part::EndRequest, Part::Finished]);
        }

        #[test]
        fn nothing_panics(bytes in any::<Vec<u8>>()) {
            let (mut records, mut at) = (Records::default(), 0);
            while !matches!(records.step(&bytes, &mut at), Ok(Part::More) | Err(_)) {}
        }
    }
}
