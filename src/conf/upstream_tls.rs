//! TLS towards upstreams: what `*_ssl_*` directives of all modules that proxy have in common.

use std::sync::Arc;

use bytes::Bytes;

use crate::conf::tls_settings::{self as common, Commanded};
use crate::conf::{Build, Fault, Outcome, Setting};
use crate::settings;
use crate::syntax::Directive;
use crate::tls::{CertificateCache, CertificatePair, ClientTls, Connector, Error};
use crate::value::certificates::{Names, Pair, Store};
use crate::value::{Context, Template};

/// A value with variables, and how it is written.
#[derive(Clone, Debug, Default)]
pub struct Written {
    pub text: Bytes,
    pub template: Template,
}

settings! {
    /// TLS settings of a location or of a server.
    pub struct UpstreamTls {
        session_reuse: bool = true,
        protocols: u32 = common::DEFAULT_PROTOCOLS,
        ciphers: Bytes = Bytes::from_static(b"DEFAULT"),
        /// None: the host of `*_pass`.
        name: Option<Template> = None,
        server_name: bool = false,
        verify: bool = false,
        verify_depth: usize = 1,
        trusted_certificate: Bytes = Bytes::new(),
        crl: Bytes = Bytes::new(),
        certificate: Written = Written::default(),
        certificate_key: Written = Written::default(),
        certificate_cache: Option<Arc<CertificateCache>> = None,
        passwords: Vec<Vec<u8>> = Vec::new(),
        conf_commands: Vec<(Bytes, Bytes)> = Vec::new(),
        /// What all this comes to, where it is used.
        connector: Option<Arc<Connector>> = None,
        /// The certificate, where it is known with every connection only.
        varying: Option<Arc<Varying>> = None,
    }
}

/// A certificate that is known with every connection only.
#[derive(Clone, Debug)]
pub struct Varying {
    pair: Pair,
    store: Store,
}

/// Where such directives stand: in http or in stream, in a module.
pub trait Place {
    /// The settings of the block being read.
    fn tls(cf: &mut Build) -> &mut UpstreamTls;

    /// Compiles text with variables.
    fn template(cf: &mut Build, text: &[u8]) -> Outcome<Template>;
}

/// The directives of a module whose names begin with `$prefix`, with their setters for the [`Place`] `$place`.
#[macro_export]
macro_rules! upstream_tls_setters {
    ($prefix:literal, $place:ty) => {{
        use $crate::conf::build::Setter;
        use $crate::conf::upstream_tls::{Place, set_name, set_written};
        use $crate::conf::{set, tls_settings};
        const SETTERS: &[(&str, Setter)] = &[
            (concat!($prefix, "_ssl_session_reuse"), |cf, d| {
                set::flag(&mut <$place>::tls(cf).session_reuse, d)
            }),
            (concat!($prefix, "_ssl_protocols"), |cf, d| {
                tls_settings::set_protocols(cf, d, |cf| &mut <$place>::tls(cf).protocols)
            }),
            (concat!($prefix, "_ssl_ciphers"), |cf, d| set::text(&mut <$place>::tls(cf).ciphers, d)),
            (concat!($prefix, "_ssl_name"), set_name::<$place>),
            (concat!($prefix, "_ssl_server_name"), |cf, d| set::flag(&mut <$place>::tls(cf).server_name, d)),
            (concat!($prefix, "_ssl_verify"), |cf, d| set::flag(&mut <$place>::tls(cf).verify, d)),
            (concat!($prefix, "_ssl_verify_depth"), |cf, d| {
                set::number(&mut <$place>::tls(cf).verify_depth, d)
            }),
            (concat!($prefix, "_ssl_trusted_certificate"), |cf, d| {
                set::text(&mut <$place>::tls(cf).trusted_certificate, d)
            }),
            (concat!($prefix, "_ssl_crl"), |cf, d| set::text(&mut <$place>::tls(cf).crl, d)),
            (concat!($prefix, "_ssl_certificate"), |cf, d| {
                set_written::<$place>(cf, d, |tls| &mut tls.certificate)
            }),
            (concat!($prefix, "_ssl_certificate_key"), |cf, d| {
                set_written::<$place>(cf, d, |tls| &mut tls.certificate_key)
            }),
            (concat!($prefix, "_ssl_certificate_cache"), |cf, d| {
                tls_settings::set_certificate_cache(cf, d, |cf| &mut <$place>::tls(cf).certificate_cache)
            }),
            (concat!($prefix, "_ssl_password_file"), |cf, d| {
                tls_settings::set_passwords(cf, d, |cf| &mut <$place>::tls(cf).passwords)
            }),
            (concat!($prefix, "_ssl_conf_command"), |cf, d| {
                tls_settings::add_command(cf, d, |cf| &mut <$place>::tls(cf).conf_commands)
            }),
        ];
        SETTERS
    }};
}

/// `*_ssl_name`
pub fn set_name<P: Place>(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    P::tls(cf).name.once()?;
    let name = P::template(cf, d.arg(1))?;
    P::tls(cf).name.set(Some(name))
}

