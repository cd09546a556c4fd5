//! The pump between client and upstream: both directions in one task, buffers taken when bytes arrive and given back
//! when they are gone, long transfers moved inside the kernel.

use std::io;
use std::net::Shutdown;
use std::task::{Context, Poll, ready};

use super::direction::{Direction, Message, Step};
use super::serve::Watch;
use super::session::Session;
use crate::net::{Buffer, Io};

/// Bytes a session moves before it lets others go on.
const TURN: usize = 1 << 20;

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

/// A pump at work.
pub struct Pump<'a> {
    session: &'a Session,
    first_byte: &'a dyn Fn(),
    client: &'a Io,
    upstream: &'a Io,
    limits: Limits,
    up: Direction,
    down: Direction,
    half_closed: bool,
    armed: bool,
    watch: Watch,
}

impl<'a> Pump<'a> {
    /// A pump that sends `first` to the upstream before what the client sends, and calls `first_byte` when the
    /// upstream sends something.
    pub fn new(
        session: &'a Session,
        client: &'a Io,
        upstream: &'a Io,
        first: Buffer,
        limits: Limits,
        first_byte: &'a dyn Fn(),
    ) -> Self {
        let mut up = Direction::new(Side::Client, limits.upload_rate);
        up.buffer = first;
        let down = Direction::new(Side::Upstream, limits.download_rate);
        let watch = Watch::default();
        Pump {
            session,
            first_byte,
            client,
            upstream,
            limits,
            up,
            down,
            half_closed: false,
            armed: false,
            watch,
        }
    }

    /// Pumps to the end.
    pub async fn run(mut self) -> End {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if self.watch.closing(cx.waker()) {
            return Poll::Ready(End::Shutdown);
        }
        for side in [Side::Client, Side::Upstream] {
            if self.is_idle(side, cx) {
                continue;
            }
            if self.advance(side, cx).is_err() {
                return Poll::Ready(End::Broken);
            }
            self.session.action.set(Some("proxying connection"));
            if self.is_over() {
                return Poll::Ready(End::Closed(side));
            }
            if self.limits.half_close && !self.half_closed {
                ready!(self.shut(side, cx));
            }
        }
        if self.up.delayed || self.down.delayed {
            self.session.deadline.clear();
            self.armed = false;
        } else if self.up.moved.take() | self.down.moved.take() | !self.armed {
            self.session.deadline.renew(self.limits.timeout, cx);
            self.armed = true;
            return Poll::Pending;
        }
        self.session.deadline.poll_expired(cx).map(|()| End::TimedOut)
    }

    /// Whether there is nothing to do for what `side` sends until the task is woken for it.
    fn is_idle(&self, side: Side, cx: &Context<'_>) -> bool {
        let (direction, from) = match side {
            Side::Client => (&self.up, self.client),
            Side::Upstream => (&self.down, self.upstream),
        };
        from.plain().is_some_and(|from| from.is_waiting(cx)) && !direction.is_due()
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
    fn shut(&mut self, side: Side, cx: &mut Context<'_>) -> Poll<()> {
        let (direction, to) = match side {
            Side::Client => (&self.up, self.upstream),
            Side::Upstream => (&self.down, self.client),
        };
        if !direction.eof || direction.pending() {
            return Poll::Ready(());
        }
        self.half_closed = true;
        match to {
            // Failing, it is closed already, which reading will tell.
            Io::Plain(socket) => drop(socket.shutdown(Shutdown::Write)),
            Io::Tls(_) => drop(to.poll_shutdown(cx)),
        }
        Poll::Ready(())
    }

    /// Moves what can be moved of what `side` sends. An error is one of sending.
    fn advance(&mut self, side: Side, cx: &mut Context<'_>) -> io::Result<()> {
        let Pump { session, first_byte, client, upstream, limits, .. } = self;
        let (direction, other, from, to) = match side {
            Side::Client => (&mut self.up, &mut self.down, &**client, &**upstream),
            Side::Upstream => (&mut self.down, &mut self.up, &**upstream, &**client),
        };
        let mut step = Step { session, first_byte: *first_byte, from, to, limits, direction };
        let Message { len: mut moved, waits } = step.message(cx)?;
        if moved > 0 {
            other.answered();
        }
        if waits {
            return Ok(());
        }
        loop {
            if step.send(cx)?.is_pending() {
                return Ok(());
            }
            if step.direction.eof {
                return Ok(());
            }
            if moved >= TURN {
                cx.waker().wake_by_ref();
                return Ok(());
            }
            match step.receive(cx) {
                Poll::Ready(n) => {
                    moved += n;
                    other.answered();
                }
                Poll::Pending => {
                    step.direction.pause(moved, step.limits.buffer);
                    return Ok(());
                }
            }
        }
    }
}
