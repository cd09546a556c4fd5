//! HTTP/2 on the client's side: h2 speaks it (RFC 9113), requests run as over HTTP/1.
//!
//! A connection is one task, which polls h2 and the streams. A stream's future drives the phases, which fill a queue;
//! after each of their steps it gives h2 what is there, so that the end of a short response goes with its last frame
//! of body. While other streams have their answers still to come, what there is to send waits until the thread has
//! looked at its sockets once more.
//!
//! Windows: a client may send 256 KiB of a request's body, and 16 MiB on a connection, before the handler takes any;
//! `http2_body_preread_size`, where it is said, is a stream's window. nginx begins with 64 KiB and opens the window
//! to its end once a body is read; here it stays as it is.

mod io;
mod request;
mod response;
mod stream;
mod tasks;

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, Handshake, SendResponse};

use super::Http;
use super::connection::Connection;
use super::output::Output;
use super::request::{Request, Version};
use super::{phases, read_head};
use crate::log::Level;
use crate::net::{Buffer, Deadline, turn};
use crate::process::memory::{boxed, in_place};
pub use stream::Writer;
use stream::{Shared, Stream};
use tasks::Tasks;

/// How often streams and h2 have their turns before other connections have theirs: requests that came send theirs
/// upstream in the second, and are answered in it where nothing is waited for.
const TURNS: usize = 2;
/// What every HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a request's body before it is asked for.
const STREAM_WINDOW: u32 = 256 << 10;
/// The same of all requests of a connection.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Bytes of a response that h2 takes before they are sent.
const SEND_BUFFER: usize = 128 << 10;
/// Bytes of a frame that a client may send (RFC 9113, section 4.2).
const MAX_FRAME: u32 = 16 << 10;
/// Milliseconds in which a connection that takes leave must take something more of what is left, once its streams are
/// over. nginx closes at once; h2 waits for the client's word first.
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
    let streams = Rc::new(Streams {
        conn: conn.clone(),
        http,
        active: Cell::new(0),
        leaving: Cell::new(false),
        dry: Cell::new(false),
        held: io::Held::default(),
        authority: request::Authority::default(),
    });
    conn.set_nodelay();
    conn.deadline.set(*conn.default_server(http).srv.core.client_header_timeout);
    let wire = io::Wire::new(conn.clone(), streams.clone());
    let protocol = Protocol::Handshake(Box::new(builder(&conn, http).handshake(wire)));
    let mut served = Box::new(Served { streams, tasks: Tasks::new(), protocol, told: false, waits: false });
    if let Err(error) = std::future::poll_fn(|cx| served.poll(cx)).await {
        conn.log(Level::Info, None, "processing HTTP/2 connection", format_args!("{error}"));
    }
}

/// What the connection's server says of HTTP/2.
fn builder(conn: &Connection, http: &'static Http) -> Builder {
    let srv = &conn.default_server(http).srv;
    let (number, size) = *srv.core.large_client_header_buffers;
    let window = |size: &crate::conf::Setting<usize>| u32::try_from(**size).unwrap_or(STREAM_WINDOW);
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(u32::try_from(*srv.v2.max_concurrent_streams).unwrap_or(u32::MAX))
        .max_header_list_size(u32::try_from(number.saturating_mul(size)).unwrap_or(u32::MAX))
        .max_frame_size(MAX_FRAME)
        .max_send_buffer_size(SEND_BUFFER)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_window_size(match srv.v2.body_preread_size.is_set() {
            true => window(&srv.v2.body_preread_size),
            false => STREAM_WINDOW,
        });
    builder
}

/// A connection while it is served.
struct Served {
    streams: Rc<Streams>,
    tasks: Tasks,
    protocol: Protocol,
    /// The client was told that the connection takes leave.
    told: bool,
    /// What there is to send waits for more.
    waits: bool,
}

enum Protocol {
    Handshake(Box<Handshake<io::Wire, Bytes>>),
    Open(Box<h2::server::Connection<io::Wire, Bytes>>),
}

// === impl Served ===

