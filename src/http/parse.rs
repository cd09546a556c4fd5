//! A request's head from bytes: the request line and the header fields, as strictly as nginx.

use std::ops::Range;

/// What is wrong with a request line; the text is nginx's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineError {
    /// A byte that no method has.
    Method,
    /// Anything else.
    Request,
    /// Neither HTTP/1.0 nor 1.1.
    Version,
    /// HTTP/0.9 knows GET only.
    Method09,
}

impl LineError {
    /// nginx's words in the error log.
    pub fn text(self) -> &'static str {
        match self {
            LineError::Method => "client sent invalid method",
            LineError::Request => "client sent invalid request",
            LineError::Version => "client sent invalid version",
            LineError::Method09 => "client sent invalid method in HTTP/0.9 request",
        }
    }
}

/// Where the parts of a request line are, counted from its first byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Method.
    pub method: Range<usize>,
    /// Scheme of an absolute URI.
    pub scheme: Option<Range<usize>>,
    /// Host and port of an absolute URI, or of CONNECT.
    pub host: Option<Range<usize>>,
    /// Path and arguments; for an absolute URI without a path one of its slashes.
    pub uri: Range<usize>,
    /// An absolute URI goes on with `?` right behind the host.
    pub empty_path: bool,
    /// `HTTP/1.1`; empty for HTTP/0.9.
    pub protocol: Range<usize>,
    /// Major and minor version; 0.9 where there is none.
    pub version: (u16, u16),
    /// Length without the line's end.
    pub len: usize,
    /// Length with the line's end.
    pub total: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum S {
    Method,
    SpacesBeforeUri,
    Scheme,
    SchemeSlash,
    SchemeSlashSlash,
    SpacesBeforeHost,
    HostStart,
    Host,
    HostEnd,
    Literal,
    PortStart,
    Port,
    Uri,
    AfterUri,
    Protocol,
    Major,
    MajorMore,
    Minor,
    MinorMore,
    SpacesAfter,
    AlmostDone,
}

struct LineParser {
    line: Line,
    state: S,
    connect: bool,
    host_start: usize,
}

/// Parses a request line that begins at `bytes[0]` (empty lines before it are the caller's). `None`: more is needed.
pub fn request_line(bytes: &[u8]) -> Result<Option<Line>, LineError> {
    let mut parser = LineParser {
        line: Line { version: (0, 9), ..Line::default() },
        state: S::Method,
        connect: false,
        host_start: 0,
    };
    let mut at = 0;
    while at < bytes.len() {
        if parser.state == S::Uri {
            // Most of a request line: go to the next byte that means something.
            at += bytes[at..].iter().take_while(|c| **c > 0x20 && **c != 0x7f).count();
            if at == bytes.len() {
                break;
            }
        }
        if parser.byte(bytes, at)? {
            let mut line = parser.line;
            line.total = at + 1;
            if line.len == 0 {
                line.len = at;
            }
            if !line.protocol.is_empty() || line.protocol.start > 0 {
                line.protocol.end = line.len;
            }
            if line.version == (0, 9) && &bytes[line.method.clone()] != b"GET" {
                return Err(LineError::Method09);
            }
            return Ok(Some(line));
        }
        at += 1;
    }
    Ok(None)
}

