//! What a client's connection is to its requests.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;

use crate::net::{Address, Buffer, Deadline, Io};
use crate::tls::TlsInfo;

use super::listen::Port;

/// A client's connection. Requests share it; all that changes has a cell.
pub struct Connection {
    /// Number in the log (`*7`).
    pub number: u64,
    /// The bytes. HTTP/2 has them itself; then nothing reads here.
    pub io: Io,
    /// What was read and not used yet.
    pub buffer: RefCell<Buffer>,
    /// One deadline for whatever is waited for.
    pub deadline: Deadline,
    /// The peer's address, or what real IP made of it.
    pub client: RefCell<Address>,
    /// The peer's address as text, for `$remote_addr` and the log.
    pub client_text: RefCell<String>,
    /// The peer's own address, where real IP put another in its place.
    pub realip: RefCell<Option<Address>>,
    /// The address it came to.
    pub local: Address,
    /// The listening port's servers.
    pub port: &'static Port,
    /// Addresses from the PROXY protocol.
    pub proxy_protocol: Option<crate::net::proxy_protocol::Header>,
    /// TLS facts, where it is TLS.
    pub tls: Option<Box<TlsInfo>>,
    /// Requests on this connection so far.
    pub requests: Cell<u64>,
    /// Milliseconds of the thread's clock at accept.
    pub start_ms: u64,
    /// Bytes sent on the connection.
    pub sent: Cell<u64>,
    /// A TCP option is set for good.
    pub nodelay_set: Cell<bool>,
}

impl Connection {
    /// The client's IP address, where it has one.
    pub fn client_ip(&self) -> Option<IpAddr> {
        match &*self.client.borrow() {
            Address::Inet(addr) => Some(addr.ip()),
            Address::Unix(_) => None,
        }
    }
}
