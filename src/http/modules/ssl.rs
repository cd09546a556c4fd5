//! `ngx_http_ssl`: certificates and the rest of TLS, per server. What is loaded of it is in
//! [`crate::http::certificates`]; shaking hands is the [`tls`] room's.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::conf::build::Commands;
use crate::conf::tls_settings as common;
use crate::conf::{Build, Conf, Fault, Outcome, Setting, set, units};
use crate::http::certificates::Loaded;
use crate::http::module::Module;
use crate::http::request::Request;
use crate::log::Level;
use crate::settings;
use crate::syntax::Directive;
use crate::tls::{self, CertificateCache, TlsInfo, VerifyMode};
use crate::value::{Builtin, Flags};

/// The module.
pub struct Ssl;

/// What `ssl_session_cache` says beside `shared`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// `off`: clients are told so.
    Off,
    /// `none`, the default: nothing is kept.
    None,
    /// `builtin`, with room for that many sessions.
    Sessions(usize),
    /// Only what `shared` names.
    SharedOnly,
}

/// A cache that servers share by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Name of the zone.
    pub name: String,
    /// Bytes.
    pub size: usize,
}

settings! {
    /// What a server says about TLS. Paths are as written.
    pub struct Settings {
        /// `ssl on`, from before `listen ... ssl`.
        enable: bool = false,
        /// ` in FILE:LINE` of it.
        enable_at: String = String::new(),
        certificates: Vec<Bytes> = Vec::new(),
        certificate_keys: Vec<Bytes> = Vec::new(),
        certificate_cache: Option<Arc<CertificateCache>> = None,
        ech_files: Vec<Bytes> = Vec::new(),
        passwords: Vec<Vec<u8>> = Vec::new(),
        certificate_compression: bool = false,
        dhparam: Bytes = Bytes::new(),
        ecdh_curve: Bytes = Bytes::from_static(b"auto"),
        /// Bits of [`common::PROTOCOLS`].
        protocols: u32 = common::DEFAULT_PROTOCOLS,
        ciphers: Bytes = Bytes::from_static(b"HIGH:!aNULL:!MD5"),
        buffer_size: usize = 16384,
        verify: VerifyMode = VerifyMode::Off,
        verify_depth: usize = 1,
        client_certificate: Bytes = Bytes::new(),
        trusted_certificate: Bytes = Bytes::new(),
        crl: Bytes = Bytes::new(),
        prefer_server_ciphers: bool = false,
        builtin_cache: Cache = Cache::None,
        shared_cache: Option<Shared> = None,
        session_tickets: bool = true,
        session_ticket_keys: Vec<Bytes> = Vec::new(),
        session_timeout: u64 = 300,
        ocsp: Option<Asks> = None,
        ocsp_responder: Bytes = Bytes::new(),
        ocsp_cache: Option<Shared> = None,
        stapling: bool = false,
        stapling_file: Bytes = Bytes::new(),
        stapling_responder: Bytes = Bytes::new(),
        stapling_verify: bool = false,
        early_data: bool = false,
        conf_commands: Vec<(Bytes, Bytes)> = Vec::new(),
        reject_handshake: bool = false,
    }
}

/// A server's settings, and what was loaded by them. Servers that say nothing of their own share both.
#[derive(Clone, Default)]
pub struct Srv {
    pub settings: Settings,
    /// Filled when the http block is closed.
    pub loaded: Arc<OnceLock<Option<Loaded>>>,
}

impl Conf for Srv {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.settings.inherit(&parent.settings);
        self.loaded = Arc::default();
        Ok(())
    }
}

/// `ssl_ocsp`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// `on`: about all certificates up to the anchor.
    All,
    /// `leaf`: about the client's own.
    Leaf,
}

const ASKS: [(&str, Option<Asks>); 3] = [("off", None), ("on", Some(Asks::All)), ("leaf", Some(Asks::Leaf))];

const VERIFY: [(&str, VerifyMode); 4] = [
    ("off", VerifyMode::Off),
    ("on", VerifyMode::On),
    ("optional", VerifyMode::Optional),
    ("optional_no_ca", VerifyMode::OptionalNoCa),
];

