//! Taking connections from a listening socket.

use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Who connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    Inet(SocketAddr),
    Unix,
}

/// Takes a connection: nonblocking, close-on-exec.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Peer)> {
    // SAFETY: an all-zero sockaddr_storage is valid; accept4 writes at most `length` bytes of it. A result
    // other than -1 is a descriptor that nothing else owns.
    unsafe {
        let mut storage: libc::sockaddr_storage = std::mem::zeroed();
        let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        let address = (&raw mut storage).cast::<libc::sockaddr>();
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let fd = libc::accept4(listener.as_raw_fd(), address, &mut length, flags);
        if fd == -1 {
            return Err(io::Error::last_os_error());
        }
        let fd = OwnedFd::from_raw_fd(fd);
        let peer = SockaddrStorage::from_raw(address, Some(length)).and_then(inet);
        Ok((fd, peer.map_or(Peer::Unix, Peer::Inet)))
    }
}

fn inet(storage: SockaddrStorage) -> Option<SocketAddr> {
    match storage.family()? {
        AddressFamily::Inet => storage.as_sockaddr_in().map(|address| SocketAddr::V4((*address).into())),
        AddressFamily::Inet6 => storage.as_sockaddr_in6().map(|address| SocketAddr::V6((*address).into())),
        _ => None,
    }
}

impl fmt::Display for Peer {
    /// As `$remote_addr` shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Inet(address) => address.ip().fmt(f),
            Peer::Unix => f.write_str("unix:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    #[test]
    fn accepts_who_connects() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, peer) = accept(listener.as_fd()).unwrap();
        assert_eq!(peer, Peer::Inet(client.local_addr().unwrap()));
        assert_eq!(
            SockRef::from(&socket).peer_addr().unwrap().as_socket(),
            Some(client.local_addr().unwrap())
        );
        let none = accept(listener.as_fd()).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
    }
}
