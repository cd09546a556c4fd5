//! The stream block from text to IR: servers and their settings, merged as nginx merges them.

use std::sync::OnceLock;

use super::module::Handlers;
pub use super::modules::{Main, MainBuild, Srv, SrvBuild};
use super::session::Session;
use super::{Server, Stream, modules};
use crate::conf::grammar::Context;
use crate::conf::listen::{Listens, Servers};
use crate::conf::names::ServerName;
use crate::conf::{Build, Fault, Outcome};
use crate::log::{self, ErrorLog};
use crate::syntax::Directive;
use crate::value::{Regex, Template, VariablesBuilder};

/// What is known of the stream block while it is read.
pub struct StreamBuild {
    /// Whether the block was there.
    pub seen: bool,
    /// Settings of the block itself.
    pub main: MainBuild,
    /// Server settings of the block itself.
    srv: SrvBuild,
    /// The server that is being read.
    server: Option<ServerBuild>,
    /// Servers read so far.
    servers: Vec<ServerBuild>,
    /// Names and meanings of variables.
    pub vars: VariablesBuilder<Session>,
    /// Addresses to listen on.
    pub listens: Listens,
    /// Upstream blocks, and those that `proxy_pass` to an address implies.
    pub upstreams: crate::upstream::Groups,
}

/// A server while it is read.
pub struct ServerBuild {
    /// Settings.
    pub srv: SrvBuild,
    /// `server_name`
    pub names: Vec<ServerName>,
    /// Whether it has a `listen`.
    pub listens: bool,
    /// What its directives say serves sessions; the last one counts.
    pub content: Option<super::module::ContentHandler>,
    /// It takes what was read of the client before.
    pub takes_ahead: bool,
    /// ` in FILE:LINE` of its block.
    pub at: String,
}

impl Default for StreamBuild {
    fn default() -> Self {
        StreamBuild {
            seen: false,
            main: MainBuild::default(),
            srv: SrvBuild::default(),
            server: None,
            servers: Vec::new(),
            vars: VariablesBuilder::new(modules::variables(), modules::prefixes()),
            listens: Default::default(),
            upstreams: Default::default(),
        }
    }
}

impl StreamBuild {
    /// Settings of the stream block.
    pub fn main(&mut self) -> &mut MainBuild {
        &mut self.main
    }

    /// Settings of the server being read, or of the stream block outside of servers.
    pub fn srv(&mut self) -> &mut SrvBuild {
        match &mut self.server {
            Some(server) => &mut server.srv,
            None => &mut self.srv,
        }
    }

    /// The server being read.
    pub fn server(&mut self) -> Option<&mut ServerBuild> {
        self.server.as_mut()
    }

    /// Index of the server being read.
    pub fn server_index(&self) -> usize {
        self.servers.len()
    }

    /// Names what serves sessions of the server being read.
    pub fn serve_by(&mut self, handler: super::module::ContentHandler) {
        if let Some(server) = &mut self.server {
            server.content = Some(handler);
            server.takes_ahead = false;
        }
    }

    /// The same for one that takes [`super::session::Session::read_ahead`].
    pub fn proxy_by(&mut self, handler: super::module::ContentHandler) {
        self.serve_by(handler);
        self.server.iter_mut().for_each(|server| server.takes_ahead = true);
    }

    /// Compiles text with variables.
    pub fn template(&mut self, text: &[u8]) -> Outcome<Template> {
        Template::parse(text, &mut self.vars).map_err(Fault::Here)
    }

    /// Compiles a regular expression with its named groups.
    pub fn regex(&mut self, pattern: &[u8], caseless: bool) -> Outcome<Regex> {
        Regex::new(pattern, caseless, &mut self.vars).map_err(Fault::Here)
    }
}

/// `stream { ... }`
pub fn stream_block(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    if cf.stream.seen {
        return Err(Fault::directive("is duplicate"));
    }
    cf.stream.seen = true;
    cf.block(d, Context::STREAM)?;
    modules::init(cf);
    Ok(())
}

/// `server { ... }`
pub fn server_block(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    cf.stream.server = Some(ServerBuild {
        srv: SrvBuild::default(),
        names: Vec::new(),
        listens: false,
        content: None,
        takes_ahead: false,
        at: d.at().to_string(),
    });
    let read = cf.block(d, Context::STREAM_SERVER);
    let server = cf.stream.server.take();
    read?;
    let Some(server) = server else { return Ok(()) };
    if !server.listens {
        return Err(Fault::whole(format!("no \"listen\" is defined for server{}", server.at)));
    }
    cf.stream.servers.push(server);
    Ok(())
}

/// Closes the stream block: merges settings and makes the IR.
pub fn finish(cf: &mut Build) -> Outcome<Option<Stream>> {
    if !cf.stream.seen {
        return Ok(None);
    }
    let build = std::mem::take(&mut cf.stream);
    let StreamBuild { main, srv, servers, vars, listens, upstreams, .. } = build;
    cf.stream.vars = vars;
    cf.stream.upstreams = upstreams;
    cf.stream.seen = true;
    let main = main.merge(cf);
    let top = srv.top();
    let mut closed = Vec::with_capacity(servers.len());
    let reads_ahead = servers.iter().all(|server| server.takes_ahead);
    for server in servers {
        let srv = server.srv.merge(&top, cf);
        let mut handlers: Handlers = modules::handlers(&srv);
        handlers.content = server.content;
        let mut names = server.names;
        if names.is_empty() {
            names.push(ServerName::empty());
        }
        closed.push(Server {
            name: names[0].shown().into(),
            names,
            srv,
            handlers,
            main_log: OnceLock::new(),
            at: server.at,
        });
    }
    cf.end_merging()?;
    let vars = std::mem::replace(&mut cf.stream.vars, VariablesBuilder::new([], []));
    let upstreams = std::mem::take(&mut cf.stream.upstreams);
    let ports = listens.resolve(&Closed(&closed), &mut cf.messages)?;
    modules::ssl::check_listens(&ports, &closed)?;
    modules::ssl::set_resolving(&closed);
    let variables = vars.finish().map_err(Fault::Whole)?;
    Ok(Some(Stream { main, servers: closed, ports, reads_ahead, variables, upstreams }))
}

/// Servers, as `listen` must know them.
struct Closed<'a>(&'a [Server]);

impl Servers for Closed<'_> {
    fn names(&self, server: usize) -> &[ServerName] {
        self.0.get(server).map_or(&[], |server| &server.names)
    }

    fn error_log(&self, server: usize) -> ErrorLog {
        let own = self.0.get(server).and_then(|server| (*server.srv.core.log).clone());
        own.unwrap_or_else(log::main)
    }
}