impl Served {
    /// Ready at the connection's end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        if !self.poll_streams(cx) {
            return Poll::Pending;
        }
        let ended = self.poll_turns(cx);
        match ended {
            Poll::Ready(_) => self.tasks.part(),
            Poll::Pending => self.tasks.sleep(cx),
        }
        ended
    }

    /// Polls streams, and leaves what they have to send for the next time, where others may have something by then:
    /// one write for many. True: there is nothing to wait for.
    fn poll_streams(&mut self, cx: &mut Context<'_>) -> bool {
        self.tasks.poll();
        let more = self.streams.active.get() > 0 && self.tasks.wants_protocol();
        self.waits = more && !self.waits;
        if self.waits {
            turn::over(cx);
        }
        !self.waits
    }

    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        for _ in 0..TURNS {
            if !self.tasks.take_protocol() {
                break;
            }
            if let Poll::Ready(ended) = self.poll_protocol() {
                return Poll::Ready(ended);
            }
            self.tasks.poll();
        }
        self.poll_rest(cx)
    }

    /// Lets h2 read and write, and takes in the streams that came.
    fn poll_protocol(&mut self) -> Poll<Result<(), h2::Error>> {
        let waker = self.tasks.protocol();
        let cx = &mut Context::from_waker(&waker);
        self.streams.dry.set(false);
        loop {
            match &mut self.protocol {
                Protocol::Handshake(handshake) => {
                    let mut connection = Box::new(ready!(Pin::new(handshake).poll(cx))?);
                    if self.told {
                        connection.graceful_shutdown();
                    }
                    self.protocol = Protocol::Open(connection);
                }
                Protocol::Open(connection) => match ready!(pin!(connection.accept()).poll(cx)) {
                    Some(Ok((request, reply))) => self.tasks.add(self.streams.begin(request, reply)),
                    Some(Err(error)) => return Poll::Ready(Err(error)),
                    None => return Poll::Ready(Ok(())),
                },
            }
        }
    }

    /// What is not h2's: leave-taking, deadlines, and writing what is held.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let streams = self.streams.clone();
        let deadline = &streams.conn.deadline;
        loop {
            if deadline.expired() {
                if !self.told {
                    streams.leaving.set(true);
                } else if !streams.held.progress() {
                    return Poll::Ready(Ok(()));
                } else {
                    streams.rest();
                }
            }
            if streams.leaving.get() && !self.told {
                self.told = true;
                if let Protocol::Open(connection) = &mut self.protocol {
                    connection.graceful_shutdown();
                }
                streams.rest();
                if let Poll::Ready(ended) = self.poll_protocol() {
                    return Poll::Ready(ended);
                }
            }
            match streams.held.poll_flush(&streams, cx) {
                // h2 had to wait for room.
                Poll::Ready(Ok(true)) => match self.poll_protocol() {
                    Poll::Ready(ended) => return Poll::Ready(ended),
                    Poll::Pending => continue,
                },
                Poll::Ready(Ok(false)) | Poll::Pending => {}
                // It is known, or logged already.
                Poll::Ready(Err(_)) => return Poll::Ready(Ok(())),
            }
            ready!(deadline.poll_expired(cx));
        }
    }
}

/// The streams of one connection.
struct Streams {
    conn: Rc<Connection>,
    http: &'static Http,
    /// Streams whose requests are being answered.
    active: Cell<usize>,
    /// No more requests are wanted.
    leaving: Cell<bool>,
    /// In this turn of h2's there is nothing to read any more; h2's waker knows.
    dry: Cell<bool>,
    /// What was not written yet.
    held: io::Held,
    authority: request::Authority,
}

// === impl Streams ===

impl Streams {
    /// The client said something.
    fn heard(&self) {
        if self.conn.requests.get() == 0 {
            self.rest();
        }
    }

    /// A request came: its stream.
    fn begin(self: &Rc<Self>, mut head: http::Request<RecvStream>, reply: SendResponse<Bytes>) -> Stream {
        self.begun();
        let shared = Rc::new(Shared::default());
        let out = Output::http2(Writer::new(shared.clone()));
        let mut req = in_place(|| Request::to(out, self.conn.clone(), self.http));
        req.count_reading();
        req.version = Version::Http2;
        let mut running = Running { req, streams: self.clone(), ended: false };
        let req = &mut running.req;
        // What would follow a CONNECT is no body.
        let ended = *head.method() == http::Method::CONNECT || head.body().is_end_stream();
        let read = request::read(req, &head, ended, &self.authority);
        shared.keep_map(std::mem::take(head.headers_mut()));
        if !ended {
            req.body.frames = Some(head.into_body());
            req.body.deadline = Some(Deadline::never());
        }
        let handling = boxed(|| async move { running.answer(read).await });
        Stream::new(self.clone(), shared, reply, handling)
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
