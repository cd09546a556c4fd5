//! Idle connections to peers, kept by each thread for its own requests.
//!
//! `keepalive N` is a limit for one worker process of nginx. A thread of nxr stands for such a process, so each
//! keeps up to `N` connections of a group, the ones used least recently going first; threads share none, and
//! need no locks. Requests that come one after the other use at most one connection a thread.
//!
//! Taking and returning a connection makes no system call where its bytes were all read (see [`Socket::set_drained`]).
//! One task a thread closes what timed out and what a peer closes: connections idle for [`SETTLE`] get watched.

use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::task::{Context, Poll};

use tokio::io::Interest;

use super::group::{Group, GroupRef};
use super::peer::Peer;
use crate::net::{Deadline, Io, Socket, clock};

/// Connections idle for this many milliseconds are watched; busy ones never are.
const SETTLE: u64 = 1000;

/// What `keepalive` and its like say of a group.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Idle connections a thread keeps.
    pub limit: usize,
    /// Connections serve the location they were made for only.
    pub local: bool,
    /// Requests a connection serves.
    pub requests: u64,
    /// How long a connection serves, in milliseconds.
    pub time: u64,
    /// How long one stays idle, in milliseconds.
    pub timeout: u64,
}

/// What else must be equal for a connection to serve another request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// Of the settings of TLS, 0 for plain connections: name, certificate, verification.
    pub tls: u64,
    /// Of the location; counts for groups with `local` only.
    pub location: u64,
    /// Of the address it was bound to (`proxy_bind`), 0 for none.
    pub local_address: u64,
}

/// A connection that may serve more requests.
pub struct Kept {
    /// The connection.
    pub io: Io,
    /// Requests it has served.
    pub requests: u64,
    /// When it was made, in milliseconds of [`clock::now`].
    pub created: u64,
}

impl Kept {
    /// A new connection.
    pub fn new(io: Io, now: u64) -> Kept {
        Kept { io, requests: 0, created: now }
    }
}

struct Idle {
    kept: Kept,
    address: u32,
    tag: Tag,
    /// When it is to be closed.
    until: u64,
}

#[derive(Default)]
struct Pools {
    /// By the group's place; in each, used least recently first.
    groups: Vec<Vec<Idle>>,
    /// When the sweeper looks next.
    next: Option<u64>,
    sweeper: Option<Deadline>,
    closing: bool,
}

thread_local! {
    static POOLS: RefCell<Pools> = RefCell::default();
}

/// An idle connection to `peer`, which is not counted there; none where there is none.
pub fn take(group: &GroupRef, peer: &Peer, tag: Tag, now: u64) -> Option<Kept> {
    let settings = group.keepalive.as_ref()?;
    POOLS.with_borrow_mut(|pools| {
        let pool = pools.groups.get_mut(group.slot as usize)?;
        let tag = tag_for(settings, tag);
        let mut at = pool.len();
        while at > 0 {
            at -= 1;
            let idle = &pool[at];
            if idle.address != peer.address_id || idle.tag != tag {
                continue;
            }
            let idle = pool.remove(at);
            if now < idle.until && alive(&idle.kept.io) {
                return Some(idle.kept);
            }
        }
        None
    })
}

/// Keeps a connection whose request is over and well, unless it has served enough. Its response must have been
/// read to the end, and nothing more.
pub fn put(group: &GroupRef, peer: &Peer, tag: Tag, mut kept: Kept, now: u64) {
    let GroupRef::Static(group) = group else { return };
    let group: &'static Group = group;
    let Some(settings) = &group.keepalive else { return };
    kept.requests += 1;
    if kept.requests >= settings.requests || now.saturating_sub(kept.created) > settings.time {
        return;
    }
    let until = now.saturating_add(settings.timeout);
    let idle = Idle { kept, address: peer.address_id, tag: tag_for(settings, tag), until };
    POOLS.with_borrow_mut(|pools| {
        if pools.closing {
            return;
        }
        let slot = group.slot as usize;
        if pools.groups.len() <= slot {
            pools.groups.resize_with(slot + 1, Vec::new);
        }
        let pool = &mut pools.groups[slot];
        if pool.len() >= settings.limit {
            pool.remove(0);
        }
        pool.push(idle);
        pools.sweep_by(until.min(now + SETTLE), now);
    });
}

/// Closes this thread's idle connections, and keeps none from now on: the worker is to exit.
pub fn close() {
    POOLS.with_borrow_mut(|pools| {
        pools.closing = true;
        pools.groups.clear();
    });
}

/// Idle connections of a group on this thread.
pub fn idle(group: &Group) -> usize {
    POOLS.with_borrow(|pools| pools.groups.get(group.slot as usize).map_or(0, Vec::len))
}

fn tag_for(settings: &Settings, tag: Tag) -> Tag {
    if settings.local { tag } else { Tag { location: 0, ..tag } }
}

