//! The exchange with an upstream: one path of connecting, retrying, timing, logging and passing on, for every
//! protocol that modules speak to upstreams.
//!
//! ```text
//! module: run(req, settings, target, protocol)
//!   exchange  peers in turn -> connect (kept, or new, TLS) -> converse -> next peer, or
//!   respond   fields -> Response -> send_head -> pump (bodies) or tunnel (101)
//! ```
//!
//! Everything happens in the request's own task. Dropping the future at any point is safe: [`Pick`] gives its place
//! with the peer back, the connection is closed.
//!
//! [`Pick`]: crate::upstream::Pick

pub mod cgi;
pub mod client;
pub mod connect;
pub mod converse;
pub mod exchange;
pub mod fastcgi;
pub mod head;
pub mod http1;
pub mod names;
pub mod params;
pub mod pump;
pub mod resolve;
pub mod respond;
pub mod send;
pub mod setters;
pub mod settings;
pub mod spill;
pub mod store;
#[cfg(test)]
mod tests;
pub mod tunnel;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

pub use exchange::run;
pub use head::{Field, Head, Known};
pub use names::NameSet;
pub use settings::{Settings, next};

use super::headers::Headers;
use super::request::Request;
use crate::conf::upstream_tls::UpstreamTls;
use crate::tls::Connector;
use crate::upstream::GroupRef;
use crate::value::Prefix;
use crate::value::certificates::Names;

/// Where a request goes.
pub struct Target {
    /// The peers.
    pub group: GroupRef,
    /// TLS, where it is spoken.
    pub tls: Option<Tls>,
    /// `http://` and the like, for the log.
    pub schema: &'static str,
    /// Identifies the location for connections that serve only one.
    pub location: u64,
}

/// How TLS is spoken to a peer.
pub struct Tls {
    /// Its settings.
    pub connector: Arc<Connector>,
    /// The name to send and to verify.
    pub name: String,
    /// The certificate to show, where it is not the connector's: none in it where there is to be none.
    pub certificate: Option<Option<Names>>,
    /// What loads it.
    pub settings: &'static UpstreamTls,
}

/// What went wrong with an attempt, as far as it decides what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No connection, or a broken one.
    Error,
    /// The time was over.
    Timeout,
    /// Not a valid response.
    InvalidHeader,
    /// Nobody is left.
    NoLive,
    /// A status that another peer might better.
    Status(u16),
}

/// What a look at the beginning of a response came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadStep {
    /// More bytes are needed.
    More,
    /// The head is complete; the body begins at [`Head::size`].
    Done,
    /// An interim response (RFC 9110, section 15.2) ends at [`Head::size`].
    Interim,
    /// Nothing up to [`Head::size`] is needed any more, and the head did not begin yet.
    Skip,
}

/// How the client's body is framed on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// As it is.
    #[default]
    None,
    /// In chunks (RFC 9112, section 7.1).
    Chunks,
    /// In records of FastCGI.
    Records,
}

/// What decoding a piece of body came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Where in the piece its data is now, in one.
    pub data: Range<usize>,
    /// The body is at its end.
    pub end: bool,
}

/// The body cannot be understood. What is wrong was logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// How requests are written and responses are read. One value serves one request, over all attempts.
pub trait Protocol {
    /// How bodies of responses are framed.
    type Response: ResponseFraming;

    /// Appends the request's head, and all of a body that is made here, to `out`; returns where the URI stands in
    /// it, for the log. The status is what to answer where it cannot be made.
    fn create_request(&mut self, req: &mut Request, out: &mut Vec<u8>) -> Result<Range<usize>, u16>;

    /// Whether the client's body follows the head.
    fn passes_body(&self) -> bool;

    /// How that body is framed.
    fn framing(&self) -> Framing;

    /// Reads on in the head; `buffer` holds it from its first byte. What was seen may be changed in place.
    fn parse_head(&mut self, req: &Request, buffer: &mut [u8], head: &mut Head) -> Result<HeadStep, Fault>;

    /// The response behind its head.
    fn response(&self) -> &Self::Response;

    /// The same, to read on in it.
    fn response_mut(&mut self) -> &mut Self::Response;

    /// Whether the peer is an HTTP server, whose responses have no `Server` and `Date` but its own.
    fn is_http(&self) -> bool {
        true
    }

    /// Whether a response may switch to another protocol.
    fn upgrades(&self) -> bool {
        true
    }

