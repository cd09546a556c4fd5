//! Fewer events for a long transfer: while much comes fast in small pieces, such as records of TLS, its socket counts
//! as readable only once a good deal waits (SO_RCVLOWAT, socket(7); the end and errors are told at once), so that a
//! turn moves more. A guard takes what is there when less comes, and ends it: a pause is noticed
//! [`GUARD`] milliseconds late once, and what comes after it is told at once again.

use std::task::Context;

use super::{Deadline, Socket, clock, option};

/// Bytes that must have come, and none gone the other way, before events are moderated.
const LONG: usize = 1 << 20;
/// Milliseconds after which the rate is looked at.
const WINDOW: u64 = 1;
/// Milliseconds to wait for what is expected within one.
const GUARD: u64 = 2;
/// The least and the most bytes to wait for.
const LEAST: usize = 32 << 10;
const MOST: usize = 256 << 10;

/// How one direction's events are moderated.
#[derive(Default)]
pub struct Moderation {
    /// When the window began, in milliseconds of the thread's clock.
    since: u64,
    /// Bytes that came, and waits for them, since then.
    bytes: usize,
    waits: usize,
    /// Bytes since some went the other way.
    total: usize,
    /// What the socket waits for; 0: anything.
    lowat: usize,
    guard: Deadline,
}

impl Moderation {
    /// Bytes came.
    pub fn came(&mut self, n: usize) {
        self.bytes += n;
        self.total = self.total.saturating_add(n);
    }

    /// All that came was read, and the task is going to wait for `socket` to be readable.
    pub fn waits(&mut self, socket: &Socket, cx: &mut Context<'_>) {
        if socket.is_unix() {
            return;
        }
        self.waits += 1;
        let now = clock::now();
        let time = now - self.since;
        if time >= WINDOW {
            let wanted = self.wanted(time, socket);
            (self.since, self.bytes, self.waits) = (now, 0, 0);
            if let Some(lowat) = wanted {
                self.set(socket, lowat);
            }
        }
        if self.lowat > 0 {
            self.guard.renew(GUARD, cx);
        }
    }

    /// Bytes went the other way: what comes next may be an answer, and is nothing long so far.
    pub fn answered(&mut self) {
        self.total = 0;
    }

    /// Whether this is a long transfer still, however little came last.
    pub fn goes_on(&self) -> bool {
        self.lowat > 0 || self.total >= LONG
    }

    /// Whether less came in time than is waited for: it is to be taken as it is, and this to [`Moderation::end`].
    pub fn is_late(&self) -> bool {
        self.lowat > 0 && self.guard.expired()
    }

    /// Has the socket readable whenever there is anything.
    pub fn end(&mut self, socket: &Socket) {
        self.guard.clear();
        self.set(socket, 0);
        (self.since, self.bytes, self.waits) = (clock::now(), 0, 0);
    }

    /// What to wait for from now on, where that is something else than before.
    fn wanted(&self, time: u64, socket: &Socket) -> Option<usize> {
        let rate = self.bytes / time as usize;
        let fit = || steps(rate).min(steps(room(socket) / 4));
        if self.lowat == 0 {
            let small = 2 * self.bytes < self.waits * rate.min(MOST);
            return (self.total >= LONG && rate >= LEAST && small).then(fit);
        }
        // Somewhat less is not yet another rate.
        (rate < self.lowat / 4 * 3 || rate >= 2 * self.lowat && self.lowat < MOST).then(fit)
    }

    fn set(&mut self, socket: &Socket, lowat: usize) {
        let option = || option::set(socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, lowat.max(1) as i32);
        if lowat != self.lowat && option().is_ok() {
            #[cfg(test)]
            BEGUN.set(BEGUN.get() + usize::from(self.lowat == 0));
            self.lowat = lowat;
        }
    }
}

