//! A connection's bytes as hyper wants them.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};

use super::Streams;
use crate::http::connection::Connection;
use crate::net::{Buffer, Deadline};

/// Bytes read at a time: a whole record of TLS.
const PIECE: usize = 16 << 10;

/// A connection's bytes. It owns no buffer while nothing comes.
pub(super) struct Wire {
    conn: Rc<Connection>,
    streams: Rc<Streams>,
    /// When the client must have taken something, while it takes nothing.
    stalled: Option<Deadline>,
}

// === impl Wire ===

impl Wire {
    pub(super) fn new(conn: Rc<Connection>, streams: Rc<Streams>) -> Wire {
        Wire { conn, streams, stalled: None }
    }

    /// Starts the clock of `send_timeout` while a write waits.
    fn limited<T>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.stalled = None;
            return done;
        }
        let core = &self.conn.default_server(self.streams.http).root.core;
        let deadline = self.stalled.get_or_insert_with(|| {
            let deadline = Deadline::never();
            deadline.set(*core.send_timeout);
            deadline
        });
        ready!(deadline.poll_expired(cx));
        self.conn.log_timeout();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Read for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut room: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut buffer = self.conn.buffer.borrow_mut();
        if buffer.is_empty() {
            let mut fresh = Buffer::with_capacity(PIECE);
            let n = ready!(self.conn.io.poll_read(cx, fresh.spare()))?;
            fresh.filled(n);
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

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = self.conn.io.poll_write(cx, bytes);
        self.limited(cx, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = self.conn.io.poll_write_vectored(cx, pieces);
        self.limited(cx, done)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = self.conn.io.poll_flush(cx);
        self.limited(cx, done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = self.conn.io.poll_shutdown(cx);
        self.limited(cx, done)
    }
}
