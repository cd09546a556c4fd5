//! `ngx_stream_ssl`: TLS with clients.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::ssl_handshake;
use crate::conf::build::Commands;
use crate::conf::listen::Port;
use crate::conf::tls_settings as common;
use crate::conf::{Build, Conf, Fault, Outcome, set, units};
use crate::log::Level;
use crate::settings;
use crate::stream::module::{Handlers, Module};
use crate::stream::session::Session;
use crate::stream::{Server, conf};
use crate::syntax::Directive;
use crate::tls::ocsp::{ClientStatus, Resolving, Responder, Stapling, StatusCache};
use crate::tls::{self, CertificateCache, CertificatePair, ServerTls, SessionCache, TicketKeys, VerifyMode};
use crate::value::Builtin;
use crate::value::certificates::{Certificates, Store};

/// Smallest shared cache: eight pages.
const MIN_CACHE: usize = 8 * 4096;
/// Sessions of `builtin` (SSL_SESSION_CACHE_MAX_SIZE_DEFAULT).
const BUILTIN_CACHE: usize = 20480;

/// The module.
pub struct Ssl;

/// `ssl_session_cache`
#[derive(Clone, Debug)]
pub enum Cache {
    /// No session is kept: `off`, `none`.
    None,
    /// Kept by this.
    Kept(SessionCache),
}

settings! {
    /// What servers share.
    pub struct Main {
        /// Name, bytes and cache.
        caches: Vec<(Bytes, usize, SessionCache)> = Vec::new(),
        /// Name and statuses of `ssl_ocsp_cache`.
        statuses: Vec<(Bytes, StatusCache)> = Vec::new(),
        tickets: Option<Arc<TicketKeys>> = None,
    }
}

settings! {
    /// Settings of a server.
    pub struct Srv {
        /// Milliseconds.
        handshake_timeout: u64 = 60_000,
        certificates: Vec<Bytes> = Vec::new(),
        certificate_keys: Vec<Bytes> = Vec::new(),
        certificate_cache: Option<Arc<CertificateCache>> = None,
        certificate_compression: bool = false,
        passwords: Vec<Vec<u8>> = Vec::new(),
        dhparam: Bytes = Bytes::new(),
        ecdh_curve: Bytes = Bytes::from_static(b"auto"),
        protocols: u32 = common::DEFAULT_PROTOCOLS,
        ciphers: Bytes = Bytes::from_static(b"HIGH:!aNULL:!MD5"),
        verify: VerifyMode = VerifyMode::Off,
        verify_depth: usize = 1,
        client_certificate: Bytes = Bytes::new(),
        trusted_certificate: Bytes = Bytes::new(),
        prefer_server_ciphers: bool = false,
        session_cache: Cache = Cache::None,
        session_tickets: bool = true,
        session_ticket_keys: Vec<Bytes> = Vec::new(),
        /// Seconds.
        session_timeout: u64 = 300,
        crl: Bytes = Bytes::new(),
        conf_commands: Vec<(Bytes, Bytes)> = Vec::new(),
        reject_handshake: bool = false,
        alpn: Vec<Bytes> = Vec::new(),
        stapling: bool = false,
        stapling_file: Bytes = Bytes::new(),
        stapling_responder: Bytes = Bytes::new(),
        stapling_verify: bool = false,
        /// Whether the client's own certificate is all that is asked about, if any.
        ocsp: Option<bool> = None,
        ocsp_responder: Bytes = Bytes::new(),
        ocsp_cache: Option<StatusCache> = None,
        ech_files: Vec<Bytes> = Vec::new(),
        /// What all this comes to, where there is a certificate.
        server: Option<Arc<tls::Server>> = None,
        /// What is shown, where it is known with every handshake only.
        varying: Option<Arc<Certificates>> = None,
    }
}

impl Conf for Main {
    fn merge(&mut self, _: &Self, _: &mut Build) -> Outcome {
        Ok(())
    }
}

impl Conf for Srv {
    fn merge(&mut self, parent: &Self, cf: &mut Build) -> Outcome {
        self.inherit(parent);
        if self.certificates.is_set() {
            if self.certificate_keys.len() < self.certificates.len() {
                let certificate = self.certificates.last().map(|c| String::from_utf8_lossy(c).into_owned());
                return Err(Fault::whole(format!(
                    "no \"ssl_certificate_key\" is defined for certificate \"{}\"",
                    certificate.unwrap_or_default()
                )));
            }
        } else if !*self.reject_handshake {
            return Ok(());
        }
        let store = |cf: &Build| Store {
            cache: (*self.certificate_cache).clone(),
            passwords: self.passwords.to_vec(),
            prefix: cf.conf_prefix.clone(),
        };
        let (names, keys) = (&self.certificates, &self.certificate_keys);
        let varying = common::varying(cf, names, keys, store, |cf, text| cf.stream.template(text))?;
        self.varying.put(varying);
        let server = self.server(cf)?;
        let here = cf.here.clone();
        server.warnings.iter().for_each(|warning| cf.warn(&here, warning));
        if *self.certificate_compression {
            if *self.stapling {
                let with = "is incompatible with \"ssl_certificate_compression\"";
                return Err(Fault::whole(format!("\"ssl_stapling\" {with}")));
            }
            // What nginx says where OpenSSL cannot do it either.
            cf.warn(&here, "\"ssl_certificate_compression\" is not supported on this platform, ignored");
        }
        cf.messages.extend(server.not_stapled.iter().map(|why| (Level::Warn, why.clone())));
        if self.certificates.is_set() {
            self.server.put(Some(server));
        }
        Ok(())
    }
}

