//! Listening sockets: what `listen` asks for, and the options they get. [`super::open`] opens them.

use crate::log::{self, ErrorLog, Level};
use socket2::{Protocol, SockAddr, SockRef, TcpKeepalive, Type};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Connections that may wait to be accepted (NGX_LISTEN_BACKLOG on Linux).
pub const BACKLOG: i32 = 511;

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    Inet(SocketAddr),
    Unix(PathBuf),
}

/// TCP (or a unix stream) or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Stream,
    Datagram,
}

/// `so_keepalive`; parts not named keep the system's setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keepalive {
    pub on: Option<bool>,
    pub idle: Option<Duration>,
    pub interval: Option<Duration>,
    pub count: Option<u32>,
}

/// One socket to open, with the options of its `listen`.
#[derive(Clone, Debug)]
pub struct Listen {
    pub address: Address,
    pub kind: Kind,
    /// Multipath TCP (RFC 8684).
    pub multipath: bool,
    pub backlog: i32,
    /// Bytes.
    pub rcvbuf: Option<usize>,
    /// Bytes.
    pub sndbuf: Option<usize>,
    pub reuseport: bool,
    /// How many sockets to open: with `reuseport`, each thread has its own for datagrams, and the system gives all
    /// that one client sends to the same.
    pub sockets: usize,
    pub keepalive: Keepalive,
    pub ipv6only: bool,
    /// Length of the queue of TCP Fast Open (RFC 7413).
    pub fastopen: Option<i32>,
    /// Accept only when the client has sent something.
    pub deferred: bool,
    /// A datagram socket on a wildcard address must learn to which address each datagram came.
    pub wildcard: bool,
    /// Takes what fails while accepting.
    pub log: ErrorLog,
}

/// An open socket.
#[derive(Debug)]
pub struct Listener {
    pub listen: Listen,
    pub fd: Arc<OwnedFd>,
    /// The sockets of other threads, where each has its own.
    pub more: Vec<Arc<OwnedFd>>,
    /// Given by the process that this one was started from, which may still use it.
    pub inherited: bool,
}

// === impl Listen ===

impl Listen {
    /// A socket at `address` with the options of a bare `listen`.
    pub fn new(address: Address, log: ErrorLog) -> Listen {
        Listen {
            address,
            kind: Kind::Stream,
            multipath: false,
            backlog: BACKLOG,
            rcvbuf: None,
            sndbuf: None,
            reuseport: false,
            sockets: 1,
            keepalive: Keepalive::default(),
            ipv6only: true,
            fastopen: None,
            deferred: false,
            wildcard: false,
            log,
        }
    }

    /// Whether a socket of `other` will do.
    pub(super) fn is_same(&self, other: &Listen) -> bool {
        (&self.address, self.kind, self.multipath) == (&other.address, other.kind, other.multipath)
    }

    pub(super) fn socket_type(&self) -> (Type, Option<Protocol>) {
        match self.kind {
            Kind::Stream if self.multipath => (Type::STREAM, Some(Protocol::MPTCP)),
            Kind::Stream => (Type::STREAM, None),
            Kind::Datagram => (Type::DGRAM, None),
        }
    }
}

// === impl Listener ===

impl Listener {
    /// All its sockets, one for each thread that has its own.
    pub fn sockets(&self) -> impl Iterator<Item = &Arc<OwnedFd>> {
        std::iter::once(&self.fd).chain(&self.more)
    }

    /// Sets the options that may change while the socket is open; failures are alerts. `kept` says that the
    /// socket was open before, under a configuration in `old`.
    pub(super) fn configure(&self, old: &[Listener], kept: bool, log: &ErrorLog) {
        self.set_options(log);
        let before = old.iter().find(|other| kept && Arc::ptr_eq(&other.fd, &self.fd));
        self.follow_change(before, log);
    }