/// Whether an idle connection is still open, and nothing came over it.
fn alive(io: &Io) -> bool {
    if let Io::Tls(stream) = io
        && stream.borrow().has_unread()
    {
        return false;
    }
    io.with_socket(silent)
}

/// Asks the system, unless it has said already that nothing is there; the socket then counts as not ready.
fn silent(socket: &Socket) -> bool {
    let peek = || socket2::SockRef::from(socket).peek(&mut [MaybeUninit::uninit()]);
    matches!(socket.try_io(Interest::READABLE, peek), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
}

// === impl Pools ===

impl Pools {
    fn sweep_by(&mut self, at: u64, now: u64) {
        if self.next.is_some_and(|next| next <= at) {
            return;
        }
        self.next = Some(at);
        match &self.sweeper {
            Some(deadline) => deadline.set(at.saturating_sub(now)),
            None => {
                let deadline = Deadline::never();
                deadline.set(at.saturating_sub(now));
                self.sweeper = Some(deadline.clone());
                // A sweep looks at every connection, however many there are.
                tokio::task::spawn_local(tokio::task::unconstrained(sweep(deadline)));
            }
        }
    }

    /// Closes what is over, watches the rest.
    fn sweep(&mut self, cx: &mut Context<'_>, now: u64) {
        let mut next: Option<u64> = None;
        for pool in &mut self.groups {
            pool.retain(|idle| now < idle.until && watch(&idle.kept.io, cx));
            next = pool.iter().map(|idle| idle.until).chain(next).min();
        }
        self.next = next;
        if let Some(deadline) = &self.sweeper {
            match next {
                Some(at) => deadline.set(at.saturating_sub(now)),
                None => deadline.clear(),
            }
        }
    }
}

/// False once the connection is over; else the task is woken when something comes.
fn watch(io: &Io, cx: &mut Context<'_>) -> bool {
    io.with_socket(|socket| {
        socket.poll_read_ready(cx).is_pending() || (alive(io) && socket.poll_read_ready(cx).is_pending())
    })
}

/// The task of a thread that looks after idle connections.
async fn sweep(deadline: Deadline) {
    std::future::poll_fn(|cx| {
        loop {
            POOLS.with_borrow_mut(|pools| pools.sweep(cx, clock::now()));
            if deadline.poll_expired(cx).is_pending() {
                return Poll::<()>::Pending;
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::upstream::connect::{Options, connect};
    use crate::upstream::testing;

    fn run<F: Future>(f: F) -> F::Output {
        let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&rt, f)
    }

    struct Backend {
        listener: TcpListener,
        group: GroupRef,
    }

    impl Backend {
        fn new(settings: Settings) -> Backend {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let group: &'static Group = testing::group_with(&["a", "b"], settings);
            Backend { listener, group: GroupRef::Static(group) }
        }

        fn peer(&self, at: usize) -> &Peer {
            self.group.peers().nth(at).unwrap()
        }

        /// A connection and its other end.
        async fn connect(&self) -> (Kept, TcpStream) {
            let to = self.listener.local_addr().unwrap().into();
            let socket = connect(&to, &Options::default()).await.unwrap();
            let (other, _) = self.listener.accept().unwrap();
            (Kept::new(Io::Plain(socket), clock::now()), other)
        }

        fn put(&self, kept: Kept) {
            put(&self.group, self.peer(0), Tag::default(), kept, clock::now());
        }

        fn take(&self) -> Option<Kept> {
            take(&self.group, self.peer(0), Tag::default(), clock::now())
        }

        /// Waits until so many are idle.
        async fn until(&self, count: usize) {
            let deadline = Deadline::never();
            deadline.set(10_000);
            while idle(&self.group) != count {
                assert!(!deadline.expired(), "{} idle, not {count}", idle(&self.group));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    const SETTINGS: Settings =
        Settings { limit: 2, local: false, requests: 1000, time: 3_600_000, timeout: 60_000 };

    async fn readable(kept: &Kept) {
        std::future::poll_fn(|cx| kept.io.with_socket(|s| s.poll_read_ready(cx))).await.unwrap();
    }

    fn port(kept: &Kept) -> u16 {
        kept.io.with_socket(|s| s.local_address().port().unwrap_or(0))
    }

    #[test]
    fn the_one_used_last_is_used_first_and_the_oldest_goes() {
        run(async {
            let backend = Backend::new(SETTINGS);
            let mut others = Vec::new();
            let mut ports = Vec::new();
            for _ in 0..3 {
                let (kept, other) = backend.connect().await;
                ports.push(port(&kept));
                others.push(other);
                backend.put(kept);
            }
            assert_eq!(idle(&backend.group), 2);
            assert_eq!(port(&backend.take().unwrap()), ports[2]);
            assert_eq!(port(&backend.take().unwrap()), ports[1]);
            assert!(backend.take().is_none());
        });
    }

    #[test]
    fn address_and_tag_must_be_the_same() {
        run(async {
            let backend = Backend::new(SETTINGS);
            let (kept, _other) = backend.connect().await;
            let now = clock::now();
            let tls = Tag { tls: 7, ..Tag::default() };
            put(&backend.group, backend.peer(0), tls, kept, now);
            assert!(take(&backend.group, backend.peer(1), tls, now).is_none());
            assert!(take(&backend.group, backend.peer(0), Tag::default(), now).is_none());
            // The location counts with `local` only.
            let here = Tag { location: 3, ..tls };
            assert!(take(&backend.group, backend.peer(0), here, now).is_some());
            let local = Backend::new(Settings { local: true, ..SETTINGS });
            let (kept, _other) = local.connect().await;
            put(&local.group, local.peer(0), here, kept, now);
            assert!(take(&local.group, local.peer(0), tls, now).is_none());
            assert!(take(&local.group, local.peer(0), here, now).is_some());
        });
    }

    #[test]
    fn requests_time_and_timeout_end_a_connection() {
        run(async {
            let backend = Backend::new(Settings { requests: 2, time: 1000, timeout: 500, ..SETTINGS });
            let (kept, _other) = backend.connect().await;
            backend.put(kept);
            let kept = backend.take().unwrap();
            assert_eq!(kept.requests, 1);
            backend.put(kept);
            assert_eq!(idle(&backend.group), 0);
            let (mut kept, _other) = backend.connect().await;
            kept.created = clock::now() - 1001;
            backend.put(kept);
            assert_eq!(idle(&backend.group), 0);
            let (kept, _other) = backend.connect().await;
            let now = clock::now();
            put(&backend.group, backend.peer(0), Tag::default(), kept, now);
            assert!(take(&backend.group, backend.peer(0), Tag::default(), now + 500).is_none());
            let (kept, _other) = backend.connect().await;
            backend.put(kept);
            backend.until(0).await;
        });
    }

    #[test]
    fn what_the_peer_closed_is_not_used() {
        run(async {
            let backend = Backend::new(SETTINGS);
            let (kept, other) = backend.connect().await;
            kept.io.with_socket(Socket::set_drained);
            drop(other);
            readable(&kept).await;
            backend.put(kept);
            assert!(backend.take().is_none());
        });
    }

    #[test]
    fn what_talks_out_of_turn_is_not_used() {
        run(async {
            let backend = Backend::new(SETTINGS);
            let (kept, mut other) = backend.connect().await;
            kept.io.with_socket(Socket::set_drained);
            other.write_all(b"HTTP/1.1 408").unwrap();
            readable(&kept).await;
            backend.put(kept);
            assert!(backend.take().is_none());
        });
    }

    #[test]
    fn idle_ones_are_closed_when_the_peer_closes() {
        run(async {
            let backend = Backend::new(SETTINGS);
            let (kept, other) = backend.connect().await;
            let (stays, _other) = backend.connect().await;
            backend.put(kept);
            backend.put(stays);
            drop(other);
            backend.until(1).await;
            assert!(backend.take().is_some());
        });
    }

    #[test]
    fn any_number_is_looked_after_again_and_again() {
        run(async {
            let backend = Backend::new(Settings { limit: 200, timeout: 2500, ..SETTINGS });
            let mut others = Vec::new();
            for _ in 0..150 {
                let (kept, other) = backend.connect().await;
                backend.put(kept);
                others.push(other);
            }
            others.truncate(149);
            backend.until(149).await;
            others.truncate(140);
            backend.until(140).await;
            backend.until(0).await;
            let (kept, other) = backend.connect().await;
            backend.put(kept);
            drop(other);
            backend.until(0).await;
        });
    }

    #[test]
    fn a_connection_serves_after_it_was_watched() {
        run(async {
            let backend = Backend::new(SETTINGS);
            let (kept, mut other) = backend.connect().await;
            backend.put(kept);
            tokio::time::sleep(Duration::from_millis(SETTLE + 100)).await;
            let kept = backend.take().unwrap();
            let mut buf = [0; 8];
            let read = kept.io.read(&mut buf);
            other.write_all(b"hello").unwrap();
            assert_eq!(read.await.unwrap(), 5);
            kept.io.with_socket(Socket::set_drained);
            backend.put(kept);
            assert!(backend.take().is_some());
        });
    }

    #[test]
    fn nothing_is_kept_once_closing() {
        run(async {
            let backend = Backend::new(SETTINGS);
            let (kept, _other) = backend.connect().await;
            backend.put(kept);
            close();
            assert_eq!(idle(&backend.group), 0);
            let (kept, _other) = backend.connect().await;
            backend.put(kept);
            assert_eq!(idle(&backend.group), 0);
        });
    }
}
