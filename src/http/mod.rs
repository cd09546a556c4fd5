//! The http engine: connections, requests, phases, locations, responses; modules are in [`modules`].

pub mod body;
pub mod body_reader;
pub mod chunked;
pub mod conf;
pub mod connection;
pub mod error_page;
pub mod headers;
pub mod http1;
pub mod http2;
pub mod listen;
pub mod location;
pub mod method;
pub mod mime;
#[macro_use]
pub mod module;
pub mod modules;
pub mod output;
mod output_impl;
pub mod request;
pub mod response;
pub mod variables;

use std::sync::Arc;

pub use crate::conf::names;
use crate::upstream::Groups;
use crate::value::Variables;
use location::Location;
use names::ServerName;
use request::Request;

/// The http block, ready to serve.
pub struct Http {
    /// Settings of the block itself.
    pub main: conf::Main,
    /// Virtual servers in the order of the file.
    pub servers: Vec<Server>,
    /// Listening sockets and their servers.
    pub ports: Vec<listen::Port>,
    /// What each variable is.
    pub variables: Variables<Request>,
    /// Upstream groups.
    pub upstreams: Groups,
}

/// A virtual server.
pub struct Server {
    /// The first name, as `$server_name` has it.
    pub name: Box<[u8]>,
    /// All names.
    pub names: Arc<Vec<ServerName>>,
    /// Settings.
    pub srv: conf::Srv,
    /// Settings outside of locations, and the locations.
    pub root: Location,
    /// ` in FILE:LINE` of its block.
    pub at: String,
}
