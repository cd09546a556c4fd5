//! A client's connection from accept to close over HTTP/1: wait, read a head, run the request, and again.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::connection::Connection;
use super::headers::Headers;
use super::method::Method;
use super::modules::core::Lingering;
use super::output::Output;
use super::read_head::{Refusal, read_head};
use super::request::{BodyLength, Head, Request, Version};
use super::{Http, body_reader, phases};
use crate::log::Level;
use crate::net::Buffer;
use crate::process::memory::{boxed, in_place, rare};
use crate::process::{Count, Counted, count};

/// What becomes of a connection after a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Keepalive,
    Close,
    Linger,
}

/// Serves HTTP/1 requests until the connection ends.
pub fn http1(conn: Rc<Connection>, http: &'static Http) -> impl Future<Output = ()> {
    Http1 { conn, http, turn: None, first: true, waiting: false }
}

/// A connection over HTTP/1. While it waits for a request, this is all that its task has.
struct Http1 {
    conn: Rc<Connection>,
    http: &'static Http,
    /// A request that is served, or the connection's end. True: another request may come.
    turn: Option<Pin<Box<dyn Future<Output = bool>>>>,
    /// No request came so far.
    first: bool,
    waiting: bool,
}

impl Future for Http1 {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(turn) = &mut self.turn {
                let more = ready!(turn.as_mut().poll(cx));
                self.turn = None;
                if !more {
                    return Poll::Ready(());
                }
            }
            let (conn, http) = (&self.conn, self.http);
            let came = match self.waiting || await_request(conn, http, self.first) {
                true => {
                    let came = poll_request(conn, self.first, cx);
                    self.waiting = came.is_pending();
                    ready!(came)
                }
                false => true,
            };
            let (conn, tls) = (self.conn.clone(), self.conn.is_tls());
            if came {
                self.first = false;
                conn.set_resting(false);
                self.turn = Some(boxed(|| turn(conn, http)));
            } else if tls {
                self.turn = Some(Box::pin(last(conn)));
            } else {
                return Poll::Ready(());
            }
        }
    }
}

/// Serves a request. True: the connection may bring another.
async fn turn(conn: Rc<Connection>, http: &'static Http) -> bool {
    match request(conn.clone(), http).await {
        After::Keepalive if !crate::process::exiting() || !conn.buffer.borrow().is_empty() => return true,
        After::Linger => rare(|| linger(&conn, http)).await,
        _ => {}
    }
    last(conn).await
}

async fn last(conn: Rc<Connection>) -> bool {
    close(&conn).await;
    false
}

/// Waits for the first byte of a request, owning no buffer meanwhile. False: there will be none.
async fn wait(conn: &Rc<Connection>, http: &'static Http, first: bool) -> bool {
    !await_request(conn, http, first) || std::future::poll_fn(|cx| poll_request(conn, first, cx)).await
}

/// Gets ready to wait for a request; false where there is one already.
fn await_request(conn: &Connection, http: &'static Http, first: bool) -> bool {
    {
        let mut buffer = conn.buffer.borrow_mut();
        if !buffer.is_empty() {
            return false;
        }
        buffer.release();
    }
    conn.set_waiting(true);
    if first {
        conn.deadline.set(*conn.default_server(http).srv.core.client_header_timeout);
    } else {
        conn.idle.set(true);
        conn.set_nodelay();
        conn.deadline.set(conn.keepalive.get().into());
    }
    true
}

/// Ready once a request begins, or (false) none will come.
fn poll_request(conn: &Connection, first: bool, cx: &mut Context<'_>) -> Poll<bool> {
    let read = match poll_first_bytes(conn, cx) {
        Poll::Ready(read) => Some(read),
        Poll::Pending => {
            ready!(conn.deadline.poll_expired(cx));
            None
        }
    };
    Poll::Ready(begins(conn, first, read))
}

fn poll_first_bytes(conn: &Connection, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    ready!(conn.io.poll_worth_reading(cx))?;
    let mut buffer = Buffer::with_capacity(8 << 10);
    let n = ready!(conn.io.poll_read(cx, buffer.spare()))?;
    buffer.filled(n);
    conn.buffer.replace(buffer);
    Poll::Ready(Ok(n))
}

/// Whether a request begins with what was read; tells why none does. None: nothing came in time.
fn begins(conn: &Connection, first: bool, read: Option<io::Result<usize>>) -> bool {
    match read {
        Some(Ok(0)) if !first => {
            let client = conn.client_text();
            let text = format_args!("client {client} closed keepalive connection");
            crate::log::error(conn.error_log(), Level::Info, Some(conn.number), text);
            false
        }
        Some(Ok(0)) => {
            conn.log(Level::Info, None, "waiting for request", format_args!("client closed connection"));
            false
        }
        Some(Ok(_)) => true,
        Some(Err(e)) => {
            let action = if first { "waiting for request" } else { "keepalive" };
            conn.log(Level::Info, Some(&e), action, format_args!("recv() failed"));
            false
        }
        None => {
            if first {
                let reason = std::io::Error::from_raw_os_error(libc::ETIMEDOUT);
                conn.log(Level::Info, Some(&reason), "waiting for request", format_args!("client timed out"));
            }
            false
        }
    }
}

