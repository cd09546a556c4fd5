//! The http block from text to IR: servers, locations, their settings merged as nginx merges them.

use std::sync::Arc;

use super::location::{Kind, Location, Locations};
use super::module::Handlers;
pub use super::modules::{Loc, LocBuild, Main, MainBuild, Srv, SrvBuild};
use super::names::ServerName;
use super::request::Request;
use super::{Http, Server, certificates, listen, modules};
use crate::conf::grammar::Context;
use crate::conf::{Build, Fault, Outcome};
use crate::syntax::Directive;
use crate::value::{Regex, Template, VariablesBuilder};

/// What is known of the http block while it is read.
pub struct HttpBuild {
    /// Whether the block was there.
    pub seen: bool,
    /// Settings of the block itself.
    pub main: MainBuild,
    /// Server settings of the block itself.
    srv: SrvBuild,
    /// The server that is being read.
    server: Option<ServerBuild>,
    /// The location (or server, or http block) that is being read.
    current: LocationBuild,
    /// The blocks around `current`, outermost first.
    outer: Vec<LocationBuild>,
    /// Servers read so far.
    servers: Vec<ServerBuild>,
    /// Names and meanings of variables.
    pub vars: VariablesBuilder<Request>,
    /// Addresses to listen on.
    pub listens: listen::Listens,
    /// Upstream blocks, and those that `proxy_pass` to an address implies.
    pub upstreams: crate::upstream::Groups,
}

/// A server while it is read.
pub struct ServerBuild {
    /// Settings.
    pub srv: SrvBuild,
    /// Settings and locations.
    pub root: LocationBuild,
    /// `server_name`
    pub names: Vec<ServerName>,
    /// Whether it has a `listen` of its own.
    pub listens: bool,
    /// File and line of its block, for messages.
    pub at: String,
}

/// A location while it is read.
pub struct LocationBuild {
    /// As written, without modifier.
    pub name: Vec<u8>,
    /// How it is chosen.
    pub kind: Kind,
    /// A URI that lacks the name's last slash is redirected to it: the location is proxied.
    pub auto_redirect: bool,
    /// Settings.
    pub conf: LocBuild,
    /// Nested locations.
    pub children: Vec<LocationBuild>,
    /// Bodies of `if`.
    pub ifs: Vec<LocationBuild>,
    /// `limit_except`
    pub limit_except: Option<Box<LocationBuild>>,
}

impl LocationBuild {
    /// A block of which nothing was read so far.
    pub fn new(kind: Kind, name: &[u8]) -> LocationBuild {
        LocationBuild {
            name: name.to_vec(),
            kind,
            auto_redirect: false,
            conf: LocBuild::default(),
            children: Vec::new(),
            ifs: Vec::new(),
            limit_except: None,
        }
    }
}

impl Default for HttpBuild {
    fn default() -> Self {
        HttpBuild {
            seen: false,
            main: MainBuild::default(),
            srv: SrvBuild::default(),
            server: None,
            current: LocationBuild::new(Kind::Server, b""),
            outer: Vec::new(),
            servers: Vec::new(),
            vars: VariablesBuilder::new(modules::variables(), modules::prefixes()),
            listens: Default::default(),
            upstreams: Default::default(),
        }
    }
}

impl HttpBuild {
    /// Settings of the http block.
    pub fn main(&mut self) -> &mut MainBuild {
        &mut self.main
    }

    /// Settings of the server being read, or of the http block outside of servers.
    pub fn srv(&mut self) -> &mut SrvBuild {
        match &mut self.server {
            Some(server) => &mut server.srv,
            None => &mut self.srv,
        }
    }

    /// Settings of the innermost block being read.
    pub fn loc(&mut self) -> &mut LocBuild {
        &mut self.current.conf
    }

    /// The innermost block being read.
    pub fn location(&mut self) -> &mut LocationBuild {
        &mut self.current
    }

    /// The blocks around the innermost one, outermost (the http block) first.
    pub fn around(&mut self) -> &mut [LocationBuild] {
        &mut self.outer
    }

    /// The server being read.
    pub fn server(&mut self) -> Option<&mut ServerBuild> {
        self.server.as_mut()
    }

    /// The servers read so far.
    pub fn servers(&mut self) -> &mut [ServerBuild] {
        &mut self.servers
    }