impl Srv {
    fn server(&self, cf: &mut Build) -> Outcome<Arc<tls::Server>> {
        self.check_verify()?;
        if !self.ech_files.is_empty() {
            let here = cf.here.clone();
            cf.warn(here, "\"ssl_ech_file\" is not supported on this platform, ignored");
        }
        if let Some(path) = common::some_path(cf, &self.dhparam) {
            // rustls has no such key exchange; what nginx would refuse is refused.
            tls::keys::dhparam(&path).map_err(Fault::whole)?;
        }
        let varying = self.varying.is_some();
        let pairs = self.certificates.iter().zip(&**self.certificate_keys);
        let (mut protocols, mut tickets) = (*self.protocols, *self.session_tickets);
        let mut settings = ServerTls {
            session_label: "STREAM",
            ciphers: String::from_utf8_lossy(&self.ciphers).into_owned(),
            curves: String::from_utf8_lossy(&self.ecdh_curve).into_owned(),
            prefer_server_ciphers: *self.prefer_server_ciphers,
            certificates: pairs
                .filter(|_| !varying)
                .map(|(certificate, key)| CertificatePair {
                    certificate: common::whole_path(cf, certificate),
                    key: common::whole_path(cf, key),
                })
                .collect(),
            varying: self
                .certificates
                .iter()
                .filter(|_| varying)
                .map(|name| String::from_utf8_lossy(name).into_owned())
                .collect(),
            passwords: self.passwords.to_vec(),
            stapling: self.stapling.then(|| Stapling {
                file: common::some_path(cf, &self.stapling_file),
                responder: self.stapling_responder.to_vec(),
                verify: *self.stapling_verify,
            }),
            client_status: self.client_status()?,
            session_cache: match &*self.session_cache {
                Cache::None => None,
                Cache::Kept(cache) => Some(cache.clone()),
            },
            session_timeout: Duration::from_secs(*self.session_timeout),
            verify: *self.verify,
            verify_depth: *self.verify_depth,
            client_certificate: (*self.verify != VerifyMode::Off)
                .then(|| common::some_path(cf, &self.client_certificate))
                .flatten(),
            trusted_certificate: common::some_path(cf, &self.trusted_certificate),
            crl: common::some_path(cf, &self.crl),
            alpn: self.alpn.iter().map(|protocol| protocol.to_vec()).collect(),
            ..ServerTls::default()
        };
        let commanded = common::Commanded {
            protocols: &mut protocols,
            ciphers: &mut settings.ciphers,
            ciphersuites: &mut settings.ciphersuites,
            curves: &mut settings.curves,
            prefer_server_ciphers: &mut settings.prefer_server_ciphers,
            session_tickets: &mut tickets,
        };
        settings.certificates.extend(common::command(cf, &self.conf_commands, commanded)?);
        settings.protocols = common::protocols(protocols);
        if tickets {
            settings.tickets = Some(self.ticket_keys(cf)?);
        }
        tls::Server::new(&settings).map_err(Fault::whole)
    }

    /// Whoever asks for certificates must know who signs them.
    fn check_verify(&self) -> Outcome {
        if *self.verify != VerifyMode::Off
            && *self.verify != VerifyMode::OptionalNoCa
            && self.client_certificate.is_empty()
            && self.trusted_certificate.is_empty()
        {
            return Err(Fault::whole(
                "no ssl_client_certificate or ssl_trusted_certificate for ssl_verify_client",
            ));
        }
        if self.ocsp.is_some() && *self.verify == VerifyMode::OptionalNoCa {
            return Err(Fault::whole(
                "\"ssl_ocsp\" is incompatible with \"ssl_verify_client optional_no_ca\"",
            ));
        }
        Ok(())
    }

