//! `ngx_stream_proxy`: passes sessions on to upstreams. TLS towards them is in [`super::proxy_ssl`], the pump in
//! [`crate::stream::pump`].

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::{proxy_header, proxy_ssl, proxy_udp};
use crate::conf::build::Commands;
use crate::conf::url::{self, Use};
use crate::conf::{Build, Conf, Fault, Outcome, Setting, set, units};
use crate::log::Level;
use crate::net::{Address, Buffer, Io, clock};
use crate::process::memory::in_place;
use crate::settings;
use crate::stream::module::{BAD_GATEWAY, Content, INTERNAL_ERROR, Module};
use crate::stream::pump::{Limits, Pump};
use crate::stream::session::Session;
use crate::stream::udp::relay::Upstream;
use crate::syntax::Directive;
use crate::upstream::connect::{self, connect};
use crate::upstream::{End, Group, GroupId, GroupRef, Pick, Source, UpstreamState};
use crate::value::Template;

/// The module.
pub struct Proxy;

/// `proxy_pass`
#[derive(Clone, Debug)]
enum Target {
    Group(GroupId),
    /// With variables.
    Name(Template),
}

/// `proxy_bind`
#[derive(Clone, Debug)]
pub struct Local {
    address: LocalAddress,
    transparent: bool,
}

#[derive(Clone, Debug)]
enum LocalAddress {
    Fixed(SocketAddr),
    /// With variables.
    Text(Template),
}

/// `proxy_protocol`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// No header is sent.
    Off,
    /// Version 1.
    V1,
    /// Version 2.
    V2,
}

settings! {
    /// Settings of a server. Times in milliseconds, sizes in bytes.
    pub struct Srv {
        pass: Option<Pass> = None,
        local: Option<Local> = None,
        socket_keepalive: bool = false,
        socket_rcvbuf: usize = 0,
        socket_sndbuf: usize = 0,
        connect_timeout: u64 = 60_000,
        timeout: u64 = 600_000,
        buffer_size: usize = 16384,
        upload_rate: Option<Template> = None,
        download_rate: Option<Template> = None,
        /// Datagrams of a client that make a session; 0 is no limit.
        requests: usize = 0,
        /// Answers to each.
        responses: usize = usize::MAX,
        next_upstream: bool = true,
        next_upstream_tries: usize = 0,
        next_upstream_timeout: u64 = 0,
        protocol: Version = Version::Off,
        half_close: bool = false,
    }
}

/// Where `proxy_pass` goes.
#[derive(Clone, Debug)]
pub struct Pass(Target);