async fn request(conn: Rc<Connection>, http: &'static Http) -> After {
    conn.requests.set(conn.requests.get() + 1);
    let mut req = in_place(|| Request::new(conn.clone(), http));
    let req = &mut *req;
    req.count_reading();
    let head = read_head(req).await;
    if head.is_ok() {
        req.count_writing();
        release_buffer(req);
    }
    let answered = match head {
        Ok(()) => phases::run(req).await,
        Err(Refusal::Status(status)) => {
            req.keepalive = false;
            rare(|| phases::refuse(req, status)).await
        }
        Err(Refusal::Silent(status)) => {
            req.response.status = status;
            false
        }
    };
    if !req.conf.core.post_action.is_empty() {
        rare(|| phases::post_action(req)).await;
    }
    let after = after(req, answered).await;
    req.end();
    conn.keepalive.set(u32::try_from(req.conf.core.keepalive_timeout.0).unwrap_or(u32::MAX));
    after
}

/// Without a body nothing more is expected before the answer: the next request of another connection gets the buffer
/// while it is still in the processor's caches.
fn release_buffer(req: &Request) {
    let mut buffer = req.conn.buffer.borrow_mut();
    if req.body_length == BodyLength::None && buffer.is_empty() {
        buffer.release();
    }
}

async fn after(req: &mut Request, answered: bool) -> After {
    if !answered || !req.response.complete || req.response.status == 101 {
        return After::Close;
    }
    if !body_reader::drain(req).await {
        return After::Close;
    }
    if req.keepalive {
        // The log tells what becomes of the connection from here on.
        req.keepalive = false;
        return After::Keepalive;
    }
    let more = !req.conn.buffer.borrow().is_empty();
    match *req.conf.core.lingering_close {
        Lingering::Always => After::Linger,
        Lingering::On if req.lingering_close || more => After::Linger,
        _ => After::Close,
    }
}

/// Reads what the client still sends, so that it can read the answer before the connection is reset.
async fn linger(conn: &Rc<Connection>, http: &'static Http) {
    let core = &conn.default_server(http).root.core;
    let _ = std::future::poll_fn(|cx| conn.io.poll_shutdown(cx)).await;
    conn.buffer.borrow_mut().release();
    let all = async {
        let mut scratch = Buffer::with_capacity(4096);
        loop {
            conn.deadline.set(*core.lingering_timeout);
            match conn.deadline.limit(conn.io.read(scratch.spare())).await {
                Some(Ok(n)) if n > 0 => {}
                _ => return,
            }
        }
    };
    let total = crate::net::Deadline::never();
    total.set(*core.lingering_time);
    total.limit(all).await;
}

async fn close(conn: &Rc<Connection>) {
    if conn.io.is_tls() {
        conn.deadline.set(30_000);
        let _ = conn.deadline.limit(std::future::poll_fn(|cx| conn.io.poll_shutdown(cx))).await;
    }
}

/// A request without TLS on a port that wants it: nginx's page for that.
pub async fn plain_on_tls(conn: Rc<Connection>, http: &'static Http) {
    if wait(&conn, http, true).await {
        let mut req = Box::new(Request::new(conn.clone(), http));
        req.count_reading();
        conn.requests.set(1);
        let _ = Box::pin(read_head(&mut req)).await;
        req.action.set("reading client request headers");
        req.log(Level::Info, None, format_args!("client sent plain HTTP request to HTTPS port"));
        req.action.set("");
        req.keepalive = false;
        Box::pin(phases::refuse(&mut req, 497)).await;
        req.end();
    }
    close(&conn).await;
}

impl Request {
    /// A request that begins on `conn`, with the server that the address chooses.
    pub fn new(conn: Rc<Connection>, http: &'static Http) -> Request {
        Request::to(Output::http1(), conn, http)
    }

    /// The same, whose response goes there.
    #[inline]
    pub(super) fn to(out: Output, conn: Rc<Connection>, http: &'static Http) -> Request {
        let server = conn.default_server(http);
        Request {
            http,
            server,
            location: &server.root,
            conf: &server.root,
            content_handler: None,
            head: Head { headers: Headers::new(), ..Head::default() },
            version: Version::Http10,
            method: Method::Unknown,
            method_override: None,
            host: Bytes::new(),
            host_port: None,
            uri: Bytes::new(),
            args: Bytes::new(),
            valid_unparsed_uri: false,
            valid_location: true,
            complex_uri: false,
            add_uri_to_alias: false,
            body_length: BodyLength::None,
            body: Default::default(),
            scope: Default::default(),
            internal: false,
            uri_changes: 11,
            uri_changed: false,
            error_page: false,
            post_action: false,
            err_status: 0,
            keepalive: false,
            pipelined: conn.requests.get() > 1 && !conn.buffer.borrow().is_empty() && !conn.idle.get(),
            lingering_close: false,
            expect_tested: false,
            filter_finalized: false,
            unsatisfiable_range: None,
            limit_status: Default::default(),
            limit_rate: None,
            limit_rate_after: None,
            start_ms: crate::net::clock::now(),
            start_wall: crate::net::clock::wall(),
            request_id: Default::default(),
            action: Default::default(),
            upstream_url: Default::default(),
            upstream_states: Vec::new(),
            upstream_headers: Headers::new(),
            upstream_trailers: Headers::new(),
            response: Default::default(),
            out,
            userid: Default::default(),
            proxied: Default::default(),
            contexts: Vec::new(),
            counted: None,
            parent: None,
            conn,
        }
    }

    /// Counts it, for stub_status, as one whose head is being read.
    pub(super) fn count_reading(&mut self) {
        count(Count::Requests, 1);
        self.counted = Some(Counted::new(Count::Reading));
    }

    /// Its head is complete.
    pub(super) fn count_writing(&mut self) {
        self.counted = Some(Counted::new(Count::Writing));
    }

    /// The request is over: its log line.
    pub fn end(&mut self) {
        self.action.set("logging request");
        if self.response.status == 0 && self.err_status != 0 {
            self.response.status = self.err_status;
        }
        for handler in &self.conf.handlers.log {
            handler(self);
        }
        super::modules::realip::restore(self);
    }
}