    /// What `ssl_ocsp` asks for.
    fn client_status(&self) -> Outcome<Option<ClientStatus>> {
        let Some(leaf) = *self.ocsp else { return Ok(None) };
        let responder = match self.ocsp_responder.as_ref() {
            [] => None,
            url => Some(Responder::new(url, true)),
        };
        let responder = responder.transpose();
        let responder = responder.map_err(|e| Fault::whole(format!("{e} in \"ssl_ocsp_responder\"")))?;
        Ok(Some(ClientStatus { leaf, responder, cache: (*self.ocsp_cache).clone() }))
    }

    fn ticket_keys(&self, cf: &mut Build) -> Outcome<Arc<TicketKeys>> {
        if !self.session_ticket_keys.is_empty() {
            let paths: Vec<String> =
                self.session_ticket_keys.iter().map(|path| common::whole_path(cf, path)).collect();
            return TicketKeys::from_files(&paths).map_err(Fault::whole);
        }
        if let Some(keys) = &*cf.stream.main().ssl().tickets {
            return Ok(keys.clone());
        }
        let keys = TicketKeys::lasting(*self.session_timeout).map_err(Fault::whole)?;
        cf.stream.main().ssl().tickets.put(Some(keys.clone()));
        Ok(keys)
    }
}

macro_rules! text {
    ($field:ident) => {
        |cf, d| set::text(&mut cf.stream.srv().ssl().$field, d)
    };
}

macro_rules! flag {
    ($field:ident) => {
        |cf, d| set::flag(&mut cf.stream.srv().ssl().$field, d)
    };
}

macro_rules! list {
    ($field:ident) => {
        |cf, d| {
            cf.stream.srv().ssl().$field.edit().push(Bytes::copy_from_slice(d.arg(1)));
            Ok(())
        }
    };
}

impl Module for Ssl {
    type Main = Main;
    type Srv = Srv;
    const COMMANDS: Commands = Commands {
        module: "ngx_stream_ssl",
        setters: &[
            ("ssl_handshake_timeout", |cf, d| set::msec(&mut cf.stream.srv().ssl().handshake_timeout, d)),
            ("ssl_certificate", list!(certificates)),
            ("ssl_certificate_key", list!(certificate_keys)),
            ("ssl_certificate_cache", |cf, d| {
                common::set_certificate_cache(cf, d, |cf| &mut cf.stream.srv().ssl().certificate_cache)
            }),
            ("ssl_password_file", |cf, d| {
                common::set_passwords(cf, d, |cf| &mut cf.stream.srv().ssl().passwords)
            }),
            ("ssl_certificate_compression", flag!(certificate_compression)),
            ("ssl_dhparam", text!(dhparam)),
            ("ssl_ecdh_curve", text!(ecdh_curve)),
            ("ssl_protocols", |cf, d| {
                common::set_protocols(cf, d, |cf| &mut cf.stream.srv().ssl().protocols)
            }),
            ("ssl_ciphers", text!(ciphers)),
            ("ssl_verify_client", |cf, d| {
                let words = [
                    ("off", VerifyMode::Off),
                    ("on", VerifyMode::On),
                    ("optional", VerifyMode::Optional),
                    ("optional_no_ca", VerifyMode::OptionalNoCa),
                ];
                set::choice(&mut cf.stream.srv().ssl().verify, d, &words)
            }),
            ("ssl_verify_depth", |cf, d| set::number(&mut cf.stream.srv().ssl().verify_depth, d)),
            ("ssl_client_certificate", text!(client_certificate)),
            ("ssl_trusted_certificate", text!(trusted_certificate)),
            ("ssl_prefer_server_ciphers", flag!(prefer_server_ciphers)),
            ("ssl_session_cache", session_cache),
            ("ssl_session_tickets", flag!(session_tickets)),
            ("ssl_session_ticket_key", list!(session_ticket_keys)),
            ("ssl_session_timeout", |cf, d| set::sec(&mut cf.stream.srv().ssl().session_timeout, d)),
            ("ssl_crl", text!(crl)),
            ("ssl_conf_command", |cf, d| {
                common::add_command(cf, d, |cf| &mut cf.stream.srv().ssl().conf_commands)
            }),
            ("ssl_reject_handshake", flag!(reject_handshake)),
            ("ssl_alpn", alpn),
            ("ssl_stapling", flag!(stapling)),
            ("ssl_stapling_file", text!(stapling_file)),
            ("ssl_stapling_responder", text!(stapling_responder)),
            ("ssl_stapling_verify", flag!(stapling_verify)),
            ("ssl_ocsp", |cf, d| {
                let words = [("off", None), ("on", Some(false)), ("leaf", Some(true))];
                set::choice(&mut cf.stream.srv().ssl().ocsp, d, &words)
            }),
            ("ssl_ocsp_responder", text!(ocsp_responder)),
            ("ssl_ocsp_cache", ocsp_cache),
            ("ssl_ech_file", list!(ech_files)),
        ],
    };
    const VARIABLES: &'static [Builtin<Session>] = super::ssl_variables::VARIABLES;