impl Conf for Srv {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

impl Module for Proxy {
    type Main = ();
    type Srv = Srv;
    const COMMANDS: Commands = Commands {
        module: "ngx_stream_proxy",
        setters: &[
            ("proxy_pass", proxy_pass),
            ("proxy_bind", proxy_bind),
            ("proxy_socket_keepalive", |cf, d| set::flag(&mut cf.stream.srv().proxy().socket_keepalive, d)),
            ("proxy_socket_rcvbuf", |cf, d| set::size(&mut cf.stream.srv().proxy().socket_rcvbuf, d)),
            ("proxy_socket_sndbuf", |cf, d| set::size(&mut cf.stream.srv().proxy().socket_sndbuf, d)),
            ("proxy_connect_timeout", |cf, d| set::msec(&mut cf.stream.srv().proxy().connect_timeout, d)),
            ("proxy_timeout", |cf, d| set::msec(&mut cf.stream.srv().proxy().timeout, d)),
            ("proxy_buffer_size", |cf, d| set::size(&mut cf.stream.srv().proxy().buffer_size, d)),
            ("proxy_downstream_buffer", old_buffer_size),
            ("proxy_upstream_buffer", old_buffer_size),
            ("proxy_upload_rate", |cf, d| set_rate(cf, d, |srv| &mut srv.upload_rate)),
            ("proxy_download_rate", |cf, d| set_rate(cf, d, |srv| &mut srv.download_rate)),
            ("proxy_requests", |cf, d| set::number(&mut cf.stream.srv().proxy().requests, d)),
            ("proxy_responses", |cf, d| set::number(&mut cf.stream.srv().proxy().responses, d)),
            ("proxy_next_upstream", |cf, d| set::flag(&mut cf.stream.srv().proxy().next_upstream, d)),
            ("proxy_next_upstream_tries", |cf, d| {
                set::number(&mut cf.stream.srv().proxy().next_upstream_tries, d)
            }),
            ("proxy_next_upstream_timeout", |cf, d| {
                set::msec(&mut cf.stream.srv().proxy().next_upstream_timeout, d)
            }),
            ("proxy_protocol", |cf, d| {
                let words = [("off", Version::Off), ("on", Version::V1), ("v2", Version::V2)];
                set::choice(&mut cf.stream.srv().proxy().protocol, d, &words)
            }),
            ("proxy_half_close", |cf, d| set::flag(&mut cf.stream.srv().proxy().half_close, d)),
        ],
    };
}

fn proxy_pass(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    cf.stream.srv().proxy().pass.once()?;
    cf.stream.proxy_by(|s| Box::pin(content(s)));
    let text = d.arg(1);
    let name = cf.stream.template(text)?;
    let target = if name.as_constant().is_none() {
        Target::Name(name)
    } else {
        let url = url::parse(text, &Use { no_resolve: true, ..Use::default() }).map_err(|error| {
            Fault::here(format!("{error} in upstream \"{}\"", String::from_utf8_lossy(text)))
        })?;
        Target::Group(cf.stream.upstreams.add_implicit(&url, d.at())?)
    };
    cf.stream.srv().proxy().pass.set(Some(Pass(target)))
}

fn proxy_bind(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    cf.stream.srv().proxy().local.once()?;
    if d.len() == 2 && d.arg(1) == b"off" {
        return cf.stream.srv().proxy().local.set(None);
    }
    let text = cf.stream.template(d.arg(1))?;
    let address = match text.as_constant() {
        None => LocalAddress::Text(text),
        Some(text) => match url::parse_addr_port(text) {
            Some(address) => LocalAddress::Fixed(address),
            None => {
                let shown = String::from_utf8_lossy(text);
                return Err(Fault::here(format!("invalid address \"{shown}\"")));
            }
        },
    };
    let transparent = match d.len() {
        2 => false,
        _ if d.arg(2) == b"transparent" => {
            cf.core.transparent = true;
            true
        }
        _ => return Err(Fault::invalid_parameter(d.arg(2))),
    };
    cf.stream.srv().proxy().local.set(Some(Local { address, transparent }))
}

fn old_buffer_size(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    set::size(&mut cf.stream.srv().proxy().buffer_size, d)?;
    let name = String::from_utf8_lossy(d.name());
    let sentence =
        format!("the \"{name}\" directive is deprecated, use the \"proxy_buffer_size\" directive instead");
    cf.warn(d.at(), sentence);
    Ok(())
}

fn set_rate(
    cf: &mut Build,
    d: &Directive<'_>,
    to: fn(&mut Srv) -> &mut Setting<Option<Template>>,
) -> Outcome {
    to(cf.stream.srv().proxy()).once()?;
    let value = cf.stream.template(d.arg(1))?;
    if value.as_constant().is_some_and(|text| units::size(text).is_none()) {
        return Err(Fault::directive("invalid value"));
    }
    to(cf.stream.srv().proxy()).set(Some(value))
}

/// Why there is no connection to a peer. What was wrong is in the log.
pub enum Failed {
    /// Another peer may do better.
    Next,
    /// The session ends with this status.
    End(u16),
}

/// What bytes are sent over.
enum Link {
    Stream(Io),
    Datagrams(Upstream),
}

async fn content(s: &mut Session) -> Content {
    let srv = &s.server.srv;
    let conf = &srv.proxy;
    let began = clock::wall().sec;
    s.upstream.proxied.set(true);
    let (group, host) = match target(s, conf).await {
        Ok(found) => found,
        Err(status) => return Content::Served(status),
    };
    let options = connect::Options {
        local: local_address(s, conf),
        transparent: conf.local.as_ref().is_some_and(|local| local.transparent),
        rcvbuf: *conf.socket_rcvbuf,
        sndbuf: *conf.socket_sndbuf,
        keepalive: *conf.socket_keepalive,
        nodelay: *srv.core.tcp_nodelay,
    };
    let client = match &s.client {
        Address::Inet(addr) => Some(addr.ip()),
        Address::Unix(_) => None,
    };
    let mut pick = group.start(&Source { context: &*s, client });
    pick.limit_tries(u32::try_from(*conf.next_upstream_tries).unwrap_or(u32::MAX));
    let start = clock::now();
    let status = loop {
        match attempt(s, &mut pick, &options, &host).await {
            Ok(Link::Stream(upstream)) => return Content::Pump(pump(s, upstream, began, pick)),
            Ok(Link::Datagrams(upstream)) => {
                let end = proxy_udp::run(s, &upstream, began, &mut pick).await;
                if end.failed {
                    s.release(&mut pick, End::Failed);
                }
                break end.status;
            }
            Err(Failed::End(status)) => break status,
            Err(Failed::Next) => {}
        }
        s.release(&mut pick, End::Failed);
        let late = *conf.next_upstream_timeout > 0 && clock::now() - start >= *conf.next_upstream_timeout;
        if pick.tries() == 0 || !*conf.next_upstream || late {
            break BAD_GATEWAY;
        }
    };
    s.release(&mut pick, End::Done);
    Content::Served(status)
}

/// The group to go to, and the host's name for TLS.
async fn target(s: &Session, conf: &Srv) -> Result<(GroupRef, Arc<str>), u16> {
    let groups = &s.stream.upstreams;
    let name = match &*conf.pass {
        Some(Pass(Target::Group(id))) => {
            let group = groups.get(*id);
            return Ok((GroupRef::Static(group), group.name.clone()));
        }
        Some(Pass(Target::Name(name))) => name.eval(s),
        None => return Err(INTERNAL_ERROR),
    };
    let fail = |message: std::fmt::Arguments<'_>| {
        s.error(Level::Error, message);
        INTERNAL_ERROR
    };
    let found = url::parse(&name, &Use { no_resolve: true, ..Use::default() })
        .map_err(|error| fail(format_args!("{error} in upstream \"{}\"", crate::log::bytes(&name))))?;
    let host: Arc<str> = String::from_utf8_lossy(&found.host).into();
    if let Some(group) = groups.find(&found.host, found.port, found.no_port) {
        return Ok((GroupRef::Static(group), host));
    }
    match found.addrs.first() {
        Some(address @ Address::Unix(_)) => return Ok((resolved(&host, address), host)),
        _ if found.port == 0 => return Err(fail(format_args!("no port in upstream \"{host}\""))),
        Some(address) => return Ok((resolved(&host, address), host)),
        None => {}
    }
    let core = &s.server.srv.core;
    let Some(resolver) = &*core.resolver else {
        return Err(fail(format_args!("no resolver defined to resolve {host}")));
    };
    match resolver.addresses(&found.host, *core.resolver_timeout).await {
        Ok(answer) => {
            let addresses = answer.addresses.into_iter().map(|ip| (ip, found.port).into());
            Ok((GroupRef::Owned(Group::resolved_inet(&host, addresses)), host))
        }
        Err(failure) => {
            let host = host.strip_suffix('.').unwrap_or(&host);
            Err(fail(format_args!("{host} could not be resolved ({failure})")))
        }
    }
}

