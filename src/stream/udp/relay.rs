//! Datagrams between client and upstream, one for one.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Client;
use crate::log::Level;
use crate::net::{Deadline, clock, datagram, fd};
use crate::stream::module::{BAD_GATEWAY, OK};
use crate::stream::session::Session;

/// Settings of a relay.
pub struct Limits {
    /// Milliseconds without a datagram after which the session ends.
    pub timeout: u64,
    /// Bytes of a buffer: what is longer is cut.
    pub buffer: usize,
    /// Bytes a second from the client; 0 is no limit.
    pub upload_rate: usize,
    /// Bytes a second from the upstream; 0 is no limit.
    pub download_rate: usize,
    /// Datagrams of the client that make a session; 0 is no limit.
    pub requests: usize,
    /// Answers to each; none where their number is not known.
    pub responses: Option<usize>,
    /// The second in which proxying began: rates count from it.
    pub start: i64,
}

/// A connected socket of datagrams.
pub struct Upstream(AsyncFd<Arc<OwnedFd>>);

impl AsFd for Upstream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

impl Upstream {
    /// Watches a socket that is connected and does not block.
    pub fn new(socket: socket2::Socket) -> io::Result<Upstream> {
        fd::watch(Arc::new(socket.into())).map(Upstream)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match socket2::SockRef::from(self.0.get_ref()).send(bytes) {
            // No room: a datagram may be lost.
            Err(reason) if reason.kind() == io::ErrorKind::WouldBlock => Ok(0),
            sent => sent,
        }
    }

    fn poll_receive(&self, cx: &mut Context<'_>, buffer: &mut [u8], broken: bool) -> Poll<io::Result<usize>> {
        if broken {
            return match datagram::receive(self, buffer) {
                Err(reason) if reason.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
                got => Poll::Ready(got.map(|got| got.len)),
            };
        }
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let receive = |socket: &AsyncFd<Arc<OwnedFd>>| datagram::receive(socket.get_ref(), buffer);
            if let Ok(got) = ready.try_io(receive) {
                return Poll::Ready(got.map(|got| got.len));
            }
        }
    }
}

/// How a session ended.
pub struct End {
    /// Its status.
    pub status: u16,
    /// The upstream failed.
    pub failed: bool,
}

/// One direction's rate.
struct Rate {
    bytes: usize,
    start: i64,
    deadline: Deadline,
    delayed: Cell<bool>,
}

impl Rate {
    fn new(bytes: usize, start: i64) -> Rate {
        Rate { bytes, start, deadline: Deadline::never(), delayed: Cell::new(false) }
    }

    fn delay(&self, ms: u64) {
        self.deadline.set(ms);
        self.delayed.set(true);
    }

    /// Whether it waits.
    fn waits(&self, cx: &mut Context<'_>) -> bool {
        if self.delayed.get() && self.deadline.poll_expired(cx).is_ready() {
            self.delayed.set(false);
        }
        self.delayed.get()
    }

    /// Whether another datagram may pass after `received` bytes; else it waits from now on.
    fn allows(&self, received: u64) -> bool {
        if self.bytes == 0 {
            return true;
        }
        let rate = self.bytes as i64;
        let left = rate.saturating_mul(clock::wall().sec - self.start + 1) - received as i64;
        if left <= 0 {
            self.delay((-left * 1000 / rate + 1) as u64);
        }
        left > 0
    }

    fn passed(&self, n: usize) {
        if let Some(ms) = (n as u64 * 1000).checked_div(self.bytes as u64).filter(|ms| *ms > 0) {
            self.delay(ms);
        }
    }
}

/// A relay at work.
pub struct Relay<'a> {
    session: &'a Session,
    client: &'a Client,
    upstream: &'a Upstream,
    limits: Limits,
    first_byte: &'a dyn Fn(),
    up: Rate,
    down: Rate,
    deadline: Deadline,
    armed: bool,
    requests: usize,
    responses: usize,
    /// The upstream's socket has an error to tell.
    broken: bool,
    /// It told.
    failed: bool,
    /// Nothing more comes from the upstream.
    ended: bool,
    buffer: Vec<u8>,
}

