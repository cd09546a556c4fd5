//! One request over any protocol: the head as it came, what phases make of it, and its response.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;

use super::body::RequestBody;
use super::connection::Connection;
use super::headers::Headers;
use super::location::Location;
use super::method::Method;
use super::module::ContentHandler;
use super::output::Output;
use super::response::Response;
use super::upstream::UpstreamUrl;
use super::{Http, Server};
use crate::process::Counted;
use crate::upstream::UpstreamState;
use crate::value::{Context, Scope, Variables};

/// Protocol version of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// A bare `GET /` line.
    Http09,
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2
    Http2,
    /// HTTP/3
    Http3,
}

/// The head of a request as the client wrote it.
#[derive(Clone, Default)]
pub struct Head {
    /// The request line without its end; HTTP/2 gets one made up, as in nginx.
    pub line: Vec<u8>,
    /// Method, within `line`.
    pub method_name: Range<usize>,
    /// The URI as it came, with arguments, within `line`.
    pub unparsed_uri: Range<usize>,
    /// `HTTP/1.1`, within `line`; empty for HTTP/0.9.
    pub protocol: Range<usize>,
    /// Fields in order.
    pub headers: Headers,
    /// Bytes that line and fields took on the wire.
    pub size: u64,
}

/// How the request's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is none.
    None,
    /// That many bytes.
    Known(u64),
    /// Chunked (HTTP/1.1), or until the stream's end (HTTP/2).
    Chunked,
}

/// What became of the limits that were asked for ($limit_req_status and the like).
#[derive(Clone, Copy, Debug, Default)]
pub struct LimitStatus {
    /// `limit_conn`
    pub conn: Option<&'static str>,
    /// `limit_req`
    pub req: Option<&'static str>,
}

/// A request, from its parsed head to its log line.
pub struct Request {
    /// The connection it came on.
    pub conn: Rc<Connection>,
    /// All http settings.
    pub http: &'static Http,
    /// The virtual server, chosen by name.
    pub server: &'static Server,
    /// The location it is in; a server's own root at first.
    pub location: &'static Location,
    /// The settings in force: the location's, or those of an `if` or `limit_except` in it.
    pub conf: &'static Location,
    /// The handler of the location, or of the last `if` in it that has its own (`proxy_pass`).
    pub(super) content_handler: Option<ContentHandler>,

    /// What came.
    pub head: Head,
    /// Protocol version.
    pub version: Version,
    /// Method.
    pub method: Method,
    /// Where rewritten or redirected, the method's new name.
    pub method_override: Option<&'static [u8]>,
    /// Host by request line or `Host`, lower-case, without port; empty where there is none.
    pub host: Bytes,
    /// Port of `Host`, for `$request_port` and the like.
    pub host_port: Option<u16>,
    /// Normalised path.
    pub uri: Bytes,
    /// Arguments without `?`.
    pub args: Bytes,
    /// The URI as it came is still the URI: no rewrite, no internal redirect.
    pub valid_unparsed_uri: bool,
    /// The location that [`Request::uri`] belongs to was found for it.
    pub valid_location: bool,
    /// `try_files` in a location with a regular expression: the URI goes behind the alias.
    pub add_uri_to_alias: bool,
    /// The path needed normalising (dots, slashes, percent signs).
    pub complex_uri: bool,
    /// How the body is delimited.
    pub body_length: BodyLength,
    /// The body, read or not.
    pub body: RequestBody,

    /// Set variables, captures, computed values.
    pub scope: Scope,
    /// Made by an internal redirect, `error_page`, a subrequest and so on.
    pub internal: bool,
    /// Internal redirects left before `rewrite or internal redirection cycle`.
    pub uri_changes: u8,
    /// A rewrite changed the URI: the location must be found again.
    pub uri_changed: bool,
    /// An error page is being served.
    pub error_page: bool,
    /// The response is sent, and `post_action` led elsewhere.
    pub post_action: bool,
    /// The status that error page stands for; 0 for none.
    pub err_status: u16,
    /// Whether the connection stays after this request.
    pub keepalive: bool,
    /// It was there before the answer to the last one was sent.
    pub pipelined: bool,
    /// After the response, read and discard what the client still sends.
    pub lingering_close: bool,
    /// `Expect: 100-continue` was answered, or needs no answer.
    pub expect_tested: bool,
    /// A header filter replaced the response.
    pub filter_finalized: bool,
    /// `Content-Range` of a 416.
    pub unsatisfiable_range: Option<String>,
    /// What became of limits.
    pub limit_status: LimitStatus,
    /// `limit_rate` in bytes a second, 0 for none; none until the setting was read.
    pub limit_rate: Option<usize>,
    /// `$limit_rate` and `X-Accel-Limit-Rate` go past the location's setting.
    pub limit_rate_after: Option<usize>,
    /// Milliseconds of the thread's clock at the first byte of the request.
    pub start_ms: u64,
    /// Wall clock at the same moment.
    pub start_wall: crate::net::clock::Wall,
    /// Random bytes of `$request_id`, made when first asked for.
    pub request_id: Cell<Option<[u8; 16]>>,
    /// What is being done, for error log lines (` while connecting to upstream`).
    pub action: Cell<&'static str>,
    /// The upstream URL for error log lines, while there is one.
    pub upstream_url: Option<UpstreamUrl>,
    /// Each attempt at an upstream, for `$upstream_*`.
    pub upstream_states: Vec<UpstreamState>,
    /// Header of the upstream's response, for `$upstream_http_*`.
    pub upstream_headers: Headers,
    /// Trailer of the upstream's response, for `$upstream_trailer_*`.
    pub upstream_trailers: Headers,

