//! The http engine: connections, requests, phases, locations, responses; modules are in [`modules`].

pub mod accept;
pub mod basic;
pub mod body;
pub mod body_reader;
mod body_splice;
pub mod certificates;
pub mod charset_map;
pub mod checked;
pub mod chunked;
pub mod conf;
pub mod connection;
pub mod crypt;
pub mod des_crypt;
pub mod error_page;
pub mod file;
mod filters;
pub mod forwarded;
pub mod head;
pub mod headers;
pub mod http1;
pub mod http2;
pub mod listen;
pub mod location;
pub mod log;
pub mod method;
pub mod mime;
mod pace;
pub mod parse;
pub mod pause;
pub mod phases;
pub mod send_file;
pub mod serve;
pub mod special;
pub mod status;
pub mod subrequest;
#[cfg(test)]
pub mod testing;
pub mod types;
pub mod upstream;
pub mod uri;
pub mod user_agent;
#[macro_use]
pub mod module;
pub mod modules;
pub mod output;
pub mod read_head;
pub mod request;
pub mod response;
pub mod root;
pub mod script;
mod sink;
pub mod variables;
pub mod walk;

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
    /// Relative paths made of variables start here.
    pub prefix: std::path::PathBuf,
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
