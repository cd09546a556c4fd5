//! Datagrams on one socket for many peers: who sent each, to which of this machine's addresses it came, and answers
//! from that address.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrLike, SockaddrStorage, UnixAddr, recvmsg, sendmsg,
};

use super::Address;

/// Bytes of the longest datagram.
pub const MAX: usize = 65535;

/// One that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its bytes.
    pub len: usize,
    /// Who sent it; an empty path for a unix socket without a name.
    pub from: Address,
    /// The address it came to, where the socket learns that (`IP_PKTINFO`).
    pub to: Option<IpAddr>,
    /// Bytes of it, or of what is known of it, are lost.
    pub truncated: bool,
}

/// Takes a datagram, without waiting.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = cmsg_space!(libc::in6_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let fd = socket.as_fd().as_raw_fd();
    let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    let mut to = None;
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                to = Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)).into());
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                to = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
            }
            _ => {}
        }
    }
    Ok(Received {
        len: message.bytes,
        from: message.address.as_ref().map_or_else(|| Address::Unix(PathBuf::new()), address),
        to,
        truncated: message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC),
    })
}

fn address(storage: &SockaddrStorage) -> Address {
    if let Some(address) = storage.as_sockaddr_in() {
        return Address::Inet(SocketAddr::V4((*address).into()));
    }
    if let Some(address) = storage.as_sockaddr_in6() {
        return Address::Inet(SocketAddr::V6((*address).into()));
    }
    let path = storage.as_unix_addr().and_then(UnixAddr::path);
    Address::Unix(path.map(PathBuf::from).unwrap_or_default())
}

/// Sends a datagram to `to`, from the address `from` where one is given.
pub fn send(socket: impl AsFd, bytes: &[u8], to: &Address, from: Option<IpAddr>) -> io::Result<usize> {
    let fd = socket.as_fd().as_raw_fd();
    let parts = [IoSlice::new(bytes)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let to = match to {
        Address::Inet(address) => SockaddrStorage::from(*address),
        Address::Unix(path) => {
            let address = UnixAddr::new(path)?;
            return Ok(sendmsg(fd, &parts, &[], flags, Some(&address))?);
        }
    };
    let sent = match from {
        None => sendmsg(fd, &parts, &[], flags, Some(&to)),
        Some(IpAddr::V4(ip)) => {
            let source = libc::in_addr { s_addr: u32::from(ip).to_be() };
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: source,
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            sendmsg(fd, &parts, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&to))
        }
        Some(IpAddr::V6(ip)) => {
            let source = libc::in6_addr { s6_addr: ip.octets() };
            let info = libc::in6_pktinfo { ipi6_addr: source, ipi6_ifindex: 0 };
            sendmsg(fd, &parts, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&to))
        }
    };
    debug_assert!(to.family().is_some());
    Ok(sent?)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn answers_come_from_the_address_that_was_asked() {
        let server = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = server.local_addr().unwrap().port();
        nix::sys::socket::setsockopt(&server, nix::sys::socket::sockopt::Ipv4PacketInfo, &true).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"question", ("127.0.0.77", port)).unwrap();
        let mut buffer = [0; 4];
        let mut room = [0; 100];
        nix::poll::poll(&mut [nix::poll::PollFd::new(server.as_fd(), nix::poll::PollFlags::POLLIN)], 5000u16)
            .unwrap();
        let got = receive(&server, &mut room).unwrap();
        assert_eq!((got.len, got.truncated), (8, false));
        assert_eq!(got.from, Address::Inet(client.local_addr().unwrap()));
        assert_eq!(got.to, Some([127, 0, 0, 77].into()));
        assert_eq!(send(&server, b"answer", &got.from, got.to).unwrap(), 6);
        let (n, from) = client.recv_from(&mut room).unwrap();
        assert_eq!((&room[..n], from.ip()), (&b"answer"[..], [127, 0, 0, 77].into()));
        client.send_to(b"question", ("127.0.0.1", port)).unwrap();
        std::thread::yield_now();
        let got = receive(&server, &mut buffer).unwrap();
        assert!(got.truncated);
        assert_eq!(receive(&server, &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
