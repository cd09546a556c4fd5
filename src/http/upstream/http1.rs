//! HTTP/1 responses: status line, fields, and how the body is delimited (RFC 9112).

use std::ops::Range;

use super::head::Tell;
use super::{Decoded, Fault, Head, HeadStep, Malformed, ResponseFraming};
use crate::http::chunked::{Decoder, Step};
use crate::http::parse::{FieldLine, field_line, usual_field, usual_line};
use crate::http::request::Request;
use crate::log::{Level, bytes};

/// How the rest of a body is delimited.
#[derive(Debug, Default)]
enum Body {
    /// There is none, or no more.
    #[default]
    None,
    /// That many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Decoder),
    /// What comes until the end.
    Close,
}

/// Reads one response.
#[derive(Debug, Default)]
pub struct Response {
    body: Body,
    /// The request was HEAD: no body follows.
    pub head_request: bool,
    /// The connection may serve another request.
    keep: bool,
    close: bool,
    /// Trailer fields are wanted.
    trailers: bool,
}

/// What a status line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StatusLine {
    http10: bool,
    pub status: u16,
    /// From the status on.
    pub text: Range<usize>,
}

/// Reads a status line without its `\n`; none where it is not one.
pub(super) fn status_line(line: &[u8]) -> Option<StatusLine> {
    // What nearly all servers send.
    if let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', b' ', a, b, c, b' ', text @ .., b'\r'] = line
        && [a, b, c].iter().all(|d| d.is_ascii_digit())
        && !text.contains(&b'\r')
    {
        let status = [a, b, c].iter().fold(0, |n, d| n * 10 + u16::from(**d - b'0'));
        return Some(StatusLine { http10: false, status, text: 9..line.len() - 1 });
    }
    let rest = line.strip_prefix(b"HTTP/")?;
    let space = memchr::memchr(b' ', rest)?;
    let version = &rest[..space];
    let dot = memchr::memchr(b'.', version)?;
    let (major, minor) = (number(&version[..dot])?, number(&version[dot + 1..])?);
    if major == 0 || version[0] == b'0' {
        return None;
    }
    let mut at = 5 + space;
    while line.get(at) == Some(&b' ') {
        at += 1;
    }
    let digits = line.get(at..at + 3)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let status = digits.iter().fold(0, |n, d| n * 10 + u16::from(d - b'0'));
    let mut end = line.len();
    if line.get(at + 3).is_some() {
        if line.ends_with(b"\r") {
            end -= 1;
        }
        // IIS may send 403.1 and the like.
        if !matches!(line.get(at + 3), Some(b' ' | b'.' | b'\r')) || line[at + 3..end].contains(&b'\r') {
            return None;
        }
    }
    Some(StatusLine { http10: (major, minor) < (1, 1), status, text: at..end })
}

/// Up to three digits.
fn number(digits: &[u8]) -> Option<u32> {
    let fits = !digits.is_empty() && digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit);
    fits.then(|| digits.iter().fold(0, |n, d| n * 10 + u32::from(d - b'0')))
}

/// Whether these bytes may become a status line.
pub(super) fn may_begin(bytes: &[u8]) -> bool {
    const START: &[u8] = b"HTTP/";
    let n = bytes.len().min(START.len());
    bytes[..n] == START[..n]
}

impl Response {
    /// One that keeps trailer fields, or not.
    pub fn new(trailers: bool) -> Response {
        Response { trailers, ..Response::default() }
    }

    /// As [`super::Protocol::parse_head`].
    pub fn parse(&mut self, tell: Tell<'_>, buffer: &[u8], head: &mut Head) -> Result<HeadStep, Fault> {
        if head.size == 0 {
            let line = match usual_line(buffer).or_else(|| memchr::memchr(b'\n', buffer)) {
                Some(end) => status_line(&buffer[..end]).map(|line| (line, end + 1)),
                None if may_begin(buffer) => return Ok(HeadStep::More),
                None => None,
            };
            let Some((line, size)) = line else {
                // What comes is taken for the body of a response without a head.
                tell(Level::Error, format_args!("upstream sent no valid HTTP/1.0 header"));
                head.status = 200;
                head.headless = true;
                head.close = true;
                head.size = 0;
                return Ok(HeadStep::Done);
            };
            head.status = line.status;
            head.line = line.text;
            head.size = size;
            if line.http10 {
                if line.status == 103 {
                    let text = "upstream sent HTTP/1.0 response with early hints";
                    tell(Level::Error, format_args!("{text}"));
                    return Err(Fault::InvalidHeader);
                }
                head.close = true;
            }
        }
        match fields(tell, buffer, head)? {
            true => Ok(self.end_head(head)),
            false => Ok(HeadStep::More),
        }
    }

