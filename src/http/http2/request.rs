//! Heads of requests, from h2's form to nginx's.

use std::borrow::Cow;
use std::cell::RefCell;

use bytes::Bytes;
use h2::RecvStream;

use crate::http::headers::{CONTENT_LENGTH, COOKIE, HOST, hash};
use crate::http::method::Method;
use crate::http::parse;
use crate::http::read_head::{self, Refusal};
use crate::http::request::{BodyLength, Request};
use crate::log::{self, Level};

/// What came on a stream.
type Head = http::Request<RecvStream>;

/// The last `:authority` of a connection that was valid: most requests of a connection bring the same.
#[derive(Default)]
pub(super) struct Authority(RefCell<(Box<[u8]>, Bytes, Option<u16>)>);

// === impl Authority ===

impl Authority {
    /// Host in lower case, and port; none where it is invalid.
    fn parse(&self, text: &[u8]) -> Option<(Bytes, Option<u16>)> {
        let mut last = self.0.borrow_mut();
        if *last.0 != *text || text.is_empty() {
            let (host, port) = parse::validate_host(text).ok()?;
            *last = (text.into(), host, port);
        }
        Some((last.1.clone(), last.2))
    }
}

/// Takes over a request's head, with the checks that nginx makes of it; `ended` where no body follows.
pub(super) fn read(
    req: &mut Request,
    head: &Head,
    ended: bool,
    authorities: &Authority,
) -> Result<(), Refusal> {
    req.action.set("reading client request headers");
    request_line(req, head)?;
    authority(req, head, authorities)?;
    fields(req, head)?;
    misdirected(req)?;
    host(req, head)?;
    read_head::check_head(req)?;
    if !ended && !req.head.headers.contains(CONTENT_LENGTH) {
        req.body_length = BodyLength::Chunked;
    }
    req.action.set("");
    Ok(())
}

fn refuse<T>(req: &Request, status: u16, text: std::fmt::Arguments<'_>) -> Result<T, Refusal> {
    req.log(Level::Info, None, text);
    Err(Refusal::Status(status))
}

/// The line that HTTP/1 would have had, as nginx makes it up.
fn request_line(req: &mut Request, head: &Head) -> Result<(), Refusal> {
    let method = head.method().as_str().as_bytes();
    let path = head.uri().path_and_query().map_or("", |path| path.as_str()).as_bytes();
    req.method = Method::of(method);
    if req.method == Method::Unknown
        && !method.iter().all(|c| c.is_ascii_uppercase() || matches!(c, b'_' | b'-'))
    {
        return refuse(req, 400, format_args!("client sent invalid method: \"{}\"", log::bytes(method)));
    }
    const PROTOCOL: &[u8] = b"HTTP/2.0";
    let mut line = Vec::with_capacity(method.len() + path.len() + PROTOCOL.len() + 2);
    for part in [method, b" ", path, b" ", PROTOCOL] {
        line.extend_from_slice(part);
    }
    let uri = method.len() + 1..method.len() + 1 + path.len();
    req.head.method_name = 0..method.len();
    req.head.protocol = uri.end + 1..line.len();
    req.head.size = line.len() as u64;
    req.head.line = line;
    req.head.unparsed_uri = uri;
    req.valid_unparsed_uri = true;
    // CONNECT has no path, and is refused for itself.
    if req.method == Method::Connect {
        return Ok(());
    }
    let merge = *req.server.srv.core.merge_slashes;
    if path.first() != Some(&b'/') || read_head::set_uri(req, merge, false).is_err() {
        let shown = log::bytes(path);
        return refuse(req, 400, format_args!("client sent invalid :path header: \"{shown}\""));
    }
    Ok(())
}

fn authority(req: &mut Request, head: &Head, authorities: &Authority) -> Result<(), Refusal> {
    let Some(authority) = head.uri().authority() else { return Ok(()) };
    match authorities.parse(authority.as_str().as_bytes()) {
        Some((host, port)) => {
            read_head::choose_server(req, &host);
            req.host = host;
            req.host_port = port;
            Ok(())
        }
        None => refuse(req, 400, format_args!("client sent invalid \":authority\" header")),
    }
}

/// What names are made of: letters, digits and hyphens; with underscores where the server has those.
const LETTERS: [bool; 256] = {
    let mut letters = [false; 256];
    let mut c = 0;
    while c < 256 {
        letters[c] = (c as u8).is_ascii_alphanumeric() || c == b'-' as usize;
        c += 1;
    }
    letters
};

fn is_valid(name: &[u8], underscores: bool) -> bool {
    name.iter().all(|c| LETTERS[*c as usize] || (*c == b'_' && underscores))
}

/// Fields in order; crumbs of cookies become one field behind all others (RFC 9113, section 8.2.3).
fn fields(req: &mut Request, head: &Head) -> Result<(), Refusal> {
    let mut cookie: Option<Cow<[u8]>> = None;
    let mut count = 0;
    for (name, value) in head.headers() {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        req.head.size += (name.len() + value.len()) as u64;
        let core = &req.server.srv.core;
        if *core.ignore_invalid_headers && !is_valid(name, *core.underscores_in_headers) {
            let shown = log::bytes(name);
            req.log(Level::Info, None, format_args!("client sent invalid header: \"{shown}\""));
            continue;
        }
        if name == b"cookie" {
            match &mut cookie {
                Some(crumbs) if !crumbs.is_empty() => {
                    let crumbs = crumbs.to_mut();
                    crumbs.extend_from_slice(b"; ");
                    crumbs.extend_from_slice(value);
                }
                first => *first = Some(value.into()),
            }
            continue;
        }
        if count >= *core.max_headers {
            return refuse(req, 494, format_args!("client sent too many header lines"));
        }
        count += 1;
        let hash = hash(name);
        read_head::known_field(req, name, hash, value)?;
        req.head.headers.push_hashed(name, hash, value);
    }
    if let Some(cookie) = cookie.filter(|cookie| !cookie.is_empty()) {
        req.head.headers.push_hashed(b"cookie", COOKIE.hash, &cookie);
    }
    Ok(())
}

/// The server that the host chooses may not speak HTTP/2.
fn misdirected(req: &Request) -> Result<(), Refusal> {
    if *req.server.srv.v2.enable || req.conn.addr.http2 {
        return Ok(());
    }
    let text = "client attempted to request the server name for which the negotiated protocol is disabled";
    refuse(req, 421, format_args!("{text}"))
}

/// `:authority` and `Host` say the same, and one of them is there.
fn host(req: &mut Request, head: &Head) -> Result<(), Refusal> {
    let authority = head.uri().authority().map(|authority| authority.as_str().as_bytes());
    match (authority, req.head.headers.get(HOST)) {
        (None, None) => {
            refuse(req, 400, format_args!("client sent neither \":authority\" nor \"Host\" header"))
        }
        (Some(authority), Some(host)) if authority != host => {
            let text = "client sent \":authority\" and \"Host\" headers with different values";
            refuse(req, 400, format_args!("{text}"))
        }
        (Some(authority), None) => {
            req.head.headers.push(b"host", authority);
            Ok(())
        }
        _ => Ok(()),
    }
}
