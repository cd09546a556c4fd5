//! A request's head from bytes: the request line and the header fields, as strictly as nginx.

mod lanes;
mod line;
mod usual;

use std::ops::Range;

use bytes::Bytes;

pub use line::{Line, LineError, request_line};
use usual::usual_host;
pub use usual::{UsualField, usual_field, usual_line};

/// One line of header fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldLine {
    /// A field: name and value, counted from the line's first byte. `valid` is false where the name has a byte that
    /// names do not have.
    Field {
        /// Name.
        name: Range<usize>,
        /// Value without spaces around it.
        value: Range<usize>,
        /// See above.
        valid: bool,
    },
    /// The empty line that ends the head.
    End,
    /// A byte at this offset that makes the whole request invalid.
    Invalid(usize),
}

/// Classes of bytes in field names.
const NAME_OK: u8 = 0;
const NAME_ODD: u8 = 1;
const NAME_UNDERSCORE: u8 = 2;
const NAME_COLON: u8 = 3;
const NAME_BAD: u8 = 4;

const NAME: [u8; 256] = {
    let mut table = [NAME_ODD; 256];
    let mut c = 0;
    while c < 256 {
        let byte = c as u8;
        table[c] = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => NAME_OK,
            b'_' => NAME_UNDERSCORE,
            b':' => NAME_COLON,
            0..=0x20 | 0x7f => NAME_BAD,
            _ => NAME_ODD,
        };
        c += 1;
    }
    table
};

/// Parses one line of a head without its `\n`; a `\r` before it is taken off here.
pub fn field_line(line: &[u8], underscores: bool) -> FieldLine {
    // nginx takes any number of CR before the LF, once the name is complete.
    let mut end = line.len();
    while end > 0 && line[end - 1] == b'\r' {
        end -= 1;
    }
    let field = &line[..end];
    if end == 0 {
        return if line.len() <= 1 { FieldLine::End } else { FieldLine::Invalid(1) };
    }
    let (colon, valid) = match field.iter().position(|c| NAME[*c as usize] != NAME_OK) {
        Some(at) if field[at] == b':' && at > 0 => (at, true),
        None => return FieldLine::Field { name: 0..end, value: end..end, valid: true },
        Some(at) => match odd_name(field, at, underscores) {
            Ok((colon, valid)) if colon < end => (colon, valid),
            // A name without a colon: a field with an empty value.
            Ok((_, valid)) => return FieldLine::Field { name: 0..end, value: end..end, valid },
            Err(bad) => return FieldLine::Invalid(bad),
        },
    };
    let mut start = colon + 1;
    while field.get(start) == Some(&b' ') {
        start += 1;
    }
    let value = &field[start..];
    if let Some(bad) = bad_in_value(value) {
        return FieldLine::Invalid(start + bad);
    }
    let mut stop = end;
    while stop > start && field[stop - 1] == b' ' {
        stop -= 1;
    }
    FieldLine::Field { name: 0..colon, value: start..stop, valid }
}

/// The first byte that no value has.
fn bad_in_value(value: &[u8]) -> Option<usize> {
    // In steps of a fixed length, which the compiler turns into a few wide operations.
    let (chunks, rest) = value.as_chunks::<16>();
    let bad = |any: bool, c: &u8| any | (*c == 0) | (*c == b'\r');
    let any = chunks.iter().fold(false, |any, chunk| any | chunk.iter().fold(false, bad))
        | rest.iter().fold(false, bad);
    if any { memchr::memchr2(0, b'\r', value) } else { None }
}

/// Where a name ends that has something else than letters, digits and hyphens from `at` on, and whether it is valid.
fn odd_name(field: &[u8], at: usize, underscores: bool) -> Result<(usize, bool), usize> {
    let mut valid = true;
    for (i, c) in field.iter().enumerate().skip(at) {
        match NAME[*c as usize] {
            NAME_OK => {}
            NAME_UNDERSCORE if underscores => {}
            NAME_COLON if i > 0 => return Ok((i, valid)),
            NAME_COLON | NAME_BAD => return Err(i),
            _ => valid = false,
        }
    }
    Ok((field.len(), valid))
}

/// The host name or address is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidHost;

