//! Addresses of either kind of socket, written as nginx writes them.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// An internet address with port, or a unix socket's path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// TCP or UDP over IPv4 or IPv6.
    Inet(SocketAddr),
    /// A unix socket; an empty path is an unnamed peer.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    /// `127.0.0.1:80`, `[::1]:80` or `unix:/path`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(addr) => write!(f, "{addr}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    /// Without the port, as `$remote_addr` has it: `127.0.0.1`, `::1`, `unix:`.
    pub fn host(&self) -> String {
        match self {
            Address::Inet(addr) => addr.ip().to_string(),
            Address::Unix(_) => "unix:".into(),
        }
    }

    /// The port; none for a unix socket.
    pub fn port(&self) -> Option<u16> {
        match self {
            Address::Inet(addr) => Some(addr.port()),
            Address::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        Address::Inet(addr)
    }
}
