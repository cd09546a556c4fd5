//! The stream engine: TCP sessions, their phases, and the pump between client and upstream; modules are in
//! [`modules`].
//!
//! ```text
//! accepted() -> PROXY protocol -> post_accept -> preaccess -> access -> ssl -> preread -> content -> log
//!                                 realip         set          allow     TLS    ssl_       proxy
//!                                                limit_conn   deny             preread    return, pass
//! ```

pub mod conf;
mod direction;
#[macro_use]
pub mod module;
pub mod modules;
pub mod pump;
mod serve;
pub mod session;
#[cfg(test)]
mod tests;
pub mod udp;

use std::sync::OnceLock;

use crate::conf::listen::Port;
use crate::conf::names::ServerName;
use crate::log::{self, ErrorLog};
use crate::upstream::Groups;
use crate::value::Variables;
use module::Handlers;
pub use serve::{accepted, close_all, passed};
use session::Session;

/// The stream block, ready to serve.
pub struct Stream {
    /// Settings of the block itself.
    pub main: conf::Main,
    /// Servers in the order of the file.
    pub servers: Vec<Server>,
    /// Listening sockets and their servers.
    pub ports: Vec<Port>,
    /// Whatever serves its sessions takes what was read of the client before.
    pub reads_ahead: bool,
    /// What each variable is.
    pub variables: Variables<Session>,
    /// Upstream groups.
    pub upstreams: Groups,
}

/// A server.
pub struct Server {
    /// The first name, as `$server_name` has it.
    pub name: Box<[u8]>,
    /// All names.
    pub names: Vec<ServerName>,
    /// Settings.
    pub srv: conf::Srv,
    /// What runs for its sessions.
    pub handlers: Handlers,
    /// Where the main context's `error_log` is, from the first session on.
    main_log: OnceLock<ErrorLog>,
    /// ` in FILE:LINE` of its block.
    pub at: String,
}

impl Server {
    /// Where its sessions log errors.
    pub fn log(&self) -> &ErrorLog {
        match &*self.srv.core.log {
            Some(log) => log,
            None => self.main_log.get_or_init(log::main),
        }
    }
}
