//! The `proxy_ssl_*` directives of `ngx_http_proxy`: TLS to upstreams.

use std::sync::Arc;

use bytes::Bytes;

use super::proxy::loc;
use crate::conf::build::Setter;
use crate::conf::tls_settings as common;
use crate::conf::{Build, Fault, Outcome, Setting, set};
use crate::http::request::Request;
use crate::settings;
use crate::syntax::Directive;
use crate::tls::{CertificatePair, ClientTls, Connector};
use crate::value::Template;

settings! {
    /// TLS settings of a location.
    pub struct Ssl {
        session_reuse: bool = true,
        protocols: u32 = common::DEFAULT_PROTOCOLS,
        ciphers: Bytes = Bytes::from_static(b"DEFAULT"),
        /// None: the host of `proxy_pass`.
        name: Option<Template> = None,
        server_name: bool = false,
        verify: bool = false,
        verify_depth: usize = 1,
        trusted_certificate: Bytes = Bytes::new(),
        crl: Bytes = Bytes::new(),
        certificate: Bytes = Bytes::new(),
        certificate_key: Bytes = Bytes::new(),
        /// For its check only: it serves certificates with variables, which are refused.
        certificate_cache: () = (),
        passwords: Vec<Vec<u8>> = Vec::new(),
        conf_commands: Vec<(Bytes, Bytes)> = Vec::new(),
        /// What all this comes to, where it is used.
        connector: Option<Arc<Connector>> = None,
    }
}

/// Directives and setters.
pub const SETTERS: &[(&str, Setter)] = &[
    ("proxy_ssl_session_reuse", |cf, d| set::flag(&mut loc(cf).ssl.session_reuse, d)),
    ("proxy_ssl_protocols", |cf, d| common::set_protocols(cf, d, |cf| &mut loc(cf).ssl.protocols)),
    ("proxy_ssl_ciphers", |cf, d| set::text(&mut loc(cf).ssl.ciphers, d)),
    ("proxy_ssl_name", |cf, d| {
        loc(cf).ssl.name.once()?;
        let name = cf.http.template(d.arg(1))?;
        loc(cf).ssl.name.set(Some(name))
    }),
    ("proxy_ssl_server_name", |cf, d| set::flag(&mut loc(cf).ssl.server_name, d)),
    ("proxy_ssl_verify", |cf, d| set::flag(&mut loc(cf).ssl.verify, d)),
    ("proxy_ssl_verify_depth", |cf, d| set::number(&mut loc(cf).ssl.verify_depth, d)),
    ("proxy_ssl_trusted_certificate", |cf, d| set::text(&mut loc(cf).ssl.trusted_certificate, d)),
    ("proxy_ssl_crl", |cf, d| set::text(&mut loc(cf).ssl.crl, d)),
    ("proxy_ssl_certificate", |cf, d| constant(cf, d, |cf| &mut loc(cf).ssl.certificate)),
    ("proxy_ssl_certificate_key", |cf, d| constant(cf, d, |cf| &mut loc(cf).ssl.certificate_key)),
    ("proxy_ssl_certificate_cache", |cf, d| {
        loc(cf).ssl.certificate_cache.once()?;
        common::certificate_cache(d)?;
        loc(cf).ssl.certificate_cache.set(())
    }),
    ("proxy_ssl_password_file", |cf, d| {
        loc(cf).ssl.passwords.once()?;
        let passwords = common::passwords(cf, d)?;
        loc(cf).ssl.passwords.set(passwords)
    }),
    ("proxy_ssl_conf_command", |cf, d| {
        let command = (Bytes::copy_from_slice(d.arg(1)), Bytes::copy_from_slice(d.arg(2)));
        loc(cf).ssl.conf_commands.edit().push(command);
        Ok(())
    }),
];

/// Certificates are loaded at start: one whose name has variables is refused, once all else is right.
fn constant(cf: &mut Build, d: &Directive<'_>, to: fn(&mut Build) -> &mut Setting<Bytes>) -> Outcome {
    to(cf).once()?;
    match cf.http.template(d.arg(1))?.as_constant() {
        Some(_) => set::text(to(cf), d),
        None => {
            let name = String::from_utf8_lossy(d.name());
            cf.checked.refuse_later(&common::no_variables(&name), d);
            to(cf).set(Bytes::new())
        }
    }
}

impl Ssl {
    /// Whether the block says anything that the connector is made of.
    fn differs(&self) -> bool {
        self.session_reuse.is_set()
            || self.protocols.is_set()
            || self.ciphers.is_set()
            || self.server_name.is_set()
            || self.verify.is_set()
            || self.verify_depth.is_set()
            || self.trusted_certificate.is_set()
            || self.crl.is_set()
            || self.certificate.is_set()
            || self.certificate_key.is_set()
            || self.passwords.is_set()
            || self.conf_commands.is_set()
    }

    /// Completes the settings; `used` where the location passes requests on over TLS.
    pub fn merge(&mut self, parent: &Ssl, used: bool, cf: &mut Build) -> Outcome {
        let own = self.differs();
        self.inherit(parent);
        if own {
            self.connector.put(None);
        }
        if used && self.connector.is_none() {
            let connector = self.make(cf)?;
            let here = cf.here.clone();
            connector.warnings.iter().for_each(|warning| cf.warn(&here, warning));
            self.connector.put(Some(connector));
        }
        Ok(())
    }

    fn make(&self, cf: &mut Build) -> Outcome<Arc<Connector>> {
        if !self.certificate.is_empty() && !self.certificate_key.is_set() {
            let certificate = String::from_utf8_lossy(&self.certificate);
            return Err(Fault::whole(format!(
                "no \"proxy_ssl_certificate_key\" is defined for certificate \"{certificate}\""
            )));
        }
        if *self.verify && self.trusted_certificate.is_empty() {
            return Err(Fault::whole("no proxy_ssl_trusted_certificate for proxy_ssl_verify"));
        }
        let mut protocols = *self.protocols;
        let mut settings = ClientTls {
            ciphers: String::from_utf8_lossy(&self.ciphers).into_owned(),
            server_name: *self.server_name,
            verify: *self.verify,
            verify_depth: *self.verify_depth,
            trusted_certificate: common::some_path(cf, &self.trusted_certificate),
            crl: common::some_path(cf, &self.crl),
            certificate: common::some_path(cf, &self.certificate).map(|certificate| CertificatePair {
                certificate,
                key: common::whole_path(cf, &self.certificate_key),
            }),
            passwords: self.passwords.to_vec(),
            session_reuse: *self.session_reuse,
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

    /// The name to send and to verify: `proxy_ssl_name`, or `host`; a port is cut off.
    pub fn name_of(&self, req: &Request, host: &str) -> String {
        match &*self.name {
            None => without_port(host).to_owned(),
            Some(template) => without_port(&String::from_utf8_lossy(&template.eval(req))).to_owned(),
        }
    }
}

/// A host without port; brackets stay.
fn without_port(host: &str) -> &str {
    let from = if host.starts_with('[') { host.find(']').unwrap_or(0) } else { 0 };
    match host[from..].find(':') {
        Some(colon) => &host[..from + colon],
        None => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_no_part_of_names() {
        for (host, name) in
            [("a.example:443", "a.example"), ("a", "a"), ("[::1]:443", "[::1]"), ("[::1]", "[::1]"), ("", "")]
        {
            assert_eq!(without_port(host), name);
        }
    }
}