    fn end_head(&mut self, head: &mut Head) -> HeadStep {
        if (100..200).contains(&head.status) && head.status != 101 {
            return HeadStep::Interim;
        }
        if head.chunked {
            head.length = None;
        }
        HeadStep::Done
    }
}

impl ResponseFraming for Response {
    fn reset(&mut self) {
        *self = Response { head_request: self.head_request, trailers: self.trailers, ..Response::default() };
    }

    /// RFC 9112, section 6.3.
    fn begin_body(&mut self, head: &Head) {
        self.close = head.close || head.status == 101;
        self.body = if self.head_request || matches!(head.status, 204 | 304) {
            Body::None
        } else if head.chunked {
            Body::Chunked(if self.trailers { Decoder::with_trailers() } else { Decoder::default() })
        } else {
            match head.length {
                Some(0) => Body::None,
                Some(length) => Body::Length(length),
                None => Body::Close,
            }
        };
        self.keep = matches!(self.body, Body::None) && !self.close;
    }

    fn decode(&mut self, req: &mut Request, piece: &mut [u8]) -> Result<Decoded, Malformed> {
        match &mut self.body {
            Body::Close => Ok(Decoded { data: 0..piece.len(), end: false }),
            Body::None => {
                if !piece.is_empty() {
                    self.keep = false;
                    too_much(req);
                }
                Ok(Decoded { data: 0..0, end: true })
            }
            Body::Length(rest) => {
                let have = piece.len() as u64;
                if have > *rest {
                    too_much(req);
                    let data = 0..usize::try_from(*rest).unwrap_or(piece.len());
                    self.body = Body::None;
                    return Ok(Decoded { data, end: true });
                }
                *rest -= have;
                let end = *rest == 0;
                if end {
                    self.body = Body::None;
                    self.keep = !self.close;
                }
                Ok(Decoded { data: 0..piece.len(), end })
            }
            Body::Chunked(decoder) => {
                let (decoded, extra) = match dechunk(decoder, piece) {
                    Ok(done) => done,
                    Err(_) => {
                        req.log(Level::Error, None, format_args!("upstream sent invalid chunked response"));
                        return Err(Malformed);
                    }
                };
                if decoded.end {
                    self.keep = !self.close && extra == 0;
                    if extra > 0 {
                        req.log(Level::Warn, None, format_args!("upstream sent data after final chunk"));
                    }
                    if self.trailers {
                        take_trailers(req, decoder.trailers())?;
                    }
                    self.body = Body::None;
                }
                Ok(decoded)
            }
        }
    }

    fn plain(&self) -> Option<u64> {
        match self.body {
            Body::Length(rest) => Some(rest),
            _ => None,
        }
    }

    fn passed(&mut self, n: u64) {
        if let Body::Length(rest) = &mut self.body {
            *rest = rest.saturating_sub(n);
            if *rest == 0 {
                self.body = Body::None;
                self.keep = !self.close;
            }
        }
    }

    fn complete_at_end(&self) -> bool {
        matches!(self.body, Body::Close | Body::None)
    }

    fn keeps(&self) -> bool {
        self.keep
    }
}

/// Reads fields from [`Head::size`] on; true once the empty line behind them was read.
pub(super) fn fields(tell: Tell<'_>, buffer: &[u8], head: &mut Head) -> Result<bool, Fault> {
    loop {
        let start = head.size;
        if let Some(field) = usual_field(buffer, start) {
            head.size = field.next;
            head.take(tell, buffer, field.name, field.value)?;
            continue;
        }
        let rest = &buffer[start..];
        if rest.starts_with(b"\r\n") {
            head.size = start + 2;
            return Ok(true);
        }
        let Some(len) = memchr::memchr(b'\n', rest) else { return Ok(false) };
        let line = &rest[..len];
        head.size = start + len + 1;
        match field_line(line, true) {
            FieldLine::Field { name, value, .. } => {
                let place = |r: Range<usize>| start + r.start..start + r.end;
                head.take(tell, buffer, place(name), place(value))?;
            }
            FieldLine::End => return Ok(true),
            FieldLine::Invalid(at) => {
                let bad = line.get(at).copied().unwrap_or(b'\n');
                let shown = bytes(&line[..at.min(line.len())]);
                tell(Level::Error, format_args!("upstream sent invalid header: \"{shown}\\x{bad:02x}...\""));
                return Err(Fault::InvalidHeader);
            }
        }
    }
}

fn too_much(req: &Request) {
    req.log(
        Level::Warn,
        None,
        format_args!("upstream sent more data than specified in \"Content-Length\" header"),
    );
}