fn own(cf: &mut Build) -> &mut Settings {
    &mut cf.http.srv().ssl().settings
}

fn push(list: &mut Setting<Vec<Bytes>>, d: &Directive<'_>) -> Outcome {
    list.edit().push(Bytes::copy_from_slice(d.arg(1)));
    Ok(())
}

impl Module for Ssl {
    type Main = ();
    type Srv = Srv;
    type Loc = ();
    const COMMANDS: Commands = Commands {
        module: "ngx_http_ssl",
        setters: &[
            ("ssl", ssl),
            ("ssl_certificate", |cf, d| push(&mut own(cf).certificates, d)),
            ("ssl_certificate_key", |cf, d| push(&mut own(cf).certificate_keys, d)),
            ("ssl_certificate_cache", |cf, d| {
                common::set_certificate_cache(cf, d, |cf| &mut own(cf).certificate_cache)
            }),
            ("ssl_ech_file", |cf, d| push(&mut own(cf).ech_files, d)),
            ("ssl_password_file", |cf, d| common::set_passwords(cf, d, |cf| &mut own(cf).passwords)),
            ("ssl_certificate_compression", |cf, d| set::flag(&mut own(cf).certificate_compression, d)),
            ("ssl_dhparam", |cf, d| set::text(&mut own(cf).dhparam, d)),
            ("ssl_ecdh_curve", |cf, d| set::text(&mut own(cf).ecdh_curve, d)),
            ("ssl_protocols", |cf, d| common::set_protocols(cf, d, |cf| &mut own(cf).protocols)),
            ("ssl_ciphers", |cf, d| set::text(&mut own(cf).ciphers, d)),
            ("ssl_buffer_size", |cf, d| set::size(&mut own(cf).buffer_size, d)),
            ("ssl_verify_client", |cf, d| set::choice(&mut own(cf).verify, d, &VERIFY)),
            ("ssl_verify_depth", |cf, d| set::number(&mut own(cf).verify_depth, d)),
            ("ssl_client_certificate", |cf, d| set::text(&mut own(cf).client_certificate, d)),
            ("ssl_trusted_certificate", |cf, d| set::text(&mut own(cf).trusted_certificate, d)),
            ("ssl_prefer_server_ciphers", |cf, d| set::flag(&mut own(cf).prefer_server_ciphers, d)),
            ("ssl_session_cache", session_cache),
            ("ssl_session_tickets", |cf, d| set::flag(&mut own(cf).session_tickets, d)),
            ("ssl_session_ticket_key", |cf, d| push(&mut own(cf).session_ticket_keys, d)),
            ("ssl_session_timeout", |cf, d| set::sec(&mut own(cf).session_timeout, d)),
            ("ssl_crl", |cf, d| set::text(&mut own(cf).crl, d)),
            ("ssl_ocsp", |cf, d| set::choice(&mut own(cf).ocsp, d, &ASKS)),
            ("ssl_ocsp_responder", |cf, d| set::text(&mut own(cf).ocsp_responder, d)),
            ("ssl_ocsp_cache", ocsp_cache),
            ("ssl_stapling", |cf, d| set::flag(&mut own(cf).stapling, d)),
            ("ssl_stapling_file", |cf, d| set::text(&mut own(cf).stapling_file, d)),
            ("ssl_stapling_responder", |cf, d| set::text(&mut own(cf).stapling_responder, d)),
            ("ssl_stapling_verify", |cf, d| set::flag(&mut own(cf).stapling_verify, d)),
            ("ssl_early_data", |cf, d| set::flag(&mut own(cf).early_data, d)),
            ("ssl_conf_command", |cf, d| common::add_command(cf, d, |cf| &mut own(cf).conf_commands)),
            ("ssl_reject_handshake", |cf, d| set::flag(&mut own(cf).reject_handshake, d)),
        ],
    };
    const VARIABLES: &'static [Builtin<Request>] = VARIABLES;
}

