//! A connection's bytes as h2 wants them.
//!
//! h2 flushes after every frame of body. What it writes is held here until it has nothing more to say, so that the
//! answers of several streams leave in one write, and in one record of TLS.

use std::cell::{Cell, RefCell};
use std::io;
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
    /// h2 was told to wait until all is written.
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

    /// The same for h2, which waits for it: the connection's task, which writes the rest, polls it then.
    fn poll_flush_for_h2(&self, streams: &Streams, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.full.set(true);
        self.poll_flush(streams, cx).map_ok(drop)
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

    /// Takes as much as there is room for.
    fn push(&self, bytes: &[u8]) -> usize {
        let mut buffer = self.buffer.borrow_mut();
        let n = bytes.len().min(HELD.saturating_sub(buffer.len()));
        if buffer.spare().len() < n {
            buffer.compact();
            if buffer.spare().len() < n {
                // All at once: what comes out of the pool costs the same, whatever its size.
                buffer.grow(HELD);
            }
        }
        buffer.push(&bytes[..n])
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
    /// Of several pieces h2 makes one, where they are short: without vectored writes a short frame of body is no
    /// write of its own.
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let held = &self.streams.held;
        loop {
            match held.push(bytes) {
                0 if !bytes.is_empty() => {}
                n => return Poll::Ready(Ok(n)),
            }
            ready!(held.poll_flush_for_h2(&self.streams, cx))?;
        }
    }

    /// The connection's task flushes when h2 is done.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let held = &self.streams.held;
        ready!(held.poll_flush_for_h2(&self.streams, cx))?;
        let done = self.conn.io.poll_shutdown(cx);
        held.full.set(done.is_pending());
        held.limited(&self.streams, cx, done)
    }
}
