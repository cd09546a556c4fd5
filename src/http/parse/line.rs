//! The request line from bytes, as strictly as nginx.

use std::ops::Range;

use super::lanes::{NotInUris, first};

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
    match usual(bytes) {
        Some(line) => Ok(Some(line)),
        None => any_line(bytes),
    }
}

/// What nearly all clients send: a method of capitals, a path, `HTTP/1.1` and CR LF. None where it is anything else, or
/// has to be looked at byte by byte.
fn usual(bytes: &[u8]) -> Option<Line> {
    const END: &[u8] = b" HTTP/1.1\r\n";
    let space = bytes.iter().take(LONGEST).position(|c| *c == b' ')?;
    let method = &bytes[..space];
    let start = space + 1;
    let end = first::<NotInUris>(bytes, start)?;
    if space == 0
        || !method.iter().all(u8::is_ascii_uppercase)
        || method == b"CONNECT"
        || bytes[start] != b'/'
        || !bytes[end..].starts_with(END)
    {
        return None;
    }
    let total = end + END.len();
    Some(Line {
        method: 0..space,
        uri: start..end,
        protocol: end + 1..total - 2,
        version: (1, 1),
        len: total - 2,
        total,
        ..Line::default()
    })
}

/// Methods beyond this length are not usual.
const LONGEST: usize = 16;

fn any_line(bytes: &[u8]) -> Result<Option<Line>, LineError> {
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
        fn the_short_way_leads_where_the_long_one_does(text in "[A-Z_]{0,18} {1,2}/?[ -~\\x80]{0,20} HTTP/1.[01]\r?\n.?") {
            let bytes = text.as_bytes();
            if let Some(line) = usual(bytes) {
                prop_assert_eq!(Ok(Some(line)), any_line(bytes));
            }
        }

        #[test]
        fn nothing_panics(bytes in any::<Vec<u8>>()) {
            let _ = request_line(&bytes);
        }
    }
}
