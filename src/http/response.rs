//! The head of a response, before it is written.

use bytes::Bytes;

use super::headers::Headers;

/// What the header filters see and change. nginx writes `Server`, `Date`, `Content-Type`, `Content-Length`,
/// `Last-Modified`, `Connection` and the like itself, in its order, then `headers` in theirs.
#[derive(Default)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// The upstream's own status line after `HTTP/1.1 `, e.g. `200 Fine`.
    pub status_line: Option<Bytes>,
    /// `Server` of an upstream, where it is passed.
    pub server: Option<Bytes>,
    /// `Date` of an upstream, where it is passed.
    pub date: Option<Bytes>,
    /// Type without charset.
    pub content_type: Option<Bytes>,
    /// Charset, which is appended to the type.
    pub charset: Option<Bytes>,
    /// Body bytes, where known.
    pub content_length: Option<u64>,
    /// Seconds since 1970, where known.
    pub last_modified: Option<i64>,
    /// `Last-Modified` as an upstream wrote it; [`Response::last_modified`] is made of it.
    pub last_modified_text: Option<Bytes>,
    /// A redirect's target as set by the handler; made absolute when it begins with a slash.
    pub location: Option<Bytes>,
    /// `ETag` as sent.
    pub etag: Option<Bytes>,
    /// `Content-Encoding`
    pub content_encoding: Option<Bytes>,
    /// All others, in order.
    pub headers: Headers,
    /// After a chunked body.
    pub trailers: Headers,
    /// Trailers are to be expected even where none is known yet (`add_trailer`, `proxy_pass_trailers`).
    pub expect_trailers: bool,
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
}
