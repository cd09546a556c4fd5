//! Opening listening sockets, with nginx's words for what fails, and closing those that a new configuration does not
//! use.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket};

use super::listen::{Address, Kind, Listen, Listener};
use crate::log::{self, ErrorLog, Level};
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

impl Listener {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::accept::{Peer, accept};
    use socket2::SockRef;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

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
