//! `ngx_http_range_filter`: parts of a body for clients that ask for them (RFC 9110, section 14).

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::conf::build::Commands;
use crate::http::conf::Loc;
use crate::http::headers::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_RANGE, RANGE};
use crate::http::module::{Handlers, Module};
use crate::http::output::Gone;
use crate::http::request::{Request, Version};
use crate::log::Level;

/// The module.
pub struct Range;

impl Module for Range {
    type Main = ();
    type Srv = ();
    type Loc = ();
    const COMMANDS: Commands = Commands { module: "ngx_http_range_header_filter", setters: &[] };

    fn handlers(_: &Loc, to: &mut Handlers) {
        to.header_filters.push(header_filter);
    }
}

/// One part of a body and what stands in front of it.
#[derive(Debug)]
pub struct Part {
    /// First byte.
    pub start: u64,
    /// Behind the last byte.
    pub end: u64,
    /// Boundary and fields, where there are several parts.
    pub head: Vec<u8>,
}

/// The parts of the body that are sent.
#[derive(Debug)]
pub struct Ranges {
    parts: Vec<Part>,
    tail: Vec<u8>,
    /// Bytes of the whole body.
    total: u64,
    /// Bytes seen so far.
    offset: u64,
}

impl Ranges {
    /// The parts in the order they are sent.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The last boundary, where there are several parts.
    pub fn tail(&self) -> &[u8] {
        &self.tail
    }

    /// Appends what is wanted of a piece of the body. Several parts can only be had of a body in one piece.
    pub fn filter(&mut self, req: &Request, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Gone> {
        let from = self.offset;
        self.offset += bytes.len() as u64;
        if bytes.is_empty() {
            return Ok(());
        }
        let within = |start: u64, end: u64| {
            let cut =
                |at: u64| usize::try_from(at.saturating_sub(from)).unwrap_or(usize::MAX).min(bytes.len());
            &bytes[cut(start)..cut(end)]
        };
        if let [part] = &self.parts[..] {
            out.extend_from_slice(within(part.start, part.end));
            return Ok(());
        }
        if from > 0 || self.offset < self.total {
            req.log(Level::Alert, None, format_args!("range in overlapped buffers"));
            return Err(Gone);
        }
        for part in &self.parts {
            out.extend_from_slice(&part.head);
            out.extend_from_slice(within(part.start, part.end));
        }
        out.extend_from_slice(&self.tail);
        Ok(())
    }
}

/// What a `Range` field asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// These, first and behind the last byte.
    Parts(Vec<(u64, u64)>),
    /// Nothing that is there.
    Unsatisfiable,
    /// More than makes sense: the whole body is sent.
    Whole,
}

fn number(text: &mut &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|c| c.is_ascii_digit()).count();
    let value = crate::conf::units::number(&text[..digits])?;
    *text = &text[digits..];
    Some(value)
}

fn skip_spaces(text: &mut &[u8]) {
    let spaces = text.iter().take_while(|c| **c == b' ').count();
    *text = &text[spaces..];
}

/// Reads one range up to the comma behind it, or the end.
fn one(text: &mut &[u8], length: u64) -> Option<(u64, u64)> {
    skip_spaces(text);
    let mut start = None;
    if text.first() != Some(&b'-') {
        start = Some(number(text)?);
        skip_spaces(text);
    }
    *text = text.strip_prefix(b"-")?;
    if start.is_some() {
        skip_spaces(text);
        if matches!(text.first(), None | Some(b',')) {
            return Some((start?, length));
        }
    }
    let last = number(text)?;
    skip_spaces(text);
    if !matches!(text.first(), None | Some(b',')) {
        return None;
    }
    Some(match start {
        Some(start) => (start, last.saturating_add(1).min(length)),
        None => (length.saturating_sub(last), length),
    })
}

/// Reads what follows `bytes=`. `limited` is whether `max_ranges` was set.
fn parse(mut text: &[u8], length: u64, max: usize, limited: bool) -> Asked {
    let mut parts = Vec::new();
    let mut size = 0u64;
    loop {
        let Some((start, end)) = one(&mut text, length) else { return Asked::Unsatisfiable };
        if start < end {
            if parts.len() >= max {
                return Asked::Whole;
            }
            parts.push((start, end));
            size = size.saturating_add(end - start);
        } else if start == 0 {
            return Asked::Whole;
        }
        match text.split_first() {
            Some((b',', rest)) => text = rest,
            _ => break,
        }
    }
    match parts.len() {
        0 => Asked::Unsatisfiable,
        1 => Asked::Parts(parts),
        _ if size > length => Asked::Whole,
        // Many small ranges must not cost more than the whole.
        n if !limited && size.saturating_add(n as u64 * 256) > length.saturating_add(4096) => Asked::Whole,
        _ => Asked::Parts(parts),
    }
}

/// Whether `If-Range` lets parts be sent: the body is still the one the client knows.
fn is_same(req: &Request) -> bool {
    let Some(value) = req.header(IF_RANGE) else { return true };
    if value.len() >= 2 && value.ends_with(b"\"") {
        return req.response.headers.get(ETAG) == Some(value);
    }
    req.response.last_modified.is_some_and(|time| super::not_modified::parse_time(value) == Some(time))
}

