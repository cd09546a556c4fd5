//! Heads of requests and responses between hyper's form and nginx's.

use std::cell::RefCell;

use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use crate::http::head;
use crate::http::headers::{
    CONTENT_LENGTH, COOKIE, DATE, HOST, Headers, LAST_MODIFIED, LOCATION, SERVER, hash,
};
use crate::http::method::Method;
use crate::http::parse;
use crate::http::read_head::{self, Refusal};
use crate::http::request::{BodyLength, Request};
use crate::log::{self, Level};
use crate::net::{Deadline, clock};

/// Takes over a request's head, with the checks that nginx makes of it.
pub(super) fn read(req: &mut Request, parts: &Parts, body: Incoming) -> Result<(), Refusal> {
    let ended = body.is_end_stream();
    if !ended {
        req.body.frames = Some(Box::new(body));
        req.body.deadline = Some(Deadline::never());
    }
    req.action.set("reading client request headers");
    request_line(req, parts)?;
    fields(req, parts)?;
    misdirected(req)?;
    host(req, parts)?;
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
fn request_line(req: &mut Request, parts: &Parts) -> Result<(), Refusal> {
    let method = parts.method.as_str().as_bytes();
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str()).as_bytes();
    req.method = Method::of(method);
    if req.method == Method::Unknown
        && !method.iter().all(|c| c.is_ascii_uppercase() || matches!(c, b'_' | b'-'))
    {
        return refuse(req, 400, format_args!("client sent invalid method: \"{}\"", log::bytes(method)));
    }
    const PROTOCOL: &[u8] = b"HTTP/2.0";
    let line = &mut req.head.line;
    line.reserve(method.len() + path.len() + PROTOCOL.len() + 2);
    for part in [method, b" ", path, b" ", PROTOCOL] {
        line.extend_from_slice(part);
    }
    let uri = method.len() + 1..method.len() + 1 + path.len();
    req.head.method_name = 0..method.len();
    req.head.protocol = uri.end + 1..line.len();
    req.head.size = line.len() as u64;
    req.head.unparsed_uri = uri;
    req.valid_unparsed_uri = true;
    // CONNECT has no path, and is refused for itself.
    if req.method == Method::Connect {
        return authority(req, parts);
    }
    let merge = *req.server.srv.core.merge_slashes;
    if path.first() != Some(&b'/') || read_head::set_uri(req, merge, false).is_err() {
        let shown = log::bytes(path);
        return refuse(req, 400, format_args!("client sent invalid :path header: \"{shown}\""));
    }
    authority(req, parts)
}

fn authority(req: &mut Request, parts: &Parts) -> Result<(), Refusal> {
    let Some(authority) = parts.uri.authority() else { return Ok(()) };
    match parse::validate_host(authority.as_str().as_bytes()) {
        Ok((host, port)) => {
            read_head::choose_server(req, &host);
            req.host = host;
            req.host_port = port;
            Ok(())
        }
        Err(_) => refuse(req, 400, format_args!("client sent invalid \":authority\" header")),
    }
}

