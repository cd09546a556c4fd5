//! `listen` of http and stream: addresses, the servers behind each, and the sockets they need.
//!
//! A side keeps one [`Listens`] while its block is read:
//!
//! 1. The `listen` directive calls [`Listens::directive`] with the index the server will have. Its warnings go into `Build::messages`.
//! 2. An http server without `listen` calls [`Listens::default_address`].
//! 3. Once the block is closed, [`Listens::resolve`] gives the [`Port`]s, one for each socket to open, in nginx's
//!    order. It asks for names and error log of a server by [`Servers`].
//! 4. At run time [`Port::addr_of`] gives the servers of the address a connection came to, and [`Addr::names`] the
//!    server of a name.

mod options;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub use options::Options;

use super::names::{Names, NotAdded, ServerName};
use super::url::{self, Use};
use super::{Fault, Outcome};
use crate::log::{ErrorLog, Level};
use crate::net::Address;
use crate::net::listen::{self as sockets, Kind, Listen};
use crate::syntax::{At, Directive};

/// Whose `listen` it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Http,
    Stream,
}

/// Messages in the order they arose.
type Messages = Vec<(Level, String)>;

/// What [`Listens::resolve`] must know of servers, by index.
pub trait Servers {
    fn names(&self, server: usize) -> &[ServerName];
    /// Where failures to accept are logged.
    fn error_log(&self, server: usize) -> ErrorLog;
}

/// One listening socket and the addresses it serves: a wildcard socket serves specific ones too.
#[derive(Debug)]
pub struct Port {
    /// The socket to open.
    pub listen: Listen,
    /// Specific addresses behind a wildcard socket.
    pub specific: Vec<(IpAddr, Addr)>,
    /// The socket's own address.
    pub addr: Addr,
}

/// The servers of one address.
#[derive(Clone, Debug, Default)]
pub struct Addr {
    /// `ssl`
    pub ssl: bool,
    /// `http2` as a parameter of `listen`.
    pub http2: bool,
    /// `proxy_protocol`
    pub proxy_protocol: bool,
    /// Index of the default server.
    pub default: usize,
    /// Indices of all its servers, in order.
    pub servers: Vec<usize>,
    /// Servers by name; empty where there is but one server.
    pub names: std::sync::Arc<Names>,
}

impl Port {
    /// The socket's address as the log shows it.
    pub fn text(&self) -> String {
        self.listen.address.to_string()
    }

    /// The address a connection came to.
    pub fn addr_of(&self, local: &Address) -> &Addr {
        let specific = match local {
            Address::Inet(local) if !self.specific.is_empty() => {
                self.specific.iter().find(|(ip, _)| *ip == local.ip())
            }
            _ => None,
        };
        specific.map_or(&self.addr, |(_, addr)| addr)
    }
}

/// Addresses while the configuration is read.
#[derive(Debug, Default)]
pub struct Listens {
    ports: Vec<PortBuild>,
}

/// Addresses of one family, kind and port.
#[derive(Debug)]
struct PortBuild {
    family: Family,
    kind: Kind,
    /// 0 for unix sockets.
    port: u16,
    addrs: Vec<AddrBuild>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Inet,
    Inet6,
    Unix,
}

/// `ssl`, `http2` and `proxy_protocol` as bits.
type Protocols = u8;

#[derive(Debug)]
struct AddrBuild {
    address: Address,
    options: Options,
    default: usize,
    servers: Vec<usize>,
    /// Protocols that a later `listen` is expected to repeat.
    protocols: Protocols,
    protocols_set: bool,
    protocols_changed: bool,
}

impl Listens {
    /// Reads a `listen` of the server that will have index `server`.
    ///
    /// # Errors
    /// nginx's words; the position is the directive's.
    pub fn directive(
        &mut self,
        d: &Directive<'_>,
        side: Side,
        server: usize,
        messages: &mut Messages,
    ) -> Outcome {
        let default_port = if side == Side::Http { 80 } else { 0 };
        let to = Use { listen: true, default_port, ..Use::default() };
        let url = url::parse(d.arg(1), &to).map_err(|error| {
            let text = String::from_utf8_lossy(d.arg(1));
            Fault::here(format!("{error} in \"{text}\" of the \"listen\" directive"))
        })?;
        let options = Options::parse(d, side, messages)?;
        let mut seen = HashSet::new();
        for address in url.addrs {
            if seen.insert(address.clone()) {
                self.add(address, options.clone(), server, d.at(), messages)?;
            }
        }
        Ok(())
    }

