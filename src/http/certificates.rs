//! What servers' TLS settings come to: certificates, keys and the rest loaded once, while still root, with nginx's
//! checks in nginx's order.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::modules::ssl::{Asks, Cache, Settings};
use super::{Http, Server};
use crate::conf::tls_settings as common;
use crate::conf::{Build, Fault, Outcome};
use crate::log::Level;
use crate::tls::ocsp::{ClientStatus, Resolving, Responder, Stapling, StatusCache};
use crate::tls::{self, CertificatePair, ServerTls, SessionCache, TicketKeys, VerifyMode};
use crate::value::certificates::{Certificates, Store};

/// A server's TLS, loaded.
#[derive(Clone)]
pub struct Loaded {
    /// Without HTTP/2.
    http1: Arc<tls::Server>,
    /// With HTTP/2 before all.
    http2: Arc<tls::Server>,
    /// What is shown, where it is known with every handshake only.
    varying: Option<Arc<Certificates>>,
}

impl Loaded {
    /// What shakes hands, with or without HTTP/2.
    pub fn server(&self, http2: bool) -> &Arc<tls::Server> {
        if http2 { &self.http2 } else { &self.http1 }
    }

    /// What is shown, where it is known with every handshake only.
    pub fn varying(&self) -> Option<&Certificates> {
        self.varying.as_deref()
    }
}

/// ALPN's names of what is spoken without HTTP/2 (RFC 7301, section 6).
const HTTP1: [&[u8]; 3] = [b"http/1.1", b"http/1.0", b"http/0.9"];

/// What is loaded once for all servers of a configuration.
#[derive(Default)]
struct Shelf {
    /// By everything that a server's TLS settings say.
    servers: HashMap<String, Loaded>,
    /// By the zone's name.
    caches: HashMap<String, SessionCache>,
    /// The same.
    statuses: HashMap<String, StatusCache>,
}

/// Loads what the servers name.
pub fn load(servers: &[Server], cf: &mut Build) -> Outcome {
    let mut shelf = Shelf::default();
    for server in servers {
        let ssl = &server.srv.ssl;
        let core = &server.root.conf.core;
        let resolving = Resolving { resolver: (*core.resolver).clone(), timeout: *core.resolver_timeout };
        if ssl.loaded.get().is_none() {
            let loaded = shelf.load(&ssl.settings, resolving, cf)?;
            // It was empty a line above, and only this thread knows it.
            let _ = ssl.loaded.set(loaded);
        }
    }
    Ok(())
}

/// Checks that every address with TLS has certificates; `ssl on` makes an address one with TLS.
pub fn check(http: &mut Http) -> Outcome {
    let servers = &http.servers;
    for port in &mut http.ports {
        let specific = port.specific.iter_mut().map(|(_, addr)| addr);
        for addr in specific.chain(std::iter::once(&mut port.addr)) {
            let default = &servers[addr.default];
            addr.ssl |= *default.srv.ssl.settings.enable;
            if !addr.ssl || has_certificates(default) {
                continue;
            }
            let lacking = |server: &Server| {
                let text = "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive";
                Err(Fault::Whole(format!("{text}{}", server.at)))
            };
            if !*default.srv.ssl.settings.reject_handshake {
                return lacking(default);
            }
            for server in addr.servers.iter().map(|index| &servers[*index]) {
                if !has_certificates(server) && !*server.srv.ssl.settings.reject_handshake {
                    return lacking(server);
                }
            }
        }
    }
    Ok(())
}

fn has_certificates(server: &Server) -> bool {
    server.srv.ssl.settings.certificates.is_set()
}