/// A value with variables.
pub fn set_written<P: Place>(
    cf: &mut Build,
    d: &Directive<'_>,
    to: fn(&mut UpstreamTls) -> &mut Setting<Written>,
) -> Outcome {
    to(P::tls(cf)).once()?;
    let template = P::template(cf, d.arg(1))?;
    to(P::tls(cf)).set(Written { text: Bytes::copy_from_slice(d.arg(1)), template })
}

/// What a module says of its TLS beside the common directives.
pub struct Use<'a> {
    /// What its directives' names begin with.
    pub prefix: &'a str,
    /// Whether TLS is spoken here at all.
    pub used: bool,
    /// Whether anything of its own differs from the parent's.
    pub differs: bool,
    /// Protocols that are always offered by ALPN.
    pub alpn: Vec<Vec<u8>>,
}

impl UpstreamTls {
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

    /// Completes the settings.
    pub fn merge(&mut self, parent: &UpstreamTls, how: Use<'_>, cf: &mut Build) -> Outcome {
        let own = how.differs || self.differs();
        self.inherit(parent);
        if own {
            self.connector.put(None);
        }
        if !how.used {
            return Ok(());
        }
        self.vary(how.prefix, cf)?;
        if self.connector.is_none() {
            let connector = self.make(how, cf)?;
            let here = cf.here.clone();
            connector.warnings.iter().for_each(|warning| cf.warn(&here, warning));
            self.connector.put(Some(connector));
        }
        Ok(())
    }

    /// Finds out whether the certificate varies.
    fn vary(&mut self, prefix: &str, cf: &Build) -> Outcome {
        if self.certificate.text.is_empty() {
            self.varying.put(None);
            return Ok(());
        }
        if !self.certificate_key.is_set() {
            let certificate = String::from_utf8_lossy(&self.certificate.text);
            return Err(Fault::whole(format!(
                "no \"{prefix}_ssl_certificate_key\" is defined for certificate \"{certificate}\""
            )));
        }
        let (certificate, key) = (self.certificate.template.clone(), self.certificate_key.template.clone());
        let pair = Pair { certificate, key };
        let varying = pair.varies().then(|| Varying {
            pair,
            store: Store {
                cache: (*self.certificate_cache).clone(),
                passwords: self.passwords.to_vec(),
                prefix: cf.conf_prefix.clone(),
            },
        });
        self.varying.put(varying.map(Arc::new));
        Ok(())
    }

    fn make(&self, how: Use<'_>, cf: &mut Build) -> Outcome<Arc<Connector>> {
        if *self.verify && self.trusted_certificate.is_empty() {
            let prefix = how.prefix;
            return Err(Fault::whole(format!("no {prefix}_ssl_trusted_certificate for {prefix}_ssl_verify")));
        }
        let fixed = match *self.varying {
            Some(_) => None,
            None => common::some_path(cf, &self.certificate.text),
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
                key: common::whole_path(cf, &self.certificate_key.text),
            }),
            passwords: self.passwords.to_vec(),
            session_reuse: *self.session_reuse,
            alpn: how.alpn,
            ..ClientTls::default()
        };
        let commanded = Commanded {
            protocols: &mut protocols,
            ciphers: &mut settings.ciphers,
            ciphersuites: &mut settings.ciphersuites,
            curves: &mut settings.curves,
            prefer_server_ciphers: &mut false,
            session_tickets: &mut false,
        };
        let commanded = common::command(cf, &self.conf_commands, commanded)?;
        settings.certificate = commanded.or(settings.certificate);
        settings.protocols = common::protocols(protocols);
        Connector::new(&settings).map_err(Fault::whole)
    }

    /// The name to send and to verify: `*_ssl_name`, or `host`; a port is cut off.
    pub fn name_of<C: Context>(&self, ctx: &C, host: &str) -> String {
        match &*self.name {
            None => without_port(host).to_owned(),
            Some(template) => without_port(&String::from_utf8_lossy(&template.eval(ctx))).to_owned(),
        }
    }

    /// The names of the certificate of one connection, where it varies; none in it where there is to be none.
    pub fn names_of<C: Context>(&self, ctx: &C) -> Option<Option<Names>> {
        self.varying.as_ref().map(|varying| varying.store.names(&varying.pair, ctx))
    }

    /// What `connector` is for one connection: with the certificate of [`UpstreamTls::names_of`], and offering `alpn`
    /// where that varies.
    ///
    /// # Errors
    /// What nginx logs at `[error]`.
    pub fn for_connection(
        &self,
        connector: &Arc<Connector>,
        names: Option<&Option<Names>>,
        alpn: Option<Vec<Vec<u8>>>,
    ) -> Result<Arc<Connector>, Error> {
        match (&*self.varying, names, alpn) {
            (Some(varying), Some(names), alpn) => {
                let identity = names.as_ref().map(|names| varying.store.load(names)).transpose()?;
                Ok(connector.varied(identity, alpn))
            }
            (_, _, Some(alpn)) => Ok(connector.offering(alpn)),
            _ => Ok(connector.clone()),
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
