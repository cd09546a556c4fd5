//! Writing a response as HTTP/1: one buffer for what is small, one vectored write for what is not.

use std::io::IoSlice;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::connection::Connection;
use super::output::Gone;
use super::pace::Pace;
use crate::log::Level;
use crate::net::{Buffer, Deadline, End};

/// Room for a head and a small body, so that both leave in one write.
const ROOM: usize = 4 << 10;
/// Pieces up to this size are gathered rather than written at once.
const GATHER: usize = 16 << 10;

/// Writes a response as HTTP/1.
#[derive(Default)]
pub struct Writer {
    /// Head, framing and small pieces that were not written yet.
    buf: Buffer,
    /// The body is sent in chunks.
    pub(super) chunked: bool,
    /// Bytes of the chunk begun that are still to be given.
    chunk_left: usize,
    /// Bytes written for this request.
    pub(super) sent: u64,
    /// Bytes of the head.
    pub(super) head_size: u64,
    /// When the client must have taken something.
    deadline: Option<Deadline>,
    /// `send_timeout` in milliseconds.
    pub(super) timeout: u64,
    /// `limit_rate`
    pub(super) pace: Pace,
}

impl Writer {
    /// Where framing and small pieces are put.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.buf.capacity() == 0 {
            self.buf = Buffer::with_capacity(ROOM.max(bytes.len()));
        }
        if self.buf.spare().len() < bytes.len() {
            let want = (self.buf.len() + bytes.len()).max(ROOM);
            self.buf.compact();
            if self.buf.spare().len() < bytes.len() {
                self.buf.grow(want.next_power_of_two());
            }
        }
        self.buf.push(bytes);
    }

    /// Bytes held back.
    pub(super) fn held(&self) -> usize {
        self.buf.len()
    }

    /// Nothing is held back.
    pub(super) fn is_flushed(&self) -> bool {
        self.buf.is_empty()
    }

    /// Takes some of `bytes` as body; chunked framing is put around it.
    pub(super) fn poll_body(
        &mut self,
        conn: &Rc<Connection>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, Gone>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.chunked && self.chunk_left == 0 {
            let mut size = [0u8; 18];
            let n = chunk_head(bytes.len(), &mut size);
            self.push(&size[..n]);
            self.chunk_left = bytes.len();
        }
        let most = if self.chunked { self.chunk_left.min(bytes.len()) } else { bytes.len() };
        let n = if !self.pace.limited() && self.buf.len() + most <= GATHER && most <= ROOM {
            self.push(&bytes[..most]);
            most
        } else {
            ready!(self.poll_write(conn, cx, &bytes[..most]))?
        };
        if self.chunked {
            self.chunk_left -= n;
            if self.chunk_left == 0 {
                self.push(b"\r\n");
            }
        }
        Poll::Ready(Ok(n))
    }

    /// Writes what is buffered and then some of `bytes`; returns how much of `bytes` was taken.
    fn poll_write(
        &mut self,
        conn: &Rc<Connection>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, Gone>> {
        loop {
            let allowed = match self.pace.poll_allowed(cx, self.sent) {
                Poll::Ready(allowed) => allowed,
                Poll::Pending => return self.poll_leave(conn, cx),
            };
            let held = &self.buf.bytes()[..self.buf.len().min(allowed)];
            let bytes = &bytes[..bytes.len().min(allowed - held.len())];
            let written = if held.is_empty() {
                conn.io.poll_write(cx, bytes)
            } else {
                conn.io.poll_write_vectored(cx, &[IoSlice::new(held), IoSlice::new(bytes)])
            };
            let n = match written {
                Poll::Pending => return self.poll_timeout(conn, cx),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Gone)),
                Poll::Ready(Ok(n)) => n,
                Poll::Ready(Err(e)) => {
                    conn.log_io(&e, "writev() failed");
                    return Poll::Ready(Err(Gone));
                }
            };
            self.progress(n);
            let framing = n.min(self.buf.len());
            self.buf.consume(framing);
            if n > framing {
                return Poll::Ready(Ok(n - framing));
            }
        }
    }

    /// While `limit_rate` makes it wait, the client may leave.
    fn poll_leave(&self, conn: &Connection, cx: &mut Context<'_>) -> Poll<Result<usize, Gone>> {
        let reason = match ready!(conn.io.with_socket(|socket| socket.poll_end(cx))) {
            End::More => return Poll::Pending,
            End::Closed => None,
            End::Failed(e) => Some(e),
        };
        let text = format_args!("client prematurely closed connection");
        conn.log(Level::Info, reason.as_ref(), "sending response to client", text);
        Poll::Ready(Err(Gone))
    }

    /// Writes all that is buffered.
    pub(super) fn poll_flush(
        &mut self,
        conn: &Rc<Connection>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Gone>> {
        while !self.buf.is_empty() {
            let allowed = match self.pace.poll_allowed(cx, self.sent) {
                Poll::Ready(allowed) => allowed.min(self.buf.len()),
                Poll::Pending => return self.poll_leave(conn, cx).map_ok(|_| ()),
            };
            let n = match conn.io.poll_write(cx, &self.buf.bytes()[..allowed]) {
                Poll::Pending => return self.poll_timeout(conn, cx).map_ok(|_| ()),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Gone)),
                Poll::Ready(Ok(n)) => n,
                Poll::Ready(Err(e)) => {
                    conn.log_io(&e, "send() failed");
                    return Poll::Ready(Err(Gone));
                }
            };
            self.progress(n);
            self.buf.consume(n);
        }
        self.buf.release();
        match conn.io.poll_flush(cx) {
            Poll::Ready(Ok(())) => {
                if let Some(deadline) = &self.deadline {
                    deadline.clear();
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(e)) => {
                conn.log_io(&e, "send() failed");
                Poll::Ready(Err(Gone))
            }
            Poll::Pending => self.poll_timeout(conn, cx).map_ok(|_| ()),
        }
    }

    /// Bytes were written past this writer (sendfile, splice).
    pub(super) fn progress(&mut self, n: usize) {
        self.pace.left(self.sent, n as u64);
        self.sent += n as u64;
        if let Some(deadline) = &self.deadline {
            deadline.clear();
            self.deadline = None;
        }
    }

    /// The socket takes nothing: starts the clock, or finds that it ran out.
    pub(super) fn poll_timeout(
        &mut self,
        conn: &Connection,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, Gone>> {
        let timeout = self.timeout;
        let deadline = self.deadline.get_or_insert_with(|| {
            let deadline = Deadline::never();
            deadline.set(timeout);
            deadline
        });
        ready!(deadline.poll_expired(cx));
        conn.log_timeout();
        Poll::Ready(Err(Gone))
    }
}

/// Writes `size` in hexadecimal and a line end; returns the length.
fn chunk_head(size: usize, out: &mut [u8; 18]) -> usize {
    use std::io::Write;
    let mut cursor = &mut out[..];
    // The buffer holds 16 digits and the line end: this cannot fail.
    let _ = write!(cursor, "{size:x}\r\n");
    18 - cursor.len()
}