/// `rate`, bytes in a millisecond, rounded down to a power of two and kept in bounds.
fn steps(rate: usize) -> usize {
    match rate {
        0..LEAST => 0,
        _ => (1 << rate.ilog2()).min(MOST),
    }
}

/// The size of the receive buffer.
fn room(socket: &Socket) -> usize {
    socket2::SockRef::from(socket).recv_buffer_size().unwrap_or(0)
}

#[cfg(test)]
thread_local! {
    static BEGUN: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How often this thread has begun to moderate.
#[cfg(test)]
pub fn begun() -> usize {
    BEGUN.get()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write;
    use std::net::TcpStream;
    use std::os::fd::{AsFd, AsRawFd};
    use std::task::{Poll, Waker};

    use super::super::socket::tests::{run, tcp_pair};
    use super::*;

    fn pair() -> (Socket, TcpStream) {
        let (own, peer) = tcp_pair();
        socket2::SockRef::from(&own).set_recv_buffer_size(MOST).unwrap();
        (own, peer)
    }

    fn lowat(socket: &Socket) -> i32 {
        let (mut value, mut length) = (0i32, size_of::<i32>() as libc::socklen_t);
        let fd = socket.as_fd().as_raw_fd();
        // SAFETY: the value is an int that lives through the call, and its size is given.
        let done = unsafe {
            libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, (&raw mut value).cast(), &mut length)
        };
        assert_eq!(done, 0);
        value
    }

    /// Has it seen records of TLS until it is on.
    fn moderated(socket: &Socket) -> Moderation {
        let mut moderation = Moderation::default();
        while moderation.lowat == 0 {
            moderation.came(16 << 10);
            moderation.waits(socket, &mut Context::from_waker(Waker::noop()));
        }
        assert!(moderation.total >= LONG && begun() == 1);
        assert!(lowat(socket) >= LEAST as i32);
        moderation
    }

    #[test]
    fn little_is_told_late_once_and_then_at_once() {
        run(async {
            let (socket, mut peer) = pair();
            let mut moderation = moderated(&socket);
            peer.write_all(b"little").unwrap();
            poll_fn(|cx| {
                moderation.guard.renew(GUARD, cx);
                Poll::Ready(())
            })
            .await;
            poll_fn(|cx| {
                assert!(socket.poll_read_ready(cx).is_pending());
                if moderation.is_late() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            moderation.end(&socket);
            assert!(!moderation.is_late() && lowat(&socket) == 1);
            poll_fn(|cx| socket.poll_read_ready(cx)).await.unwrap();
        });
    }

    #[test]
    fn much_is_told() {
        run(async {
            let (socket, mut peer) = pair();
            let mut moderation = moderated(&socket);
            let much = vec![0; lowat(&socket) as usize];
            let writer = std::thread::spawn(move || peer.write_all(&much).map(|()| peer));
            poll_fn(|cx| socket.poll_read_ready(cx)).await.unwrap();
            moderation.end(&socket);
            writer.join().unwrap().unwrap();
        });
    }

    #[test]
    fn the_end_is_told() {
        run(async {
            let (socket, peer) = pair();
            let _moderation = moderated(&socket);
            drop(peer);
            poll_fn(|cx| socket.poll_read_ready(cx)).await.unwrap();
        });
    }

    #[test]
    fn what_answers_or_is_slow_or_comes_at_once_is_not_moderated() {
        let moderation = |bytes, waits, total| Moderation { bytes, waits, total, ..Moderation::default() };
        run(async {
            let (socket, _peer) = pair();
            let records = moderation(LONG, 64, LONG);
            assert!(records.wanted(4, &socket).is_some_and(|lowat| lowat >= LEAST));
            assert_eq!(records.wanted(100, &socket), None);
            assert_eq!(moderation(LONG, 4, LONG).wanted(4, &socket), None);
            let mut answer = records;
            answer.answered();
            assert_eq!(answer.wanted(4, &socket), None);
        });
    }
}