    /// What an http server without `listen` listens on: port 80, or 8000 for other users than root. `at` is the end
    /// of its block.
    pub fn default_address(&mut self, server: usize, at: At<'_>, messages: &mut Messages) -> Outcome {
        let port = if nix::unistd::getuid().is_root() { 80 } else { 8000 };
        let address = Address::Inet(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
        self.add(address, Options::default(), server, at, messages)
    }

    fn add(
        &mut self,
        address: Address,
        options: Options,
        server: usize,
        at: At<'_>,
        messages: &mut Messages,
    ) -> Outcome {
        let (family, port, kind) = (family(&address), address.port().unwrap_or(0), options.kind);
        let known = self.ports.iter_mut().find(|p| (p.family, p.kind, p.port) == (family, kind, port));
        let addr = AddrBuild {
            address,
            options,
            default: server,
            servers: vec![server],
            protocols: 0,
            protocols_set: false,
            protocols_changed: false,
        };
        match known {
            None => self.ports.push(PortBuild { family, kind, port, addrs: vec![addr] }),
            Some(port) => match port.addrs.iter_mut().find(|other| other.address == addr.address) {
                None => port.addrs.push(addr),
                Some(same) => {
                    if same.join(addr.options, server)? {
                        let text = format!("protocol options redefined for {}{at}", same.address);
                        messages.push((Level::Warn, text));
                    }
                }
            },
        }
        Ok(())
    }

    /// The sockets to open, in the order of the configuration.
    ///
    /// # Errors
    /// An invalid server name, in nginx's words, which have no position.
    pub fn resolve(self, servers: &dyn Servers, messages: &mut Messages) -> Outcome<Vec<Port>> {
        let mut ports = Vec::new();
        for port in self.ports {
            port.resolve(servers, messages, &mut ports)?;
        }
        Ok(ports)
    }
}

fn family(address: &Address) -> Family {
    match address {
        Address::Inet(SocketAddr::V4(_)) => Family::Inet,
        Address::Inet(SocketAddr::V6(_)) => Family::Inet6,
        Address::Unix(_) => Family::Unix,
    }
}

fn protocols(options: &Options) -> Protocols {
    u8::from(options.proxy_protocol) | u8::from(options.ssl) << 1 | u8::from(options.http2) << 2
}

// === impl AddrBuild ===

impl AddrBuild {
    /// Another `listen` with this address. True where its protocols differ in a way worth a warning.
    fn join(&mut self, new: Options, server: usize) -> Outcome<bool> {
        let address = &self.address;
        if self.servers.contains(&server) {
            return Err(Fault::here(format!("a duplicate listen {address}")));
        }
        self.servers.push(server);
        let (had_set, mut default_server) = (self.options.set, self.options.default_server);
        let (now, before) = (protocols(&new), protocols(&self.options));
        if new.set && had_set {
            return Err(Fault::here(format!("duplicate listen options for {address}")));
        }
        if new.default_server {
            if default_server {
                return Err(Fault::here(format!("a duplicate default server for {address}")));
            }
            default_server = true;
            self.default = server;
        }
        let new_set = new.set;
        if new_set {
            self.options = new;
        }
        let warn = self.compare(now, before, new_set);
        let both = now | before;
        self.options.default_server = default_server;
        self.options.proxy_protocol = both & 1 != 0;
        self.options.ssl = both & 2 != 0;
        self.options.http2 = both & 4 != 0;
        Ok(warn)
    }

    /// nginx's idea of which differences in `ssl`, `http2` and `proxy_protocol` are intended: those that the first
    /// or the one `listen` with socket options has and all others leave out.
    fn compare(&mut self, now: Protocols, before: Protocols, new_set: bool) -> bool {
        let differs = self.protocols_set && now != self.protocols;
        let added = now | before != before;
        let removed = now | before != now;
        let warn = if added {
            self.options.set && !new_set || self.protocols_changed || removed
        } else if removed {
            new_set || differs
        } else {
            new_set && self.protocols_changed || differs
        };
        self.protocols = if added { before } else { now };
        self.protocols_set = true;
        self.protocols_changed |= added || removed;
        warn
    }