/// Takes the chunks of `piece` together, in place; also tells how many bytes follow the body's end.
fn dechunk(
    decoder: &mut Decoder,
    piece: &mut [u8],
) -> Result<(Decoded, usize), crate::http::chunked::Malformed> {
    let mut data: Option<Range<usize>> = None;
    let mut at = 0;
    loop {
        match decoder.step(piece, at)? {
            Step::Data { from, len } => {
                at = from + len;
                data = Some(match data {
                    None => from..at,
                    Some(data) => {
                        piece.copy_within(from..at, data.end);
                        data.start..data.end + len
                    }
                });
            }
            Step::More => return Ok((Decoded { data: data.unwrap_or_default(), end: false }, 0)),
            Step::End(used) => {
                return Ok((Decoded { data: data.unwrap_or_default(), end: true }, piece.len() - used));
            }
        }
    }
}

fn take_trailers(req: &mut Request, text: &[u8]) -> Result<(), Malformed> {
    req.upstream_trailers.clear();
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match field_line(line, true) {
            FieldLine::Field { name, value, .. } => req.upstream_trailers.push(&line[name], &line[value]),
            FieldLine::End => {}
            FieldLine::Invalid(at) => {
                let bad = line.get(at).copied().unwrap_or(b'\n');
                let shown = bytes(&line[..at.min(line.len())]);
                req.log(
                    Level::Error,
                    None,
                    format_args!("upstream sent invalid trailer: \"{shown}\\x{bad:02x}...\""),
                );
                return Err(Malformed);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(text: &str) -> Option<(u16, bool, String)> {
        let line = status_line(text.as_bytes())?;
        Some((line.status, line.http10, text[line.text].to_owned()))
    }

    #[test]
    fn status_lines() {
        assert_eq!(line("HTTP/1.1 200 OK\r"), Some((200, false, "200 OK".into())));
        assert_eq!(line("HTTP/1.0 404 Not Found"), Some((404, true, "404 Not Found".into())));
        assert_eq!(line("HTTP/1.1 204\r"), Some((204, false, "204".into())));
        assert_eq!(line("HTTP/1.1   403.1 No\r"), Some((403, false, "403.1 No".into())));
        for wrong in [
            "",
            "HTTP/",
            "HTTP/1.1",
            "HTTP/1.1 20",
            "HTTP/x.1 200",
            "http/1.1 200",
            "HTTP/0.9 200 OK",
            "HTTP/1.1 200OK",
            "HTTP/1.1 2000",
            "ICY 200 OK",
            "HTTP/1.1 200 O\rK",
        ] {
            assert_eq!(line(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_head_is_read_once_however_it_comes() {
        let text = b"HTTP/1.1 000 Odd\r\nContent-Length: 3\r\nX: y\r\n\r\n";
        let (mut response, mut head) = (Response::default(), Head::default());
        for end in 0..text.len() {
            let step = response.parse(&|_, what| panic!("{what}"), &text[..end], &mut head);
            assert_eq!(step, Ok(HeadStep::More));
        }
        assert_eq!(response.parse(&|_, what| panic!("{what}"), text, &mut head), Ok(HeadStep::Done));
        assert_eq!((head.status, head.length, head.fields.len()), (0, Some(3), 2));
    }

    fn chunked(body: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>) {
        let (mut wire, mut whole) = (Vec::new(), Vec::new());
        for piece in body.iter().filter(|piece| !piece.is_empty()) {
            wire.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            wire.extend_from_slice(piece);
            wire.extend_from_slice(b"\r\n");
            whole.extend_from_slice(piece);
        }
        wire.extend_from_slice(b"0\r\n\r\n");
        (wire, whole)
    }

    proptest! {
        #[test]
        fn chunks_come_together_wherever_they_are_cut(
            body in proptest::collection::vec(any::<Vec<u8>>(), 0..6),
            cut in 1usize..40,
        ) {
            let (wire, whole) = chunked(&body);
            let (mut decoder, mut out, mut ended) = (Decoder::default(), Vec::new(), false);
            for piece in wire.chunks(cut) {
                let mut piece = piece.to_vec();
                let (decoded, extra) = dechunk(&mut decoder, &mut piece).unwrap();
                out.extend_from_slice(&piece[decoded.data]);
                ended = decoded.end;
                prop_assert_eq!(extra, 0);
            }
            prop_assert!(ended);
            prop_assert_eq!(out, whole);
        }

        #[test]
        fn nothing_panics(bytes in any::<Vec<u8>>(), start in "HTTP/1.[01] ?[0-9]{0,3} ?") {
            let mut text = start.into_bytes();
            text.extend_from_slice(&bytes);
            let _ = status_line(&text);
            let _ = dechunk(&mut Decoder::default(), &mut bytes.clone());
        }
    }
}
