//! A response out of records: the CGI head, whose bytes are moved together in the buffer, and the body.

use bytes::Bytes;

use super::{Part, Records};
use crate::http::request::Request;
use crate::http::upstream::head::Tell;
use crate::http::upstream::{Decoded, Fault, Head, HeadStep, Malformed, ResponseFraming, cgi, http1};
use crate::log::{Level, bytes};

/// Reads one response.
#[derive(Debug, Default)]
pub struct Response {
    records: Records,
    /// `fastcgi_keep_conn`
    keep_conn: bool,
    /// Words on the standard error stream that make a response invalid.
    catch: &'static [Bytes],
    /// Bytes of the head at the buffer's beginning, free of framing.
    head: usize,
    /// Where in the buffer the next record's bytes are.
    next: usize,
    /// Something came on the standard output stream.
    begun: bool,
    /// Bytes of body to come, where that is known.
    rest: Option<u64>,
    keep: bool,
    cut: bool,
}

impl Response {
    /// One on a connection that is kept, or not; `catch` is `fastcgi_catch_stderr`.
    pub fn new(keep_conn: bool, catch: &'static [Bytes]) -> Response {
        Response { keep_conn, catch, ..Response::default() }
    }

    /// As [`Protocol::parse_head`].
    ///
    /// [`Protocol::parse_head`]: crate::http::upstream::Protocol::parse_head
    pub fn parse(&mut self, tell: Tell<'_>, buffer: &mut [u8], head: &mut Head) -> Result<HeadStep, Fault> {
        loop {
            let part = self.records.step(buffer, &mut self.next).map_err(|bad| {
                tell(Level::Error, format_args!("{bad}"));
                Fault::InvalidHeader
            })?;
            match part {
                Part::More if !self.begun && self.next > 0 => {
                    // Any number of messages may come before the head.
                    head.size = std::mem::take(&mut self.next);
                    return Ok(HeadStep::Skip);
                }
                Part::More => return Ok(HeadStep::More),
                Part::Stdout(range) => {
                    self.begun = true;
                    let len = range.len();
                    buffer.copy_within(range, self.head);
                    self.head += len;
                    if http1::fields(tell, &buffer[..self.head], head)? {
                        cgi::status(tell, buffer, head)?;
                        (head.close, head.chunked) = (false, false);
                        self.leave_body(buffer, head);
                        return Ok(HeadStep::Done);
                    }
                }
                Part::Stderr(range) => {
                    let message = &buffer[range];
                    tell_stderr(tell, message);
                    let caught = |word: &Bytes| memchr::memmem::find(message, word).is_some();
                    if self.catch.iter().any(caught) {
                        return Err(Fault::InvalidHeader);
                    }
                }
                Part::StdoutEnd => {
                    tell(Level::Error, format_args!("upstream prematurely closed FastCGI stdout"));
                    return Err(Fault::InvalidHeader);
                }
                Part::EndRequest | Part::Finished => {
                    tell(
                        Level::Error,
                        format_args!("upstream sent unexpected FastCGI record: {}", super::kind::END_REQUEST),
                    );
                    return Err(Fault::InvalidHeader);
                }
            }
        }
    }

    /// What came behind the head in its last record goes back to its place, before the records that follow.
    fn leave_body(&mut self, buffer: &mut [u8], head: &mut Head) {
        let body = self.head - head.size;
        let place = self.next - body;
        buffer.copy_within(head.size..self.head, place);
        self.records.give_back(body);
        head.size = place;
    }

    /// As [`ResponseFraming::decode`].
    pub fn take_records(&mut self, tell: Tell<'_>, piece: &mut [u8]) -> Result<Decoded, Malformed> {
        let (mut data, mut at) = (0..0, 0);
        loop {
            let part = self.records.step(piece, &mut at).map_err(|bad| {
                tell(Level::Error, format_args!("{bad}"));
                Malformed
            })?;
            match part {
                Part::More => return Ok(Decoded { data, end: false }),
                Part::Stdout(range) => {
                    let most = self.rest.map_or(range.len(), |rest| {
                        range.len().min(usize::try_from(rest).unwrap_or(usize::MAX))
                    });
                    let too_much = most < range.len();
                    if data.is_empty() {
                        data = range.start..range.start + most;
                    } else {
                        piece.copy_within(range.start..range.start + most, data.end);
                        data.end += most;
                    }
                    self.rest = self.rest.map(|rest| rest - most as u64);
                    if too_much {
                        let text = "upstream sent more data than specified in \"Content-Length\" header";
                        tell(Level::Warn, format_args!("{text}"));
                        return Ok(Decoded { data, end: true });
                    }
                }
                Part::Stderr(range) => tell_stderr(tell, &piece[range]),
                Part::StdoutEnd | Part::EndRequest => {
                    if self.is_short() {
                        let what = if part == Part::StdoutEnd { "stdout" } else { "request" };
                        tell(Level::Error, format_args!("upstream prematurely closed FastCGI {what}"));
                        self.cut = true;
                        return Ok(Decoded { data, end: true });
                    }
                }
                Part::Finished => {
                    self.keep = self.keep_conn && at == piece.len();
                    return Ok(Decoded { data, end: true });
                }
            }
        }
    }

