//! The pump between client and upstream: both directions in one task, buffers taken when bytes arrive and given back
//! when they are gone, long transfers moved inside the kernel.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};

use tokio::io::Interest;

use super::serve::Watch;
use super::session::Session;
use crate::log::Level;
use crate::net::moderation::Moderation;
use crate::net::splice::Pipe;
use crate::net::{Buffer, Deadline, Io, Socket, clock};

/// Bytes moved without a pause after which a direction goes through a pipe.
const BULK: usize = 64 << 10;
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

/// One direction.
struct Direction {
    from: Side,
    buffer: Buffer,
    pipe: Option<Pipe>,
    /// Once it is long, how its events are moderated.
    moderation: Option<Box<Moderation>>,
    /// Bytes moved since the last pause.
    run: usize,
    /// The source has ended.
    eof: bool,
    /// TLS holds bytes back.
    unflushed: bool,
    rate: usize,
    /// Until when the rate forbids to read.
    delay: Option<Deadline>,
    delayed: bool,
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
        let before = self.moved();
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
        } else if !self.armed || self.moved() != before {
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

    fn moved(&self) -> u64 {
        let s = self.session;
        s.received.get() + s.sent.get() + s.upstream.received.get() + s.upstream.sent.get()
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
        let mut moved = 0;
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
                    if let Some(moderation) = &mut other.moderation {
                        moderation.answered();
                    }
                }
                Poll::Pending => {
                    step.direction.pause(moved, step.limits.buffer);
                    return Ok(());
                }
            }
        }
    }
}

impl Direction {
    fn new(from: Side, rate: usize) -> Direction {
        Direction {
            from,
            buffer: Buffer::default(),
            pipe: None,
            moderation: None,
            run: 0,
            eof: false,
            unflushed: false,
            rate,
            delay: (rate > 0).then(Deadline::never),
            delayed: false,
        }
    }

    /// Whether bytes wait to be sent.
    fn pending(&self) -> bool {
        !self.buffer.is_empty() || self.unflushed || self.pipe.as_ref().is_some_and(|pipe| !pipe.is_empty())
    }

    /// Whether there is something to do but wait for input.
    fn is_due(&self) -> bool {
        self.pending()
            || self.delayed
            || self.moderation.as_ref().is_some_and(|moderation| moderation.is_late())
    }

    /// Nothing more to read now: gives the memory back. Less than a buffer since the task was woken is a message;
    /// more is a part of something long.
    fn pause(&mut self, moved: usize, buffer: usize) {
        if moved < buffer && !self.moderation.as_ref().is_some_and(|moderation| moderation.goes_on()) {
            self.run = 0;
        }
        if self.buffer.capacity() > 0 {
            self.buffer.release();
        }
        self.pipe = None;
    }
}

/// One direction and what it needs.
struct Step<'a> {
    session: &'a Session,
    first_byte: &'a dyn Fn(),
    from: &'a Io,
    to: &'a Io,
    limits: &'a Limits,
    direction: &'a mut Direction,
}

