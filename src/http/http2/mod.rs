//! HTTP/2 on the client's side: hyper speaks it (RFC 9113), requests run as over HTTP/1.
//!
//! A stream is one task. Its future drives the phases until the response's head is there; the same future then moves
//! into the response's body and goes on there, filling the queue that the body gives frames from.
//!
//! Windows: a client may send 256 KiB of a request's body, and 16 MiB on a connection, before the handler takes any;
//! `http2_body_preread_size`, where it is said, is a stream's window. nginx begins with 64 KiB and opens the window
//! to its end once a body is read; hyper keeps it as it is.

mod head;
mod io;
mod stream;
mod watch;

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Poll, ready};

use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::Service;

use super::Http;
use super::connection::Connection;
use super::output::Output;
use super::request::{Request, Version};
use super::{phases, read_head};
use crate::log::Level;
use crate::net::Buffer;
pub use stream::Writer;
use stream::{Shared, Stream};

/// What every HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a request's body before it is asked for.
const STREAM_WINDOW: u32 = 256 << 10;
/// The same of all requests of a connection.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Bytes of a response that hyper takes before they are sent.
const SEND_BUFFER: usize = 128 << 10;
/// Milliseconds in which a connection that takes leave must take something more of what is left, once its streams are
/// over. nginx closes at once; hyper waits for the client's word first.
const FAREWELL: u64 = 1_000;

/// Whether HTTP/2 may be spoken on a connection: by its server, or by its `listen`.
pub fn enabled(conn: &Connection, http: &'static Http) -> bool {
    conn.addr.http2 || *conn.default_server(http).srv.v2.enable
}

/// Whether a connection without TLS begins with HTTP/2. What was read stays in the connection's buffer.
pub async fn has_preface(conn: &Connection, http: &'static Http) -> bool {
    conn.deadline.set(*conn.default_server(http).srv.core.client_header_timeout);
    let begins = std::future::poll_fn(|cx| {
        loop {
            let mut buffer = conn.buffer.borrow_mut();
            let bytes = buffer.bytes();
            let n = bytes.len().min(PREFACE.len());
            if bytes[..n] != PREFACE[..n] || n == PREFACE.len() {
                return Poll::Ready(n > 0 && bytes[..n] == PREFACE[..n]);
            }
            let mut more = Buffer::with_capacity(8 << 10);
            more.push(buffer.bytes());
            match ready!(conn.io.poll_read(cx, more.spare())) {
                Ok(read) if read > 0 => more.filled(read),
                _ => return Poll::Ready(false),
            }
            *buffer = more;
        }
    });
    let begins = conn.deadline.limit(begins).await;
    conn.deadline.clear();
    begins.unwrap_or(false)
}

/// Serves requests until the connection ends.
pub async fn serve(conn: Rc<Connection>, http: &'static Http) {
    let shared = Rc::new(Streams {
        conn: conn.clone(),
        http,
        active: Cell::new(0),
        leaving: Cell::new(false),
        held: io::Held::default(),
    });
    conn.set_nodelay();
    let srv = &conn.default_server(http).srv;
    conn.deadline.set(*srv.core.client_header_timeout);
    let (number, size) = *srv.core.large_client_header_buffers;
    let window = |size: &crate::conf::Setting<usize>| u32::try_from(**size).unwrap_or(STREAM_WINDOW);
    let mut builder = Builder::new(watch::Tasks);
    builder
        .auto_date_header(false)
        .max_concurrent_streams(u32::try_from(*srv.v2.max_concurrent_streams).unwrap_or(u32::MAX))
        .max_header_list_size(u32::try_from(number.saturating_mul(size)).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(match srv.v2.body_preread_size.is_set() {
            true => window(&srv.v2.body_preread_size),
            false => STREAM_WINDOW,
        });
    let wire = io::Wire::new(conn.clone(), shared.clone());
    let mut connection = Box::pin(builder.serve_connection(wire, Begin(shared.clone())));
    let mut told = false;
    let ended = std::future::poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            if shared.leaving.get() && !told {
                told = true;
                connection.as_mut().graceful_shutdown();
                shared.rest();
                continue;
            }
            if conn.deadline.expired() {
                if told && shared.held.progress() {
                    shared.rest();
                    continue;
                }
                if told {
                    return Poll::Ready(Ok(()));
                }
                shared.leaving.set(true);
                continue;
            }
            match shared.held.poll_flush(&shared, cx) {
                Poll::Ready(Ok(true)) => continue,
                Poll::Ready(Ok(false)) | Poll::Pending => {}
                // It is known, or logged already.
                Poll::Ready(Err(_)) => return Poll::Ready(Ok(())),
            }
            return conn.deadline.poll_expired(cx).map(|()| Ok(()));
        }
    });
    if let Err(error) = ended.await {
        conn.log(Level::Info, None, "processing HTTP/2 connection", format_args!("{}", words(&error)));
    }
}