    fn is_short(&self) -> bool {
        self.rest.is_some_and(|rest| rest > 0)
    }
}

impl ResponseFraming for Response {
    fn reset(&mut self) {
        *self = Response::new(self.keep_conn, self.catch);
    }

    fn begin_body(&mut self, head: &Head) {
        self.rest = match head.status {
            204 | 304 => Some(0),
            _ => head.length,
        };
    }

    fn decode(&mut self, req: &mut Request, piece: &mut [u8]) -> Result<Decoded, Malformed> {
        self.take_records(&|level, what| req.log(level, None, what), piece)
    }

    fn is_cut(&self) -> bool {
        self.cut
    }

    /// A server that was not asked to keep the connection may simply close it.
    fn complete_at_end(&self) -> bool {
        !self.keep_conn && !self.is_short()
    }

    fn keeps(&self) -> bool {
        self.keep
    }
}

/// Logs a message, without what ends it.
fn tell_stderr(tell: Tell<'_>, message: &[u8]) {
    let kept = message.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r' | b'.' | b' ')).unwrap_or(0);
    let shown = bytes(&message[..(kept + 1).min(message.len())]);
    tell(Level::Error, format_args!("FastCGI sent in stderr: \"{shown}\""));
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::http::upstream::fastcgi::{header, kind};
    use proptest::prelude::*;

    fn record(kind: u8, content: &[u8], padding: u8, wire: &mut Vec<u8>) {
        wire.extend_from_slice(&header(kind, content.len() as u16, padding));
        wire.extend_from_slice(content);
        wire.resize(wire.len() + usize::from(padding), 0);
    }

    /// What a whole stream, in pieces of `cut` bytes, comes to: status, a field, body, whether the connection stays.
    struct Read {
        status: u16,
        field: Vec<u8>,
        body: Vec<u8>,
        keeps: bool,
        ended: bool,
        log: Vec<String>,
    }

    fn read(wire: &[u8], cut: usize, keep_conn: bool) -> Result<Read, (Fault, Vec<String>)> {
        let log = RefCell::new(Vec::new());
        let tell = |_: Level, what: std::fmt::Arguments<'_>| log.borrow_mut().push(what.to_string());
        let (mut response, mut head, mut buffer) =
            (Response::new(keep_conn, &[]), Head::default(), Vec::<u8>::new());
        let mut pieces = wire.chunks(cut);
        loop {
            let Some(piece) = pieces.next() else { panic!("no head in {wire:?}") };
            buffer.extend_from_slice(piece);
            match response.parse(&tell, &mut buffer, &mut head) {
                Ok(HeadStep::Done) => break,
                Ok(HeadStep::Skip) => drop(buffer.drain(..std::mem::take(&mut head.size))),
                Ok(_) => {}
                Err(fault) => return Err((fault, log.into_inner())),
            }
        }
        let field = head.fields.first().map(|f| f.value(&buffer).to_vec()).unwrap_or_default();
        response.begin_body(&head);
        let (mut body, mut ended) = (Vec::new(), false);
        let rest = std::iter::once(buffer[head.size..].to_vec()).chain(pieces.map(<[u8]>::to_vec));
        for mut piece in rest {
            if ended {
                break;
            }
            let Ok(decoded) = response.take_records(&tell, &mut piece) else { break };
            body.extend_from_slice(&piece[decoded.data]);
            ended = decoded.end;
        }
        let keeps = response.keeps();
        Ok(Read { status: head.status, field, body, keeps, ended, log: log.into_inner() })
    }

    fn end(wire: &mut Vec<u8>) {
        record(kind::STDOUT, b"", 0, wire);
        record(kind::END_REQUEST, &[0; 8], 0, wire);
    }

    #[test]
    fn messages_are_logged_without_their_ends() {
        let mut wire = Vec::new();
        record(kind::STDERR, b"PHP message: oops. \r\n", 3, &mut wire);
        record(kind::STDERR, b"", 0, &mut wire);
        record(kind::STDOUT, b"Status: 404 Not Here\r\n\r\nx", 0, &mut wire);
        record(kind::STDERR, b"...", 0, &mut wire);
        end(&mut wire);
        let read = read(&wire, wire.len(), true).ok().unwrap();
        assert_eq!((read.status, &read.body[..], read.keeps), (404, &b"x"[..], true));
        assert_eq!(
            read.log,
            ["FastCGI sent in stderr: \"PHP message: oops\"", "FastCGI sent in stderr: \".\""]
        );
    }

    #[test]
    fn what_is_no_response_is_told() {
        let said = |content: &[(u8, &[u8])]| {
            let mut wire = Vec::new();
            content.iter().for_each(|(kind, content)| record(*kind, content, 0, &mut wire));
            let (fault, log) = read(&wire, wire.len(), false).err().unwrap();
            assert_eq!(fault, Fault::InvalidHeader);
            log.join("|")
        };
        assert_eq!(said(&[(kind::STDOUT, b"")]), "upstream prematurely closed FastCGI stdout");
        assert_eq!(said(&[(kind::END_REQUEST, &[0; 8])]), "upstream sent unexpected FastCGI record: 3");
        assert_eq!(said(&[(kind::STDOUT, b"Status: abc\r\n\r\n")]), "upstream sent invalid status \"abc\"");
        assert_eq!(said(&[(9, b"")]), "upstream sent invalid FastCGI record type: 9");
    }

    #[test]
    fn lengths_are_held_against_the_body() {
        let with = |body: &[u8]| {
            let mut wire = Vec::new();
            record(kind::STDOUT, b"Content-Length: 3\r\n\r\n", 0, &mut wire);
            record(kind::STDOUT, body, 0, &mut wire);
            end(&mut wire);
            read(&wire, wire.len(), true).ok().unwrap()
        };
        let (whole, long, short) = (with(b"abc"), with(b"abcd"), with(b"ab"));
        assert!(whole.keeps && whole.ended && whole.log.is_empty());
        assert_eq!((&long.body[..], long.keeps), (&b"abc"[..], false));
        assert!(long.log[0].starts_with("upstream sent more data than specified"));
        assert_eq!(short.log, ["upstream prematurely closed FastCGI stdout"]);
    }

    proptest! {
        #[test]
        fn a_response_reads_back_wherever_it_is_cut(
            sizes in proptest::collection::vec((1usize..40, 0u8..9), 1..40),
            body in proptest::collection::vec(any::<u8>(), 0..300),
            noise in 0usize..40,
            cut in 1usize..120,
            keep_conn in any::<bool>(),
        ) {
            let text = [&b"X-Field: some value\r\nStatus: 201 Made\r\n\r\n"[..], &body].concat();
            let (mut wire, mut at) = (Vec::new(), 0);
            let mut sizes = sizes.into_iter().cycle();
            for number in 0.. {
                let Some((size, padding)) = sizes.next().filter(|_| at < text.len()) else { break };
                if number == noise {
                    record(kind::STDERR, b"noise", padding, &mut wire);
                }
                let to = (at + size).min(text.len());
                record(kind::STDOUT, &text[at..to], padding, &mut wire);
                at = to;
            }
            end(&mut wire);
            let read = read(&wire, cut, keep_conn).ok().unwrap();
            prop_assert_eq!((read.status, read.ended, read.keeps), (201, true, keep_conn));
            prop_assert_eq!(read.field, b"some value");
            prop_assert_eq!(read.body, body);
        }

        #[test]
        fn nothing_panics(bytes in any::<Vec<u8>>(), keep_conn in any::<bool>()) {
            let mut wire = Vec::new();
            record(kind::STDOUT, b"A: b\r\n", 1, &mut wire);
            wire.extend_from_slice(&bytes);
            let (mut response, mut head) = (Response::new(keep_conn, &[]), Head::default());
            let _ = response.parse(&|_, _| (), &mut wire.clone(), &mut head);
            response.begin_body(&head);
            let _ = response.take_records(&|_, _| (), &mut wire);
        }
    }
}
