//! Listening sockets: what `listen` asks for, and opening them with nginx's words for what fails.

use crate::log::{self, ErrorLog, Level};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
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

/// A socket this process was born with.
#[derive(Debug)]
pub struct Inherited {
    pub address: Address,
    pub kind: Kind,
    pub fd: Arc<OwnedFd>,
}

/// The sockets could not be opened; why is in the log.
#[derive(Debug, PartialEq, Eq)]
pub struct NotOpened;

/// Why one socket is not open.
enum Failure {
    /// The address is taken: worth another try.
    InUse,
    Fatal,
}

/// Opens what `listens` asks for. A socket of `old` with the same address is taken over. With `test`, as
/// `-t` does, sockets are opened to see whether they can be, an address in use is no error, and nothing
/// stays behind.
pub fn open(
    listens: &[Listen],
    old: &[Listener],
    test: bool,
    log: &ErrorLog,
) -> Result<Vec<Listener>, NotOpened> {
    let mut sockets: Vec<Option<(Arc<OwnedFd>, bool)>> =
        listens.iter().map(|listen| take_over(listen, old)).collect();
    let kept: Vec<bool> = sockets.iter().map(Option::is_some).collect();
    let mut tries = 5;
    loop {
        let mut in_use = false;
        for (listen, socket) in listens.iter().zip(&mut sockets).filter(|(_, socket)| socket.is_none()) {
            match open_one(listen, test, log) {
                Ok(fd) => *socket = Some((Arc::new(fd), false)),
                Err(Failure::InUse) => in_use |= !test,
                Err(Failure::Fatal) => return Err(NotOpened),
            }
        }
        if !in_use {
            break;
        }
        log::error(log, Level::Notice, None, format_args!("try again to bind() after 500ms"));
        std::thread::sleep(Duration::from_millis(500));
        tries -= 1;
        if tries == 0 {
            log::error(log, Level::Emerg, None, format_args!("still could not bind()"));
            return Err(NotOpened);
        }
    }
    let opened = listens.iter().zip(sockets).zip(kept).filter_map(|((listen, socket), kept)| {
        let (fd, inherited) = socket?;
        Some((Listener { listen: listen.clone(), fd, more: Vec::new(), inherited }, kept))
    });
    let mut listeners = Vec::new();
    for (mut listener, kept) in opened {
        if !test {
            listener.configure(old, kept, log);
            listener.open_more(old, log)?;
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Closes the sockets of `old` that `new` does not use and deletes the files of unix sockets among them.
pub fn close_unused(old: Vec<Listener>, new: &[Listener], log: &ErrorLog) {
    for listener in old {
        let used = new.iter().any(|other| other.fd.as_raw_fd() == listener.fd.as_raw_fd());
        if let (false, Address::Unix(path)) = (used, &listener.listen.address) {
            log::error(log, Level::Warn, None, format_args!("deleting socket {}", path.display()));
            delete(path, log);
        }
    }
}

/// Deletes the file of a unix socket.
pub fn delete(path: &Path, log: &ErrorLog) {
    if let Err(reason) = fs::remove_file(path) {
        let path = path.display();
        log::error_errno(log, Level::Emerg, None, &reason, format_args!("unlink() {path} failed"));
    }
}

/// Looks at a socket given by number, as the process that started this one does in `NGINX`. `None`, logged,
/// when it is not a socket nxr knows how to use.
pub fn inherit(number: i32, log: &ErrorLog) -> Option<Inherited> {
    let unusable = |reason: io::Error| {
        let what = format_args!("getsockname() of the inherited socket #{number} failed");
        log::error_errno(log, Level::Crit, None, &reason, what);
    };
    // SAFETY: fstat-like calls below fail on a number that is not open; an open one came from our parent
    // for us alone, and each is taken once, at start.
    let fd = unsafe {
        if libc::fcntl(number, libc::F_GETFD) == -1 {
            unusable(io::Error::last_os_error());
            return None;
        }
        OwnedFd::from_raw_fd(number)
    };
    let socket = SockRef::from(&fd);
    let address = match socket.local_addr() {
        Ok(address) => address,
        Err(reason) => {
            unusable(reason);
            // The number is not ours to close.
            std::mem::forget(fd);
            return None;
        }
    };
    let kind = match socket.r#type() {
        Ok(Type::DGRAM) => Kind::Datagram,
        _ => Kind::Stream,
    };
    let address = match (address.as_socket(), address.as_pathname()) {
        (Some(address), _) => Address::Inet(address),
        (None, Some(path)) => Address::Unix(path.to_path_buf()),
        (None, None) => {
            let what = format_args!("the inherited socket #{number} has an unsupported protocol family");
            log::error(log, Level::Crit, None, what);
            return None;
        }
    };
    // What fails here only fails to be closed in programs that nxr starts.
    let _ = crate::net::fd::set_close_on_exec(fd.as_fd(), true);
    Some(Inherited { address, kind, fd: Arc::new(fd) })
}

fn take_over(listen: &Listen, old: &[Listener]) -> Option<(Arc<OwnedFd>, bool)> {
    let same = old.iter().find(|other| listen.is_same(&other.listen))?;
    Some((same.fd.clone(), same.inherited))
}

fn open_one(listen: &Listen, test: bool, log: &ErrorLog) -> Result<OwnedFd, Failure> {
    let address = &listen.address;
    let fatal = |what: &'static str| {
        move |reason: io::Error| {
            log::error_errno(log, Level::Emerg, None, &reason, format_args!("{what} {address} failed"));
            Failure::Fatal
        }
    };
    let target = address.to_socket().map_err(fatal("bind() to"))?;
    let (kind, protocol) = listen.socket_type();
    let domain = Domain::from(i32::from(target.family()));
    let socket = Socket::new(domain, kind, protocol).map_err(fatal("socket()"))?;
    if listen.kind != Kind::Datagram || !test {
        socket.set_reuse_address(true).map_err(fatal("setsockopt(SO_REUSEADDR)"))?;
    }
    if listen.reuseport && !test {
        socket.set_reuse_port(true).map_err(fatal("setsockopt(SO_REUSEPORT)"))?;
    }
    if matches!(address, Address::Inet(SocketAddr::V6(_)))
        && let Err(reason) = socket.set_only_v6(listen.ipv6only)
    {
        let what = format_args!("setsockopt(IPV6_V6ONLY) {address} failed, ignored");
        log::error_errno(log, Level::Emerg, None, &reason, what);
    }
    socket.set_nonblocking(true).map_err(fatal("fcntl(O_NONBLOCK)"))?;
    socket
        .bind(&target)
        .map_err(|reason| failure(reason, test, log, format_args!("bind() to {address} failed")))?;
    if let Address::Unix(path) = address {
        open_to_all(path, log);
        if test {
            delete(path, log);
        }
    }
    if listen.kind == Kind::Stream {
        let backlog = listen.backlog;
        socket.listen(backlog).map_err(|reason| {
            failure(reason, test, log, format_args!("listen() to {address}, backlog {backlog} failed"))
        })?;
    }
    Ok(socket.into())
}

fn failure(reason: io::Error, test: bool, log: &ErrorLog, what: fmt::Arguments<'_>) -> Failure {
    let in_use = reason.raw_os_error() == Some(libc::EADDRINUSE);
    if !(in_use && test) {
        log::error_errno(log, Level::Emerg, None, &reason, what);
    }
    if in_use { Failure::InUse } else { Failure::Fatal }
}

/// A unix socket may be written to by everyone; its directory says who reaches it.
fn open_to_all(path: &Path, log: &ErrorLog) {
    if let Err(reason) = fs::set_permissions(path, fs::Permissions::from_mode(0o666)) {
        let path = path.display();
        log::error_errno(log, Level::Emerg, None, &reason, format_args!("chmod() \"{path}\" failed"));
    }
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
    fn is_same(&self, other: &Listen) -> bool {
        (&self.address, self.kind, self.multipath) == (&other.address, other.kind, other.multipath)
    }

    fn socket_type(&self) -> (Type, Option<Protocol>) {
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

    /// Opens the sockets of other threads, or takes over those that there were.
    fn open_more(&mut self, old: &[Listener], log: &ErrorLog) -> Result<(), NotOpened> {
        let same = old.iter().filter(|other| self.listen.is_same(&other.listen));
        let mut known = same.flat_map(Listener::sockets).filter(|fd| !Arc::ptr_eq(fd, &self.fd)).cloned();
        for _ in 1..self.listen.sockets {
            let fd = match known.next() {
                Some(fd) => fd,
                None => Arc::new(open_one(&self.listen, false, log).map_err(|_| NotOpened)?),
            };
            self.more.push(fd);
        }
        let more = self.more.iter().map(|fd| Listener {
            listen: self.listen.clone(),
            fd: fd.clone(),
            more: Vec::new(),
            inherited: self.inherited,
        });
        more.for_each(|socket| socket.set_options(log));
        Ok(())
    }

    /// Sets the options that may change while the socket is open; failures are alerts. `kept` says that the
    /// socket was open before, under a configuration in `old`.
    fn configure(&self, old: &[Listener], kept: bool, log: &ErrorLog) {
        self.set_options(log);
        let before = old.iter().find(|other| kept && Arc::ptr_eq(&other.fd, &self.fd));
        self.follow_change(before, log);
    }

    fn set_options(&self, log: &ErrorLog) {
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

impl From<Inherited> for Listener {
    fn from(inherited: Inherited) -> Listener {
        let mut listen = Listen::new(inherited.address, ErrorLog::none());
        listen.kind = inherited.kind;
        Listener { listen, fd: inherited.fd, more: Vec::new(), inherited: true }
    }
}

// === impl Address ===

impl Address {
    fn to_socket(&self) -> io::Result<SockAddr> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::accept::{Peer, accept};
    use std::net::{TcpListener, TcpStream};

    fn free_port(listener: &Listener) -> SocketAddr {
        SockRef::from(&listener.fd).local_addr().unwrap().as_socket().unwrap()
    }

    fn any_port() -> Listen {
        Listen::new(Address::Inet("127.0.0.1:0".parse().unwrap()), ErrorLog::none())
    }

    #[test]
    fn a_test_does_not_mind_an_address_in_use() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = Listen::new(Address::Inet(taken.local_addr().unwrap()), ErrorLog::none());
        assert!(open(&[listen], &[], true, &ErrorLog::none()).unwrap().is_empty());
        let foreign = Listen::new(Address::Inet("192.0.2.1:80".parse().unwrap()), ErrorLog::none());
        assert_eq!(open(&[foreign], &[], true, &ErrorLog::none()).unwrap_err(), NotOpened);
    }

    #[test]
    fn a_socket_is_kept_over_a_change_of_configuration() {
        let old = open(&[any_port()], &[], false, &ErrorLog::none()).unwrap();
        let mut changed = old[0].listen.clone();
        changed.backlog = 64;
        changed.deferred = true;
        let new = open(&[changed], &old, false, &ErrorLog::none()).unwrap();
        assert!(Arc::ptr_eq(&old[0].fd, &new[0].fd));
        close_unused(old, &new, &ErrorLog::none());
        assert!(TcpStream::connect(free_port(&new[0])).is_ok());
    }

    #[test]
    fn each_thread_has_its_own_socket_for_datagrams() {
        let probe = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = probe.local_addr().unwrap();
        drop(probe);
        let mut listen = Listen::new(Address::Inet(address), ErrorLog::none());
        (listen.kind, listen.reuseport, listen.sockets) = (Kind::Datagram, true, 3);
        let first = open(std::slice::from_ref(&listen), &[], false, &ErrorLog::none()).unwrap();
        let next = open(std::slice::from_ref(&listen), &first, false, &ErrorLog::none()).unwrap();
        assert!(next[0].sockets().zip(first[0].sockets()).all(|(a, b)| Arc::ptr_eq(a, b)));
        let clients: Vec<_> = (0..64).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        for _ in 0..2 {
            clients.iter().for_each(|client| assert_eq!(client.send_to(b"x", address).unwrap(), 1));
        }
        let mut taken = Vec::new();
        for socket in next[0].sockets() {
            let mut from = Vec::new();
            while let Ok(got) = crate::net::datagram::receive(socket, &mut [0; 8]) {
                from.push(got.from);
            }
            let all = from.len();
            from.sort_by_key(|client| client.to_string());
            from.dedup();
            assert_eq!(from.len() * 2, all, "a client was heard on two sockets");
            taken.push(all);
        }
        assert_eq!(taken.iter().sum::<usize>(), 128);
        assert!(taken.iter().filter(|n| **n > 0).count() > 1, "{taken:?}");
        listen.sockets = 1;
        assert_eq!(open(&[listen], &next, false, &ErrorLog::none()).unwrap()[0].sockets().count(), 1);
    }

    #[test]
    fn the_file_of_a_unix_socket_goes_with_it() {
        let path = std::env::temp_dir().join(format!("nxr-listen-{}.sock", std::process::id()));
        let listen = Listen::new(Address::Unix(path.clone()), ErrorLog::none());
        open(std::slice::from_ref(&listen), &[], true, &ErrorLog::none()).unwrap();
        assert!(!path.exists());
        let open = open(&[listen], &[], false, &ErrorLog::none()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        let _client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert_eq!(accept(open[0].fd.as_fd()).unwrap().1, Peer::Unix);
        close_unused(open, &[], &ErrorLog::none());
        assert!(!path.exists());
    }
}