/// What is behind an error of hyper's.
fn words(error: &hyper::Error) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), ToString::to_string)
}

/// The streams of one connection.
struct Streams {
    conn: Rc<Connection>,
    http: &'static Http,
    /// Streams whose requests are being answered.
    active: Cell<usize>,
    /// No more requests are wanted.
    leaving: Cell<bool>,
    /// What was not written yet.
    held: io::Held,
}

/// Begins streams: what hyper calls.
struct Begin(Rc<Streams>);

// === impl Streams ===

impl Streams {
    /// The client said something.
    fn heard(&self) {
        if self.conn.requests.get() == 0 {
            self.rest();
        }
    }

    /// Where no stream is left the connection waits for the next one, or for its end.
    fn rest(&self) {
        if self.active.get() > 0 {
            return;
        }
        let core = &self.conn.default_server(self.http).root.core;
        let leaving = self.leaving.get();
        self.conn.set_resting(!leaving);
        self.conn.deadline.set(if leaving { FAREWELL } else { core.keepalive_timeout.0 });
    }

    fn begun(&self) {
        let conn = &self.conn;
        conn.set_resting(false);
        conn.deadline.clear();
        conn.requests.set(conn.requests.get() + 1);
        self.active.set(self.active.get() + 1);
        let core = &conn.default_server(self.http).root.core;
        let age = crate::net::clock::now().saturating_sub(conn.start_ms);
        let many = conn.requests.get() as usize >= *core.keepalive_requests;
        if many || age > *core.keepalive_time || crate::process::exiting() {
            self.leaving.set(true);
        }
    }

    fn ended(&self) {
        self.active.set(self.active.get() - 1);
        self.rest();
        if self.active.get() == 0 && crate::process::exiting() && !self.leaving.get() {
            // Due at once: the connection takes leave.
            self.conn.deadline.set(0);
        }
    }
}

impl Service<hyper::Request<Incoming>> for Begin {
    type Response = hyper::Response<Stream>;
    type Error = stream::Broken;
    type Future = stream::Answer;

    fn call(&self, request: hyper::Request<Incoming>) -> stream::Answer {
        let streams = &self.0;
        streams.begun();
        let mut req = Box::new(Request::new(streams.conn.clone(), streams.http));
        req.count_reading();
        let shared = Rc::new(Shared::default());
        req.version = Version::Http2;
        req.out = Output::http2(Writer::new(shared.clone()));
        let mut running = Running { req, streams: streams.clone(), ended: false };
        let (parts, body) = request.into_parts();
        let read = head::read(&mut running.req, &parts, body);
        stream::Answer::new(shared, Box::pin(async move { running.answer(read).await }))
    }
}

/// A request while its stream is open. If the client leaves before the end, this is dropped: that is logged too.
struct Running {
    req: Box<Request>,
    streams: Rc<Streams>,
    ended: bool,
}

// === impl Running ===

impl Running {
    async fn answer(mut self, read: Result<(), read_head::Refusal>) {
        let req = &mut self.req;
        match read {
            Ok(()) => {
                req.count_writing();
                phases::run(req).await;
            }
            Err(read_head::Refusal::Status(status)) => {
                phases::refuse(req, status).await;
            }
            Err(read_head::Refusal::Silent(status)) => req.response.status = status,
        }
        if !req.conf.core.post_action.is_empty() {
            Box::pin(phases::post_action(req)).await;
        }
        self.end();
    }

    fn end(&mut self) {
        self.ended = true;
        self.req.end();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            if !self.req.response.sent {
                self.req.response.status = 499;
            }
            self.end();
        }
        self.streams.ended();
    }
}