    pub(super) fn set_options(&self, log: &ErrorLog) {
        let (listen, socket) = (&self.listen, SockRef::from(&self.fd));
        let address = &listen.address;
        let check = |result: io::Result<()>, what: fmt::Arguments<'_>| {
            if let Err(reason) = result {
                let what = format_args!("setsockopt({what}) {address} failed, ignored");
                log::error_errno(log, Level::Alert, None, &reason, what);
            }
        };
        if let Some(size) = listen.rcvbuf {
            check(socket.set_recv_buffer_size(size), format_args!("SO_RCVBUF, {size}"));
        }
        if let Some(size) = listen.sndbuf {
            check(socket.set_send_buffer_size(size), format_args!("SO_SNDBUF, {size}"));
        }
        if let Some(on) = listen.keepalive.on {
            check(socket.set_keepalive(on), format_args!("SO_KEEPALIVE, {}", u8::from(on)));
        }
        if let Some(idle) = listen.keepalive.idle {
            let set = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle));
            check(set, format_args!("TCP_KEEPIDLE, {}", idle.as_secs()));
        }
        if let Some(interval) = listen.keepalive.interval {
            let set = socket.set_tcp_keepalive(&TcpKeepalive::new().with_interval(interval));
            check(set, format_args!("TCP_KEEPINTVL, {}", interval.as_secs()));
        }
        if let Some(count) = listen.keepalive.count {
            let set = socket.set_tcp_keepalive(&TcpKeepalive::new().with_retries(count));
            check(set, format_args!("TCP_KEEPCNT, {count}"));
        }
        if let Some(queue) = listen.fastopen {
            let set = self.set_option(libc::IPPROTO_TCP, libc::TCP_FASTOPEN, queue);
            check(set, format_args!("TCP_FASTOPEN, {queue}"));
        }
        if listen.wildcard && listen.kind == Kind::Datagram {
            self.learn_destinations(&check);
        }
    }

    fn learn_destinations(&self, check: &dyn Fn(io::Result<()>, fmt::Arguments<'_>)) {
        match &self.listen.address {
            Address::Inet(SocketAddr::V4(_)) => {
                check(self.set_option(libc::IPPROTO_IP, libc::IP_PKTINFO, 1), format_args!("IP_PKTINFO"));
            }
            Address::Inet(SocketAddr::V6(_)) => {
                let set = self.set_option(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1);
                check(set, format_args!("IPV6_RECVPKTINFO"));
            }
            Address::Unix(_) => {}
        }
    }

    /// What differs from the configuration `before`: the backlog, reuseport, deferred accept.
    fn follow_change(&self, before: Option<&Listener>, log: &ErrorLog) {
        let (listen, address) = (&self.listen, &self.listen.address);
        let alert = |reason: &io::Error, what: fmt::Arguments<'_>| {
            log::error_errno(log, Level::Alert, None, reason, what);
        };
        if let Some(before) = before {
            if listen.reuseport
                && !before.listen.reuseport
                && let Err(reason) = SockRef::from(&self.fd).set_reuse_port(true)
            {
                alert(&reason, format_args!("setsockopt(SO_REUSEPORT) {address} failed, ignored"));
            }
            let backlog = listen.backlog;
            if backlog != before.listen.backlog
                && listen.kind == Kind::Stream
                && let Err(reason) = SockRef::from(&self.fd).listen(backlog)
            {
                alert(&reason, format_args!("listen() to {address}, backlog {backlog} failed, ignored"));
            }
        }
        if listen.deferred != before.is_some_and(|before| before.listen.deferred) {
            let value = i32::from(listen.deferred);
            if let Err(reason) = self.set_option(libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, value) {
                let what =
                    format_args!("setsockopt(TCP_DEFER_ACCEPT, {value}) for {address} failed, ignored");
                alert(&reason, what);
            }
        }
    }

    fn set_option(&self, level: i32, name: i32, value: i32) -> io::Result<()> {
        // SAFETY: the value is an int and its size is given.
        let done = unsafe {
            let length = size_of::<i32>() as libc::socklen_t;
            libc::setsockopt(self.fd.as_raw_fd(), level, name, (&raw const value).cast(), length)
        };
        if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

// === impl Address ===

impl Address {
    pub(super) fn to_socket(&self) -> io::Result<SockAddr> {
        match self {
            Address::Inet(address) => Ok((*address).into()),
            Address::Unix(path) => SockAddr::unix(path),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