/// Bytes that a host's name has without further ado: all but dots, colons, brackets and percent signs.
const HOST: [bool; 256] = {
    let mut table = [false; 256];
    let mut c = 0;
    while c < 128 {
        table[c] = (c as u8).is_ascii_alphanumeric();
        c += 1;
    }
    let others = b"-_~!$&'()*+,;=";
    let mut i = 0;
    while i < others.len() {
        table[others[i] as usize] = true;
        i += 1;
    }
    table
};

/// A host as it may stand in `Host` or an absolute URI (RFC 3986, section 3.2.2): lower-cased without a last dot, and
/// the port.
pub fn validate_host(host: &[u8]) -> Result<(Bytes, Option<u16>), InvalidHost> {
    match usual_host(host) {
        Some(end) => {
            let port = if end < host.len() { port(&host[end + 1..])? } else { None };
            Ok((Bytes::copy_from_slice(&host[..end]), port))
        }
        None => any_host(host),
    }
}

fn any_host(host: &[u8]) -> Result<(Bytes, Option<u16>), InvalidHost> {
    let end = match host.first() {
        Some(b'[') => literal_end(host)?,
        _ => name_end(host)?,
    };
    let port = match &host[end..] {
        [] => None,
        [b':', digits @ ..] => port(digits)?,
        _ => return Err(InvalidHost),
    };
    let name = host[..end].strip_suffix(b".").unwrap_or(&host[..end]);
    if name.is_empty() {
        return Err(InvalidHost);
    }
    Ok((name.to_ascii_lowercase().into(), port))
}

/// Where the port begins, or the host ends.
fn name_end(host: &[u8]) -> Result<usize, InvalidHost> {
    let mut before = 0;
    for (i, &c) in host.iter().enumerate() {
        if !HOST[c as usize] {
            match c {
                b'.' if before == b'.' => return Err(InvalidHost),
                b'.' | b'%' => {}
                b':' => return Ok(i),
                _ => return Err(InvalidHost),
            }
        }
        before = c;
    }
    Ok(host.len())
}

/// Behind the bracket that ends an address.
fn literal_end(host: &[u8]) -> Result<usize, InvalidHost> {
    let mut before = 0;
    for (i, &c) in host.iter().enumerate().skip(1) {
        match c {
            b']' => return Ok(i + 1),
            b'.' if before == b'.' => return Err(InvalidHost),
            b'.' | b':' => {}
            _ if HOST[c as usize] => {}
            _ => return Err(InvalidHost),
        }
        before = c;
    }
    Err(InvalidHost)
}

fn port(digits: &[u8]) -> Result<Option<u16>, InvalidHost> {
    if digits.is_empty() {
        return Ok(None);
    }
    let port =
        crate::conf::units::number(digits).and_then(|port| u16::try_from(port).ok()).ok_or(InvalidHost)?;
    Ok((port > 0).then_some(port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields() {
        let field = |text: &str| match field_line(text.as_bytes(), false) {
            FieldLine::Field { name, value, valid } => format!("{}={}|{valid}", &text[name], &text[value]),
            other => format!("{other:?}"),
        };
        assert_eq!(field("Host:  a b  \r"), "Host=a b|true");
        assert_eq!(field("X_Y: 1"), "X_Y=1|false");
        assert_eq!(field("X"), "X=|true");
        assert_eq!(field("\r"), "End");
        assert_eq!(field(""), "End");
        assert_eq!(field(": x"), "Invalid(0)");
        assert_eq!(field("a b: x"), "Invalid(1)");
        assert_eq!(field(" folded"), "Invalid(0)");
        assert_eq!(field("a: b\0c"), "Invalid(4)");
        assert_eq!(field("a: b\rc"), "Invalid(4)");
    }

    #[test]
    fn hosts() {
        assert_eq!(validate_host(b"Example.COM:8080"), Ok((Bytes::from_static(b"example.com"), Some(8080))));
        assert_eq!(validate_host(b"example.com."), Ok((Bytes::from_static(b"example.com"), None)));
        assert_eq!(validate_host(b"[::1]:80"), Ok((Bytes::from_static(b"[::1]"), Some(80))));
        for wrong in ["a..b", "a/b", "a b", "[::1", "[a..b]", ":80", "a:8x", "a:65536", "a:99999999999", "."]
        {
            assert!(validate_host(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in any::<Vec<u8>>()) {
            let _ = field_line(&bytes, true);
            let _ = validate_host(&bytes);
        }
    }
}
