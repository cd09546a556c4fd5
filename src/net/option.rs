//! Socket options that no crate here names.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Sets an option whose value is an int.
pub fn set(socket: impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the value is an int that lives through the call, and its size is given; the descriptor is open.
    let done = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), length) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_and_says_why_not() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        set(&socket, libc::SOL_SOCKET, libc::SO_BROADCAST, 1).unwrap();
        assert!(socket.broadcast().unwrap());
        let refused = set(&socket, libc::SOL_SOCKET, -1, 1).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOPROTOOPT));
    }
}