impl LineParser {
    /// Takes the byte at `at`; true at the line's end.
    fn byte(&mut self, bytes: &[u8], at: usize) -> Result<bool, LineError> {
        let c = bytes[at];
        let alpha = c.is_ascii_alphabetic();
        let digit = c.is_ascii_digit();
        self.state = match self.state {
            S::Method if c == b' ' && at > 0 => {
                self.line.method = 0..at;
                self.connect = &bytes[..at] == b"CONNECT";
                if self.connect { S::SpacesBeforeHost } else { S::SpacesBeforeUri }
            }
            S::Method if c.is_ascii_uppercase() || c == b'_' || c == b'-' => S::Method,
            S::Method => return Err(LineError::Method),
            S::SpacesBeforeUri => match c {
                b'/' => {
                    self.line.uri.start = at;
                    S::Uri
                }
                b' ' => S::SpacesBeforeUri,
                _ if alpha => {
                    self.line.scheme = Some(at..at);
                    S::Scheme
                }
                _ => return Err(LineError::Request),
            },
            S::Scheme if alpha || digit || matches!(c, b'+' | b'-' | b'.') => S::Scheme,
            S::Scheme if c == b':' => {
                if let Some(scheme) = &mut self.line.scheme {
                    scheme.end = at;
                }
                S::SchemeSlash
            }
            S::SchemeSlash if c == b'/' => S::SchemeSlashSlash,
            S::SchemeSlashSlash if c == b'/' => S::HostStart,
            S::SpacesBeforeHost if c == b' ' => S::SpacesBeforeHost,
            S::SpacesBeforeHost | S::HostStart => {
                self.host_start = at;
                if c == b'[' { S::Literal } else { return self.host(c, at).map(|s| self.go(s)) }
            }
            S::Host | S::HostEnd => return self.host(c, at).map(|s| self.go(s)),
            S::Literal if alpha || digit || b":-._~!$&'()*+,;=".contains(&c) => S::Literal,
            S::Literal if c == b']' => S::HostEnd,
            S::PortStart if digit => S::Port,
            S::PortStart if self.connect => return Err(LineError::Request),
            S::PortStart | S::Port if digit => S::Port,
            S::PortStart | S::Port => self.after_host(c, at)?,
            S::Uri | S::AfterUri => return self.uri(c, at),
            S::Protocol => {
                let want = b"HTTP/";
                let done = at - self.line.protocol.start;
                if c != want[done] {
                    return Err(LineError::Request);
                }
                if done + 1 < want.len() {
                    S::Protocol
                } else {
                    if self.connect {
                        self.line.uri = at..at + 1;
                    }
                    S::Major
                }
            }
            S::Major | S::MajorMore | S::Minor | S::MinorMore => return self.version(c, at),
            S::SpacesAfter => match c {
                b' ' => S::SpacesAfter,
                b'\r' => S::AlmostDone,
                b'\n' => return Ok(true),
                _ => return Err(LineError::Request),
            },
            S::AlmostDone if c == b'\n' => {
                self.line.len = at - 1;
                return Ok(true);
            }
            _ => return Err(LineError::Request),
        };
        Ok(false)
    }

    fn go(&mut self, state: S) -> bool {
        self.state = state;
        false
    }

    fn host(&mut self, c: u8, at: usize) -> Result<S, LineError> {
        if self.state != S::HostEnd && (c.is_ascii_alphanumeric() || c == b'.' || c == b'-') {
            return Ok(S::Host);
        }
        if c == b':' {
            return Ok(S::PortStart);
        }
        if self.connect {
            return Err(LineError::Request);
        }
        self.after_host(c, at)
    }

    fn after_host(&mut self, c: u8, at: usize) -> Result<S, LineError> {
        self.line.host = Some(self.host_start..at);
        if self.connect {
            return if c == b' ' { Ok(S::AfterUri) } else { Err(LineError::Request) };
        }
        match c {
            b'/' => {
                self.line.uri.start = at;
                Ok(S::Uri)
            }
            b'?' => {
                self.line.uri.start = at;
                self.line.empty_path = true;
                Ok(S::Uri)
            }
            b' ' => {
                let slash = self.line.scheme.as_ref().map_or(0, |s| s.end) + 1;
                self.line.uri = slash..slash + 1;
                Ok(S::AfterUri)
            }
            _ => Err(LineError::Request),
        }
    }

    fn uri(&mut self, c: u8, at: usize) -> Result<bool, LineError> {
        if self.state == S::Uri && matches!(c, b' ' | b'\r' | b'\n') {
            self.line.uri.end = at;
        }
        self.state = match (self.state, c) {
            (_, b' ') => S::AfterUri,
            (_, b'\r') => S::AlmostDone,
            (_, b'\n') => return Ok(true),
            (S::AfterUri, b'H') => {
                self.line.protocol = at..at;
                S::Protocol
            }
            (S::Uri, c) if c >= 0x20 && c != 0x7f => S::Uri,
            _ => return Err(LineError::Request),
        };
        Ok(false)
    }

