//! One direction of a [`super::pump::Pump`]: what came and is not gone yet, and the ways it goes.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};

use tokio::io::Interest;

use super::pump::{Limits, Side};
use super::session::Session;
use crate::log::Level;
use crate::net::moderation::Moderation;
use crate::net::socket::Taken;
use crate::net::splice::{self, Pipe};
use crate::net::{Buffer, Deadline, Io, Socket, clock, turn};
use crate::upstream::Pick;

/// Bytes moved without a pause after which a direction goes through a pipe.
const BULK: usize = 64 << 10;

thread_local! {
    /// Where a message stands between its read and its write.
    static MESSAGE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One direction.
pub(super) struct Direction {
    from: Side,
    pub(super) buffer: Buffer,
    pipe: Option<Pipe>,
    /// Once it is long, how its events are moderated.
    moderation: Option<Box<Moderation>>,
    /// Bytes moved since the last pause.
    run: usize,
    /// Bytes came or went since the deadline was set.
    pub(super) moved: bool,
    /// The source has ended.
    pub(super) eof: bool,
    /// TLS holds bytes back.
    unflushed: bool,
    rate: usize,
    /// Until when the rate forbids to read.
    delay: Option<Deadline>,
    pub(super) delayed: bool,
}

impl Direction {
    pub(super) fn new(from: Side, rate: usize) -> Direction {
        Direction {
            from,
            buffer: Buffer::default(),
            pipe: None,
            moderation: None,
            run: 0,
            moved: false,
            eof: false,
            unflushed: false,
            rate,
            delay: (rate > 0).then(Deadline::never),
            delayed: false,
        }
    }

    /// Whether bytes wait to be sent.
    pub(super) fn pending(&self) -> bool {
        !self.buffer.is_empty() || self.unflushed || self.pipe.as_ref().is_some_and(|pipe| !pipe.is_empty())
    }

    /// Whether nothing is left of what came, nothing limits it, and it is nothing long so far.
    fn is_fresh(&self) -> bool {
        let long = self.run > 0 || self.pipe.is_some() || self.moderation.is_some();
        !long && self.delay.is_none() && !self.eof && !self.pending()
    }

    /// Bytes went the other way.
    pub(super) fn answered(&mut self) {
        if let Some(moderation) = &mut self.moderation {
            moderation.answered();
        }
    }

    /// Whether there is something to do but wait for input.
    pub(super) fn is_due(&self) -> bool {
        self.pending()
            || self.delayed
            || self.moderation.as_ref().is_some_and(|moderation| moderation.is_late())
    }

    /// Nothing more to read now: gives the memory back. Less than a buffer since the task was woken is a message;
    /// more is a part of something long.
    pub(super) fn pause(&mut self, moved: usize, buffer: usize) {
        if moved < buffer && !self.moderation.as_ref().is_some_and(|moderation| moderation.goes_on()) {
            self.run = 0;
        }
        if self.buffer.capacity() > 0 {
            self.buffer.release();
        }
        self.pipe = None;
    }
}

/// How the short way went.
pub(super) enum Message {
    /// Nothing came.
    None,
    /// What came is gone, and the task will be woken by the next.
    Passed,
    /// As many bytes came, the last or none of which are not gone yet, or there may be more, or something is wrong.
    Rest(usize),
}

/// One direction and what it needs.
pub(super) struct Step<'a> {
    pub(super) session: &'a Session,
    pub(super) pick: &'a mut Pick,
    pub(super) from: &'a Io,
    pub(super) to: &'a Io,
    pub(super) limits: &'a Limits,
    pub(super) direction: &'a mut Direction,
}

