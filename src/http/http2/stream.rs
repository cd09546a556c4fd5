//! One stream: the handling of its request, the writer that this fills, and the frames that h2 is given.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::{HeaderMap, Response};

use super::{Streams, response};
use crate::http::headers::Headers;
use crate::http::output::Gone;
use crate::http::pace::Pace;
use crate::http::request::Request;
use crate::net::Deadline;

/// Bytes of a body that wait for the client before its maker waits.
const QUEUE: usize = 64 << 10;
/// Most bytes of a frame of body, unless `http2_chunk_size` says less. A frame is what `send_timeout` is measured by.
const FRAME: usize = 16 << 10;
/// Bytes before a frame's payload (RFC 9113, section 4.1).
const FRAME_HEAD: u64 = 9;

/// What a response's writer and its stream share; both are of the same task.
#[derive(Default)]
pub(super) struct Shared {
    /// A map whose memory the response's head may have.
    map: Cell<HeaderMap>,
    /// Interim responses that were not sent yet.
    hints: RefCell<Vec<Response<()>>>,
    head: RefCell<Option<Response<()>>>,
    queue: RefCell<BytesMut>,
    trailers: RefCell<Option<HeaderMap>>,
    /// All of the body is in the queue.
    finished: Cell<bool>,
    /// Most bytes of a frame.
    chunk: Cell<usize>,
    /// `send_timeout` in milliseconds.
    timeout: Cell<u64>,
    /// Waits for room in the queue.
    maker: RefCell<Option<Waker>>,
}

// === impl Shared ===

impl Shared {
    /// Keeps a map that is not needed any more.
    pub(super) fn keep_map(&self, mut map: HeaderMap) {
        map.clear();
        self.map.set(map);
    }

    /// The next frame of body, and how much of it: all that waits, up to a frame's size.
    fn next_frame(&self) -> usize {
        self.queue.borrow().len().min(self.chunk.get())
    }

    fn take_frame(&self, len: usize) -> Bytes {
        let mut queue = self.queue.borrow_mut();
        if let Some(maker) = self.maker.take() {
            maker.wake();
        }
        if len == queue.len() {
            return std::mem::take(&mut *queue).freeze();
        }
        queue.split_to(len).freeze()
    }

    /// Whether nothing follows what was taken.
    fn is_over(&self) -> bool {
        self.finished.get() && self.queue.borrow().is_empty() && self.trailers.borrow().is_none()
    }
}

/// The phases of a request and what they send.
pub(super) type Handling = Pin<Box<dyn Future<Output = ()>>>;

/// What may be sent on a stream.
enum Side {
    /// Nothing was so far, interim responses aside.
    Head(SendResponse<Bytes>),
    /// The head was, and did not end the response.
    Body(SendStream<Bytes>),
    /// All of the response is with h2.
    Over,
}

/// A stream until its request is handled and its response is with h2, or until its client reset it.
pub(super) struct Stream {
    handling: Option<Handling>,
    side: Side,
    shared: Rc<Shared>,
    streams: Rc<Streams>,
    /// When the client must have opened a window, while it has none.
    stalled: Option<Deadline>,
}

// === impl Stream ===

impl Stream {
    pub(super) fn new(
        streams: Rc<Streams>,
        shared: Rc<Shared>,
        reply: SendResponse<Bytes>,
        handling: Handling,
    ) -> Stream {
        Stream { handling: Some(handling), side: Side::Head(reply), shared, streams, stalled: None }
    }

    /// Whether all of the response is with h2.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.side, Side::Over)
    }

    /// The response was cut off, or cannot be sent.
    fn broken(&mut self) -> Poll<Result<(), Gone>> {
        match &mut self.side {
            Side::Head(reply) => reply.send_reset(Reason::INTERNAL_ERROR),
            Side::Body(body) => body.send_reset(Reason::INTERNAL_ERROR),
            Side::Over => {}
        }
        Poll::Ready(Err(Gone))
    }

    /// Gives h2 what there is of the response; ready once that was all, or nothing more can be sent.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if let Side::Head(reply) = &mut self.side {
            for hint in self.shared.hints.take() {
                // h2 refuses it only where the connection is over.
                let _ = reply.send_informational(hint);
            }
            let Some(head) = self.shared.head.take() else {
                if self.handling.is_none() {
                    return self.broken();
                }
                return reply.poll_reset(cx).map(|_| Err(Gone));
            };
            let over = self.shared.is_over();
            match reply.send_response(head, over) {
                Ok(_) if over => return Poll::Ready(Ok(())),
                Ok(body) => self.side = Side::Body(body),
                Err(_) => return self.broken(),
            }
        }
        self.poll_body(cx)
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        loop {
            let Side::Body(body) = &mut self.side else { return Poll::Ready(Ok(())) };
            let len = self.shared.next_frame();
            if len == 0 {
                break;
            }
            body.reserve_capacity(len);
            if body.capacity() == 0 {
                match body.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(_) => return Poll::Ready(Err(Gone)),
                    Poll::Pending => return self.poll_stalled(cx),
                }
            }
            self.stalled = None;
            let frame = self.shared.take_frame(len);
            let over = self.shared.is_over();
            if body.send_data(frame, over).is_err() {
                return self.broken();
            }
            if over {
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_end(cx)
    }

    /// Nothing of the body waits.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let Side::Body(body) = &mut self.side else { return Poll::Ready(Ok(())) };
        if self.shared.finished.get() {
            let sent = match self.shared.trailers.take() {
                Some(trailers) => body.send_trailers(trailers),
                None => body.send_data(Bytes::new(), true),
            };
            return if sent.is_err() { self.broken() } else { Poll::Ready(Ok(())) };
        }
        if self.handling.is_none() {
            return self.broken();
        }
        body.poll_reset(cx).map(|_| Err(Gone))
    }

    /// The client has no window for the next frame: it gets `send_timeout` to open one.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let timeout = self.shared.timeout.get();
        let deadline = self.stalled.get_or_insert_with(|| {
            let deadline = Deadline::never();
            deadline.set(timeout);
            deadline
        });
        ready!(deadline.poll_expired(cx));
        self.streams.conn.log_timeout();
        self.broken()
    }
}

impl Future for Stream {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(handling) = &mut self.handling
            && handling.as_mut().poll(cx).is_ready()
        {
            self.handling = None;
        }
        if !self.is_over() {
            if ready!(self.poll_send(cx)).is_err() {
                return Poll::Ready(());
            }
            self.side = Side::Over;
        }
        if self.handling.is_some() { Poll::Pending } else { Poll::Ready(()) }
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

    /// `103 Early Hints` with these fields.
    pub(in crate::http) fn send_hints<'a>(&mut self, fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
        self.shared.hints.borrow_mut().push(response::hints(fields));
    }

    pub(in crate::http) fn send_head(&mut self, req: &Request) {
        let shared = &self.shared;
        let (response, size) = response::write(req, shared.map.take());
        self.head_size = size + FRAME_HEAD;
        self.sent = self.head_size;
        let chunk = &req.conf.v2.chunk_size;
        shared.chunk.set(if chunk.is_set() { (**chunk).min(FRAME) } else { FRAME });
        shared.timeout.set(*req.conf.core.send_timeout);
        if let Some(length) = req.response.content_length.filter(|_| !req.response.header_only) {
            let length = usize::try_from(length).unwrap_or(FRAME).min(FRAME);
            shared.queue.replace(BytesMut::with_capacity(length));
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
            self.shared.trailers.replace(Some(response::map(trailers.iter())));
        }
        self.shared.finished.set(true);
    }
}
