//! One stream: the answer's future, its writer, and the body that both fill.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use hyper::HeaderMap;
use hyper::body::{Body, Frame};

use super::{head, watch};
use crate::http::connection::Connection;
use crate::http::headers::Headers;
use crate::http::output::Gone;
use crate::http::pace::Pace;
use crate::http::request::Request;

/// Bytes of a body that wait for the client before its maker waits.
const QUEUE: usize = 64 << 10;
/// Most bytes of a frame of body, unless `http2_chunk_size` says less. A frame is what `send_timeout` is measured by.
const FRAME: usize = 16 << 10;
/// Bytes before a frame's payload (RFC 9113, section 4.1).
const FRAME_HEAD: u64 = 9;

/// The response was cut off: the stream is reset.
#[derive(Debug)]
pub(super) struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("response was not completed")
    }
}

impl std::error::Error for Broken {}

/// What a response's writer and its body share; both are of the same task.
#[derive(Default)]
pub(super) struct Shared {
    head: RefCell<Option<hyper::Response<()>>>,
    queue: RefCell<BytesMut>,
    trailers: RefCell<Option<HeaderMap>>,
    /// All of the body is in the queue.
    finished: Cell<bool>,
    /// Most bytes of a frame.
    chunk: Cell<usize>,
    /// Frames given to hyper.
    given: Cell<u64>,
    /// hyper asked for a frame and has none that it could not send yet.
    asked: Cell<bool>,
    /// `send_timeout` in milliseconds.
    timeout: Cell<u64>,
    conn: RefCell<Option<Rc<Connection>>>,
    /// Waits for room in the queue.
    maker: RefCell<Option<Waker>>,
}

// === impl Shared ===

impl Shared {
    /// Where hyper holds a frame for which the client has no window: how many frames it was given so far.
    pub(super) fn waits_for_window(&self) -> Option<u64> {
        (self.given.get() > 0 && !self.asked.get()).then(|| self.given.get())
    }

    /// Milliseconds that it may wait.
    pub(super) fn send_timeout(&self) -> u64 {
        self.timeout.get()
    }

    /// It waited for too long.
    pub(super) fn timed_out(&self) {
        if let Some(conn) = &*self.conn.borrow() {
            conn.log_timeout();
        }
    }

    fn take_frame(&self) -> Option<Bytes> {
        let mut queue = self.queue.borrow_mut();
        if queue.is_empty() {
            return None;
        }
        let n = queue.len().min(self.chunk.get());
        if let Some(maker) = self.maker.take() {
            maker.wake();
        }
        Some(queue.split_to(n).freeze())
    }

    fn is_over(&self) -> bool {
        self.finished.get() && self.queue.borrow().is_empty() && self.trailers.borrow().is_none()
    }
}

/// The phases of a request and what they send.
type Handling = Pin<Box<dyn Future<Output = ()>>>;

/// Becomes the head of the response; the rest of the handling goes on in the [`Stream`].
pub(super) struct Answer {
    handling: Option<Handling>,
    shared: Rc<Shared>,
}

// === impl Answer ===

impl Answer {
    pub(super) fn new(shared: Rc<Shared>, handling: Handling) -> Answer {
        Answer { handling: Some(handling), shared }
    }
}

impl Future for Answer {
    type Output = Result<hyper::Response<Stream>, Broken>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        watch::begun(&self.shared);
        if let Some(handling) = &mut self.handling
            && handling.as_mut().poll(cx).is_ready()
        {
            self.handling = None;
        }
        let Some(head) = self.shared.head.take() else {
            return if self.handling.is_some() { Poll::Pending } else { Poll::Ready(Err(Broken)) };
        };
        let stream = Stream { handling: self.handling.take(), shared: self.shared.clone() };
        Poll::Ready(Ok(head.map(|()| stream)))
    }
}

/// The body of a response.
pub(super) struct Stream {
    handling: Option<Handling>,
    shared: Rc<Shared>,
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.shared.asked.set(true);
        loop {
            if let Some(frame) = self.shared.take_frame() {
                self.shared.asked.set(false);
                self.shared.given.set(self.shared.given.get() + 1);
                return Poll::Ready(Some(Ok(Frame::data(frame))));
            }
            let Some(handling) = &mut self.handling else {
                if !self.shared.finished.get() {
                    return Poll::Ready(Some(Err(Broken)));
                }
                return Poll::Ready(self.shared.trailers.take().map(|map| Ok(Frame::trailers(map))));
            };
            match handling.as_mut().poll(cx) {
                Poll::Ready(()) => self.handling = None,
                Poll::Pending if self.shared.queue.borrow().is_empty() => return Poll::Pending,
                Poll::Pending => {}
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.handling.is_none() && self.shared.is_over()
    }
}

/// Writes a response to an HTTP/2 stream.
pub struct Writer {
    shared: Rc<Shared>,
    sent: u64,
    head_size: u64,
    /// `limit_rate`
    pub(in crate::http) pace: Pace,
}

// === impl Writer ===

impl Writer {
    pub(super) fn new(shared: Rc<Shared>) -> Writer {
        Writer { shared, sent: 0, head_size: 0, pace: Pace::default() }
    }

    pub(in crate::http) fn sent(&self) -> u64 {
        self.sent
    }

    pub(in crate::http) fn head_size(&self) -> u64 {
        self.head_size
    }

    pub(in crate::http) fn send_head(&mut self, req: &Request) {
        let (response, size) = head::write(req);
        self.head_size = size + FRAME_HEAD;
        self.sent = self.head_size;
        let shared = &self.shared;
        let chunk = &req.conf.v2.chunk_size;
        shared.chunk.set(if chunk.is_set() { (**chunk).min(FRAME) } else { FRAME });
        shared.timeout.set(*req.conf.core.send_timeout);
        shared.conn.replace(Some(req.conn.clone()));
        if let Some(length) = req.response.content_length.filter(|_| !req.response.header_only) {
            shared.queue.borrow_mut().reserve(usize::try_from(length).unwrap_or(FRAME).min(FRAME));
        }
        shared.head.replace(Some(response));
    }

    pub(in crate::http) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, Gone>> {
        let allowed = ready!(self.pace.poll_allowed(cx, self.sent));
        let mut queue = self.shared.queue.borrow_mut();
        let room = QUEUE.saturating_sub(queue.len());
        if room == 0 && !bytes.is_empty() {
            self.shared.maker.replace(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        let n = bytes.len().min(room).min(allowed);
        queue.extend_from_slice(&bytes[..n]);
        self.pace.left(self.sent, n as u64);
        self.sent += n as u64;
        Poll::Ready(Ok(n))
    }

    /// Nothing is held back: what is in the queue leaves when the client has room for it.
    pub(in crate::http) fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }

    pub(in crate::http) fn finish(&mut self, trailers: &Headers) {
        if !trailers.is_empty() {
            self.shared.trailers.replace(Some(head::map(trailers)));
        }
        self.shared.finished.set(true);
    }
}
