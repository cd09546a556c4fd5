//! Responses as CGI programs write them (RFC 3875, section 6), and protocols that are a packet of parameters, the
//! request's body, and such a response: uwsgi and SCGI.

use std::ops::Range;

use super::head::{Known, Tell};
use super::{Fault, Framing, Head, HeadStep, Protocol, http1};
use crate::http::method::Method;
use crate::http::request::Request;
use crate::log::{Level, bytes};

/// The status that a complete head's fields tell.
pub fn status(tell: Tell<'_>, buffer: &[u8], head: &mut Head) -> Result<(), Fault> {
    let first = |known| head.fields.iter().find(|f| f.known == known && !f.ignored);
    let Some(field) = first(Known::Status) else {
        head.status = if first(Known::Location).is_some() { 302 } else { 200 };
        return Ok(());
    };
    let (value, place) = (field.value(buffer), field.place());
    let digits = value.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit));
    let Some(digits) = digits else {
        tell(Level::Error, format_args!("upstream sent invalid status \"{}\"", bytes(value)));
        return Err(Fault::InvalidHeader);
    };
    head.status = digits.iter().fold(0, |n, digit| n * 10 + u16::from(digit - b'0'));
    if value.len() > digits.len() {
        head.line = place;
    }
    Ok(())
}

/// What such a protocol sends before the body.
pub trait Packet {
    /// Appends it.
    ///
    /// # Errors
    /// The status to answer with, where it cannot be made; that was logged.
    fn write(&self, req: &Request, out: &mut Vec<u8>) -> Result<(), u16>;

    /// Whether the client's body follows.
    fn passes_body(&self) -> bool;
}

/// One request in such a protocol.
pub struct Plain<P> {
    packet: P,
    response: http1::Response,
}

impl<P: Packet> Plain<P> {
    /// One that was not sent yet.
    pub fn new(packet: P, req: &Request) -> Plain<P> {
        let mut response = http1::Response::default();
        response.head_request = req.method == Method::Head;
        Plain { packet, response }
    }
}

/// Reads on in a head: fields, with a status line before them or not.
fn parse(tell: Tell<'_>, buffer: &[u8], head: &mut Head) -> Result<HeadStep, Fault> {
    if head.size == 0 {
        match memchr::memchr(b'\n', buffer) {
            Some(end) => {
                if let Some(line) = http1::status_line(&buffer[..end]) {
                    head.status = line.status;
                    head.line = line.text;
                    head.size = end + 1;
                }
            }
            None if http1::may_begin(buffer) => return Ok(HeadStep::More),
            None => {}
        }
    }
    if !http1::fields(tell, buffer, head)? {
        return Ok(HeadStep::More);
    }
    if head.status == 0 {
        status(tell, buffer, head)?;
    }
    (head.close, head.chunked) = (true, false);
    Ok(HeadStep::Done)
}

impl<P: Packet> Protocol for Plain<P> {
    type Response = http1::Response;

    fn create_request(&mut self, req: &mut Request, out: &mut Vec<u8>) -> Result<Range<usize>, u16> {
        self.packet.write(req, out)?;
        Ok(0..0)
    }

    fn passes_body(&self) -> bool {
        self.packet.passes_body()
    }

    fn framing(&self) -> Framing {
        Framing::None
    }

    fn parse_head(&mut self, req: &Request, buffer: &mut [u8], head: &mut Head) -> Result<HeadStep, Fault> {
        parse(&|level, what| req.log(level, None, what), buffer, head)
    }

    fn response(&self) -> &Self::Response {
        &self.response
    }

    fn response_mut(&mut self) -> &mut Self::Response {
        &mut self.response
    }

    fn is_http(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(u16, String), Fault> {
        let mut head = Head::default();
        let tell: Tell<'_> = &|_, _| ();
        for end in 0..text.len() {
            assert_eq!(parse(tell, &text.as_bytes()[..end], &mut head), Ok(HeadStep::More), "{text} {end}");
        }
        parse(tell, text.as_bytes(), &mut head)?;
        Ok((head.status, text[head.line.clone()].to_owned()))
    }

    #[test]
    fn heads_begin_with_a_status_line_or_not() {
        for (text, status, line) in [
            ("HTTP/1.1 404 Not Found\r\nA: b\r\n\r\n", 404, "404 Not Found"),
            ("Status: 404 Nowhere\r\n\r\n", 404, "404 Nowhere"),
            ("Status: 404\r\n\r\n", 404, ""),
            ("Location: /x\r\n\r\n", 302, ""),
            ("Location: /x\r\nStatus: 301\r\n\r\n", 301, ""),
            ("Content-Type: a/b\r\n\r\n", 200, ""),
            ("HTTP: x\nHTTP/: y\n\n", 200, ""),
            ("\r\n", 200, ""),
        ] {
            assert_eq!(read(text), Ok((status, line.to_owned())), "{text}");
        }
        assert_eq!(read("Status: 4\r\n\r\n"), Err(Fault::InvalidHeader));
        assert_eq!(read("Status: OK\r\n\r\n"), Err(Fault::InvalidHeader));
    }
}