fn ssl(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    set::flag(&mut own(cf).enable, d)?;
    own(cf).enable_at.put(d.at().to_string());
    cf.warn(d.at(), "the \"ssl\" directive is deprecated, use the \"listen ... ssl\" directive instead");
    Ok(())
}

/// Eight pages: the least a zone may have.
const LEAST_ZONE: usize = 8 * 4096;

/// Name and size of `shared:NAME:SIZE`.
fn shared(word: &[u8]) -> Option<Shared> {
    let rest = word.strip_prefix(b"shared:")?;
    let colon = memchr::memchr(b':', rest).filter(|at| *at > 0)?;
    let size = units::size(&rest[colon + 1..])?;
    Some(Shared { name: String::from_utf8_lossy(&rest[..colon]).into_owned(), size })
}

fn session_cache(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    for word in d.args() {
        let shown = String::from_utf8_lossy(word);
        let invalid = || Fault::here(format!("invalid session cache \"{shown}\""));
        let builtin = match word {
            b"off" => Cache::Off,
            b"none" => Cache::None,
            b"builtin" => Cache::Sessions(BUILTIN_SESSIONS),
            _ if word.starts_with(b"builtin:") => {
                let n = units::number(&word[8..]).ok_or_else(invalid)?;
                Cache::Sessions(if n == 0 { BUILTIN_SESSIONS } else { n as usize })
            }
            _ => {
                let zone = shared(word).ok_or_else(invalid)?;
                if zone.size < LEAST_ZONE {
                    return Err(Fault::here(format!("session cache \"{shown}\" is too small")));
                }
                cf.zones.add(zone.name.as_bytes(), zone.size, "ngx_http_ssl")?;
                own(cf).shared_cache.put(Some(zone));
                continue;
            }
        };
        own(cf).builtin_cache.put(builtin);
    }
    if own(cf).shared_cache.is_set() && !own(cf).builtin_cache.is_set() {
        own(cf).builtin_cache.put(Cache::SharedOnly);
    }
    Ok(())
}

/// Room of OpenSSL's own cache.
const BUILTIN_SESSIONS: usize = 20480;

fn ocsp_cache(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    own(cf).ocsp_cache.once()?;
    let shown = String::from_utf8_lossy(d.arg(1));
    let mut zone = None;
    if d.arg(1) != b"off" {
        let found = shared(d.arg(1)).ok_or_else(|| Fault::here(format!("invalid OCSP cache \"{shown}\"")))?;
        if found.size < LEAST_ZONE {
            return Err(Fault::here(format!("OCSP cache \"{shown}\" is too small")));
        }
        cf.zones.add(found.name.as_bytes(), found.size, "ngx_http_ssl (OCSP)")?;
        zone = Some(found);
    }
    own(cf).ocsp_cache.set(zone)
}

/// What TLS has against answering a request: the status to refuse it with.
pub fn refusal(req: &Request) -> Option<u16> {
    let info = req.conn.tls()?;
    let verify = *req.server.srv.ssl.settings.verify;
    if verify == VerifyMode::Off {
        return None;
    }
    if req.conn.tls_server.is_some() && !asked_for(&info, &req.host) {
        let text = "client attempted to request the server name different from the one that was negotiated";
        req.log(Level::Info, None, format_args!("{text}"));
        return Some(421);
    }
    if let Some(Err(error)) = info.verdict
        && !(verify == VerifyMode::OptionalNoCa && error.is_only_untrusted())
    {
        req.log(Level::Info, None, format_args!("client SSL certificate verify error: {error}"));
        return Some(495);
    }
    if verify == VerifyMode::On && info.certificate().is_none() {
        req.log(Level::Info, None, format_args!("client sent no required SSL certificate"));
        return Some(496);
    }
    if let Err(error) = info.status {
        req.log(Level::Info, None, format_args!("client SSL certificate verify error: {error}"));
        return Some(495);
    }
    None
}

/// Whether `host` is the name of the handshake.
fn asked_for(info: &TlsInfo, host: &[u8]) -> bool {
    let name = info.server_name.as_deref().unwrap_or_default();
    name.trim_end_matches('.').as_bytes().eq_ignore_ascii_case(host)
}