    fn version(&mut self, c: u8, _at: usize) -> Result<bool, LineError> {
        let digit = u16::from(c.wrapping_sub(b'0'));
        let (major, minor) = &mut self.line.version;
        self.state = match self.state {
            S::Major if matches!(c, b'1'..=b'9') => {
                *major = digit;
                S::MajorMore
            }
            S::MajorMore if c == b'.' => S::Minor,
            S::MajorMore if c.is_ascii_digit() => {
                *major = *major * 10 + digit;
                S::MajorMore
            }
            S::Minor if c.is_ascii_digit() => {
                *minor = digit;
                S::MinorMore
            }
            S::MinorMore => match c {
                b'\r' => S::AlmostDone,
                b'\n' => return Ok(true),
                b' ' => S::SpacesAfter,
                _ if c.is_ascii_digit() && *minor <= 99 => {
                    *minor = *minor * 10 + digit;
                    S::MinorMore
                }
                _ => return Err(LineError::Request),
            },
            _ => return Err(LineError::Request),
        };
        if *major > 1 {
            return Err(LineError::Version);
        }
        Ok(false)
    }
}

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
    if end == 0 {
        return if line.len() <= 1 { FieldLine::End } else { FieldLine::Invalid(1) };
    }
    let mut valid = true;
    let mut at = 0;
    loop {
        if at == end {
            // A name without a colon: a field with an empty value.
            return FieldLine::Field { name: 0..end, value: end..end, valid };
        }
        match NAME[line[at] as usize] {
            NAME_OK => {}
            NAME_UNDERSCORE if underscores => {}
            NAME_COLON if at > 0 => break,
            NAME_COLON | NAME_BAD => return FieldLine::Invalid(at),
            _ => valid = false,
        }
        at += 1;
    }
    let name = 0..at;
    let mut start = at + 1;
    while start < end && line[start] == b' ' {
        start += 1;
    }
    let value = &line[start..end];
    if let Some(bad) = memchr::memchr2(0, b'\r', value) {
        return FieldLine::Invalid(start + bad);
    }
    let mut stop = end;
    while stop > start && line[stop - 1] == b' ' {
        stop -= 1;
    }
    FieldLine::Field { name, value: start..stop, valid }
}

/// The host name or address is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidHost;

/// A host as it may stand in `Host` or an absolute URI (RFC 3986, section 3.2.2): lower-cased without a last dot, and
/// the port.
pub fn validate_host(host: &[u8]) -> Result<(Vec<u8>, Option<u16>), InvalidHost> {
    let literal = host.first() == Some(&b'[');
    let mut dot = None;
    let mut end = None;
    for (i, &c) in host.iter().enumerate().skip(usize::from(literal)) {
        match c {
            b':' if !literal => end = Some(i),
            b']' if literal => end = Some(i + 1),
            b'.' if i > 0 && dot == Some(i - 1) => return Err(InvalidHost),
            b'.' => dot = Some(i),
            b'%' if literal => return Err(InvalidHost),
            _ if c.is_ascii_alphanumeric() || b"-_~!$&'()*+,;=%:".contains(&c) => {}
            _ => return Err(InvalidHost),
        }
        if end.is_some() {
            break;
        }
    }
    let end = match end {
        Some(end) => end,
        None if literal => return Err(InvalidHost),
        None => host.len(),
    };
    let port = match &host[end..] {
        [] => None,
        [b':', digits @ ..] => port(digits)?,
        _ => return Err(InvalidHost),
    };
    let name = if end > 0 && dot == Some(end - 1) { &host[..end - 1] } else { &host[..end] };
    if name.is_empty() {
        return Err(InvalidHost);
    }
    Ok((name.to_ascii_lowercase(), port))
}

