//! A client's connection from accept to close over HTTP/1: wait, read a head, run the request, and again.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Poll, ready};

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
use crate::process::{Counted, stats};

/// What becomes of a connection after a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Keepalive,
    Close,
    Linger,
}

/// Serves HTTP/1 requests until the connection ends.
pub async fn http1(conn: Rc<Connection>, http: &'static Http) {
    let mut first = true;
    loop {
        if !wait(&conn, http, first).await {
            break;
        }
        first = false;
        conn.set_resting(false);
        // On the heap, so that an idle connection is small.
        let after = Box::pin(request(conn.clone(), http)).await;
        match after {
            After::Keepalive if !crate::process::exiting() || !conn.buffer.borrow().is_empty() => {}
            After::Linger => {
                Box::pin(linger(&conn, http)).await;
                break;
            }
            _ => break,
        }
    }
    close(&conn).await;
}

/// Waits for the first byte of a request, owning no buffer meanwhile. False: there will be none.
async fn wait(conn: &Rc<Connection>, http: &'static Http, first: bool) -> bool {
    {
        let mut buffer = conn.buffer.borrow_mut();
        if !buffer.is_empty() {
            return true;
        }
        buffer.release();
    }
    conn.set_waiting(true);
    let server = conn.default_server(http);
    if first {
        conn.deadline.set(*server.srv.core.client_header_timeout);
    } else {
        conn.idle.set(true);
        conn.set_nodelay();
        conn.deadline.set(conn.keepalive.get());
    }
    let read = conn
        .deadline
        .limit(std::future::poll_fn(|cx| {
            ready!(conn.io.poll_worth_reading(cx))?;
            let mut buffer = Buffer::with_capacity(8 << 10);
            let n = ready!(conn.io.poll_read(cx, buffer.spare()))?;
            buffer.filled(n);
            conn.buffer.replace(buffer);
            Poll::Ready(Ok::<usize, std::io::Error>(n))
        }))
        .await;
    match read {
        Some(Ok(0)) if !first => {
            let client = conn.client_text.borrow();
            let text = format_args!("client {client} closed keepalive connection");
            crate::log::error(&conn.error_log(), Level::Info, Some(conn.number), text);
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
    conn.sent.set(0);
    let mut req = Request::new(conn.clone(), http);
    req.count_reading();
    let head = read_head(&mut req).await;
    if head.is_ok() {
        req.count_writing();
    }
    let answered = match head {
        Ok(()) => phases::run(&mut req).await,
        Err(Refusal::Status(status)) => {
            req.keepalive = false;
            phases::refuse(&mut req, status).await
        }
        Err(Refusal::Silent(status)) => {
            req.response.status = status;
            false
        }
    };
    if !req.conf.core.post_action.is_empty() {
        Box::pin(phases::post_action(&mut req)).await;
    }
    let after = after(&mut req, answered).await;
    req.end();
    conn.keepalive.set(req.conf.core.keepalive_timeout.0);
    after
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
            out: Output::http1(),
            userid: Default::default(),
            contexts: Vec::new(),
            counted: None,
            parent: None,
            conn,
        }
    }

    /// Counts it, for stub_status, as one whose head is being read.
    pub(super) fn count_reading(&mut self) {
        stats().requests.fetch_add(1, Ordering::Relaxed);
        self.counted = Some(Counted::new(&stats().reading));
    }

    /// Its head is complete.
    pub(super) fn count_writing(&mut self) {
        self.counted = Some(Counted::new(&stats().writing));
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
