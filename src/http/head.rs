//! The head of a response as bytes, in nginx's order.

use bytes::Bytes;

use super::headers::{DATE, LAST_MODIFIED, LOCATION, SERVER as SERVER_FIELD};
use super::modules::core::Tokens;
use super::request::{Request, Version};
use super::status;
use crate::net::clock;

/// What `Server` says with `server_tokens on`.
pub const SERVER_FULL: &str = concat!("nxr/", env!("CARGO_PKG_VERSION"));
/// What `Server` says with `server_tokens off`.
pub const SERVER: &str = "nxr";

/// The `Server` value under a setting of `server_tokens`.
pub fn server(tokens: Tokens) -> &'static str {
    match tokens {
        Tokens::Off => SERVER,
        Tokens::On | Tokens::Build => SERVER_FULL,
    }
}

/// Decides what status and method decide: whether there is a body, and how it is framed.
pub fn settle(req: &mut Request) {
    let r = &mut req.response;
    if req.method == super::method::Method::Head {
        r.header_only = true;
    }
    if !matches!(r.status, 200 | 206 | 304) && r.last_modified.take().is_some() {
        r.headers.remove(LAST_MODIFIED);
    }
    match r.status {
        204 => {
            r.header_only = true;
            r.content_type = None;
            if r.last_modified.take().is_some() {
                r.headers.remove(LAST_MODIFIED);
            }
            r.content_length = None;
        }
        304 => r.header_only = true,
        _ => {}
    }
    let bodyless =
        matches!(r.status, 204 | 304) || r.status < 200 || req.method == super::method::Method::Head;
    let open = (r.content_length.is_none() || r.expect_trailers) && !bodyless;
    let mut chunked = false;
    if open && (req.version < Version::Http11 || !*req.conf.core.chunked_transfer_encoding) {
        req.keepalive = false;
    } else if open {
        if r.expect_trailers {
            r.content_length = None;
        }
        chunked = req.version == Version::Http11;
    }
    req.set_chunked(chunked);
    if req.keepalive && crate::process::exiting() {
        req.keepalive = false;
    }
    absolute_location(req);
}

/// A redirect to a path becomes a whole URL, unless `absolute_redirect off`.
fn absolute_location(req: &mut Request) {
    let listed = || match req.response.keep_location {
        true => None,
        false => req.response.headers.get(LOCATION).map(Bytes::copy_from_slice),
    };
    let Some(location) = req.response.location.clone().or_else(listed) else { return };
    let core = &req.conf.core;
    if location.first() != Some(&b'/') || !*core.absolute_redirect {
        return;
    }
    let tls = req.conn.is_tls();
    let mut url = Vec::with_capacity(location.len() + 64);
    url.extend_from_slice(if tls { b"https://" } else { b"http://" });
    if *core.server_name_in_redirect {
        url.extend_from_slice(&req.server.name);
    } else if !req.host.is_empty() {
        url.extend_from_slice(&req.host);
    } else {
        url.extend_from_slice(req.conn.local().host().as_bytes());
    }
    let default = if tls { 443 } else { 80 };
    if let Some(port) = req.conn.local().port().filter(|p| *core.port_in_redirect && *p != default) {
        url.extend_from_slice(format!(":{port}").as_bytes());
    }
    url.extend_from_slice(&location);
    req.response.headers.remove(LOCATION);
    req.response.location = Some(Bytes::from(url));
    req.response.location_absolute = true;
}

#[inline(always)]
fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends a decimal number.
pub fn decimal(n: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(digits(n, &mut [0; 20]));
}

/// The digits of a number, at the end of `room`.
#[inline]
pub fn digits(mut n: u64, room: &mut [u8; 20]) -> &[u8] {
    let mut at = room.len();
    loop {
        at -= 1;
        room[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            return &room[at..];
        }
    }
}

/// The content type with its charset.
pub fn content_type(req: &Request, out: &mut Vec<u8>) -> bool {
    let Some(content_type) = req.response.content_type.as_ref().filter(|t| !t.is_empty()) else {
        return false;
    };
    out.extend_from_slice(content_type);
    if let Some(charset) = &req.response.charset {
        out.extend_from_slice(b"; charset=");
        out.extend_from_slice(charset);
    }
    true
}

/// Appends status line and fields.
pub fn write_http1(req: &Request, chunked: bool, out: &mut Vec<u8>) {
    let r = &req.response;
    out.extend_from_slice(b"HTTP/1.1 ");
    match (&r.status_line, status::reason(r.status)) {
        (Some(line), _) => out.extend_from_slice(line),
        (None, Some(reason)) => {
            decimal(r.status.into(), out);
            out.push(b' ');
            out.extend_from_slice(reason.as_bytes());
        }
        (None, None) => out.extend_from_slice(format!("{:03} ", r.status).as_bytes()),
    }
    out.extend_from_slice(b"\r\n");
    if !r.no_server && !r.headers.contains(SERVER_FIELD) {
        field(out, b"Server", server(*req.conf.core.server_tokens).as_bytes());
    }
    if !r.no_date && !r.headers.contains(DATE) {
        field(out, b"Date", &clock::http_date());
    }
    if r.content_type.as_ref().is_some_and(|t| !t.is_empty()) {
        out.extend_from_slice(b"Content-Type: ");
        content_type(req, out);
        out.extend_from_slice(b"\r\n");
    }
    if let Some(length) = r.content_length {
        out.extend_from_slice(b"Content-Length: ");
        decimal(length, out);
        out.extend_from_slice(b"\r\n");
    }
    if let Some(time) = r.last_modified
        && !r.headers.contains(LAST_MODIFIED)
    {
        field(out, b"Last-Modified", &clock::format_http_date(time));
    }
    if r.location_absolute
        && let Some(location) = &r.location
    {
        field(out, b"Location", location);
    }
    if chunked {
        field(out, b"Transfer-Encoding", b"chunked");
    }
    if r.status == 101 {
        field(out, b"Connection", b"upgrade");
    } else if req.keepalive {
        field(out, b"Connection", b"keep-alive");
        let header = req.conf.core.keepalive_timeout.1;
        if header > 0 {
            out.extend_from_slice(b"Keep-Alive: timeout=");
            decimal(header, out);
            out.extend_from_slice(b"\r\n");
        }
    } else {
        field(out, b"Connection", b"close");
    }
    if r.gzip_vary {
        field(out, b"Vary", b"Accept-Encoding");
    }
    for_each_listed(req, |name, value| field(out, name, value));
    out.extend_from_slice(b"\r\n");
}

/// The fields that stand in nginx's list, in order: those with a place of their own in [`Response`] come where they
/// were put into the list.
///
/// [`Response`]: super::response::Response
pub fn for_each_listed(req: &Request, mut each: impl FnMut(&[u8], &[u8])) {
    let r = &req.response;
    if !r.location_absolute
        && let Some(location) = &r.location
    {
        each(b"Location", location);
    }
    for (name, value) in r.headers.iter() {
        each(name, value);
    }
}