fn resolved(host: &str, address: &Address) -> GroupRef {
    GroupRef::Owned(Group::resolved(host, [address.clone()]))
}

fn local_address(s: &Session, conf: &Srv) -> Option<SocketAddr> {
    match &conf.local.as_ref()?.address {
        LocalAddress::Fixed(address) => Some(*address),
        LocalAddress::Text(text) => {
            let text = text.eval(s);
            let address = url::parse_addr_port(&text);
            if address.is_none() && !text.is_empty() {
                s.error(Level::Error, format_args!("invalid local address \"{}\"", crate::log::bytes(&text)));
            }
            address
        }
    }
}

/// One attempt at a peer, up to the point where bytes can be sent.
async fn attempt(
    s: &Session,
    pick: &mut Pick,
    options: &connect::Options,
    host: &str,
) -> Result<Link, Failed> {
    let conf = &s.server.srv.proxy;
    let upstream = &s.upstream;
    let now = clock::now();
    s.action.set(Some("connecting to upstream"));
    upstream.start.set(now);
    upstream.sent.set(0);
    let address = match pick.next(now) {
        Ok(peer) => {
            begin(s, peer.name.clone());
            peer.address.clone()
        }
        Err(none) => {
            begin(s, none.name);
            s.error(Level::Error, format_args!("no live upstreams"));
            return Err(Failed::End(BAD_GATEWAY));
        }
    };
    if s.udp.is_some() {
        let socket = proxy_udp::open(s, &address, options)?;
        connected(s, "udp ", &socket);
        return Ok(Link::Datagrams(socket));
    }
    s.deadline.set(*conf.connect_timeout);
    let connected_or_late = s.deadline.limit(connect(&address, options)).await;
    s.deadline.clear();
    let socket = match connected_or_late {
        Some(Ok(socket)) => socket,
        Some(Err(error)) => return Err(failed_to_connect(s, &error)),
        None => {
            let reason = io::Error::from_raw_os_error(libc::ETIMEDOUT);
            s.errno(Level::Error, &reason, format_args!("upstream timed out"));
            return Err(Failed::Next);
        }
    };
    let io = match s.server.srv.proxy_ssl.connector() {
        Some(connector) => {
            proxy_header::send_at_once(s, &socket)?;
            proxy_ssl::handshake(s, connector, socket, host).await?
        }
        None => Io::Plain(socket),
    };
    io.with_socket(|socket| connected(s, "", socket));
    Ok(Link::Stream(io))
}

