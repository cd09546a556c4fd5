//! A connection's bytes as h2 wants them.
//!
//! h2 flushes after every frame of body. What it writes is held here until it has nothing more to say, so that the
//! answers of several streams leave in one write, and in one record of TLS.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Streams;
use crate::http::connection::Connection;
use crate::net::{Buffer, Deadline};

/// Bytes read at a time: a whole record of TLS.
const PIECE: usize = 16 << 10;
/// Bytes held back at most.
const HELD: usize = 64 << 10;

/// What waits to be written.
#[derive(Default)]
pub(super) struct Held {
    buffer: RefCell<Buffer>,
    /// h2 was told to wait.
    full: Cell<bool>,
    /// Something was written since that was last asked.
    written: Cell<bool>,
    /// When the client must have taken something, while it takes nothing.
    stalled: RefCell<Option<Deadline>>,
}

// === impl Held ===

impl Held {
    /// Writes everything that is held; h2 is to be polled again where that gave it room: then true.
    pub(super) fn poll_flush(&self, streams: &Streams, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let conn = &streams.conn;
        let mut buffer = self.buffer.borrow_mut();
        while !buffer.is_empty() {
            let written = conn.io.poll_write(cx, buffer.bytes());
            let n = ready!(self.limited(streams, cx, written))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            buffer.consume(n);
            self.written.set(true);
        }
        buffer.release();
        let flushed = conn.io.poll_flush(cx);
        ready!(self.limited(streams, cx, flushed))?;
        Poll::Ready(Ok(self.full.take()))
    }

    /// Whether the client took something since the last call.
    pub(super) fn progress(&self) -> bool {
        self.written.take()
    }

    /// Starts the clock of `send_timeout` while a write waits.
    fn limited<T>(
        &self,
        streams: &Streams,
        cx: &mut Context<'_>,
        done: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut stalled = self.stalled.borrow_mut();
        if done.is_ready() {
            *stalled = None;
            return done;
        }
        let core = &streams.conn.default_server(streams.http).root.core;
        let deadline = stalled.get_or_insert_with(|| {
            let deadline = Deadline::never();
            deadline.set(*core.send_timeout);
            deadline
        });
        ready!(deadline.poll_expired(cx));
        streams.conn.log_timeout();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn push(&self, pieces: &[&[u8]]) -> usize {
        let mut buffer = self.buffer.borrow_mut();
        let mut room = HELD.saturating_sub(buffer.len());
        let mut taken = 0;
        for piece in pieces {
            let piece = &piece[..piece.len().min(room)];
            if buffer.spare().len() < piece.len() {
                buffer.compact();
                if buffer.spare().len() < piece.len() {
                    // All at once: what comes out of the pool costs the same, whatever its size.
                    buffer.grow(HELD);
                }
            }
            buffer.push(piece);
            room -= piece.len();
            taken += piece.len();
        }
        taken
    }
}

/// A connection's bytes. It owns no buffer while nothing comes or goes.
pub(super) struct Wire {
    conn: Rc<Connection>,
    streams: Rc<Streams>,
}

// === impl Wire ===

impl Wire {
    pub(super) fn new(conn: Rc<Connection>, streams: Rc<Streams>) -> Wire {
        Wire { conn, streams }
    }

    fn hold(&self, cx: &mut Context<'_>, pieces: &[&[u8]]) -> Poll<io::Result<usize>> {
        let held = &self.streams.held;
        if pieces.iter().all(|piece| piece.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        loop {
            match held.push(pieces) {
                0 => {}
                n => return Poll::Ready(Ok(n)),
            }
            held.full.set(true);
            ready!(held.poll_flush(&self.streams, cx))?;
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut buffer = self.conn.buffer.borrow_mut();
        if buffer.is_empty() {
            // h2 asks again after each request that it gave.
            if self.streams.dry.get() {
                return Poll::Pending;
            }
            let mut fresh = Buffer::with_capacity(PIECE);
            let read = self.conn.io.poll_read(cx, fresh.spare());
            self.streams.dry.set(read.is_pending());
            fresh.filled(ready!(read)?);
            *buffer = fresh;
        }
        let n = buffer.len().min(room.remaining());
        room.put_slice(&buffer.bytes()[..n]);
        buffer.consume(n);
        if buffer.is_empty() {
            buffer.release();
        }
        drop(buffer);
        if n > 0 {
            self.streams.heard();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.hold(cx, &[bytes])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match pieces {
            [one] => self.hold(cx, &[one]),
            [one, two] => self.hold(cx, &[one, two]),
            more => self.hold(cx, &more.iter().map(|piece| &**piece).collect::<Vec<_>>()),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The connection's task flushes when h2 is done.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.streams.held.poll_flush(&self.streams, cx))?;
        let done = self.conn.io.poll_shutdown(cx);
        self.streams.held.limited(&self.streams, cx, done)
    }
}
