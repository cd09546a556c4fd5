//! The `proxy_ssl_*` directives of `ngx_stream_proxy`: TLS to upstreams.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::proxy::Failed;
use crate::conf::build::Commands;
use crate::conf::tls_settings as common;
use crate::conf::{Build, Conf, Fault, Outcome, set};
use crate::log::Level;
use crate::net::{Deadline, Io, Socket};
use crate::settings;
use crate::stream::module::{INTERNAL_ERROR, Module};
use crate::stream::pump::tls_level;
use crate::stream::session::Session;
use crate::syntax::Directive;
use crate::tls::{CertificatePair, ClientTls, Connector, Error, Peer};
use crate::value::Template;

/// The module.
pub struct ProxySsl;

settings! {
    /// Settings of a server.
    pub struct Srv {
        enable: bool = false,
        session_reuse: bool = true,
        protocols: u32 = common::DEFAULT_PROTOCOLS,
        ciphers: Bytes = Bytes::from_static(b"DEFAULT"),
        /// None: the host of `proxy_pass`.
        name: Option<Template> = None,
        server_name: bool = false,
        alpn: Vec<Template> = Vec::new(),
        verify: bool = false,
        verify_depth: usize = 1,
        trusted_certificate: Bytes = Bytes::new(),
        crl: Bytes = Bytes::new(),
        certificate: Bytes = Bytes::new(),
        certificate_key: Bytes = Bytes::new(),
        certificate_cache: () = (),
        passwords: Vec<Vec<u8>> = Vec::new(),
        conf_commands: Vec<(Bytes, Bytes)> = Vec::new(),
        /// What differs from session to session.
        varying: Option<Arc<Varying>> = None,
        /// What all this comes to, where `proxy_ssl` is on.
        connector: Option<Arc<Connector>> = None,
    }
}

/// Certificate and protocols that have variables.
#[derive(Debug)]
pub struct Varying {
    /// Certificate and key; an empty certificate is none.
    certificate: Option<(Template, Template)>,
    /// Protocols to offer.
    alpn: Option<Vec<Template>>,
    /// Where relative paths start.
    prefix: PathBuf,
}

impl Conf for Srv {
    fn merge(&mut self, parent: &Self, cf: &mut Build) -> Outcome {
        self.inherit(parent);
        if *self.enable {
            let varying = self.varying(cf)?;
            self.varying.put(varying);
            let connector = self.connector(cf)?;
            let here = cf.here.clone();
            connector.warnings.iter().for_each(|warning| cf.warn(&here, warning));
            self.connector.put(Some(connector));
        }
        Ok(())
    }
}

impl Srv {
    fn connector(&self, cf: &mut Build) -> Outcome<Arc<Connector>> {
        if !self.certificate.is_empty() && !self.certificate_key.is_set() {
            let certificate = String::from_utf8_lossy(&self.certificate);
            return Err(Fault::whole(format!(
                "no \"proxy_ssl_certificate_key\" is defined for certificate \"{certificate}\""
            )));
        }
        if *self.verify && self.trusted_certificate.is_empty() {
            return Err(Fault::whole("no proxy_ssl_trusted_certificate for proxy_ssl_verify"));
        }
        let fixed = match self.varying.as_deref() {
            Some(Varying { certificate: Some(_), .. }) => None,
            _ => common::some_path(cf, &self.certificate),
        };
        let mut protocols = *self.protocols;
        let mut settings = ClientTls {
            ciphers: String::from_utf8_lossy(&self.ciphers).into_owned(),
            server_name: *self.server_name,
            verify: *self.verify,
            verify_depth: *self.verify_depth,
            trusted_certificate: common::some_path(cf, &self.trusted_certificate),
            crl: common::some_path(cf, &self.crl),
            certificate: fixed.map(|certificate| CertificatePair {
                certificate,
                key: common::whole_path(cf, &self.certificate_key),
            }),
            passwords: self.passwords.to_vec(),
            session_reuse: *self.session_reuse,
            alpn: self.offered(),
            ..ClientTls::default()
        };
        let commanded = common::Commanded {
            protocols: &mut protocols,
            ciphers: &mut settings.ciphers,
            ciphersuites: &mut settings.ciphersuites,
            curves: &mut settings.curves,
            prefer_server_ciphers: &mut false,
            session_tickets: &mut false,
        };
        common::command(cf, &self.conf_commands, commanded)?;
        settings.protocols = common::protocols(protocols);
        Connector::new(&settings).map_err(Fault::whole)
    }

