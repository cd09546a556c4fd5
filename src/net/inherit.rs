//! Listening sockets that this process was born with.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use socket2::{SockRef, Type};

use super::listen::{Address, Kind, Listen, Listener};
use crate::log::{self, ErrorLog, Level};
/// A socket this process was born with.
#[derive(Debug)]
pub struct Inherited {
    pub address: Address,
    pub kind: Kind,
    pub fd: Arc<OwnedFd>,
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

impl From<Inherited> for Listener {
    fn from(inherited: Inherited) -> Listener {
        let mut listen = Listen::new(inherited.address, ErrorLog::none());
        listen.kind = inherited.kind;
        Listener { listen, fd: inherited.fd, more: Vec::new(), inherited: true }
    }
}
