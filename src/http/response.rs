//! The head of a response, before it is written.

use bytes::Bytes;

use super::headers::{ACCEPT_RANGES, CONTENT_LENGTH, ETAG, Headers, LAST_MODIFIED};

/// What the header filters see and change. `Server`, `Date`, `Content-Type`, `Content-Length`, `Last-Modified`,
/// `Connection` and the like are written first, in nginx's order, then `headers` in theirs.
#[derive(Default)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// The upstream's own status line after `HTTP/1.1 `, e.g. `200 Fine`.
    pub status_line: Option<Bytes>,
    /// Type without charset.
    pub content_type: Option<Bytes>,
    /// Charset, which is appended to the type.
    pub charset: Option<Bytes>,
    /// Charset that a header of the upstream's asks for (`X-Accel-Charset`).
    pub override_charset: Option<Bytes>,
    /// Body bytes, where known.
    pub content_length: Option<u64>,
    /// Seconds since 1970, where known; written as `Last-Modified` unless `headers` has that field already.
    pub last_modified: Option<i64>,
    /// A redirect's target as set by a handler; one that begins with a slash (or such a `Location` in `headers`) is
    /// made absolute.
    pub location: Option<Bytes>,
    /// [`Response::location`] was made absolute, which gives it another place in the head.
    pub(super) location_absolute: bool,
    /// All others in order: `Server`, `Date`, `Last-Modified`, `ETag`, `Content-Encoding`, `Location` of an upstream
    /// too.
    pub headers: Headers,
    /// After a chunked body.
    pub trailers: Headers,
    /// Trailers are to be expected even where none is known yet (`add_trailer`, `proxy_pass_trailers`).
    pub expect_trailers: bool,
    /// The listed `Location` stays a path, as an upstream gave it.
    pub keep_location: bool,
    /// No `Server` of our own: the upstream's is passed on, and it has none.
    pub no_server: bool,
    /// The same for `Date`.
    pub no_date: bool,
    /// The range filter may answer 206.
    pub allow_ranges: bool,
    /// One range at most.
    pub single_range: bool,
    /// The not-modified filter must leave it alone.
    pub disable_not_modified: bool,
    /// No body is sent, whatever the length says (HEAD, 204, 304).
    pub header_only: bool,
    /// The head was sent.
    pub sent: bool,
    /// The body was sent to its end.
    pub complete: bool,
    /// `101`: the connection is given over to another protocol.
    pub upgraded: bool,
    /// Vary: Accept-Encoding is due (`gzip_vary`).
    pub gzip_vary: bool,
}

impl Response {
    /// Forgets everything but what was sent, before an error page or an internal redirect.
    pub fn reset(&mut self) {
        let status = self.status;
        *self = Response { status, ..Response::default() };
    }

    /// The length is not known any more: a filter changes the body.
    pub fn clear_content_length(&mut self) {
        self.content_length = None;
        self.headers.remove(CONTENT_LENGTH);
    }

    /// No ranges of the body can be had.
    pub fn clear_accept_ranges(&mut self) {
        self.allow_ranges = false;
        self.headers.remove(ACCEPT_RANGES);
    }

    /// When the body changed last is not known any more.
    pub fn clear_last_modified(&mut self) {
        self.last_modified = None;
        self.headers.remove(LAST_MODIFIED);
    }

    /// Makes the entity tag a weak one (RFC 9110, section 8.8.1): the body is the same in meaning only.
    pub fn weaken_etag(&mut self) {
        let Some(tag) = self.headers.get(ETAG) else { return };
        if tag.len() > 2 && tag.starts_with(b"W/") {
            return;
        }
        if tag.first() != Some(&b'"') {
            self.headers.remove(ETAG);
            return;
        }
        let weak = [b"W/", tag].concat();
        self.headers.set(ETAG, &weak);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_become_weak_once() {
        for (tag, want) in
            [(&b"\"a\""[..], Some(&b"W/\"a\""[..])), (b"W/\"a\"", Some(b"W/\"a\"")), (b"a", None)]
        {
            let mut r = Response::default();
            r.headers.add(ETAG, tag);
            r.weaken_etag();
            assert_eq!(r.headers.get(ETAG), want);
        }
    }
}