    /// A new value for `Location`, or for `Refresh` from `prefix` on.
    fn rewrite_redirect(&self, _: &Request, _value: &[u8], _prefix: usize) -> Redirected {
        Redirected::Off
    }

    /// A new value for `Set-Cookie`.
    fn rewrite_cookie(&self, _: &Request, _value: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

/// How a protocol frames the body of a response.
pub trait ResponseFraming {
    /// Forgets what an earlier attempt received.
    fn reset(&mut self);

    /// The body begins: decides how long it is.
    fn begin_body(&mut self, head: &Head);

    /// Takes the framing off a piece of body, in place.
    fn decode(&mut self, req: &mut Request, piece: &mut [u8]) -> Result<Decoded, Malformed>;

    /// The end that was just decoded came before the body was whole, which was logged.
    fn is_cut(&self) -> bool {
        false
    }

    /// How many bytes follow that are body as they are; none where that is unknown.
    fn plain(&self) -> Option<u64> {
        None
    }

    /// That many such bytes were passed on.
    fn passed(&mut self, _: u64) {}

    /// The upstream closed the connection: whether the body is complete.
    fn complete_at_end(&self) -> bool;

    /// The body was read to its end: whether the connection may serve another request.
    fn keeps(&self) -> bool;
}

/// See [`Protocol::rewrite_redirect`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redirected {
    /// Redirects are not rewritten here.
    Off,
    /// None of the rules fits.
    Same,
    /// The new value.
    To(Vec<u8>),
}

/// `$upstream_http_*` and the like.
pub const PREFIXES: &[Prefix<Request>] = &[
    Prefix {
        prefix: "upstream_http_",
        get: |r, name, out| r.upstream_headers.join_variable(name, b", ", out),
    },
    Prefix {
        prefix: "upstream_trailer_",
        get: |r, name, out| r.upstream_trailers.join_variable(name, b", ", out),
    },
    Prefix {
        prefix: "upstream_cookie_",
        get: |r, name, out| set_cookie_value(&r.upstream_headers, name, out),
    },
];

/// The value of a cookie that an upstream sets (`$upstream_cookie_*`); the first one of that name counts.
pub fn set_cookie_value(headers: &Headers, name: &[u8], out: &mut Vec<u8>) -> bool {
    for value in headers.all(super::headers::SET_COOKIE) {
        let Some((head, rest)) = value.split_at_checked(name.len()) else { continue };
        if !head.eq_ignore_ascii_case(name) {
            continue;
        }
        let Some(rest) = without_spaces(rest).strip_prefix(b"=") else { continue };
        let rest = without_spaces(rest);
        let end = memchr::memchr(b';', rest).unwrap_or(rest.len());
        out.extend_from_slice(&rest[..end]);
        return true;
    }
    false
}

/// Without spaces at its beginning; tabs are none.
fn without_spaces(text: &[u8]) -> &[u8] {
    &text[text.iter().take_while(|c| **c == b' ').count()..]
}

/// Where a request is passed to, for error log lines. Put together only when there is one.
#[derive(Clone, Debug)]
pub struct UpstreamUrl {
    schema: &'static str,
    /// None: the URI as the client wrote it.
    uri: Option<Box<[u8]>>,
}

impl UpstreamUrl {
    fn new(req: &Request, schema: &'static str, uri: &[u8]) -> UpstreamUrl {
        UpstreamUrl { schema, uri: (uri != req.unparsed_uri()).then(|| uri.into()) }
    }

    /// Writes it as it is logged, with the peer of the last attempt.
    pub fn write(&self, req: &Request, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer =
            req.upstream_states.iter().rev().find_map(|state| state.peer.as_deref()).unwrap_or_default();
        let uri = self.uri.as_deref().unwrap_or_else(|| req.unparsed_uri());
        let colon = if peer.starts_with("unix:") { ":" } else { "" };
        write!(f, "{}{peer}{colon}{}", self.schema, crate::log::bytes(uri))
    }
}

/// A reason phrase worth keeping: one that differs from what is sent anyway.
pub(crate) fn own_status_line(status: u16, line: &[u8]) -> Option<Bytes> {
    let usual = super::status::reason(status).is_some_and(|reason| {
        line.len() == reason.len() + 4 && line[3] == b' ' && &line[4..] == reason.as_bytes()
    });
    (!usual).then(|| Bytes::copy_from_slice(line))
}