/// Tells of a connection that is there.
fn connected(s: &Session, word: &str, socket: &impl AsFd) {
    let upstream = &s.upstream;
    upstream.attempt(|attempt| attempt.connect_time = Some(clock::now() - upstream.start.get()));
    if s.server.log().enabled(Level::Info)
        && let Ok(local) = socket2::SockRef::from(socket).local_addr()
    {
        let local = local.as_socket().map_or_else(|| Address::Unix("".into()), Address::Inet);
        let peer = upstream.peer.borrow().clone().unwrap_or_default();
        s.note(format_args!("{word}proxy {local} connected to {peer}"));
    }
}

/// Tells why a connection failed, and what follows.
pub fn failed_to_connect(s: &Session, error: &connect::ConnectError) -> Failed {
    s.errno(error.level(), &error.source, format_args!("{error}"));
    if error.try_next() { Failed::Next } else { Failed::End(INTERNAL_ERROR) }
}

/// Bytes a second; 0 is no limit.
pub fn rate(s: &Session, rate: &Option<Template>) -> usize {
    rate.as_ref().and_then(|rate| units::size(&rate.eval(s))).unwrap_or(0)
}

fn begin(s: &Session, peer: Arc<str>) {
    s.upstream.attempts.borrow_mut().push(UpstreamState::new(peer.clone()));
    *s.upstream.peer.borrow_mut() = Some(peer);
}

/// What the upstream gets before all else: the PROXY protocol's header, and what was read of the client.
fn first(s: &Session, upstream: &Io, client: &Io) -> Buffer {
    let ahead = s.read_ahead.take();
    if !client.is_tls() {
        s.count_received(ahead.len());
    }
    let header = if upstream.is_tls() { Vec::new() } else { proxy_header::header(s) };
    if header.is_empty() {
        return ahead;
    }
    let mut both = Buffer::with_capacity(header.len() + ahead.len());
    both.push(&header);
    both.push(ahead.bytes());
    both
}

/// What moves bytes until the session is over.
fn pump(s: &Session, upstream: Io, began: i64, mut pick: Pick) -> Box<Pump> {
    let conf = &s.server.srv.proxy;
    let first = s.io.as_ref().map(|client| first(s, &upstream, client));
    let limits = Limits {
        timeout: *conf.timeout,
        buffer: *conf.buffer_size,
        upload_rate: rate(s, &conf.upload_rate),
        download_rate: rate(s, &conf.download_rate),
        half_close: *conf.half_close,
        start: began,
    };
    s.upstream.current(|state| pick.connected(state, true, clock::now()));
    in_place(|| Pump::new(upstream, pick, first.unwrap_or_default(), limits))
}