    fn varying(&self, cf: &mut Build) -> Outcome<Option<Arc<Varying>>> {
        let mut pair = [Template::default(), Template::default()];
        let mut certificate = false;
        for (text, template) in [&self.certificate, &self.certificate_key].into_iter().zip(&mut pair) {
            *template = cf.stream.template(text)?;
            certificate |= template.as_constant().is_none();
        }
        let alpn = self.alpn.iter().any(|protocol| protocol.as_constant().is_none());
        let [own, key] = pair;
        let varying = Varying {
            certificate: certificate.then_some((own, key)),
            alpn: alpn.then(|| self.alpn.to_vec()),
            prefix: cf.conf_prefix.clone(),
        };
        Ok((certificate || alpn).then(|| Arc::new(varying)))
    }

    /// The protocols that are always offered.
    fn offered(&self) -> Vec<Vec<u8>> {
        let known = self.alpn.iter().filter_map(|protocol| protocol.as_constant());
        known.filter(|text| !text.is_empty()).map(<[u8]>::to_vec).collect()
    }
}

impl Module for ProxySsl {
    type Main = ();
    type Srv = Srv;
    const COMMANDS: Commands = Commands {
        module: "ngx_stream_proxy",
        setters: &[
            ("proxy_ssl", |cf, d| set::flag(&mut cf.stream.srv().proxy_ssl().enable, d)),
            ("proxy_ssl_session_reuse", |cf, d| set::flag(&mut cf.stream.srv().proxy_ssl().session_reuse, d)),
            ("proxy_ssl_protocols", |cf, d| {
                common::set_protocols(cf, d, |cf| &mut cf.stream.srv().proxy_ssl().protocols)
            }),
            ("proxy_ssl_ciphers", |cf, d| set::text(&mut cf.stream.srv().proxy_ssl().ciphers, d)),
            ("proxy_ssl_name", |cf, d| {
                cf.stream.srv().proxy_ssl().name.once()?;
                let name = cf.stream.template(d.arg(1))?;
                cf.stream.srv().proxy_ssl().name.set(Some(name))
            }),
            ("proxy_ssl_server_name", |cf, d| set::flag(&mut cf.stream.srv().proxy_ssl().server_name, d)),
            ("proxy_ssl_alpn", alpn),
            ("proxy_ssl_verify", |cf, d| set::flag(&mut cf.stream.srv().proxy_ssl().verify, d)),
            ("proxy_ssl_verify_depth", |cf, d| set::number(&mut cf.stream.srv().proxy_ssl().verify_depth, d)),
            ("proxy_ssl_trusted_certificate", |cf, d| {
                set::text(&mut cf.stream.srv().proxy_ssl().trusted_certificate, d)
            }),
            ("proxy_ssl_crl", |cf, d| set::text(&mut cf.stream.srv().proxy_ssl().crl, d)),
            ("proxy_ssl_certificate", |cf, d| {
                cf.stream.template(d.arg(1))?;
                set::text(&mut cf.stream.srv().proxy_ssl().certificate, d)
            }),
            ("proxy_ssl_certificate_key", |cf, d| {
                cf.stream.template(d.arg(1))?;
                set::text(&mut cf.stream.srv().proxy_ssl().certificate_key, d)
            }),
            ("proxy_ssl_certificate_cache", |cf, d| {
                cf.stream.srv().proxy_ssl().certificate_cache.once()?;
                common::certificate_cache(d)?;
                cf.stream.srv().proxy_ssl().certificate_cache.set(())
            }),
            ("proxy_ssl_password_file", |cf, d| {
                cf.stream.srv().proxy_ssl().passwords.once()?;
                let passwords = common::passwords(cf, d)?;
                cf.stream.srv().proxy_ssl().passwords.set(passwords)
            }),
            ("proxy_ssl_conf_command", |cf, d| {
                let command = (Bytes::copy_from_slice(d.arg(1)), Bytes::copy_from_slice(d.arg(2)));
                cf.stream.srv().proxy_ssl().conf_commands.edit().push(command);
                Ok(())
            }),
        ],
    };
}