    fn is_wildcard(&self) -> bool {
        matches!(&self.address, Address::Inet(addr) if addr.ip().is_unspecified())
    }

    /// Whether names choose among servers, or captures are wanted from the name.
    fn needs_names(&self, servers: &dyn Servers) -> bool {
        let last_regex = |names: &[ServerName]| {
            names.iter().rev().find(|name| name.is_regex()).is_some_and(ServerName::captures)
        };
        self.servers.len() > 1 || last_regex(servers.names(self.default))
    }

    fn names(&self, servers: &dyn Servers, messages: &mut Messages) -> Outcome<Names> {
        let mut names = Names::default();
        if !self.needs_names(servers) {
            return Ok(names);
        }
        let address = &self.address;
        for server in &self.servers {
            for (index, name) in servers.names(*server).iter().enumerate() {
                let shown = String::from_utf8_lossy(name.text());
                match names.add(name, *server, index) {
                    Ok(()) => {}
                    Err(NotAdded::Conflict) => {
                        let text = format!("conflicting server name \"{shown}\" on {address}, ignored");
                        messages.push((Level::Warn, text));
                    }
                    Err(NotAdded::Invalid) => {
                        let text = format!("invalid server name or wildcard \"{shown}\" on {address}");
                        return Err(Fault::Whole(text));
                    }
                }
            }
        }
        Ok(names)
    }

