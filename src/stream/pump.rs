//! The pump between client and upstream: both directions in one task, buffers taken when bytes arrive and given back
//! when they are gone, long transfers moved inside the kernel.

use std::io;
use std::mem::{offset_of, take};
use std::net::Shutdown;
use std::task::{Context, Poll, Waker};

use super::direction::{Direction, Message, Step};
use super::module::OK;
use super::serve::Watch;
use super::session::Session;
use crate::log::Level;
use crate::net::{Buffer, Io};
use crate::upstream::{self, Pick};

/// Settings of a pump.
pub struct Limits {
    /// Milliseconds without a read or write after which the session ends.
    pub timeout: u64,
    /// Bytes of a buffer.
    pub buffer: usize,
    /// Bytes a second from the client; 0 is no limit.
    pub upload_rate: usize,
    /// Bytes a second from the upstream; 0 is no limit.
    pub download_rate: usize,
    /// Tell one side that the other has ended, and go on.
    pub half_close: bool,
    /// The second in which proxying began: rates count from it.
    pub start: i64,
}

/// Where bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// The upstream.
    Upstream,
}

/// Why a pump ended. What went wrong is in the log.
#[derive(Debug)]
pub enum End {
    /// A side has ended, and all that it sent is gone.
    Closed(Side),
    /// Nothing happened for too long.
    TimedOut,
    /// Bytes could not be sent.
    Broken,
    /// The worker shuts down and its time is over.
    Shutdown,
}

/// A pump at work. What each event has to look at comes first.
#[repr(C)]
pub struct Pump {
    watch: Watch,
    limits: Limits,
    /// By side: what it sends comes as messages, of which nothing is left here. Neither is TLS then.
    short: [bool; 2],
    half_closed: bool,
    armed: bool,
    upstream: Io,
    up: Direction,
    down: Direction,
    pick: Pick,
}

// Two cache lines hold what an event looks at.
const _: () = assert!(offset_of!(Pump, up) <= 128);

impl Pump {
    /// A pump that sends `first` to the upstream that was picked before what the client sends.
    pub fn new(upstream: Io, pick: Pick, first: Buffer, limits: Limits) -> Self {
        let mut up = Direction::new(Side::Client, limits.upload_rate);
        up.buffer = first;
        let down = Direction::new(Side::Upstream, limits.download_rate);
        let watch = Watch::default();
        let short = [false; 2];
        Pump { watch, limits, short, half_closed: false, armed: false, upstream, up, down, pick }
    }

    /// Moves what can be moved between the session's client and the upstream. Ready when they are done.
    pub fn poll(&mut self, s: &Session, cx: &mut Context<'_>) -> Poll<End> {
        let Some(client) = &s.io else { return Poll::Ready(End::Broken) };
        if self.watch.closing(cx.waker()) {
            return Poll::Ready(End::Shutdown);
        }
        let mut moved = false;
        for side in [Side::Client, Side::Upstream] {
            let passed = match self.short[side as usize] {
                true => self.pass_message(side, s, client, cx),
                false => Ok(Message::Rest(0)),
            };
            match passed {
                Ok(Message::None) => {}
                Ok(Message::Passed) => moved = true,
                Ok(Message::Rest(rest)) => {
                    if let Some(end) = self.go_on(side, rest, s, client, cx) {
                        return Poll::Ready(end);
                    }
                }
                Err(_reason) => return Poll::Ready(End::Broken),
            }
        }
        if self.short != [true; 2] {
            moved |= take(&mut self.up.moved) | take(&mut self.down.moved);
            if self.up.delayed || self.down.delayed {
                s.deadline.clear();
                self.armed = false;
                return Poll::Pending;
            }
        }
        if moved || !self.armed {
            s.deadline.renew(self.limits.timeout, cx);
            self.armed = true;
            return Poll::Pending;
        }
        s.deadline.poll_expired(cx).map(|()| End::TimedOut)
    }

    /// Tells of the end, gives the peer back, and returns the session's status.
    pub fn finish(mut self: Box<Self>, s: &Session, end: End) -> u16 {
        match end {
            End::Closed(side) => {
                let who = if side == Side::Client { "client" } else { "upstream" };
                s.note(format_args!("{who} disconnected{}", s.byte_counts()));
            }
            End::TimedOut => {
                let reason = io::Error::from_raw_os_error(libc::ETIMEDOUT);
                s.connection_error(Level::Info, &reason, "connection timed out");
            }
            End::Shutdown => s.error(Level::Info, format_args!("shutdown timeout")),
            End::Broken => {}
        }
        if self.upstream.is_tls() {
            // close_notify, where there is room for it; nobody waits for an answer.
            let _ = self.upstream.poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
        s.release(&mut self.pick, upstream::End::Done);
        OK
    }

    /// What `side` sends, where that is messages.
    fn pass_message(
        &mut self,
        side: Side,
        s: &Session,
        client: &Io,
        cx: &mut Context<'_>,
    ) -> io::Result<Message> {
        let both_short = self.short == [true; 2];
        let (mut step, other) = self.step(side, s, client);
        let message = step.message(cx)?;
        if !both_short && !matches!(message, Message::None) {
            other.answered();
        }
        Ok(message)
    }

    /// The long way, of which the first `moved` bytes that `side` sent are gone.
    #[inline(never)]
    fn go_on(
        &mut self,
        side: Side,
        moved: usize,
        s: &Session,
        client: &Io,
        cx: &mut Context<'_>,
    ) -> Option<End> {
        let (mut step, other) = self.step(side, s, client);
        if moved == 0 && step.is_idle(cx) {
            return None;
        }
        if step.advance(moved, other, cx).is_err() {
            return Some(End::Broken);
        }
        self.short[side as usize] = step.is_short();
        s.action.set(Some("proxying connection"));
        if self.is_over() {
            return Some(End::Closed(side));
        }
        if self.limits.half_close && !self.half_closed {
            self.shut(side, client, cx);
        }
        None
    }

    /// One direction with all that it needs, and the other.
    #[inline(always)]
    fn step<'a>(&'a mut self, from: Side, s: &'a Session, client: &'a Io) -> (Step<'a>, &'a mut Direction) {
        let Pump { upstream, limits, up, down, pick, .. } = self;
        let (direction, other, from, to) = match from {
            Side::Client => (up, down, client, &*upstream),
            Side::Upstream => (down, up, &*upstream, client),
        };
        (Step { session: s, pick, from, to, limits, direction }, other)
    }

    /// What nginx asks after each event: with `half_close`, both sides have ended and all is sent; else one has, and
    /// nothing is left of what it sent.
    fn is_over(&self) -> bool {
        let (up, down) = (&self.up, &self.down);
        let half_close = self.limits.half_close;
        match (up.eof, down.eof) {
            (false, false) => false,
            (true, true) => !half_close || !up.pending() && !down.pending(),
            (true, false) => !half_close && !up.pending(),
            (false, true) => !half_close && !down.pending(),
        }
    }

    /// Passes the end of `side` on to the other, once all it sent is there.
    fn shut(&mut self, side: Side, client: &Io, cx: &mut Context<'_>) {
        let (direction, to) = match side {
            Side::Client => (&self.up, &self.upstream),
            Side::Upstream => (&self.down, client),
        };
        if !direction.eof || direction.pending() {
            return;
        }
        self.half_closed = true;
        match to {
            // Failing, it is closed already, which reading will tell.
            Io::Plain(socket) => drop(socket.shutdown(Shutdown::Write)),
            Io::Tls(_) => drop(to.poll_shutdown(cx)),
        }
    }
}