fn alpn(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    cf.stream.srv().proxy_ssl().alpn.once()?;
    let mut protocols = Vec::new();
    for word in d.args() {
        let protocol = cf.stream.template(word)?;
        if protocol.as_constant().is_some_and(|text| text.len() > 255) {
            return Err(Fault::directive("protocol too long"));
        }
        protocols.push(protocol);
    }
    cf.stream.srv().proxy_ssl().alpn.set(protocols)
}

impl Varying {
    /// The connector of a session; certificate and key are read anew.
    fn connector(&self, s: &Session, connector: &Connector) -> Result<Arc<Connector>, Error> {
        let conf = &s.server.srv.proxy_ssl;
        let path = |template: &Template| {
            let text = template.eval(s);
            let path = String::from_utf8_lossy(&text).into_owned();
            match ["data:", "engine:", "store:"].iter().any(|scheme| path.starts_with(scheme)) {
                true => path,
                false => self.prefix.join(path).to_string_lossy().into_owned(),
            }
        };
        let pair = self.certificate.as_ref().and_then(|(certificate, key)| {
            let some = !certificate.eval(s).is_empty();
            some.then(|| CertificatePair { certificate: path(certificate), key: path(key) })
        });
        let alpn = self.alpn.as_ref().map(|protocols| {
            let values = protocols.iter().map(|protocol| protocol.eval(s).to_vec());
            values.filter(|value| (1..=255).contains(&value.len())).collect()
        });
        match self.certificate {
            Some(_) => connector.varied(pair.as_ref(), &conf.passwords, alpn),
            None => Ok(connector.offering(alpn.unwrap_or_default())),
        }
    }
}

/// Begins TLS with an upstream. What goes wrong is logged.
pub async fn handshake(
    s: &Session,
    connector: &Arc<Connector>,
    socket: Socket,
    host: &str,
) -> Result<Io, Failed> {
    let conf = &s.server.srv.proxy_ssl;
    let varied = conf.varying.as_ref().map(|varying| varying.connector(s, connector)).transpose();
    let connector = match &varied {
        Ok(varied) => varied.as_ref().unwrap_or(connector),
        Err(error) => {
            s.error(Level::Error, format_args!("{error}"));
            return Err(Failed::End(INTERNAL_ERROR));
        }
    };
    let name = match &*conf.name {
        Some(name) => String::from_utf8_lossy(&name.eval(s)).into_owned(),
        None => host.to_owned(),
    };
    s.action.set(Some("SSL handshaking to upstream"));
    let deadline = Deadline::never();
    deadline.set(*s.server.srv.proxy.connect_timeout);
    let shaken = Box::pin(deadline.limit(connector.connect(socket, without_port(&name)))).await;
    match shaken {
        Some(Ok(stream)) => Ok(Io::tls(stream)),
        Some(Err(error)) => {
            s.error(tls_level(error.level(Peer::Upstream)), format_args!("{error}"));
            Err(Failed::Next)
        }
        // nginx goes on to the next upstream without a word.
        None => Err(Failed::Next),
    }
}

fn without_port(name: &str) -> &str {
    let from = if name.starts_with('[') { name.find(']').unwrap_or(0) } else { 0 };
    match name[from..].find(':') {
        Some(at) => &name[..from + at],
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_port() {
        for (name, bare) in [("a:443", "a"), ("a", "a"), ("[::1]:443", "[::1]"), ("[::1]", "[::1]"), ("", "")]
        {
            assert_eq!(without_port(name), bare);
        }
    }
}
