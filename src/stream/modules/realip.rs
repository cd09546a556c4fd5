//! `ngx_stream_realip`: the client's address as the PROXY protocol tells it, where the sender is trusted.

use std::net::SocketAddr;

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Fault, Outcome, url};
use crate::net::cidr::Cidr;
use crate::net::{Address, resolve};
use crate::settings;
use crate::stream::conf;
use crate::stream::module::{Handlers, Module, Verdict};
use crate::stream::session::Session;
use crate::syntax::Directive;
use crate::value::Builtin;

/// The module.
pub struct Realip;

settings! {
    /// Who is trusted.
    pub struct Srv {
        from: Vec<Cidr> = Vec::new(),
    }
}

impl Conf for Srv {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

impl Module for Realip {
    type Main = ();
    type Srv = Srv;
    const COMMANDS: Commands =
        Commands { module: "ngx_stream_realip", setters: &[("set_real_ip_from", from)] };
    const VARIABLES: &'static [Builtin<Session>] = &[
        Builtin::cached("realip_remote_addr", |s, out| {
            out.extend_from_slice(s.realip.as_ref().unwrap_or(&s.client).host().as_bytes());
            true
        }),
        Builtin::cached("realip_remote_port", |s, out| {
            if let Some(port) = s.realip.as_ref().unwrap_or(&s.client).port().filter(|port| *port != 0) {
                out.extend_from_slice(port.to_string().as_bytes());
            }
            true
        }),
    ];

    fn handlers(srv: &conf::Srv, to: &mut Handlers) {
        if !srv.realip.from.is_empty() {
            to.post_accept.push(handler);
        }
    }
}

fn from(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let word = d.arg(1);
    let add = |cf: &mut Build, cidr| cf.stream.srv().realip().from.edit().push(cidr);
    if word == b"unix:" {
        add(cf, Cidr::Unix);
        return Ok(());
    }
    if let Some(parsed) = Cidr::parse(word) {
        if parsed.low_bits {
            let shown = String::from_utf8_lossy(word);
            cf.warn(d.at(), format!("low address bits of {shown} are meaningless"));
        }
        add(cf, parsed.cidr);
        return Ok(());
    }
    let found = resolve::system(word);
    if found.is_empty() {
        let shown = String::from_utf8_lossy(word);
        return Err(Fault::here(format!("host not found in set_real_ip_from \"{shown}\"")));
    }
    found.into_iter().for_each(|ip| add(cf, Cidr::host(ip)));
    Ok(())
}

fn handler(s: &mut Session) -> Verdict {
    let Some(header) = &s.proxy_protocol else { return Verdict::Next };
    if !s.server.srv.realip.from.iter().any(|cidr| cidr.contains(&s.client)) {
        return Verdict::Next;
    }
    if let Some(ip) = url::parse_addr(&header.source) {
        let client = Address::Inet(SocketAddr::new(ip, header.source_port));
        s.realip = Some(std::mem::replace(&mut s.client, client));
    }
    Verdict::Next
}