/// Fields in order; crumbs of cookies become one field behind all others (RFC 9113, section 8.2.3).
fn fields(req: &mut Request, parts: &Parts) -> Result<(), Refusal> {
    let mut cookies = Vec::new();
    let mut count = 0;
    for (name, value) in &parts.headers {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        req.head.size += (name.len() + value.len()) as u64;
        let core = &req.server.srv.core;
        let valid =
            |c: &u8| c.is_ascii_alphanumeric() || *c == b'-' || (*c == b'_' && *core.underscores_in_headers);
        if *core.ignore_invalid_headers && !name.iter().all(valid) {
            let shown = log::bytes(name);
            req.log(Level::Info, None, format_args!("client sent invalid header: \"{shown}\""));
            continue;
        }
        if name == b"cookie" {
            if !cookies.is_empty() {
                cookies.extend_from_slice(b"; ");
            }
            cookies.extend_from_slice(value);
            continue;
        }
        if count >= *core.max_headers {
            return refuse(req, 494, format_args!("client sent too many header lines"));
        }
        count += 1;
        read_head::known_field(req, name, hash(name), value)?;
        req.head.headers.push(name, value);
    }
    if !cookies.is_empty() {
        req.head.headers.push(COOKIE.text.to_ascii_lowercase().as_slice(), &cookies);
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
fn host(req: &mut Request, parts: &Parts) -> Result<(), Refusal> {
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
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

thread_local! {
    /// The date of the present second.
    static TODAY: RefCell<([u8; 29], Option<HeaderValue>)> = const { RefCell::new(([0; 29], None)) };
}

fn today() -> HeaderValue {
    let now = clock::http_date();
    TODAY.with_borrow_mut(|(text, value)| match value {
        Some(value) if *text == now => value.clone(),
        _ => {
            let fresh = HeaderValue::from_bytes(&now).unwrap_or(HeaderValue::from_static(""));
            *text = now;
            *value = Some(fresh.clone());
            fresh
        }
    })
}

/// The fields of a head on their way to hyper, and the bytes they about take when compressed.
struct Fields<'a> {
    req: &'a Request,
    map: HeaderMap,
    size: u64,
}

// === impl Fields ===

impl Fields<'_> {
    fn put(&mut self, name: HeaderName, value: HeaderValue) {
        self.count(1, value.len());
        self.map.append(name, value);
    }

    /// Huffman's code makes four bytes of five, about.
    fn count(&mut self, name: usize, value: usize) {
        self.size += (2 + name + value * 4 / 5) as u64;
    }

    fn copy(&mut self, name: HeaderName, value: &[u8]) {
        match HeaderValue::from_bytes(value) {
            Ok(value) => self.put(name, value),
            Err(_) => self.lost(name.as_str().as_bytes()),
        }
    }

    fn listed(&mut self, name: &[u8], value: &[u8]) {
        match (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            (Ok(name), _) if is_of_connection(&name) => {}
            (Ok(name), Ok(value)) => {
                self.count(name.as_str().len() * 4 / 5, value.len());
                self.map.append(name, value);
            }
            _ => self.lost(name),
        }
    }

    fn lost(&self, name: &[u8]) {
        let name = log::bytes(name);
        self.req.log(
            Level::Error,
            None,
            format_args!("response header \"{name}\" cannot be sent over HTTP/2"),
        );
    }
}

/// Fields that speak of a connection, of which HTTP/2 knows nothing (RFC 9113, section 8.2.2).
fn is_of_connection(name: &HeaderName) -> bool {
    let names = [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE];
    names.contains(name) || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// The head of a response in nginx's order, and about how many bytes it takes.
pub(super) fn write(req: &Request) -> (Response<()>, u64) {
    let r = &req.response;
    let mut to = Fields { req, map: HeaderMap::with_capacity(r.headers.len() + 6), size: 1 };
    if !r.headers.contains(SERVER) {
        let server = head::server(*req.conf.core.server_tokens);
        to.put(header::SERVER, HeaderValue::from_static(server));
    }
    if !r.headers.contains(DATE) {
        to.put(header::DATE, today());
    }
    let mut content_type = Vec::new();
    if head::content_type(req, &mut content_type) {
        to.copy(header::CONTENT_TYPE, &content_type);
    }
    if let Some(length) = r.content_length {
        to.put(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if let Some(time) = r.last_modified
        && !r.headers.contains(LAST_MODIFIED)
    {
        to.copy(header::LAST_MODIFIED, &clock::format_http_date(time));
    }
    let location = r.location.as_deref().or_else(|| r.headers.get(LOCATION));
    if let Some(location) = location.filter(|location| !location.is_empty()) {
        to.copy(header::LOCATION, location);
    }
    if r.gzip_vary {
        to.put(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    for (name, value) in r.headers.iter() {
        if !name.eq_ignore_ascii_case(LOCATION.text) {
            to.listed(name, value);
        }
    }
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(r.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let size = to.size;
    *response.headers_mut() = to.map;
    (response, size)
}

/// Trailers for hyper.
pub(super) fn map(fields: &Headers) -> HeaderMap {
    fields
        .iter()
        .filter_map(|(name, value)| {
            Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
        })
        .collect()
}