    fn handlers(_: &conf::Srv, to: &mut Handlers) {
        to.ssl.push(ssl_handshake::handler);
    }
}

fn alpn(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    cf.stream.srv().ssl().alpn.once()?;
    if d.args().any(|protocol| protocol.len() > 255) {
        return Err(Fault::directive("protocol too long"));
    }
    let protocols = d.args().map(Bytes::copy_from_slice).collect();
    cf.stream.srv().ssl().alpn.set(protocols)
}

fn ocsp_cache(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    cf.stream.srv().ssl().ocsp_cache.once()?;
    let shown = String::from_utf8_lossy(d.arg(1));
    let mut cache = None;
    if d.arg(1) != b"off" {
        let invalid = || Fault::here(format!("invalid OCSP cache \"{shown}\""));
        let rest = d.arg(1).strip_prefix(b"shared:").ok_or_else(invalid)?;
        let colon = memchr::memchr(b':', rest).filter(|at| *at > 0).ok_or_else(invalid)?;
        let size = units::size(&rest[colon + 1..]).ok_or_else(invalid)?;
        if size < MIN_CACHE {
            return Err(Fault::here(format!("OCSP cache \"{shown}\" is too small")));
        }
        cf.zones.add(&rest[..colon], size, "ngx_stream_ssl (OCSP)")?;
        let statuses = cf.stream.main().ssl().statuses.edit();
        let known = statuses.iter().find(|(name, _)| name == &rest[..colon]).map(|(_, cache)| cache.clone());
        cache = Some(known.unwrap_or_else(|| {
            let new = StatusCache::new(size);
            statuses.push((Bytes::copy_from_slice(&rest[..colon]), new.clone()));
            new
        }));
    }
    cf.stream.srv().ssl().ocsp_cache.set(cache)
}

fn session_cache(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    for word in d.args() {
        let invalid = || Fault::here(format!("invalid session cache \"{}\"", String::from_utf8_lossy(word)));
        let cache = match word {
            b"off" | b"none" => Cache::None,
            b"builtin" => Cache::Kept(SessionCache::builtin(BUILTIN_CACHE)),
            _ => {
                if let Some(count) = word.strip_prefix(b"builtin:") {
                    let count = units::number(count).ok_or_else(invalid)?;
                    Cache::Kept(SessionCache::builtin(usize::try_from(count).unwrap_or(usize::MAX)))
                } else {
                    let rest = word.strip_prefix(b"shared:").ok_or_else(invalid)?;
                    let colon = memchr::memchr(b':', rest).filter(|at| *at > 0).ok_or_else(invalid)?;
                    let size = units::size(&rest[colon + 1..]).ok_or_else(invalid)?;
                    if size < MIN_CACHE {
                        let shown = String::from_utf8_lossy(word);
                        return Err(Fault::here(format!("session cache \"{shown}\" is too small")));
                    }
                    Cache::Kept(shared(cf, &rest[..colon], size)?)
                }
            }
        };
        // Of `builtin` and `shared` together, the shared one does it all.
        cf.stream.srv().ssl().session_cache.put(cache);
    }
    Ok(())
}

fn shared(cf: &mut Build, name: &[u8], size: usize) -> Outcome<SessionCache> {
    let caches = cf.stream.main().ssl().caches.edit();
    if let Some((_, known, cache)) = caches.iter().find(|cache| cache.0 == name) {
        if *known != size {
            let name = String::from_utf8_lossy(name);
            return Err(Fault::here(format!(
                "the size {size} of shared memory zone \"{name}\" conflicts with already declared size {known}"
            )));
        }
        return Ok(cache.clone());
    }
    let cache = SessionCache::shared(size);
    caches.push((Bytes::copy_from_slice(name), size, cache.clone()));
    Ok(cache)
}

/// Tells servers how to find OCSP responders.
pub fn set_resolving(servers: &[Server]) {
    for server in servers {
        let core = &server.srv.core;
        if let Some(tls) = &*server.srv.ssl.server {
            tls.set_resolving(Resolving {
                resolver: (*core.resolver).clone(),
                timeout: *core.resolver_timeout,
            });
        }
    }
}

/// Every `listen ... ssl` must have a certificate to show.
pub fn check_listens(ports: &[Port], servers: &[Server]) -> Outcome {
    for port in ports {
        for addr in port.specific.iter().map(|(_, addr)| addr).chain([&port.addr]).filter(|addr| addr.ssl) {
            let Some(server) = servers.get(addr.default) else { continue };
            if server.srv.ssl.certificates.is_empty() && !*server.srv.ssl.reject_handshake {
                return Err(Fault::whole(format!(
                    "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive{}",
                    server.at
                )));
            }
        }
    }
    Ok(())
}
