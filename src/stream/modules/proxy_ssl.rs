//! The `proxy_ssl_*` directives of `ngx_stream_proxy`: TLS to upstreams.

use std::sync::Arc;

use super::proxy::Failed;
use crate::conf::build::{Commands, Entry, both};
use crate::conf::upstream_tls::{Place, UpstreamTls, Use};
use crate::conf::{Build, Conf, Fault, Outcome, set};
use crate::log::Level;
use crate::net::{Deadline, Io, Socket};
use crate::settings;
use crate::stream::module::{INTERNAL_ERROR, Module};
use crate::stream::session::Session;
use crate::syntax::Directive;
use crate::tls::{Connector, Peer};
use crate::upstream_tls_setters;
use crate::value::Template;

/// The module.
pub struct ProxySsl;

settings! {
    /// What only stream has.
    pub struct Own {
        enable: bool = false,
        alpn: Vec<Template> = Vec::new(),
    }
}

/// Settings of a server.
#[derive(Clone, Debug, Default)]
pub struct Srv {
    pub own: Own,
    pub tls: UpstreamTls,
}

impl Conf for Srv {
    fn merge(&mut self, parent: &Self, cf: &mut Build) -> Outcome {
        let differs = self.own.alpn.is_set();
        self.own.inherit(&parent.own);
        let how = Use { prefix: "proxy", used: *self.own.enable, differs, alpn: self.offered() };
        self.tls.merge(&parent.tls, how, cf)
    }
}

impl Srv {
    /// What TLS is begun with; none where it is not spoken.
    pub fn connector(&self) -> Option<&Arc<Connector>> {
        self.own.enable.then_some(self.tls.connector.as_ref()).flatten()
    }

    /// The protocols that are always offered.
    fn offered(&self) -> Vec<Vec<u8>> {
        let known = self.own.alpn.iter().filter_map(|protocol| protocol.as_constant());
        known.filter(|text| !text.is_empty()).map(<[u8]>::to_vec).collect()
    }

    /// All protocols to offer, where any of them varies.
    fn offered_now(&self, s: &Session) -> Option<Vec<Vec<u8>>> {
        let varies = self.own.alpn.iter().any(|protocol| protocol.as_constant().is_none());
        let values = self.own.alpn.iter().map(|protocol| protocol.eval(s).to_vec());
        varies.then(|| values.filter(|value| (1..=255).contains(&value.len())).collect())
    }
}

struct Proxy;

impl Place for Proxy {
    fn tls(cf: &mut Build) -> &mut UpstreamTls {
        &mut cf.stream.srv().proxy_ssl().tls
    }

    fn template(cf: &mut Build, text: &[u8]) -> Outcome<Template> {
        cf.stream.template(text)
    }
}

const OWN: &[Entry] = &[
    ("proxy_ssl", |cf, d| set::flag(&mut cf.stream.srv().proxy_ssl().own.enable, d)),
    ("proxy_ssl_alpn", alpn),
];
const COMMON: &[Entry] = upstream_tls_setters!("proxy", Proxy);
const ALL: usize = OWN.len() + COMMON.len();

impl Module for ProxySsl {
    type Main = ();
    type Srv = Srv;
    const COMMANDS: Commands = Commands { module: "ngx_stream_proxy", setters: &both::<ALL>(OWN, COMMON) };
}

fn alpn(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    cf.stream.srv().proxy_ssl().own.alpn.once()?;
    let mut protocols = Vec::new();
    for word in d.args() {
        let protocol = cf.stream.template(word)?;
        if protocol.as_constant().is_some_and(|text| text.len() > 255) {
            return Err(Fault::directive("protocol too long"));
        }
        protocols.push(protocol);
    }
    cf.stream.srv().proxy_ssl().own.alpn.set(protocols)
}

/// Begins TLS with an upstream. What goes wrong is logged.
pub async fn handshake(
    s: &Session,
    connector: &Arc<Connector>,
    socket: Socket,
    host: &str,
) -> Result<Io, Failed> {
    let conf = &s.server.srv.proxy_ssl;
    let names = conf.tls.names_of(s);
    let connector =
        conf.tls.for_connection(connector, names.as_ref(), conf.offered_now(s)).map_err(|error| {
            s.error(Level::Error, format_args!("{error}"));
            Failed::End(INTERNAL_ERROR)
        })?;
    let name = conf.tls.name_of(s, host);
    s.action.set(Some("SSL handshaking to upstream"));
    let deadline = Deadline::never();
    deadline.set(*s.server.srv.proxy.connect_timeout);
    let shaken = Box::pin(deadline.limit(connector.connect(socket, &name))).await;
    match shaken {
        Some(Ok(stream)) => Ok(Io::tls(stream)),
        Some(Err(error)) => {
            s.error(error.level(Peer::Upstream).into(), format_args!("{error}"));
            Err(Failed::Next)
        }
        // nginx goes on to the next upstream without a word.
        None => Err(Failed::Next),
    }
}
