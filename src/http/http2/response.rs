//! Heads of responses, from nginx's form to h2's.

use std::cell::RefCell;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use crate::http::head;
use crate::http::headers::{self, DATE, LAST_MODIFIED, LOCATION, Name, SERVER};
use crate::http::request::Request;
use crate::log::{self, Level};
use crate::net::clock;

/// What `Server` says.
static SERVER_FULL: HeaderValue = HeaderValue::from_static(head::SERVER_FULL);
static SERVER_BARE: HeaderValue = HeaderValue::from_static(head::SERVER);

/// Names that most responses have, those first whose values are the same again and again.
static KNOWN: [(Name, HeaderName); 14] = [
    (DATE, header::DATE),
    (headers::CONTENT_TYPE, header::CONTENT_TYPE),
    (SERVER, header::SERVER),
    (headers::CACHE_CONTROL, header::CACHE_CONTROL),
    (headers::VARY, header::VARY),
    (headers::ACCEPT_RANGES, header::ACCEPT_RANGES),
    (headers::CONTENT_ENCODING, header::CONTENT_ENCODING),
    (headers::ETAG, header::ETAG),
    (LAST_MODIFIED, header::LAST_MODIFIED),
    (headers::EXPIRES, header::EXPIRES),
    (headers::SET_COOKIE, header::SET_COOKIE),
    (headers::LINK, header::LINK),
    (headers::VIA, header::VIA),
    (headers::CONTENT_RANGE, header::CONTENT_RANGE),
];
/// Places in it.
const AT_DATE: usize = 0;
const AT_CONTENT_TYPE: usize = 1;
/// How many of them have such values.
const ALIKE: usize = 7;
/// Bytes of the longest value that is kept for the next response.
const SHORT: usize = 64;

thread_local! {
    /// The last values of the first names in [`KNOWN`].
    static LAST: RefCell<[Option<HeaderValue>; ALIKE]> = const { RefCell::new([const { None }; ALIKE]) };
}

/// The place of a name in [`KNOWN`].
fn place(hash: u32, name: &[u8]) -> Option<usize> {
    KNOWN.iter().position(|(known, _)| known.hash == hash && headers::same(known.text, name))
}

/// A value for h2, made of the last one of its name where that was the same; none where it cannot be sent.
fn value(place: usize, bytes: &[u8]) -> Option<HeaderValue> {
    if place >= ALIKE || bytes.len() > SHORT {
        return HeaderValue::from_bytes(bytes).ok();
    }
    LAST.with_borrow_mut(|last| match &last[place] {
        Some(value) if value.as_bytes() == bytes => Some(value.clone()),
        _ => {
            let value = HeaderValue::from_bytes(bytes).ok()?;
            last[place] = Some(value.clone());
            Some(value)
        }
    })
}

/// The fields of a head on their way to h2, and the bytes they about take when compressed.
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

    fn known(&mut self, place: usize, name: HeaderName, bytes: &[u8]) {
        match value(place, bytes) {
            Some(value) => self.put(name, value),
            None => self.lost(name.as_str().as_bytes()),
        }
    }

    fn copy(&mut self, name: HeaderName, value: &[u8]) {
        match HeaderValue::from_bytes(value) {
            Ok(value) => self.put(name, value),
            Err(_) => self.lost(name.as_str().as_bytes()),
        }
    }

    fn listed(&mut self, hash: u32, name: &[u8], bytes: &[u8]) {
        let (name, value) = match place(hash, name) {
            Some(place) => match value(place, bytes) {
                Some(value) => (KNOWN[place].1.clone(), value),
                None => return self.lost(name),
            },
            None => match (HeaderName::from_bytes(name), HeaderValue::from_bytes(bytes)) {
                (Ok(name), _) if is_of_connection(&name) => return,
                (Ok(name), Ok(value)) => (name, value),
                _ => return self.lost(name),
            },
        };
        self.count(name.as_str().len() * 4 / 5, value.len());
        self.map.append(name, value);
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
    let names = [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::TE];
    names.contains(name) || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// The head of a response in nginx's order, and about how many bytes it takes. The map's memory is used for it.
pub(super) fn write(req: &Request, mut map: HeaderMap) -> (Response<()>, u64) {
    let r = &req.response;
    map.reserve(r.headers.len() + 6);
    let mut to = Fields { req, map, size: 1 };
    if !r.headers.contains(SERVER) {
        let bare = head::server(*req.conf.core.server_tokens) == head::SERVER;
        to.put(header::SERVER, if bare { SERVER_BARE.clone() } else { SERVER_FULL.clone() });
    }
    if !r.headers.contains(DATE) {
        to.known(AT_DATE, header::DATE, &clock::http_date());
    }
    match (&r.content_type, &r.charset) {
        (Some(content_type), None) if !content_type.is_empty() => {
            to.known(AT_CONTENT_TYPE, header::CONTENT_TYPE, content_type);
        }
        _ => {
            let mut content_type = Vec::new();
            if head::content_type(req, &mut content_type) {
                to.known(AT_CONTENT_TYPE, header::CONTENT_TYPE, &content_type);
            }
        }
    }
    if let Some(length) = r.content_length {
        let mut digits = [0; 20];
        to.copy(header::CONTENT_LENGTH, head::digits(length, &mut digits));
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
    for (hash, name, value) in r.headers.iter_hashed() {
        if hash != LOCATION.hash || !headers::same(name, LOCATION.text) {
            to.listed(hash, name, value);
        }
    }
    let Fields { map, size, .. } = to;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(r.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = map;
    (response, size)
}

/// The head of `103 Early Hints` (RFC 8297).
pub(super) fn hints<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::EARLY_HINTS;
    *response.headers_mut() = map(fields);
    response
}

/// Fields as they are, for what is sent before a head or behind a body. What HTTP/2 does not know is left out.
pub(super) fn map<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> HeaderMap {
    fields
        .filter_map(|(name, value)| {
            Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
        })
        .filter(|(name, _)| !is_of_connection(name))
        .collect()
}
