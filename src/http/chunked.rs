//! Chunked transfer coding (RFC 9112, section 7.1): decoding without regard to where the bytes are cut.

/// What is wrong with a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Start,
    Size,
    Extension,
    ExtensionEnd,
    Data,
    AfterData,
    AfterDataEnd,
    LastExtension,
    LastExtensionEnd,
    Trailer,
    TrailerEnd,
    TrailerHeader,
    TrailerHeaderEnd,
    Done,
}

/// Decodes a chunked body piece by piece.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    state: State,
    /// Bytes left of this chunk's data, or its size while it is read.
    size: u64,
    /// Whether trailer fields are kept.
    keep_trailers: bool,
    /// Trailer fields as they came.
    trailers: Vec<u8>,
}

/// What a step of decoding came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `from..from + len` of the input is data; go on behind it.
    Data {
        /// Where the data begins.
        from: usize,
        /// How much of it there is.
        len: usize,
    },
    /// All input was used; more must come.
    More,
    /// The body is at its end; input from there on is not its own.
    End(usize),
}

/// Bytes of trailer fields taken at most.
const MAX_TRAILERS: usize = 64 << 10;

impl Decoder {
    /// One that keeps trailer fields.
    pub fn with_trailers() -> Decoder {
        Decoder { keep_trailers: true, ..Decoder::default() }
    }

    /// The trailer fields as they came, each with its line end.
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Whether the end was seen.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of the present chunk that still have to come, of what is known.
    pub fn wanted(&self) -> u64 {
        match self.state {
            State::Data => self.size,
            _ => 0,
        }
    }

    /// Decodes from `input[at..]` until data or the end of input.
    pub fn step(&mut self, input: &[u8], mut at: usize) -> Result<Step, Malformed> {
        while self.state != State::Done {
            if self.state == State::Data {
                if self.size == 0 {
                    self.state = State::AfterData;
                    continue;
                }
                let len = (input.len() - at).min(usize::try_from(self.size).unwrap_or(usize::MAX));
                if len == 0 {
                    return Ok(Step::More);
                }
                self.size -= len as u64;
                return Ok(Step::Data { from: at, len });
            }
            let Some(&byte) = input.get(at) else { return Ok(Step::More) };
            at += 1;
            self.byte(byte)?;
        }
        Ok(Step::End(at))
    }

    fn byte(&mut self, byte: u8) -> Result<(), Malformed> {
        self.state = match (self.state, byte) {
            (State::Start, _) => {
                self.size = digit(byte).ok_or(Malformed)?;
                State::Size
            }
            (State::Size, b'\r') => self.after_size(State::LastExtensionEnd, State::ExtensionEnd),
            (State::Size, b'\n') => self.after_size(State::Trailer, State::Data),
            (State::Size, b';' | b' ' | b'\t') => self.after_size(State::LastExtension, State::Extension),
            (State::Size, _) => {
                let digit = digit(byte).ok_or(Malformed)?;
                // One hexadecimal digit less than would overflow a signed 64-bit size, as in nginx.
                if self.size > (i64::MAX as u64) >> 4 {
                    return Err(Malformed);
                }
                self.size = self.size << 4 | digit;
                State::Size
            }
            (State::Extension, b'\r') => State::ExtensionEnd,
            (State::Extension, b'\n') => State::Data,
            (State::Extension, _) => State::Extension,
            (State::ExtensionEnd, b'\n') => State::Data,
            (State::AfterData, b'\r') => State::AfterDataEnd,
            (State::AfterData, b'\n') => State::Start,
            (State::AfterDataEnd, b'\n') => State::Start,
            (State::LastExtension, b'\r') => State::LastExtensionEnd,
            (State::LastExtension, b'\n') => State::Trailer,
            (State::LastExtension, _) => State::LastExtension,
            (State::LastExtensionEnd, b'\n') => State::Trailer,
            (State::Trailer, b'\r') => State::TrailerEnd,
            (State::Trailer, b'\n') => State::Done,
            (State::Trailer | State::TrailerHeader, _) => {
                self.keep(byte)?;
                match (self.state, byte) {
                    (State::TrailerHeader, b'\r') => State::TrailerHeaderEnd,
                    (State::TrailerHeader, b'\n') => State::Trailer,
                    _ => State::TrailerHeader,
                }
            }
            (State::TrailerEnd, b'\n') => State::Done,
            (State::TrailerHeaderEnd, b'\n') => {
                self.keep(byte)?;
                State::Trailer
            }
            _ => return Err(Malformed),
        };
        Ok(())
    }

    fn after_size(&self, last: State, other: State) -> State {
        if self.size == 0 { last } else { other }
    }

    fn keep(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.keep_trailers {
            if self.trailers.len() >= MAX_TRAILERS {
                return Err(Malformed);
            }
            self.trailers.push(byte);
        }
        Ok(())
    }
}

fn digit(byte: u8) -> Option<u64> {
    (byte as char).to_digit(16).map(u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(input: &[u8], cuts: usize) -> Result<(Vec<u8>, bool), Malformed> {
        let mut d = Decoder::default();
        let mut out = Vec::new();
        for piece in input.chunks(cuts.max(1)) {
            let mut at = 0;
            loop {
                match d.step(piece, at)? {
                    Step::Data { from, len } => {
                        out.extend_from_slice(&piece[from..from + len]);
                        at = from + len;
                    }
                    Step::More => break,
                    Step::End(_) => return Ok((out, true)),
                }
            }
        }
        Ok((out, false))
    }

    #[test]
    fn data_extensions_and_trailers() {
        let input = b"4;a=b\r\nwiki\r\n5\r\npedia\r\n0\r\nX: y\r\n\r\n";
        assert_eq!(decode(input, 100), Ok((b"wikipedia".to_vec(), true)));
        let mut d = Decoder::with_trailers();
        let mut at = 0;
        while let Ok(Step::Data { from, len }) = d.step(input, at) {
            at = from + len;
        }
        assert_eq!(d.trailers(), b"X: y\r\n");
    }

    #[test]
    fn wrong_sizes_are_refused() {
        for wrong in ["g\r\n", "\r\n", "-1\r\n", "ffffffffffffffff\r\n", "1\r\nab", "3\rx", " 3\r\nabc"] {
            assert_eq!(decode(wrong.as_bytes(), 100), Err(Malformed), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(body in proptest::collection::vec(any::<Vec<u8>>(), 0..5), cut in 1usize..20) {
            let mut wire = Vec::new();
            let mut whole = Vec::new();
            for piece in body.iter().filter(|p| !p.is_empty()) {
                wire.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                wire.extend_from_slice(piece);
                wire.extend_from_slice(b"\r\n");
                whole.extend_from_slice(piece);
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(decode(&wire, cut), Ok((whole, true)));
        }

        #[test]
        fn nothing_panics(bytes in any::<Vec<u8>>(), cut in 1usize..9) {
            let _ = decode(&bytes, cut);
        }
    }
}