    /// The response's head.
    pub response: Response,
    /// Where it goes.
    pub out: Output,
    /// The cookie that `userid` made.
    pub userid: super::modules::userid::State,
    /// What `proxy_pass` made of its URL.
    pub proxied: super::modules::proxy::Proxied,
    /// Values that modules keep for a request; see [`Request::context`].
    pub contexts: Vec<Box<dyn std::any::Any>>,
    /// Counts it among the requests that are read, then among those that are answered.
    pub(super) counted: Option<Counted>,
    /// The parent's URI and more, for a subrequest.
    pub parent: Option<Rc<Parent>>,
}

/// What a subrequest knows of the request it serves.
#[derive(Debug)]
pub struct Parent {
    /// The main request's URI.
    pub uri: Bytes,
    /// The main response's charset.
    pub charset: Option<Bytes>,
    /// How many more subrequests may be nested.
    pub depth: u8,
    /// Nobody waits for it (`mirror`): it leaves the client's connection alone.
    pub background: bool,
}

impl Context for Request {
    fn variables(&self) -> &'static Variables<Request> {
        &self.http.variables
    }

    fn scope(&self) -> &Scope {
        &self.scope
    }
}

impl Request {
    /// The method as it was written, or as a redirect changed it.
    pub fn method_name(&self) -> &[u8] {
        self.method_override.unwrap_or(&self.head.line[self.head.method_name.clone()])
    }

    /// The URI as the client wrote it, arguments included.
    pub fn unparsed_uri(&self) -> &[u8] {
        &self.head.line[self.head.unparsed_uri.clone()]
    }

    /// `HTTP/1.1` as the client wrote it.
    pub fn protocol(&self) -> &[u8] {
        &self.head.line[self.head.protocol.clone()]
    }

    /// A field of the request's head.
    pub fn header(&self, name: super::headers::Name) -> Option<&[u8]> {
        self.head.headers.get(name)
    }

    /// Whether this is a subrequest.
    pub fn is_subrequest(&self) -> bool {
        self.parent.is_some()
    }

    /// Whether this is a subrequest that nobody waits for: the client's connection is not its business.
    pub fn is_background(&self) -> bool {
        self.parent.as_ref().is_some_and(|p| p.background)
    }

    /// Sets where the request is; the settings in force become the location's own.
    pub fn enter(&mut self, location: &'static Location) {
        self.location = location;
        self.conf = location;
        self.content_handler = location.handlers.handler;
    }

    /// Goes on with the settings of an `if` or `limit_except`; its handler stands until another one's takes its place.
    pub(super) fn enter_block(&mut self, block: &'static Location) {
        self.conf = block;
        self.content_handler = block.handlers.handler.or(self.content_handler);
    }

    /// Leaves the location: the URI is to be looked up again.
    pub fn leave(&mut self) {
        let root = &self.server.root;
        self.enter(root);
    }

    /// The extension of the URI's last segment, without the dot; empty where there is none.
    pub fn extension(&self) -> &[u8] {
        let tail = match memchr::memrchr(b'/', &self.uri) {
            Some(slash) => &self.uri[slash + 1..],
            None => &self.uri[..],
        };
        match memchr::memrchr(b'.', tail) {
            Some(dot) if dot > 0 => &tail[dot + 1..],
            _ => b"",
        }
    }

    /// The value a module keeps under its type.
    pub fn context<T: 'static>(&self) -> Option<&T> {
        self.contexts.iter().find_map(|c| c.downcast_ref())
    }

    /// The value a module keeps under its type, made when it is not there.
    pub fn context_mut<T: Default + 'static>(&mut self) -> &mut T {
        let at = match self.contexts.iter().position(|c| c.is::<T>()) {
            Some(at) => at,
            None => {
                self.contexts.push(Box::new(T::default()));
                self.contexts.len() - 1
            }
        };
        match self.contexts[at].downcast_mut() {
            Some(value) => value,
            None => unreachable!("a context found by its type has that type"),
        }
    }

    /// Prepares an internal redirect to `uri`: the caller returns [`super::module::Verdict::Redirect`].
    pub fn redirect_to(&mut self, uri: Bytes, args: Bytes) {
        self.uri = uri;
        self.args = args;
        self.internal = true;
        self.valid_unparsed_uri = false;
        self.add_uri_to_alias = false;
        self.valid_location = true;
        self.leave();
    }

    /// Prepares going on in a named location; false where there is none of that name.
    pub fn go_to_named(&mut self, name: &[u8]) -> bool {
        match self.server.root.children.named(name) {
            Some(location) => {
                self.internal = true;
                self.enter(location);
                true
            }
            None => false,
        }
    }

    /// Milliseconds since the request began.
    pub fn elapsed_ms(&self) -> u64 {
        crate::net::clock::now().saturating_sub(self.start_ms)
    }
}