impl<'a> Relay<'a> {
    /// A relay that calls `first_byte` when the upstream sends something.
    pub fn new(
        session: &'a Session,
        client: &'a Client,
        upstream: &'a Upstream,
        limits: Limits,
        first_byte: &'a dyn Fn(),
    ) -> Relay<'a> {
        let (up, down) =
            (Rate::new(limits.upload_rate, limits.start), Rate::new(limits.download_rate, limits.start));
        let buffer = vec![0; limits.buffer.clamp(1, datagram::MAX)];
        Relay {
            session,
            client,
            upstream,
            limits,
            first_byte,
            up,
            down,
            deadline: Deadline::never(),
            armed: false,
            requests: 1,
            responses: 0,
            broken: false,
            failed: false,
            ended: false,
            buffer,
        }
    }

    /// Sends the first datagram, with `header` in front of it, and then all others.
    pub async fn run(mut self, header: &[u8]) -> End {
        let first = [header, &self.client.first].concat();
        if !self.send_upstream(&first) {
            return End { status: OK, failed: true };
        }
        if let Some(end) = self.over() {
            return end;
        }
        // An error of the socket (a port where nobody listens) makes it not readable.
        let mut broken = Box::pin(self.upstream.0.ready(Interest::ERROR));
        let mut seen = false;
        std::future::poll_fn(|cx| {
            if !seen && broken.as_mut().poll(cx).is_ready() {
                seen = true;
                self.broken = true;
            }
            self.poll(cx)
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if self.client.closing() {
            self.session.note(format_args!("disconnected on shutdown"));
            return Poll::Ready(End { status: OK, failed: false });
        }
        let before = (self.requests, self.responses);
        let sent = self.upload(cx) && self.download(cx);
        if !sent {
            return Poll::Ready(End { status: OK, failed: self.failed });
        }
        self.session.action.set(Some("proxying connection"));
        if let Some(end) = self.over() {
            return Poll::Ready(end);
        }
        if self.up.delayed.get() || self.down.delayed.get() {
            self.deadline.clear();
            self.armed = false;
        } else if !self.armed || before != (self.requests, self.responses) {
            self.deadline.set(self.limits.timeout);
            self.armed = true;
        }
        ready!(self.deadline.poll_expired(cx));
        Poll::Ready(self.late())
    }

    /// What the client has sent; false where it could not be sent on.
    fn upload(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            let waits = self.up.waits(cx);
            self.client.inbox.set_delayed(waits);
            if waits {
                return true;
            }
            let Some(mut bytes) = self.client.inbox.next(cx) else { return true };
            if !self.up.allows(self.session.received.get()) {
                continue;
            }
            bytes.truncate(self.buffer.len());
            self.requests += 1;
            self.session.count_received(bytes.len());
            self.up.passed(bytes.len());
            if !self.send_upstream(&bytes) {
                return false;
            }
        }
    }

    fn send_upstream(&mut self, bytes: &[u8]) -> bool {
        match self.upstream.send(bytes) {
            Ok(n) => {
                let sent = &self.session.upstream.sent;
                sent.set(sent.get() + n as u64);
                true
            }
            Err(reason) => {
                self.session.action.set(Some("proxying and sending to upstream"));
                self.session.connection_error(Level::Error, &reason, "sendmsg() failed");
                self.failed = true;
                false
            }
        }
    }

    /// What the upstream has sent; false where it could not be sent on.
    fn download(&mut self, cx: &mut Context<'_>) -> bool {
        while !self.ended && !self.down.waits(cx) {
            let upstream = &self.session.upstream;
            if !self.down.allows(upstream.received.get()) {
                continue;
            }
            let n = match self.upstream.poll_receive(cx, &mut self.buffer, self.broken) {
                Poll::Pending => break,
                Poll::Ready(Ok(n)) => n,
                Poll::Ready(Err(reason)) => {
                    self.session.action.set(Some("proxying and reading from upstream"));
                    self.session.connection_error(Level::Error, &reason, "recv() failed");
                    (self.failed, self.ended) = (true, true);
                    self.responses += 1;
                    break;
                }
            };
            self.down.passed(n);
            if self.responses == 0 {
                let time = clock::now() - upstream.start.get();
                upstream.attempt(|attempt| {
                    attempt.header_time.get_or_insert(time);
                });
                (self.first_byte)();
            }
            self.responses += 1;
            upstream.received.set(upstream.received.get() + n as u64);
            match self.client.send(&self.buffer[..n]) {
                Ok(n) => self.session.count_sent(n),
                Err(reason) => {
                    self.session.action.set(Some("proxying and sending to client"));
                    self.session.connection_error(Level::Info, &reason, "sendmsg() failed");
                    return false;
                }
            }
        }
        true
    }

    /// Whether the session has all answers it is to have.
    fn over(&self) -> Option<End> {
        if self.requests < self.limits.requests || !self.answered()? {
            return None;
        }
        self.client.leave();
        self.session.note(format_args!("udp done{}", self.counts()));
        Some(End { status: OK, failed: self.failed })
    }

    /// Whether all requests are answered; none where nobody knows.
    fn answered(&self) -> Option<bool> {
        Some(self.responses >= self.limits.responses?.saturating_mul(self.requests))
    }

    fn late(&mut self) -> End {
        self.client.leave();
        if self.answered().unwrap_or(true) {
            self.session.note(format_args!("udp timed out{}", self.counts()));
            return End { status: OK, failed: self.failed };
        }
        let reason = io::Error::from_raw_os_error(libc::ETIMEDOUT);
        self.session.connection_error(Level::Error, &reason, "upstream timed out");
        End { status: BAD_GATEWAY, failed: true }
    }

    fn counts(&self) -> String {
        let (requests, responses) = (self.requests, self.responses);
        format!(", packets from/to client:{requests}/{responses}{}", self.session.byte_counts())
    }
}