fn header_filter(req: &mut Request) -> Option<u16> {
    let r = &req.response;
    let length = r.content_length?;
    if req.version < Version::Http10 || r.status != 200 || req.is_subrequest() || !r.allow_ranges {
        return None;
    }
    let max = *req.conf.core.max_ranges;
    if max == 0 {
        return None;
    }
    let asked = match req.header(RANGE).and_then(|v| v.split_at_checked(6)) {
        Some((unit, rest)) if unit.eq_ignore_ascii_case(b"bytes=") && !rest.is_empty() && is_same(req) => {
            parse(rest, length, if r.single_range { 1 } else { max }, r.single_range || max != usize::MAX)
        }
        _ => Asked::Whole,
    };
    match asked {
        Asked::Whole => {
            req.response.headers.add(ACCEPT_RANGES, b"bytes");
            None
        }
        Asked::Unsatisfiable => {
            req.unsatisfiable_range = Some(format!("bytes */{length}"));
            Some(416)
        }
        Asked::Parts(parts) => {
            req.response.status = 206;
            req.response.status_line = None;
            req.response.headers.remove(CONTENT_RANGE);
            req.response.headers.remove(CONTENT_LENGTH);
            let ranges = match parts[..] {
                [(start, end)] => single(req, start, end, length),
                _ => several(req, &parts, length),
            };
            req.out.filters().ranges = Some(Box::new(ranges));
            None
        }
    }
}

fn single(req: &mut Request, start: u64, end: u64, total: u64) -> Ranges {
    let value = format!("bytes {start}-{}/{total}", end - 1);
    req.response.headers.add(CONTENT_RANGE, value.as_bytes());
    req.response.content_length = Some(end - start);
    Ranges { parts: vec![Part { start, end, head: Vec::new() }], tail: Vec::new(), total, offset: 0 }
}

fn several(req: &mut Request, wanted: &[(u64, u64)], total: u64) -> Ranges {
    static BOUNDARY: AtomicU64 = AtomicU64::new(1);
    let boundary = format!("{:020}", BOUNDARY.fetch_add(1, Ordering::Relaxed));
    let mut content_type = Vec::new();
    if crate::http::head::content_type(req, &mut content_type) {
        content_type.splice(..0, *b"Content-Type: ");
        content_type.extend_from_slice(b"\r\n");
    }
    let mut length = 0;
    let parts = wanted
        .iter()
        .map(|&(start, end)| {
            let mut head = format!("\r\n--{boundary}\r\n").into_bytes();
            head.extend_from_slice(&content_type);
            head.extend(format!("Content-Range: bytes {start}-{}/{total}\r\n\r\n", end - 1).into_bytes());
            length += head.len() as u64 + (end - start);
            Part { start, end, head }
        })
        .collect();
    let tail = format!("\r\n--{boundary}--\r\n").into_bytes();
    let r = &mut req.response;
    r.content_length = Some(length + tail.len() as u64);
    r.content_type = Some(Bytes::from(format!("multipart/byteranges; boundary={boundary}")));
    r.charset = None;
    Ranges { parts, tail, total, offset: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asked(text: &str, max: usize) -> Asked {
        parse(text.as_bytes(), 1000, max, max != usize::MAX)
    }

    #[test]
    fn forms_of_ranges() {
        for (text, parts) in [
            ("0-8", vec![(0, 9)]),
            (" 5 - 7 ", vec![(5, 8)]),
            ("990-", vec![(990, 1000)]),
            ("-8", vec![(992, 1000)]),
            ("-5000", vec![(0, 1000)]),
            ("990-5000", vec![(990, 1000)]),
            ("0-0,-1", vec![(0, 1), (999, 1000)]),
            ("0-0, 1000-", vec![(0, 1)]),
        ] {
            assert_eq!(asked(text, usize::MAX), Asked::Parts(parts), "{text}");
        }
        for text in ["1000-", "x", "1", "1-x", "-", "2000-3000", "5-99999999999999999999", "", "5-3"] {
            assert_eq!(asked(text, usize::MAX), Asked::Unsatisfiable, "{text}");
        }
    }

    #[test]
    fn too_much_is_the_whole() {
        assert_eq!(asked("0-999,0-999", usize::MAX), Asked::Whole);
        assert_eq!(asked("0-1,2-3", 1), Asked::Whole);
        let many = vec!["1-1"; 30].join(",");
        assert_eq!(asked(&many, usize::MAX), Asked::Whole);
        assert!(matches!(asked(&many, 30), Asked::Parts(_)));
        assert_eq!(asked("-0", usize::MAX), Asked::Unsatisfiable);
    }

    proptest! {
        #[test]
        fn parts_are_within_the_body(text in "[0-9, -]{0,20}", length in 0u64..50) {
            if let Asked::Parts(parts) = parse(text.as_bytes(), length, 100, true) {
                prop_assert!(parts.iter().all(|(start, end)| start < end && *end <= length));
            }
        }
    }
}
