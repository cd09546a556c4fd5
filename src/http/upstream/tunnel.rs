//! `101 Switching Protocols`: from then on bytes are copied both ways as they are (RFC 9110, section 15.2.2).

use std::io;
use std::task::{Context, Poll, ready};

use super::Protocol;
use super::converse::log_io;
use super::exchange::Exchange;
use crate::http::module::Verdict;
use crate::http::request::Request;
use crate::log::Level;
use crate::net::{Buffer, Io, turn};

/// Bytes copied at a time.
const PIECE: usize = 16 << 10;

/// One direction.
#[derive(Default)]
struct Way {
    buffer: Buffer,
    eof: bool,
    read: u64,
    written: u64,
}

enum Broken {
    Read(io::Error),
    Write(io::Error),
}

impl Way {
    fn done(&self) -> bool {
        self.eof && self.buffer.is_empty()
    }

    /// Copies until one end has nothing or takes nothing.
    fn poll(&mut self, from: &Io, to: &Io, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let end = self.read + turn::BYTES as u64;
        loop {
            while !self.buffer.is_empty() {
                let n = ready!(to.poll_write(cx, self.buffer.bytes())).map_err(Broken::Write)?;
                self.buffer.consume(n);
                self.written += n as u64;
            }
            // A flush that waits is taken up again when the task wakes.
            if let Poll::Ready(Err(e)) = to.poll_flush(cx) {
                return Poll::Ready(Err(Broken::Write(e)));
            }
            if self.eof {
                return Poll::Ready(Ok(()));
            }
            if self.read >= end {
                turn::over(cx);
                return Poll::Pending;
            }
            // A way that waits owns no buffer.
            let mut room = match self.buffer.capacity() {
                0 => Buffer::with_capacity(PIECE),
                _ => std::mem::take(&mut self.buffer),
            };
            match from.poll_read(cx, room.spare()) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => self.eof = true,
                Poll::Ready(Ok(n)) => {
                    room.filled(n);
                    self.read += n as u64;
                    self.buffer = room;
                }
                Poll::Ready(Err(e)) => return Poll::Ready(Err(Broken::Read(e))),
            }
        }
    }
}

impl<P: Protocol> Exchange<P> {
    /// Copies both ways until one end closes, or nothing came for too long.
    pub(super) async fn tunnel(&mut self, req: &mut Request) -> Verdict {
        req.keepalive = false;
        req.response.upgraded = true;
        req.action.set("proxying upgraded connection");
        if *req.conf.core.tcp_nodelay {
            req.conn.set_nodelay();
            if let Some(link) = &self.link {
                // A unix socket has no such option.
                let _ = link.io().with_socket(|socket| socket.set_nodelay());
            }
        }
        if req.flush_out().await.is_err() {
            return self.lost(req);
        }
        let mut down = Way { buffer: std::mem::take(&mut self.input), ..Way::default() };
        let mut up = Way { buffer: req.conn.buffer.take(), ..Way::default() };
        self.deadline.set(*self.settings.read_timeout);
        let complete = std::future::poll_fn(|cx| self.poll_tunnel(req, &mut down, &mut up, cx)).await;
        self.close(req);
        req.response.complete = complete;
        if complete { Verdict::Done } else { Verdict::Close }
    }

    fn poll_tunnel(
        &mut self,
        req: &mut Request,
        down: &mut Way,
        up: &mut Way,
        cx: &mut Context<'_>,
    ) -> Poll<bool> {
        let Some(link) = &mut self.link else { return Poll::Ready(false) };
        let before = (down.read + down.written, up.read + up.written);
        let (read, written, sent) = (down.read, down.written, up.written);
        let client = req.conn.clone();
        let from_upstream = down.poll(link.io(), &client.io, cx);
        let to_upstream = up.poll(&client.io, link.io(), cx);
        link.sent += up.written - sent;
        if let Some(state) = req.upstream_states.last_mut() {
            state.bytes_received += down.read - read;
        }
        if down.written > written {
            req.spliced(usize::try_from(down.written - written).unwrap_or(usize::MAX));
        }
        if let Poll::Ready(Err(broken)) = from_upstream {
            return Poll::Ready(failed(req, broken, true));
        }
        if let Poll::Ready(Err(broken)) = to_upstream {
            return Poll::Ready(failed(req, broken, false));
        }
        if down.done() || up.done() || (down.eof && up.eof) {
            return Poll::Ready(true);
        }
        if before != (down.read + down.written, up.read + up.written) {
            self.deadline.set(*self.settings.read_timeout);
        }
        ready!(self.deadline.poll_expired(cx));
        let reason = io::Error::from_raw_os_error(libc::ETIMEDOUT);
        // As grave as what happens to clients: an idle tunnel is nobody's fault.
        req.log(Level::Info, Some(&reason), format_args!("upstream timed out"));
        Poll::Ready(false)
    }
}

/// A failed read ends the tunnel as the peer's end does.
fn failed(req: &Request, broken: Broken, from_upstream: bool) -> bool {
    match (broken, from_upstream) {
        (Broken::Read(e), true) => {
            log_io(req, &e, "recv()", "SSL_read()");
            true
        }
        (Broken::Write(e), false) => {
            log_io(req, &e, "send()", "SSL_write()");
            false
        }
        (Broken::Read(e), false) => {
            req.log(Level::Info, Some(&e), format_args!("recv() failed"));
            true
        }
        (Broken::Write(e), true) => {
            req.log(Level::Info, Some(&e), format_args!("send() failed"));
            false
        }
    }
}