    /// Index of the server being read.
    pub fn server_index(&self) -> usize {
        self.servers.len()
    }

    /// Whether the innermost location is `@name`.
    pub fn in_named_location(&self) -> bool {
        matches!(self.current.kind, Kind::Named)
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

/// Reads a block as a location-like scope of its own and returns it.
pub fn nested(
    cf: &mut Build,
    d: &Directive<'_>,
    scope: LocationBuild,
    context: Context,
) -> Outcome<LocationBuild> {
    let outside = std::mem::replace(&mut cf.http.current, scope);
    cf.http.outer.push(outside);
    let read = cf.block(d, context);
    let outside = cf.http.outer.pop().unwrap_or_else(|| LocationBuild::new(Kind::Server, b""));
    let mut inside = std::mem::replace(&mut cf.http.current, outside);
    read?;
    modules::close(&mut inside, cf)?;
    Ok(inside)
}

/// `http { ... }`
pub fn http_block(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    if cf.http.seen {
        return Err(Fault::directive("is duplicate"));
    }
    cf.http.seen = true;
    cf.block(d, Context::HTTP)?;
    modules::init(cf);
    Ok(())
}

/// `server { ... }`
pub fn server_block(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    cf.http.server = Some(ServerBuild {
        srv: SrvBuild::default(),
        root: LocationBuild::new(Kind::Server, b""),
        names: Vec::new(),
        listens: false,
        at: d.at().to_string(),
    });
    let root = nested(cf, d, LocationBuild::new(Kind::Server, b""), Context::HTTP_SERVER)?;
    let Some(mut server) = cf.http.server.take() else { return Ok(()) };
    server.root = root;
    if !server.listens {
        listen::default_address(cf, d)?;
    }
    cf.http.servers.push(server);
    Ok(())
}

/// `server_name`
pub fn server_name(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    for word in d.args() {
        let compile = |cf: &mut Build, pattern: &[u8], caseless| cf.http.regex(pattern, caseless);
        let name = ServerName::parse(cf, d, word, compile)?;
        if let Some(server) = cf.http.server() {
            server.names.push(name);
        }
    }
    Ok(())
}

/// `location [modifier] name { ... }`
pub fn location_block(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let (kind, name) = location_name(cf, d)?;
    check_nesting(cf, &kind, &name)?;
    let location = nested(cf, d, LocationBuild::new(kind, &name), Context::HTTP_LOCATION)?;
    let same = |other: &LocationBuild| match (&other.kind, &location.kind) {
        (Kind::Exact, Kind::Exact)
        | (Kind::Prefix { .. }, Kind::Prefix { .. })
        | (Kind::Named, Kind::Named) => other.name == location.name,
        _ => false,
    };
    if cf.http.current.children.iter().any(same) {
        let shown = String::from_utf8_lossy(&location.name);
        return Err(Fault::Whole(format!("duplicate location \"{shown}\"{}", d.at())));
    }
    cf.http.current.children.push(location);
    Ok(())
}

fn location_name(cf: &mut Build, d: &Directive<'_>) -> Outcome<(Kind, Vec<u8>)> {
    if d.len() == 3 {
        let name = d.arg(2);
        let kind = match d.arg(1) {
            b"=" => Kind::Exact,
            b"^~" => Kind::Prefix { noregex: true },
            b"~" => Kind::Regex(cf.http.regex(name, false)?),
            b"~*" => Kind::Regex(cf.http.regex(name, true)?),
            other => {
                let shown = String::from_utf8_lossy(other);
                return Err(Fault::here(format!("invalid location modifier \"{shown}\"")));
            }
        };
        return Ok((kind, name.to_vec()));
    }
    let word = d.arg(1);
    Ok(match word {
        [b'=', name @ ..] => (Kind::Exact, name.to_vec()),
        [b'^', b'~', name @ ..] => (Kind::Prefix { noregex: true }, name.to_vec()),
        [b'~', b'*', name @ ..] => (Kind::Regex(cf.http.regex(name, true)?), name.to_vec()),
        [b'~', name @ ..] => (Kind::Regex(cf.http.regex(name, false)?), name.to_vec()),
        [b'@', ..] => (Kind::Named, word.to_vec()),
        name => (Kind::Prefix { noregex: false }, name.to_vec()),
    })
}

/// nginx's rules for a location inside a location.
fn check_nesting(cf: &Build, kind: &Kind, name: &[u8]) -> Outcome {
    let outer = &cf.http.current;
    let inner_shown = String::from_utf8_lossy(name);
    let outer_shown = String::from_utf8_lossy(&outer.name);
    let fault = |text: String| Err(Fault::Here(text));
    match outer.kind {
        Kind::Server => return Ok(()),
        Kind::Exact => {
            return fault(format!(
                "location \"{inner_shown}\" cannot be inside the exact location \"{outer_shown}\""
            ));
        }
        Kind::Named => {
            return fault(format!(
                "location \"{inner_shown}\" cannot be inside the named location \"{outer_shown}\""
            ));
        }
        _ => {}
    }
    if matches!(kind, Kind::Named) {
        return fault(format!("named location \"{inner_shown}\" can be on the server level only"));
    }
    if !matches!(kind, Kind::Regex(_)) && !name.starts_with(&outer.name) {
        return fault(format!("location \"{inner_shown}\" is outside location \"{outer_shown}\""));
    }
    Ok(())
}

/// `limit_except method ... { ... }`: the block's settings; the methods are the access module's.
pub fn limit_except_block(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    if cf.http.current.limit_except.is_some() {
        return Err(Fault::directive("is duplicate"));
    }
    let mut allowed = Vec::new();
    for word in d.args() {
        let method = crate::http::method::Method::parse_setting(word)
            .ok_or_else(|| Fault::here(format!("invalid method \"{}\"", String::from_utf8_lossy(word))))?;
        allowed.push(method);
    }
    let block =
        nested(cf, d, LocationBuild::new(Kind::LimitExcept(allowed), b""), Context::HTTP_LIMIT_EXCEPT)?;
    cf.http.current.limit_except = Some(Box::new(block));
    Ok(())
}

/// Closes the http block: merges settings and makes the IR.
pub fn finish(cf: &mut Build) -> Outcome<Option<Http>> {
    if !cf.http.seen {
        return Ok(None);
    }
    let build = std::mem::take(&mut cf.http);
    let HttpBuild { main, srv, current, servers, vars, listens, upstreams, .. } = build;
    cf.http.vars = vars;
    cf.http.upstreams = upstreams;
    let main = main.merge(cf);
    // The http block's own settings matter where servers have them.
    let top = (!servers.is_empty()).then(|| (srv.merge(None, cf), current.conf.merge(None, cf)));
    let mut closed = Vec::with_capacity(servers.len());
    for server in servers {
        let Some((top_srv, top_loc)) = &top else { break };
        let at = server.at;
        let srv = server.srv.merge(Some(top_srv), cf);
        let root = close(server.root, top_loc, cf);
        let mut names = server.names;
        if names.is_empty() {
            names.push(ServerName::empty());
        }
        closed.push(Server { name: names[0].shown().into(), names: Arc::new(names), srv, root, at });
    }
    let loaded = certificates::load(&closed, cf);
    cf.merged("ngx_http_ssl", loaded, || ());
    cf.end_merging()?;
    let vars = std::mem::replace(&mut cf.http.vars, VariablesBuilder::new([], []));
    let upstreams = std::mem::take(&mut cf.http.upstreams);
    let mut http = Http {
        main,
        servers: closed,
        ports: Vec::new(),
        prefix: cf.prefix.clone(),
        variables: vars.finish().map_err(Fault::Whole)?,
        upstreams,
    };
    listen::resolve(listens, &mut http, cf)?;
    certificates::check(&mut http)?;
    Ok(Some(http))
}

fn close(build: LocationBuild, parent: &Loc, cf: &mut Build) -> Location {
    let conf = build.conf.merge(Some(parent), cf);
    let close_all = |list: Vec<LocationBuild>, cf: &mut Build| -> Vec<Location> {
        list.into_iter().map(|l| close(l, &conf, cf)).collect()
    };
    let children = Locations::new(close_all(build.children, cf));
    let ifs = close_all(build.ifs, cf);
    let limit_except = build.limit_except.map(|block| Box::new(close(*block, &conf, cf)));
    let handlers: Handlers = modules::handlers(&conf);
    let error_log = cf.error_log(&conf.core.error_log);
    Location {
        name: build.name.into(),
        kind: build.kind,
        auto_redirect: build.auto_redirect,
        conf,
        error_log,
        handlers,
        children,
        ifs,
        limit_except,
    }
}
