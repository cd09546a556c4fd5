//! Sending the request while already listening: up to the response's complete head.

use std::io;
use std::task::{Context, Poll};

use super::exchange::{Exchange, Fail};
use super::{Fault, HeadStep, Protocol, ResponseFraming};
use crate::http::modules::early_hints;
use crate::http::request::Request;
use crate::log::Level;
use crate::net::Buffer;
use crate::tls;

/// Bytes read at a time, where a head may not be larger.
const READ: usize = 16 << 10;

/// What the timer waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clock {
    Off,
    Send,
    Read,
}

impl<P: Protocol> Exchange<P> {
    /// Sends the request and reads the head of its response.
    pub(super) async fn converse(&mut self, req: &mut Request) -> Result<(), Fail> {
        req.action.set("sending request to upstream");
        let mut clock = Clock::Off;
        let mut sent = false;
        let done = std::future::poll_fn(|cx| self.poll_converse(req, cx, &mut sent, &mut clock)).await;
        self.deadline.clear();
        done?;
        let elapsed = self.elapsed();
        if let Some(state) = req.upstream_states.last_mut() {
            state.header_time = Some(elapsed);
            if state.status == 0 {
                state.status = self.head.status;
            }
        }
        if !sent {
            // Whatever is left of the request is never sent.
            self.head.close = true;
        }
        Ok(())
    }

    fn poll_converse(
        &mut self,
        req: &mut Request,
        cx: &mut Context<'_>,
        sent: &mut bool,
        clock: &mut Clock,
    ) -> Poll<Result<(), Fail>> {
        let Some(link) = &mut self.link else { return Poll::Ready(Err(Fail::Status(500))) };
        if !*sent {
            let before = link.sent;
            match self.sending.poll(req, link, &self.request, cx) {
                Poll::Ready(Ok(())) => {
                    *sent = true;
                    *clock = Clock::Read;
                    self.deadline.set(*self.settings.read_timeout);
                }
                Poll::Ready(Err(fail)) => return Poll::Ready(Err(fail)),
                Poll::Pending if self.sending.starved => {
                    *clock = Clock::Off;
                    self.deadline.clear();
                }
                Poll::Pending if link.sent != before || *clock != Clock::Send => {
                    *clock = Clock::Send;
                    self.deadline.set(*self.settings.send_timeout);
                }
                Poll::Pending => {}
            }
        }
        match self.poll_head(req, cx) {
            Poll::Pending => {}
            done => return done,
        }
        if req.held() > 0
            && let Poll::Ready(Err(_)) = req.poll_flush_out(cx)
        {
            // What is left of early hints.
            return Poll::Ready(Err(Fail::Gone));
        }
        if !self.sending.streamed || *sent {
            // While the body comes from the client, reading it tells.
            if self.watch.poll_gone(req, cx, true).is_ready() {
                return Poll::Ready(Err(Fail::Gone));
            }
        }
        if *clock != Clock::Off && self.deadline.poll_expired(cx).is_ready() {
            if *clock == Clock::Read {
                req.action.set("reading response header from upstream");
            }
            return Poll::Ready(Err(Fail::Next(Fault::Timeout)));
        }
        Poll::Pending
    }

    fn poll_head(&mut self, req: &mut Request, cx: &mut Context<'_>) -> Poll<Result<(), Fail>> {
        let most = *self.settings.buffer_size;
        loop {
            let Some(link) = &self.link else { return Poll::Ready(Err(Fail::Status(500))) };
            // Nothing is held while nothing has come: a waiting request owns no buffer.
            if self.input.capacity() == 0 && matches!(link.io().poll_worth_reading(cx), Poll::Pending) {
                return Poll::Pending;
            }
            let mut room = match self.input.capacity() {
                0 => Buffer::with_capacity(most.max(READ)),
                _ => std::mem::take(&mut self.input),
            };
            let read = link.io().poll_read(cx, room.spare());
            let n = match read {
                Poll::Pending => {
                    if !room.is_empty() {
                        self.input = room;
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Ok(n)) => n,
                Poll::Ready(Err(e)) => {
                    req.action.set("reading response header from upstream");
                    log_io(req, &e, "recv()", "SSL_read()");
                    return Poll::Ready(Err(Fail::Next(Fault::Error)));
                }
            };
            req.action.set("reading response header from upstream");
            if n == 0 {
                req.log(Level::Error, None, format_args!("upstream prematurely closed connection"));
                return Poll::Ready(Err(Fail::Next(Fault::Error)));
            }
            room.filled(n);
            self.input = room;
            if let Some(state) = req.upstream_states.last_mut() {
                state.bytes_received += n as u64;
            }
            match self.parse(req, cx, most) {
                Ok(true) => return Poll::Ready(Ok(())),
                Ok(false) => {}
                Err(fail) => return Poll::Ready(Err(fail)),
            }
        }
    }

    /// Looks at what came; true once the head is complete.
    fn parse(&mut self, req: &mut Request, cx: &mut Context<'_>, most: usize) -> Result<bool, Fail> {
        loop {
            let bytes = self.input.bytes_mut();
            let have = bytes.len();
            // A head must fit the buffer that the settings give it, whatever was read beyond.
            let seen = &mut bytes[..have.min(most)];
            match self.protocol.parse_head(req, seen, &mut self.head).map_err(Fail::Next)? {
                HeadStep::Done => return Ok(true),
                HeadStep::More if have >= most => {
                    req.log(Level::Error, None, format_args!("upstream sent too big header"));
                    return Err(Fail::Next(Fault::InvalidHeader));
                }
                HeadStep::More => return Ok(false),
                HeadStep::Skip => {
                    self.input.consume(self.head.size);
                    self.input.compact();
                    self.head.clear();
                    if self.input.is_empty() {
                        return Ok(false);
                    }
                }
                HeadStep::Interim => {
                    let size = self.head.size;
                    self.hints += size;
                    if self.head.status == 103 {
                        self.pass_hints(req, cx, most)?;
                    }
                    self.input.consume(size);
                    self.input.compact();
                    self.head.clear();
                    self.protocol.response_mut().reset();
                    if self.input.is_empty() {
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// Passes early hints on, where the location wants them and they are not too long.
    #[cold]
    #[inline(never)]
    fn pass_hints(&mut self, req: &mut Request, cx: &mut Context<'_>, most: usize) -> Result<(), Fail> {
        if let Some(state) = req.upstream_states.last_mut()
            && state.status == 0
        {
            state.status = self.head.status;
        }
        if self.hints > most {
            req.log(Level::Info, None, format_args!("upstream sent too big early hints"));
            return Ok(());
        }
        if !early_hints::wanted(req) {
            return Ok(());
        }
        let (buffer, hidden) = (self.input.bytes(), &**self.settings.hidden);
        let shown = self.head.fields.iter().filter(|f| !hidden.has(f, buffer));
        match early_hints::poll_send(req, cx, shown.map(|f| (f.name(buffer), f.value(buffer)))) {
            Poll::Ready(Err(_)) => Err(Fail::Gone),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }
}

/// A failed read or write on an upstream's connection; the calls are named as nginx's.
#[cold]
#[inline(never)]
pub fn log_io(req: &Request, e: &io::Error, plain: &str, tls: &str) {
    match e.raw_os_error() {
        Some(_) => req.log(Level::Error, Some(e), format_args!("{plain} failed")),
        None => {
            let (text, level) = tls::io_failure(tls, e, tls::Peer::Upstream);
            req.log(level.into(), None, format_args!("{text}"));
        }
    }
}