fn port(digits: &[u8]) -> Result<Option<u16>, InvalidHost> {
    let mut port: u16 = 0;
    for digit in digits {
        let digit = (*digit as char).to_digit(10).ok_or(InvalidHost)? as u16;
        port = port.checked_mul(10).and_then(|p| p.checked_add(digit)).ok_or(InvalidHost)?;
    }
    Ok((port > 0).then_some(port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(text: &str) -> Result<Option<Line>, LineError> {
        request_line(text.as_bytes())
    }

    #[test]
    fn the_usual_line() {
        let text = "GET /a?b=c HTTP/1.1\r\n";
        let l = line(text).unwrap().unwrap();
        assert_eq!(&text[l.method], "GET");
        assert_eq!(&text[l.uri], "/a?b=c");
        assert_eq!(&text[l.protocol], "HTTP/1.1");
        assert_eq!((l.version, l.len, l.total), ((1, 1), text.len() - 2, text.len()));
    }

    #[test]
    fn absolute_uris_and_connect() {
        let text = "GET http://Host:80?x HTTP/1.0\n";
        let l = line(text).unwrap().unwrap();
        assert_eq!(&text[l.host.unwrap()], "Host:80");
        assert_eq!((&text[l.uri], l.empty_path), ("?x", true));
        let text = "GET http://[::1]/ HTTP/1.1\r\n";
        let l = line(text).unwrap().unwrap();
        assert_eq!((&text[l.host.unwrap()], &text[l.uri]), ("[::1]", "/"));
        let text = "CONNECT host:443 HTTP/1.1\r\n";
        let l = line(text).unwrap().unwrap();
        assert_eq!((&text[l.host.unwrap()], &text[l.uri]), ("host:443", "/"));
        let text = "GET http://host HTTP/1.1\r\n";
        let l = line(text).unwrap().unwrap();
        assert_eq!(&text[l.uri], "/");
    }

    #[test]
    fn http_09_is_get_without_a_version() {
        assert_eq!(line("GET /\r\n").unwrap().unwrap().version, (0, 9));
        assert_eq!(line("POST /\r\n"), Err(LineError::Method09));
    }

    #[test]
    fn wrong_lines_are_refused_at_the_first_wrong_byte() {
        for (text, error) in [
            ("\x16\x03", LineError::Method),
            ("get /", LineError::Method),
            ("GET \t", LineError::Request),
            ("GET / HTTX", LineError::Request),
            ("GET / HTTP/2", LineError::Version),
            ("GET / HTTP/1.1x", LineError::Request),
            ("GET /\x01", LineError::Request),
            ("GET / HTTP/1.1\rx", LineError::Request),
            ("GET ftp:x", LineError::Request),
            ("CONNECT /", LineError::Request),
        ] {
            assert_eq!(line(text), Err(error), "{text:?}");
        }
    }

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
        assert_eq!(validate_host(b"Example.COM:8080"), Ok((b"example.com".to_vec(), Some(8080))));
        assert_eq!(validate_host(b"example.com."), Ok((b"example.com".to_vec(), None)));
        assert_eq!(validate_host(b"[::1]:80"), Ok((b"[::1]".to_vec(), Some(80))));
        for wrong in ["a..b", "a/b", "a b", "[::1", ":80", "a:8x"] {
            assert!(validate_host(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_cut_line_is_never_an_error(cut in 0usize..40) {
            let text = b"DELETE http://a.b:81/c%20d?e HTTP/1.1\r\n";
            let cut = cut.min(text.len());
            let parsed = request_line(&text[..cut]);
            prop_assert!(parsed.is_ok());
            prop_assert_eq!(parsed.unwrap().is_some(), cut == text.len());
        }

        #[test]
        fn nothing_panics(bytes in any::<Vec<u8>>()) {
            let _ = request_line(&bytes);
            let _ = field_line(&bytes, true);
            let _ = validate_host(&bytes);
        }
    }
}