impl Step<'_> {
    /// Sends what waits to be sent.
    fn send(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        loop {
            let sent = match (&mut self.direction.pipe, self.to) {
                (Some(pipe), Io::Plain(to)) if !pipe.is_empty() => {
                    to.poll_io(Interest::WRITABLE, cx, || pipe.drain(to.as_fd()))
                }
                _ if !self.direction.buffer.is_empty() => {
                    let sent = self.to.poll_write(cx, self.direction.buffer.bytes());
                    sent.map_ok(|n| {
                        self.direction.unflushed = self.to.is_tls();
                        self.direction.buffer.consume(n);
                        n
                    })
                }
                _ if self.direction.unflushed => self.to.poll_flush(cx).map_ok(|()| {
                    self.direction.unflushed = false;
                    0
                }),
                _ => return Ok(Poll::Ready(())),
            };
            match sent {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Ok(n)) => self.count_sent(n),
                Poll::Ready(Err(reason)) => {
                    self.send_failed(&reason);
                    return Err(reason);
                }
            }
        }
    }

    /// Receives what there is room for, and returns how much that is; an end is nothing.
    fn receive(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        let limit = ready!(self.poll_rate(cx));
        let received = match (self.from, self.to) {
            (Io::Plain(from), Io::Plain(_)) if self.is_bulk() => match self.splice(from, cx) {
                Some(received) => ready!(received),
                None => ready!(self.copy(limit, cx)),
            },
            _ => ready!(self.copy(limit, cx)),
        };
        let n = received.unwrap_or_else(|reason| {
            self.receive_failed(&reason);
            0
        });
        self.direction.eof = n == 0;
        self.direction.run = self.direction.run.saturating_add(n);
        self.count_received(n);
        if let Some(delay) = &self.direction.delay {
            let pause = (n * 1000 / self.direction.rate.max(1)) as u64;
            if pause > 0 {
                delay.set(pause);
                self.direction.delayed = true;
            }
        }
        Poll::Ready(n)
    }

    fn is_bulk(&self) -> bool {
        self.direction.run >= BULK && self.direction.rate == 0
    }

    fn copy(&mut self, limit: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Io::Plain(from) = self.from
            && !from.is_readable()
        {
            ready!(from.poll_read_ready(cx))?;
        }
        let buffer = &mut self.direction.buffer;
        if buffer.capacity() < self.limits.buffer {
            *buffer = Buffer::with_capacity(self.limits.buffer);
        }
        let room = buffer.spare();
        let size = room.len().min(limit);
        let n = ready!(self.from.poll_read(cx, &mut room[..size]))?;
        buffer.filled(n);
        Poll::Ready(Ok(n))
    }

    /// None where there is no pipe to be had.
    fn splice(&mut self, from: &Socket, cx: &mut Context<'_>) -> Option<Poll<io::Result<usize>>> {
        let Direction { buffer, pipe, moderation, run, .. } = &mut *self.direction;
        let moderation = moderation.get_or_insert_default();
        let waits = from.poll_read_ready(cx).is_pending();
        if waits && !moderation.is_late() {
            return Some(Poll::Pending);
        }
        if pipe.is_none() {
            buffer.release();
            *pipe = Pipe::take();
        }
        let Some(full) = pipe else {
            moderation.end(from);
            return None;
        };
        let filled = match waits {
            // Less than is waited for: the system does not call it readable.
            true => now(full.fill(from.as_fd())),
            false => from.poll_io(Interest::READABLE, cx, || full.fill(from.as_fd())),
        };
        match &filled {
            Poll::Ready(Ok(n)) => moderation.came(*n),
            Poll::Ready(Err(reason)) if reason.raw_os_error() == Some(libc::EINVAL) => {
                // A socket that cannot be spliced from.
                *pipe = None;
                *run = 0;
                moderation.end(from);
                return None;
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending if !waits => moderation.waits(from, cx),
            Poll::Pending => {}
        }
        if waits {
            moderation.end(from);
        }
        Some(filled)
    }

    /// Bytes the rate lets pass now.
    fn poll_rate(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        let rate = self.direction.rate as i64;
        let Some(delay) = &self.direction.delay else { return Poll::Ready(usize::MAX) };
        loop {
            if self.direction.delayed {
                ready!(delay.poll_expired(cx));
                self.direction.delayed = false;
            }
            let received = match self.direction.from {
                Side::Client => self.session.received.get(),
                Side::Upstream => self.session.upstream.received.get(),
            };
            let seconds = clock::wall().sec - self.limits.start + 1;
            let left = rate.saturating_mul(seconds) - received as i64;
            if left > 0 {
                return Poll::Ready(left as usize);
            }
            delay.set((-left * 1000 / rate + 1) as u64);
            self.direction.delayed = true;
        }
    }

    fn count_received(&self, n: usize) {
        match self.direction.from {
            Side::Client => self.session.count_received(n),
            Side::Upstream => {
                let upstream = &self.session.upstream;
                if upstream.received.get() == 0 {
                    let time = clock::now() - upstream.start.get();
                    upstream.attempt(|attempt| {
                        attempt.header_time.get_or_insert(time);
                    });
                    (self.first_byte)();
                }
                upstream.received.set(upstream.received.get() + n as u64);
            }
        }
    }

    fn count_sent(&self, n: usize) {
        match self.direction.from {
            Side::Client => self.session.upstream.sent.set(self.session.upstream.sent.get() + n as u64),
            Side::Upstream => self.session.count_sent(n),
        }
    }

    fn receive_failed(&self, reason: &io::Error) {
        let (action, peer) = match self.direction.from {
            Side::Client => ("proxying and reading from client", crate::tls::Peer::Client),
            Side::Upstream => ("proxying and reading from upstream", crate::tls::Peer::Upstream),
        };
        self.failed(action, peer, self.from, ["recv() failed", "SSL_read()"], reason);
    }

    fn send_failed(&self, reason: &io::Error) {
        let (action, peer) = match self.direction.from {
            Side::Client => ("proxying and sending to upstream", crate::tls::Peer::Upstream),
            Side::Upstream => ("proxying and sending to client", crate::tls::Peer::Client),
        };
        self.failed(action, peer, self.to, ["writev() failed", "SSL_write()"], reason);
    }

    fn failed(
        &self,
        action: &'static str,
        peer: crate::tls::Peer,
        io: &Io,
        [plain, tls]: [&str; 2],
        reason: &io::Error,
    ) {
        self.session.action.set(Some(action));
        if io.is_tls() {
            let (words, level) = crate::tls::io_failure(tls, reason, peer);
            return self.session.error(level.into(), format_args!("{words}"));
        }
        let quiet = match peer {
            crate::tls::Peer::Client => Level::Info,
            crate::tls::Peer::Upstream => Level::Error,
        };
        self.session.connection_error(quiet, reason, plain);
    }
}

/// What a call that does not block has to say now.
fn now(done: io::Result<usize>) -> Poll<io::Result<usize>> {
    match done {
        Err(reason) if reason.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        done => Poll::Ready(done),
    }
}
