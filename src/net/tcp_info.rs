//! What the kernel knows of a TCP connection (tcp(7), TCP_INFO).

use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd};

use super::Socket;

/// The figures behind `$tcpinfo_*`: microseconds, segments, bytes.
#[derive(Clone, Copy, Debug)]
pub struct TcpInfo {
    /// Smoothed round-trip time in microseconds.
    pub rtt: u32,
    /// Its variance in microseconds.
    pub rttvar: u32,
    /// Congestion window in segments.
    pub snd_cwnd: u32,
    /// Receive space in bytes.
    pub rcv_space: u32,
}

/// Asks the kernel; none for unix sockets.
pub fn tcp_info(socket: &Socket) -> Option<TcpInfo> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the pointer and length describe `info`, which the kernel fills with plain integers; all-zero bytes are
    // a valid tcp_info, so a shorter answer leaves it initialised.
    let info = unsafe {
        let fd = socket.as_fd().as_raw_fd();
        let to = info.as_mut_ptr().cast();
        if libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, to, &mut len) != 0 {
            return None;
        }
        info.assume_init()
    };
    Some(TcpInfo {
        rtt: info.tcpi_rtt,
        rttvar: info.tcpi_rttvar,
        snd_cwnd: info.tcpi_snd_cwnd,
        rcv_space: info.tcpi_rcv_space,
    })
}
