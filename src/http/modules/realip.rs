//! `ngx_http_realip`: the client's address as a trusted proxy tells it.

use std::net::{SocketAddr, ToSocketAddrs};

use bytes::Bytes;

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Fault, Outcome, set};
use crate::http::conf::Loc;
use crate::http::forwarded::forwarded;
use crate::http::headers::{X_FORWARDED_FOR, X_REAL_IP};
use crate::http::module::{Handlers, Module, Step, Verdict};
use crate::http::request::Request;
use crate::net::Address;
use crate::net::cidr::Cidr;
use crate::settings;
use crate::syntax::Directive;
use crate::value::Builtin;

/// The module.
pub struct RealIp;

/// Where the address is read.
#[derive(Clone, Debug)]
pub enum Source {
    /// `X-Real-IP`
    XRealIp,
    /// `X-Forwarded-For`, all fields of that name.
    XForwardedFor,
    /// The PROXY protocol's header.
    ProxyProtocol,
    /// The first field of another name.
    Field(Bytes),
}

settings! {
    /// Whom to trust, and what.
    pub struct LocConf {
        from: Vec<Cidr> = Vec::new(),
        source: Source = Source::XRealIp,
        recursive: bool = false,
    }
}

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

impl Module for RealIp {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_realip",
        setters: &[
            ("set_real_ip_from", set_real_ip_from),
            ("real_ip_header", real_ip_header),
            ("real_ip_recursive", |cf, d| set::flag(&mut cf.http.loc().realip().recursive, d)),
        ],
    };
    const VARIABLES: &'static [Builtin<Request>] = &[
        Builtin::new("realip_remote_addr", |req, out| {
            match req.conn.realip().as_deref() {
                Some(address) => out.extend_from_slice(address.host().as_bytes()),
                None => out.extend_from_slice(req.conn.client_text().as_bytes()),
            }
            true
        }),
        Builtin::new("realip_remote_port", |req, out| {
            let port = match req.conn.realip().as_deref() {
                Some(address) => address.port(),
                None => req.conn.client().port(),
            };
            if let Some(port) = port.filter(|port| *port > 0) {
                out.extend_from_slice(port.to_string().as_bytes());
            }
            true
        }),
    ];

    fn handlers(loc: &Loc, to: &mut Handlers) {
        if !loc.realip.from.is_empty() {
            to.post_read.push(realip);
            to.preaccess.push(realip);
        }
    }
}

fn set_real_ip_from(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let word = d.arg(1);
    let shown = String::from_utf8_lossy(word);
    let mut nets = Vec::new();
    if word == b"unix:" {
        nets.push(Cidr::Unix);
    } else if let Some(parsed) = Cidr::parse(word) {
        if parsed.low_bits {
            cf.warn(d.at(), format!("low address bits of {shown} are meaningless"));
        }
        nets.push(parsed.cidr);
    } else {
        let found = (&*shown, 0).to_socket_addrs().into_iter().flatten();
        nets.extend(found.map(|address| Cidr::host(address.ip())));
        if nets.is_empty() {
            return Err(Fault::here(format!("host not found in set_real_ip_from \"{shown}\"")));
        }
    }
    cf.http.loc().realip().from.edit().extend(nets);
    Ok(())
}

fn real_ip_header(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    cf.http.loc().realip().source.set(match d.arg(1) {
        b"X-Real-IP" => Source::XRealIp,
        b"X-Forwarded-For" => Source::XForwardedFor,
        b"proxy_protocol" => Source::ProxyProtocol,
        name => Source::Field(Bytes::copy_from_slice(name)),
    })
}

fn realip(req: &mut Request) -> Step<'_> {
    let conn = &req.conn;
    if conn.realip().is_none()
        && let Some(address) = find(req, &req.conf.realip)
    {
        conn.set_realip(Address::Inet(address));
    }
    Verdict::Next.into()
}

fn find(req: &Request, conf: &LocConf) -> Option<SocketAddr> {
    let head = &req.head.headers;
    let lists: Vec<&[u8]> = match &*conf.source {
        Source::XRealIp => vec![head.get(X_REAL_IP)?],
        Source::XForwardedFor => head.all(X_FORWARDED_FOR).collect(),
        Source::ProxyProtocol => vec![&req.conn.proxy_protocol()?.source],
        Source::Field(name) => vec![head.find(name)?],
    };
    let peer = req.conn.client();
    let mut address = forwarded(&peer, &lists, &conf.from, *conf.recursive)?;
    if let (Source::ProxyProtocol, Some(header)) = (&*conf.source, req.conn.proxy_protocol()) {
        address.set_port(header.source_port);
    }
    Some(address)
}

/// Gives the connection its peer's own address back, once a request is over.
pub fn restore(req: &Request) {
    req.conn.restore_client();
}
