//! What servers' TLS settings come to: certificates, keys and the rest loaded once, while still root, with nginx's
//! checks in nginx's order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::modules::ssl::{Asks, Cache, PROTOCOLS, Settings};
use super::{Http, Server};
use crate::conf::{Build, Fault, Outcome};
use crate::log::Level;
use crate::tls::ocsp::{ClientStatus, Resolving, Responder, Stapling, StatusCache};
use crate::tls::{
    self, CertificatePair, ConfCommand, Protocol, ServerTls, SessionCache, TicketKeys, VerifyMode,
};

/// A server's TLS, loaded.
#[derive(Clone)]
pub struct Loaded {
    /// Without HTTP/2.
    http1: Arc<tls::Server>,
    /// With HTTP/2 before all.
    http2: Arc<tls::Server>,
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
    /// What shakes hands for this server, with or without HTTP/2; none where it has no certificates.
    pub fn tls_server(&self, http2: bool) -> Option<&Arc<tls::Server>> {
        let loaded = self.srv.ssl.loaded.get()?.as_ref()?;
        Some(if http2 { &loaded.http2 } else { &loaded.http1 })
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A path as it is opened; what is no path stays as it is.
fn path(cf: &Build, name: &[u8]) -> String {
    let scheme = ["data:", "engine:", "store:"].iter().any(|s| name.starts_with(s.as_bytes()));
    if scheme { text(name) } else { cf.conf_path(name).to_string_lossy().into_owned() }
}

fn optional(cf: &Build, name: &[u8]) -> Option<String> {
    (!name.is_empty()).then(|| path(cf, name))
}

fn whole(error: tls::Error) -> Fault {
    Fault::whole(error)
}

impl Shelf {
    fn load(&mut self, s: &Settings, resolving: Resolving, cf: &mut Build) -> Outcome<Option<Loaded>> {
        if !check_pairs(s)? {
            return Ok(None);
        }
        refuse_variables(s, cf)?;
        let mut server = settings(s, cf);
        server.client_status = self.client_status(s)?;
        let tickets = commands(s, &mut server, cf)?;
        let sessions = (*s.builtin_cache, &*s.shared_cache, tickets, &*s.session_ticket_keys);
        let asks = (server.stapling.is_some() || server.client_status.is_some()).then_some(&resolving);
        let key = format!("{server:?} {sessions:?} {asks:?}");
        let found = self.servers.get(&key).cloned();
        let loaded = match found {
            Some(loaded) => loaded,
            None => {
                self.sessions(s, &mut server, tickets, cf)?;
                let http1 = tls::Server::new(&server).map_err(whole)?;
                http1.set_resolving(resolving);
                http1.warnings.iter().for_each(|w| warn_once(cf, w.clone()));
                let alpn = std::iter::once(&b"h2"[..]).chain(HTTP1).map(<[u8]>::to_vec).collect();
                let http2 = http1.with_alpn(alpn);
                Loaded { http1, http2 }
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
        let files: Vec<String> = s.session_ticket_keys.iter().map(|name| path(cf, name)).collect();
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
            let keys = keys.map_or_else(|| random_keys(*s.session_timeout).map_err(whole), Ok)?;
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

/// Variables in names of certificates would need a certificate loaded in the middle of a handshake.
fn refuse_variables(s: &Settings, cf: &mut Build) -> Outcome {
    let names = s.certificates.iter().zip(&*s.certificate_keys).flat_map(|(cert, key)| [cert, key]);
    if !names.clone().any(|name| name.contains(&b'$')) {
        return Ok(());
    }
    for name in names {
        cf.http.template(name)?;
    }
    Err(Fault::whole(
        "variables in \"ssl_certificate\" and \"ssl_certificate_key\" directives are not supported on this platform",
    ))
}

/// What the directives come to, without sessions and `ssl_conf_command`.
fn settings(s: &Settings, cf: &Build) -> ServerTls {
    const ORDER: [Protocol; 6] = [
        Protocol::SslV2,
        Protocol::SslV3,
        Protocol::TlsV1,
        Protocol::TlsV1_1,
        Protocol::TlsV1_2,
        Protocol::TlsV1_3,
    ];
    let protocols = ORDER.iter().zip(PROTOCOLS).filter(|(_, (_, bit))| *s.protocols & bit != 0);
    let pairs = s.certificates.iter().zip(&*s.certificate_keys);
    let verify = *s.verify != VerifyMode::Off;
    ServerTls {
        protocols: protocols.map(|(protocol, _)| *protocol).collect(),
        ciphers: text(&s.ciphers),
        curves: text(&s.ecdh_curve),
        prefer_server_ciphers: *s.prefer_server_ciphers,
        certificates: pairs
            .map(|(cert, key)| CertificatePair { certificate: path(cf, cert), key: path(cf, key) })
            .collect(),
        passwords: s.passwords.to_vec(),
        stapling: s.stapling.then(|| Stapling {
            file: optional(cf, &s.stapling_file),
            responder: s.stapling_responder.to_vec(),
            verify: *s.stapling_verify,
        }),
        session_timeout: Duration::from_secs(*s.session_timeout),
        verify: *s.verify,
        verify_depth: *s.verify_depth,
        client_certificate: verify.then(|| optional(cf, &s.client_certificate)).flatten(),
        trusted_certificate: optional(cf, &s.trusted_certificate),
        crl: optional(cf, &s.crl),
        early_data: *s.early_data,
        alpn: HTTP1.map(<[u8]>::to_vec).to_vec(),
        record_size: *s.buffer_size,
        ..ServerTls::default()
    }
}

/// Applies `ssl_conf_command`; returns whether there are tickets.
fn commands(s: &Settings, server: &mut ServerTls, cf: &mut Build) -> Outcome<bool> {
    let mut tickets = *s.session_tickets;
    for (name, value) in &*s.conf_commands {
        let (name, value) = (text(name), text(value));
        for command in tls::conf_command(&name, &value).map_err(whole)? {
            match command {
                ConfCommand::Ciphersuites(list) => server.ciphersuites = Some(list),
                ConfCommand::Ciphers(list) => server.ciphers = list,
                ConfCommand::Curves(list) => server.curves = list,
                ConfCommand::MinProtocol(Some(least)) => server.protocols.retain(|p| *p as u8 >= least as u8),
                ConfCommand::MaxProtocol(Some(most)) => server.protocols.retain(|p| *p as u8 <= most as u8),
                ConfCommand::MinProtocol(None) | ConfCommand::MaxProtocol(None) | ConfCommand::Nothing => {}
                ConfCommand::PreferServerCiphers(on) => server.prefer_server_ciphers = on,
                ConfCommand::SessionTickets(on) => tickets = on,
                ConfCommand::Lacking => {
                    warn_once(cf, format!("\"ssl_conf_command {name} {value}\" is not supported, ignored"));
                }
            }
        }
    }
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
        tls::keys::dhparam(&path(cf, &s.dhparam)).map_err(whole)?;
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

/// Keys of tickets by their period in seconds. They stay for as long as the master does, so that tickets outlive a
/// reload; workers inherit them.
fn random_keys(period: u64) -> Result<Arc<TicketKeys>, tls::Error> {
    static KEYS: Mutex<Vec<(u64, Arc<TicketKeys>)>> = Mutex::new(Vec::new());
    let mut all = KEYS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, keys)) = all.iter().find(|(p, _)| *p == period) {
        // A worker is about to be started: it need not know of keys whose time has passed.
        keys.advance();
        return Ok(keys.clone());
    }
    let keys = TicketKeys::random(Duration::from_secs(period))?;
    all.push((period, keys.clone()));
    Ok(keys)
}
