//! `listen` in http: addresses, their servers, and which server a connection begins with.

use std::net::SocketAddr;

use super::Http;
use super::names::Names;
use crate::conf::{Build, Outcome};
use crate::net::Address;
use crate::net::listen::Listen;
use crate::syntax::Directive;

/// One listening socket and the addresses it serves: a wildcard socket serves specific ones too.
#[derive(Debug)]
pub struct Port {
    /// The socket to open.
    pub listen: Listen,
    /// Specific addresses behind a wildcard socket.
    pub specific: Vec<(SocketAddr, Addr)>,
    /// The socket's own address, where `specific` does not have it.
    pub addr: Addr,
}

/// The servers of one address.
#[derive(Debug, Default)]
pub struct Addr {
    /// `ssl`
    pub ssl: bool,
    /// `http2` as a parameter of `listen`.
    pub http2: bool,
    /// `proxy_protocol`
    pub proxy_protocol: bool,
    /// Index of the default server in [`Http::servers`].
    pub default: usize,
    /// Servers by name; empty where there is but one server.
    pub names: Names,
}

impl Port {
    /// The socket's address as the log shows it.
    pub fn text(&self) -> String {
        match &self.listen.address {
            crate::net::listen::Address::Inet(addr) => addr.to_string(),
            crate::net::listen::Address::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// The address a connection came to.
    pub fn addr_of(&self, local: &Address) -> &Addr {
        if let Address::Inet(local) = local {
            for (addr, servers) in &self.specific {
                if addr == local {
                    return servers;
                }
            }
        }
        &self.addr
    }
}

/// Addresses while the configuration is read.
#[derive(Default)]
pub struct Listens {}

impl Listens {
    /// Makes the ports of the addresses read.
    pub fn resolve(self, _http: &mut Http, _cf: &mut Build) -> Outcome {
        Ok(())
    }
}

/// `listen`
pub fn directive(_cf: &mut Build, _d: &Directive<'_>) -> Outcome {
    Ok(())
}

/// What a server without `listen` listens on: port 80, or 8000 for other users than root.
pub fn default_address(_cf: &mut Build) -> Outcome {
    Ok(())
}
