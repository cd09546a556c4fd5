//! Bodies that go from socket to socket through a pipe.

use std::os::fd::AsFd;
use std::task::{Context, Poll};

use tokio::io::Interest;

use super::super::exchange::Exchange;
use super::super::{Protocol, ResponseFraming};
use super::{Pump, SPLICE, Source};
use crate::http::output::Gone;
use crate::http::request::Request;
use crate::log::Level;
use crate::net::splice::{self, Pipe};

impl<P: Protocol> Exchange<P> {
    /// Moves bytes through a pipe, where that can be done and pays; none where they must be copied.
    pub(super) fn poll_splice(
        &mut self,
        req: &mut Request,
        pump: &mut Pump,
        cx: &mut Context<'_>,
    ) -> Option<Poll<()>> {
        let plain = self.protocol.response().plain().filter(|plain| *plain > 0)?;
        let used = pump.pipe.as_ref();
        if pump.queue.stores()
            || !pump.queue.is_empty()
            || used.is_some_and(|p| !p.is_empty())
            || pump.rate > 0
        {
            return None;
        }
        if used.is_none() && plain < SPLICE {
            return None;
        }
        let from = self.link.as_ref()?.io().plain()?;
        if req.held() > 0 && req.conn.io.plain().is_some() && !req.has_body_filters() {
            // The head goes first. Should the client not take it now, bytes are copied behind it.
            let _ = req.poll_flush_out(cx);
        }
        let most = usize::try_from(plain).unwrap_or(usize::MAX).min(splice::portion(req.splice_target()?));
        if pump.pipe.is_none() {
            pump.pipe = Some(Pipe::take()?);
        }
        let pipe = pump.pipe.as_mut()?;
        let n = loop {
            match from.try_io(Interest::READABLE, || pipe.fill(from.as_fd(), most)) {
                Ok(0) => {
                    pump.pipe = None;
                    return None;
                }
                Ok(n) => break n as u64,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => match from.poll_read_ready(cx) {
                    Poll::Ready(Ok(())) => {}
                    _ => return Some(Poll::Pending),
                },
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                // The ordinary way tells what is wrong.
                Err(_) => return None,
            }
        };
        self.protocol.response_mut().passed(n);
        pump.read += n;
        if let Some(state) = req.upstream_states.last_mut() {
            state.bytes_received += n;
            state.response_length = pump.read;
        }
        if n == plain {
            self.end(req, pump, Source::Complete);
        }
        Some(Poll::Ready(()))
    }
}

/// Empties the pipe into the client's socket.
pub(super) fn poll_drain(req: &mut Request, pipe: &mut Pipe, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
    while !pipe.is_empty() {
        let Some(to) = req.conn.io.plain() else { return Poll::Ready(Err(Gone)) };
        match to.try_io(Interest::WRITABLE, || pipe.drain(to.as_fd())) {
            Ok(n) => req.spliced(n),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                if to.poll_write_ready(cx).is_pending() {
                    return req.poll_send_timeout(cx).map(Err);
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => {
                req.log(Level::Info, Some(&e), format_args!("splice() failed"));
                return Poll::Ready(Err(Gone));
            }
        }
    }
    Poll::Ready(Ok(()))
}