impl Step<'_> {
    /// Whether the next to come may be passed on as a message.
    pub(super) fn is_short(&self) -> bool {
        let plain = matches!((self.from, self.to), (Io::Plain(_), Io::Plain(_)));
        plain && self.direction.is_fresh()
    }

    /// The short way, of what goes by in one read and one write as most messages do. What it leaves is for the long
    /// way to go on with.
    #[inline(always)]
    pub(super) fn message(&mut self, cx: &mut Context<'_>) -> io::Result<Message> {
        let (Io::Plain(from), Io::Plain(to)) = (self.from, self.to) else { return Ok(Message::Rest(0)) };
        if from.is_waiting(cx) {
            return Ok(Message::None);
        }
        MESSAGE.with_borrow_mut(|room| {
            let size = self.limits.buffer.min(BULK);
            if room.len() < size {
                room.resize(size, 0);
            }
            let room = &mut room[..size];
            let Taken { len, waits } = match from.poll_take(cx, room) {
                Poll::Ready(Ok(taken)) if taken.len > 0 => taken,
                Poll::Ready(end) => {
                    self.received(end.map(|_| 0));
                    return Ok(Message::Rest(0));
                }
                Poll::Pending => return Ok(Message::None),
            };
            self.count_received(len);
            let sent = match to.poll_write(cx, &room[..len]) {
                Poll::Ready(sent) => sent.inspect_err(|reason| self.send_failed(reason))?,
                Poll::Pending => 0,
            };
            self.count_sent(sent);
            if waits && sent == len {
                return Ok(Message::Passed);
            }
            self.direction.run = len;
            self.direction.moved = true;
            self.direction.buffer = Buffer::from(&room[sent..len]);
            Ok(Message::Rest(len))
        })
    }

    /// Whether there is nothing to do until the task is woken by input.
    pub(super) fn is_idle(&self, cx: &Context<'_>) -> bool {
        self.from.plain().is_some_and(|from| from.is_waiting(cx)) && !self.direction.is_due()
    }

    /// Moves what can be moved, when `moved` bytes are gone already. An error is one of sending.
    pub(super) fn advance(
        &mut self,
        mut moved: usize,
        other: &mut Direction,
        cx: &mut Context<'_>,
    ) -> io::Result<()> {
        loop {
            if self.send(cx)?.is_pending() || self.direction.eof {
                return Ok(());
            }
            if moved >= turn::BYTES {
                turn::over(cx);
                return Ok(());
            }
            match self.receive(cx) {
                Poll::Ready(n) => {
                    moved += n;
                    other.answered();
                }
                Poll::Pending => {
                    self.direction.pause(moved, self.limits.buffer);
                    return Ok(());
                }
            }
        }
    }

    /// Sends what waits to be sent.
    pub(super) fn send(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
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
                Poll::Ready(Ok(n)) => {
                    self.count_sent(n);
                    self.note_moved(n);
                }
                Poll::Ready(Err(reason)) => {
                    self.send_failed(&reason);
                    return Err(reason);
                }
            }
        }
    }

    /// Receives what there is room for, and returns how much that is; an end is nothing.
    pub(super) fn receive(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        let limit = ready!(self.poll_rate(cx));
        let received = match (self.from, self.to) {
            (Io::Plain(from), Io::Plain(to)) if self.is_bulk() => match self.splice(from, to, cx) {
                Some(received) => ready!(received),
                None => ready!(self.copy(limit, cx)),
            },
            _ => ready!(self.copy(limit, cx)),
        };
        Poll::Ready(self.received(received))
    }

    /// Takes note of what was received, and returns how much that is; an end is nothing.
    fn received(&mut self, received: io::Result<usize>) -> usize {
        let n = received.unwrap_or_else(|reason| {
            self.receive_failed(&reason);
            0
        });
        self.direction.eof = n == 0;
        self.direction.run = self.direction.run.saturating_add(n);
        self.count_received(n);
        self.note_moved(n);
        if let Some(delay) = &self.direction.delay {
            let pause = (n * 1000 / self.direction.rate.max(1)) as u64;
            if pause > 0 {
                delay.set(pause);
                self.direction.delayed = true;
            }
        }
        n
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
    fn splice(
        &mut self,
        from: &Socket,
        to: &Socket,
        cx: &mut Context<'_>,
    ) -> Option<Poll<io::Result<usize>>> {
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
        let most = splice::portion(to);
        let filled = match waits {
            // Less than is waited for: the system does not call it readable.
            true => now(full.fill(from.as_fd(), most)),
            false => from.poll_io(Interest::READABLE, cx, || full.fill(from.as_fd(), most)),
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

    /// Bytes came or went: the session is not idle.
    fn note_moved(&mut self, n: usize) {
        if n > 0 {
            self.direction.moved = true;
        }
    }

    fn count_received(&mut self, n: usize) {
        match self.direction.from {
            Side::Client => self.session.count_received(n),
            Side::Upstream => {
                let upstream = &self.session.upstream;
                if upstream.received.get() == 0 {
                    let time = clock::now() - upstream.start.get();
                    upstream.attempt(|attempt| {
                        attempt.header_time.get_or_insert(time);
                    });
                    upstream.current(|attempt| self.pick.first_byte(attempt, clock::now()));
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