    fn listen(&self, log: ErrorLog) -> Listen {
        let (options, kind) = (&self.options, self.options.kind);
        let address = match &self.address {
            Address::Inet(addr) => sockets::Address::Inet(*addr),
            Address::Unix(path) => sockets::Address::Unix(path.clone()),
        };
        let mut listen = Listen::new(address, log);
        listen.kind = kind;
        listen.multipath = options.multipath;
        listen.backlog = options.backlog;
        listen.rcvbuf = options.rcvbuf;
        listen.sndbuf = options.sndbuf;
        listen.reuseport = options.reuseport;
        listen.keepalive = options.keepalive;
        listen.ipv6only = options.ipv6only;
        listen.fastopen = options.fastopen;
        listen.deferred = options.deferred;
        listen.wildcard = self.is_wildcard();
        listen
    }
}

// === impl PortBuild ===

impl PortBuild {
    /// Where a wildcard address has the port, it is the only one bound besides those that ask for it.
    fn resolve(mut self, servers: &dyn Servers, messages: &mut Messages, ports: &mut Vec<Port>) -> Outcome {
        self.addrs.sort_by_key(|addr| (addr.is_wildcard(), !addr.options.bind));
        let wildcard = self.addrs.last().is_some_and(AddrBuild::is_wildcard);
        let mut specific = Vec::new();
        let mut open = Vec::new();
        for build in self.addrs {
            let addr = Addr {
                ssl: build.options.ssl,
                http2: build.options.http2,
                proxy_protocol: build.options.proxy_protocol,
                default: build.default,
                servers: build.servers.clone(),
                names: build.names(servers, messages)?.into(),
            };
            match &build.address {
                Address::Inet(inet) if wildcard && !build.options.bind && !build.is_wildcard() => {
                    specific.push((inet.ip(), addr));
                }
                _ => open.push(Port {
                    listen: build.listen(servers.error_log(build.default)),
                    specific: Vec::new(),
                    addr,
                }),
            }
        }
        if let Some(last) = open.last_mut() {
            last.specific = specific;
        }
        ports.append(&mut open);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::{Item, LoadOptions, parse_text};

    struct Named(Vec<Vec<ServerName>>);

    impl Servers for Named {
        fn names(&self, server: usize) -> &[ServerName] {
            self.0.get(server).map_or(&[], Vec::as_slice)
        }

        fn error_log(&self, _: usize) -> ErrorLog {
            ErrorLog::none()
        }
    }

    /// Reads `listen` lines of servers, each with one name, and gives the ports and the warnings.
    fn resolved(servers: &[(&str, &[&str])]) -> Result<(Vec<Port>, Vec<String>), String> {
        let (mut listens, mut messages) = (Listens::default(), Vec::new());
        for (index, (_, lines)) in servers.iter().enumerate() {
            for line in *lines {
                let text = format!("listen {line};");
                let tree = parse_text(b"conf", text.as_bytes(), &LoadOptions::default());
                let Some(Item::Directive(d)) = tree.items().next() else { panic!("no directive") };
                listens
                    .directive(&d, Side::Http, index, &mut messages)
                    .map_err(|fault| fault.text(d.name(), ""))?;
            }
        }
        let names = servers.iter().map(|(name, _)| vec![ServerName::plain(name)]).collect();
        let ports =
            listens.resolve(&Named(names), &mut messages).map_err(|fault| fault.text(b"listen", ""))?;
        Ok((ports, messages.into_iter().map(|(_, text)| text).collect()))
    }

    fn sockets(servers: &[(&str, &[&str])]) -> Vec<String> {
        resolved(servers).unwrap().0.iter().map(|port| port.listen.address.to_string()).collect()
    }

    #[test]
    fn a_wildcard_serves_addresses_that_are_not_bound() {
        let servers: &[(&str, &[&str])] =
            &[("a", &["127.0.0.1:80"]), ("b", &["80"]), ("c", &["127.0.0.2:80 bind"]), ("d", &["[::]:80"])];
        assert_eq!(sockets(servers), ["127.0.0.2:80", "0.0.0.0:80", "[::]:80"]);
        let (ports, _) = resolved(servers).unwrap();
        let default = |text: &str| ports[1].addr_of(&Address::Inet(text.parse().unwrap())).default;
        assert_eq!((default("127.0.0.1:80"), default("127.0.0.9:80")), (0, 1));
    }

    #[test]
    fn without_a_wildcard_each_address_has_a_socket() {
        let servers: &[(&str, &[&str])] = &[("a", &["127.0.0.1:80", "unix:/a"]), ("b", &["127.0.0.2:80"])];
        assert_eq!(sockets(servers), ["127.0.0.1:80", "127.0.0.2:80", "unix:/a"]);
    }

    #[test]
    fn servers_of_an_address_are_told_apart_by_name() {
        let servers: &[(&str, &[&str])] =
            &[("a", &["80"]), ("b", &["80 default_server"]), ("a", &["80"]), ("c", &["81"])];
        let (ports, warnings) = resolved(servers).unwrap();
        assert_eq!(warnings, ["conflicting server name \"a\" on 0.0.0.0:80, ignored"]);
        assert_eq!(ports[0].addr.default, 1);
        let found = ports[0].addr.names.find(b"a", &crate::value::Scope::default(), |_| &[]);
        assert_eq!(found, Some(0));
        assert!(ports[1].addr.names.is_empty());
        let fault = resolved(&[("a.*.b", &["80"]), ("b", &["80"])]).unwrap_err();
        assert_eq!(fault, "invalid server name or wildcard \"a.*.b\" on 0.0.0.0:80");
    }

    #[test]
    fn contradictions_are_refused() {
        for (first, second, words) in [
            ("80 backlog=1", "80 backlog=1", "duplicate listen options for 0.0.0.0:80"),
            ("80 default", "*:80 default_server", "a duplicate default server for 0.0.0.0:80"),
        ] {
            assert_eq!(resolved(&[("a", &[first]), ("b", &[second])]).unwrap_err(), words);
        }
        assert_eq!(resolved(&[("a", &["80", "*:80"])]).unwrap_err(), "a duplicate listen 0.0.0.0:80");
        assert!(resolved(&[("a", &["80 backlog=1"]), ("b", &["80"])]).is_ok());
    }

    #[test]
    fn protocols_that_change_are_warned_about() {
        let warned = |lines: &[&str]| {
            let lines: Vec<&[&str]> = lines.iter().map(std::slice::from_ref).collect();
            let servers: Vec<_> = ["a", "b", "c"].into_iter().zip(lines).collect();
            resolved(&servers).unwrap().1.len()
        };
        assert_eq!(warned(&["443 ssl", "443 ssl"]), 0);
        assert_eq!(warned(&["443 ssl", "443"]), 0);
        assert_eq!(warned(&["443", "443 ssl"]), 0);
        assert_eq!(warned(&["443 ssl", "443 proxy_protocol"]), 1);
        assert_eq!(warned(&["443 ssl", "443", "443 ssl"]), 1);
        assert_eq!(warned(&["443 ssl bind", "443 proxy_protocol ssl"]), 1);
        assert!(resolved(&[("a", &["443 ssl"]), ("b", &["443"])]).unwrap().0[0].addr.ssl);
    }
}