/// Values that never change while a connection lasts, kept for a request since some are dear.
const fn variable(name: &'static str, get: fn(&Request, &mut Vec<u8>) -> bool) -> Builtin<Request> {
    Builtin { name, get, set: None, flags: Flags { changeable: true, cached: true } }
}

fn of<V: AsRef<[u8]>>(req: &Request, out: &mut Vec<u8>, value: impl FnOnce(&TlsInfo) -> V) -> bool {
    let Some(info) = req.conn.tls() else { return false };
    let value = value(&info);
    out.extend_from_slice(value.as_ref());
    !value.as_ref().is_empty()
}

fn of_client<V: AsRef<[u8]>>(
    req: &Request,
    out: &mut Vec<u8>,
    value: impl FnOnce(&tls::PeerCertificate<'_>) -> V,
) -> bool {
    let Some(info) = req.conn.tls() else { return false };
    let Some(certificate) = info.certificate() else { return false };
    let value = value(&certificate);
    out.extend_from_slice(value.as_ref());
    !value.as_ref().is_empty()
}

fn none(_: &Request, _: &mut Vec<u8>) -> bool {
    false
}

const VARIABLES: &[Builtin<Request>] = &[
    variable("ssl_protocol", |r, out| of(r, out, TlsInfo::protocol)),
    variable("ssl_cipher", |r, out| of(r, out, TlsInfo::cipher)),
    variable("ssl_ciphers", |r, out| of(r, out, TlsInfo::ciphers)),
    variable("ssl_curve", |r, out| of(r, out, TlsInfo::curve)),
    variable("ssl_curves", |r, out| of(r, out, TlsInfo::curves)),
    variable("ssl_sigalg", |r, out| of(r, out, TlsInfo::sigalg)),
    variable("ssl_sigalgs", |r, out| of(r, out, TlsInfo::sigalgs)),
    variable("ssl_session_id", |r, out| of(r, out, TlsInfo::session_id)),
    variable("ssl_session_reused", |r, out| of(r, out, TlsInfo::session_reused)),
    // Set while a handshake is not complete; requests here wait until it is.
    variable("ssl_early_data", none),
    variable("ssl_server_name", |r, out| {
        of(r, out, |info| info.server_name.as_deref().unwrap_or_default().to_owned())
    }),
    variable("ssl_alpn_protocol", |r, out| {
        of(r, out, |info| info.alpn.as_deref().unwrap_or_default().to_owned())
    }),
    // Empty without Encrypted Client Hello, which no platform of nginx's had before OpenSSL 4.
    variable("ssl_client_sigalg", none),
    variable("ssl_ech_status", none),
    variable("ssl_ech_outer_server_name", none),
    variable("ssl_client_cert", |r, out| of_client(r, out, |c| c.folded())),
    variable("ssl_client_raw_cert", |r, out| of_client(r, out, |c| c.raw())),
    variable("ssl_client_escaped_cert", |r, out| of_client(r, out, |c| c.escaped())),
    variable("ssl_client_s_dn", |r, out| of_client(r, out, |c| c.subject())),
    variable("ssl_client_i_dn", |r, out| of_client(r, out, |c| c.issuer())),
    variable("ssl_client_s_dn_legacy", |r, out| of_client(r, out, |c| c.subject_legacy())),
    variable("ssl_client_i_dn_legacy", |r, out| of_client(r, out, |c| c.issuer_legacy())),
    variable("ssl_client_serial", |r, out| of_client(r, out, |c| c.serial())),
    variable("ssl_client_fingerprint", |r, out| of_client(r, out, |c| c.fingerprint())),
    variable("ssl_client_verify", |r, out| of(r, out, TlsInfo::client_verify)),
    variable("ssl_client_v_start", |r, out| of_client(r, out, |c| c.valid_from())),
    variable("ssl_client_v_end", |r, out| of_client(r, out, |c| c.valid_until())),
    variable("ssl_client_v_remain", |r, out| of_client(r, out, |c| c.days_remaining().to_string())),
];