impl Server {
    /// What shakes hands for this server; none where it has no certificates.
    pub fn tls(&self) -> Option<&Loaded> {
        self.srv.ssl.loaded.get()?.as_ref()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn whole(error: tls::Error) -> Fault {
    Fault::whole(error)
}

impl Shelf {
    fn load(&mut self, s: &Settings, resolving: Resolving, cf: &mut Build) -> Outcome<Option<Loaded>> {
        if !check_pairs(s)? {
            return Ok(None);
        }
        let varying = varying(s, cf)?;
        let mut server = settings(s, varying.is_some(), cf);
        server.client_status = self.client_status(s)?;
        let tickets = commands(s, &mut server, cf)?;
        let sessions = (*s.builtin_cache, &*s.shared_cache, tickets, &*s.session_ticket_keys);
        let asks = (server.stapling.is_some() || server.client_status.is_some()).then_some(&resolving);
        let key = format!("{server:?} {sessions:?} {asks:?}");
        let found = self.servers.get(&key).cloned();
        let loaded = match found {
            // Servers of the same names need not have the same cache.
            Some(loaded) => Loaded { varying, ..loaded },
            None => {
                self.sessions(s, &mut server, tickets, cf)?;
                let http1 = tls::Server::new(&server).map_err(whole)?;
                http1.set_resolving(resolving);
                http1.warnings.iter().for_each(|w| warn_once(cf, w.clone()));
                let alpn = std::iter::once(&b"h2"[..]).chain(HTTP1).map(<[u8]>::to_vec).collect();
                let http2 = http1.with_alpn(alpn);
                Loaded { http1, http2, varying }
            }
        };
        check_rest(s, cf)?;
        loaded.http1.not_stapled.iter().for_each(|w| warn_once(cf, w.clone()));
        self.servers.insert(key, loaded.clone());
        Ok(Some(loaded))
    }

    /// What `ssl_ocsp` asks for.
    fn client_status(&mut self, s: &Settings) -> Outcome<Option<ClientStatus>> {
        let Some(asks) = *s.ocsp else { return Ok(None) };
        let responder = match s.ocsp_responder.as_ref() {
            [] => None,
            url => Some(Responder::new(url, true)),
        };
        let responder = responder.transpose();
        let responder = responder.map_err(|e| Fault::whole(format!("{e} in \"ssl_ocsp_responder\"")))?;
        let cache = s.ocsp_cache.as_ref().map(|zone| {
            let new = || StatusCache::new(zone.size);
            self.statuses.entry(zone.name.clone()).or_insert_with(new).clone()
        });
        Ok(Some(ClientStatus { leaf: asks == Asks::Leaf, responder, cache }))
    }

    /// Tickets and the cache.
    fn sessions(&mut self, s: &Settings, server: &mut ServerTls, tickets: bool, cf: &Build) -> Outcome {
        let cache = match (*s.builtin_cache, &*s.shared_cache) {
            (Cache::Off | Cache::None, _) | (Cache::SharedOnly, None) => None,
            (_, Some(zone)) => {
                let shared = || SessionCache::shared(zone.size);
                Some(self.caches.entry(zone.name.clone()).or_insert_with(shared).clone())
            }
            (Cache::Sessions(room), None) => Some(SessionCache::builtin(room)),
        };
        let files: Vec<String> =
            s.session_ticket_keys.iter().map(|name| common::whole_path(cf, name)).collect();
        let keys = match files.is_empty() {
            true => None,
            false => {
                let keys = TicketKeys::from_files(&files);
                Some(keys.map_err(|e| Fault::whole(format!("{e}{}", cf.here)))?)
            }
        };
        if server.early_data {
            // Early data is taken with sessions out of a cache alone: a ticket could be replayed.
            server.session_cache = cache.or_else(|| Some(SessionCache::builtin(EARLY_SESSIONS)));
            return Ok(());
        }
        server.session_cache = cache;
        if tickets {
            let keys = keys.map_or_else(|| TicketKeys::lasting(*s.session_timeout).map_err(whole), Ok)?;
            server.tickets = Some(keys);
        }
        Ok(())
    }
}

/// Sessions kept for early data where no cache was asked for.
const EARLY_SESSIONS: usize = 1024;

/// Whether the server has TLS at all, and a key for each of its certificates.
fn check_pairs(s: &Settings) -> Outcome<bool> {
    let at = &*s.enable_at;
    let (certificates, keys) = (&*s.certificates, &*s.certificate_keys);
    if let Some(last) = certificates.last() {
        if keys.len() < certificates.len() {
            let (last, on) = (text(last), *s.enable);
            return Err(Fault::Whole(match on {
                true if keys.is_empty() => {
                    format!("no \"ssl_certificate_key\" is defined for the \"ssl\" directive{at}")
                }
                true => format!(
                    "no \"ssl_certificate_key\" is defined for certificate \"{last}\" and the \"ssl\" directive{at}"
                ),
                false => format!("no \"ssl_certificate_key\" is defined for certificate \"{last}\""),
            }));
        }
        return Ok(true);
    }
    if *s.reject_handshake {
        return Ok(true);
    }
    match *s.enable {
        true => Err(Fault::Whole(format!("no \"ssl_certificate\" is defined for the \"ssl\" directive{at}"))),
        false => Ok(false),
    }
}

fn varying(s: &Settings, cf: &mut Build) -> Outcome<Option<Arc<Certificates>>> {
    let store = |cf: &Build| Store {
        cache: (*s.certificate_cache).clone(),
        passwords: s.passwords.to_vec(),
        prefix: cf.conf_prefix.clone(),
    };
    common::varying(cf, &s.certificates, &s.certificate_keys, store, |cf, text| cf.http.template(text))
}

/// What the directives come to, without sessions and `ssl_conf_command`.
fn settings(s: &Settings, varying: bool, cf: &Build) -> ServerTls {
    let pairs = s.certificates.iter().zip(&*s.certificate_keys);
    let verify = *s.verify != VerifyMode::Off;
    ServerTls {
        ciphers: text(&s.ciphers),
        curves: text(&s.ecdh_curve),
        prefer_server_ciphers: *s.prefer_server_ciphers,
        certificates: pairs
            .filter(|_| !varying)
            .map(|(cert, key)| CertificatePair {
                certificate: common::whole_path(cf, cert),
                key: common::whole_path(cf, key),
            })
            .collect(),
        varying: s.certificates.iter().filter(|_| varying).map(|name| text(name)).collect(),
        passwords: s.passwords.to_vec(),
        stapling: s.stapling.then(|| Stapling {
            file: common::some_path(cf, &s.stapling_file),
            responder: s.stapling_responder.to_vec(),
            verify: *s.stapling_verify,
        }),
        session_timeout: Duration::from_secs(*s.session_timeout),
        verify: *s.verify,
        verify_depth: *s.verify_depth,
        client_certificate: verify.then(|| common::some_path(cf, &s.client_certificate)).flatten(),
        trusted_certificate: common::some_path(cf, &s.trusted_certificate),
        crl: common::some_path(cf, &s.crl),
        early_data: *s.early_data,
        alpn: HTTP1.map(<[u8]>::to_vec).to_vec(),
        record_size: *s.buffer_size,
        ..ServerTls::default()
    }
}

/// Applies `ssl_conf_command`; returns whether there are tickets.
fn commands(s: &Settings, server: &mut ServerTls, cf: &mut Build) -> Outcome<bool> {
    let (mut protocols, mut tickets) = (*s.protocols, *s.session_tickets);
    let commanded = common::Commanded {
        protocols: &mut protocols,
        ciphers: &mut server.ciphers,
        ciphersuites: &mut server.ciphersuites,
        curves: &mut server.curves,
        prefer_server_ciphers: &mut server.prefer_server_ciphers,
        session_tickets: &mut tickets,
    };
    server.certificates.extend(common::command(cf, &s.conf_commands, commanded)?);
    server.protocols = common::protocols(protocols);
    Ok(tickets)
}

/// What nginx checks after the certificates.
fn check_rest(s: &Settings, cf: &mut Build) -> Outcome {
    let verified = !matches!(*s.verify, VerifyMode::Off | VerifyMode::OptionalNoCa);
    if verified && s.client_certificate.is_empty() && s.trusted_certificate.is_empty() {
        return Err(Fault::whole(
            "no ssl_client_certificate or ssl_trusted_certificate for ssl_verify_client",
        ));
    }
    if s.ocsp.is_some() && *s.verify == VerifyMode::OptionalNoCa {
        return Err(Fault::whole("\"ssl_ocsp\" is incompatible with \"ssl_verify_client optional_no_ca\""));
    }
    if !s.dhparam.is_empty() {
        tls::keys::dhparam(&common::whole_path(cf, &s.dhparam)).map_err(whole)?;
    }
    if !s.ech_files.is_empty() {
        warn_once(cf, "\"ssl_ech_file\" is not supported on this platform, ignored".into());
    }
    if *s.certificate_compression {
        if *s.stapling {
            return Err(Fault::whole(
                "\"ssl_stapling\" is incompatible with \"ssl_certificate_compression\"",
            ));
        }
        let text = "\"ssl_certificate_compression\" is not supported on this platform, ignored";
        warn_once(cf, text.into());
    }
    Ok(())
}

fn warn_once(cf: &mut Build, text: String) {
    let message = (Level::Warn, text);
    if !cf.messages.contains(&message) {
        cf.messages.push(message);
    }
}
