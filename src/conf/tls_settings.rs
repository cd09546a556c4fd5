//! What `ssl_*` and `proxy_ssl_*` directives have in common.

use std::sync::Arc;

use bytes::Bytes;

use crate::conf::{Build, Fault, Outcome, Setting, units};
use crate::log::Level;
use crate::syntax::Directive;
use crate::tls::{self, CertificateCache, CertificatePair, ConfCommand, Protocol, keys};
use crate::value::Template;
use crate::value::certificates::{Certificates, Pair, Store};

/// Names of protocols, as bits.
pub const PROTOCOLS: &[(&str, u32)] =
    &[("SSLv2", 1), ("SSLv3", 2), ("TLSv1", 4), ("TLSv1.1", 8), ("TLSv1.2", 16), ("TLSv1.3", 32)];
/// TLSv1.2 and TLSv1.3.
pub const DEFAULT_PROTOCOLS: u32 = 48;

const ALL: [Protocol; 6] = [
    Protocol::SslV2,
    Protocol::SslV3,
    Protocol::TlsV1,
    Protocol::TlsV1_1,
    Protocol::TlsV1_2,
    Protocol::TlsV1_3,
];

/// The protocols of these bits.
pub fn protocols(bits: u32) -> Vec<Protocol> {
    ALL.into_iter()
        .enumerate()
        .filter(|(bit, _)| bits >> bit & 1 == 1)
        .map(|(_, protocol)| protocol)
        .collect()
}

/// Sets names of protocols.
pub fn set_protocols(cf: &mut Build, d: &Directive<'_>, to: fn(&mut Build) -> &mut Setting<u32>) -> Outcome {
    let mut warnings = Vec::new();
    crate::conf::set::bits(to(cf), d, PROTOCOLS, |warning| warnings.push(warning))?;
    warnings.into_iter().for_each(|warning| cf.warn(d.at(), warning));
    Ok(())
}

/// A path made whole; `data:` and `engine:` values stay.
pub fn whole_path(cf: &Build, text: &[u8]) -> String {
    match text.starts_with(b"data:") || text.starts_with(b"engine:") || text.starts_with(b"store:") {
        true => String::from_utf8_lossy(text).into_owned(),
        false => cf.conf_path(text).to_string_lossy().into_owned(),
    }
}

/// The same; none where empty.
pub fn some_path(cf: &Build, text: &[u8]) -> Option<String> {
    (!text.is_empty()).then(|| whole_path(cf, text))
}

/// Reads the file of `ssl_password_file`.
pub fn passwords(cf: &Build, d: &Directive<'_>) -> Outcome<Vec<Vec<u8>>> {
    keys::passwords(&whole_path(cf, d.arg(1))).map_err(Fault::here)
}

/// The cache of `*_certificate_cache`; none for `off`.
pub fn certificate_cache(d: &Directive<'_>) -> Outcome<Option<Arc<CertificateCache>>> {
    let (mut max, mut inactive, mut valid, mut off) = (0, 10, 60, false);
    for word in d.args() {
        let read = if let Some(value) = word.strip_prefix(b"max=") {
            units::number(value).filter(|n| *n > 0).map(|n| max = n)
        } else if let Some(value) = word.strip_prefix(b"inactive=") {
            units::seconds(value).map(|seconds| inactive = seconds)
        } else if let Some(value) = word.strip_prefix(b"valid=") {
            units::seconds(value).map(|seconds| valid = seconds)
        } else {
            (word == b"off").then(|| off = true)
        };
        if read.is_none() {
            return Err(Fault::invalid_parameter(word));
        }
    }
    if off {
        return Ok(None);
    }
    if max == 0 {
        let name = String::from_utf8_lossy(d.name());
        return Err(Fault::here(format!("\"{name}\" must have the \"max\" parameter")));
    }
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    Ok(Some(Arc::new(CertificateCache::new(max, valid, inactive))))
}

/// Sets the cache of `*_certificate_cache`.
pub fn set_certificate_cache(
    cf: &mut Build,
    d: &Directive<'_>,
    to: fn(&mut Build) -> &mut Setting<Option<Arc<CertificateCache>>>,
) -> Outcome {
    to(cf).once()?;
    let cache = certificate_cache(d)?;
    to(cf).set(cache)
}

/// Sets the lines of a `*_password_file`.
pub fn set_passwords(
    cf: &mut Build,
    d: &Directive<'_>,
    to: fn(&mut Build) -> &mut Setting<Vec<Vec<u8>>>,
) -> Outcome {
    to(cf).once()?;
    let passwords = passwords(cf, d)?;
    to(cf).set(passwords)
}

/// `ssl_conf_command` and the like: names and values.
type Commands = Vec<(Bytes, Bytes)>;

/// Adds the pair of a `*_conf_command`.
pub fn add_command(
    cf: &mut Build,
    d: &Directive<'_>,
    to: fn(&mut Build) -> &mut Setting<Commands>,
) -> Outcome {
    let command = (Bytes::copy_from_slice(d.arg(1)), Bytes::copy_from_slice(d.arg(2)));
    to(cf).edit().push(command);
    Ok(())
}

/// The certificates of a server, where any of their names has variables. `template` compiles a name.
pub fn varying(
    cf: &mut Build,
    certificates: &[Bytes],
    keys: &[Bytes],
    store: impl FnOnce(&Build) -> Store,
    template: fn(&mut Build, &[u8]) -> Outcome<Template>,
) -> Outcome<Option<Arc<Certificates>>> {
    let names = certificates.iter().zip(keys);
    if !names.clone().any(|(certificate, key)| [certificate, key].iter().any(|name| name.contains(&b'$'))) {
        return Ok(None);
    }
    let mut pairs = Vec::new();
    for (certificate, key) in names {
        pairs.push(Pair { certificate: template(cf, certificate)?, key: template(cf, key)? });
    }
    Ok(Some(Arc::new(Certificates { pairs, store: store(cf) })))
}

/// What `*_conf_command` changes.
pub struct Commanded<'a> {
    /// Bits.
    pub protocols: &'a mut u32,
    /// A cipher list.
    pub ciphers: &'a mut String,
    /// Suites of TLSv1.3.
    pub ciphersuites: &'a mut Option<String>,
    /// Groups.
    pub curves: &'a mut String,
    /// Of servers only.
    pub prefer_server_ciphers: &'a mut bool,
    /// Of servers only.
    pub session_tickets: &'a mut bool,
}

/// Carries out commands in order. Returns the certificate that they name, to be shown rather than another of its kind.
pub fn command(
    cf: &mut Build,
    commands: &[(Bytes, Bytes)],
    to: Commanded<'_>,
) -> Outcome<Option<CertificatePair>> {
    let (mut certificate, mut key) = (None, None);
    for (name, value) in commands {
        let (name, text) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        for command in tls::conf_command(&name, &text).map_err(Fault::whole)? {
            match command {
                ConfCommand::Ciphersuites(suites) => *to.ciphersuites = Some(suites),
                ConfCommand::Ciphers(list) => *to.ciphers = list,
                ConfCommand::Curves(list) => *to.curves = list,
                ConfCommand::MinProtocol(protocol) => keep(to.protocols, protocol, |at| u32::MAX << at),
                ConfCommand::MaxProtocol(protocol) => keep(to.protocols, protocol, |at| (2 << at) - 1),
                ConfCommand::PreferServerCiphers(on) => *to.prefer_server_ciphers = on,
                ConfCommand::SessionTickets(on) => *to.session_tickets = on,
                ConfCommand::Certificate => certificate = Some(whole_path(cf, value)),
                ConfCommand::PrivateKey => key = Some(whole_path(cf, value)),
                ConfCommand::Nothing => {}
                ConfCommand::Lacking => lacking(cf, &name, &text),
            }
        }
    }
    match (certificate, key) {
        (Some(certificate), Some(key)) => return Ok(Some(CertificatePair { certificate, key })),
        (Some(certificate), None) => lacking(cf, "Certificate", &certificate),
        (None, Some(key)) => lacking(cf, "PrivateKey", &key),
        (None, None) => {}
    }
    Ok(None)
}

fn lacking(cf: &mut Build, name: &str, value: &str) {
    let warning = (Level::Warn, format!("\"{name} {value}\" is not supported by nxr, ignored{}", cf.here));
    if !cf.messages.contains(&warning) {
        cf.messages.push(warning);
    }
}

fn keep(protocols: &mut u32, limit: Option<Protocol>, mask: fn(usize) -> u32) {
    if let Some(at) = limit.and_then(|limit| ALL.iter().position(|protocol| *protocol == limit)) {
        *protocols &= mask(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::{Item, LoadOptions, parse_text};

    #[test]
    fn protocols_by_bits_and_limits() {
        assert_eq!(protocols(DEFAULT_PROTOCOLS), [Protocol::TlsV1_2, Protocol::TlsV1_3]);
        let mut bits = 63;
        keep(&mut bits, Some(Protocol::TlsV1_2), |at| u32::MAX << at);
        assert_eq!(protocols(bits), [Protocol::TlsV1_2, Protocol::TlsV1_3]);
        keep(&mut bits, Some(Protocol::TlsV1_2), |at| (2 << at) - 1);
        assert_eq!(protocols(bits), [Protocol::TlsV1_2]);
        keep(&mut bits, None, |_| 0);
        assert_eq!(bits, 16);
    }

    fn cache_of(text: &str) -> Result<bool, String> {
        let tree = parse_text(b"test", text.as_bytes(), &LoadOptions::new(b"/".to_vec()));
        let directive = tree.items().find_map(|item| match item {
            Item::Directive(directive) => Some(directive),
            Item::Error(_) => None,
        });
        let directive = directive.unwrap();
        certificate_cache(&directive)
            .map(|cache| cache.is_some())
            .map_err(|fault| fault.text(directive.name(), ""))
    }

    #[test]
    fn caches_of_certificates() {
        assert_eq!(cache_of("ssl_certificate_cache max=10 inactive=1m valid=1h;"), Ok(true));
        assert_eq!(cache_of("ssl_certificate_cache off;"), Ok(false));
        assert_eq!(cache_of("ssl_certificate_cache max=1 off;"), Ok(false));
        let refused = |text: &str| cache_of(text).unwrap_err();
        assert_eq!(
            refused("proxy_ssl_certificate_cache valid=1s;"),
            "\"proxy_ssl_certificate_cache\" must have the \"max\" parameter"
        );
        assert_eq!(refused("ssl_certificate_cache max=0;"), "invalid parameter \"max=0\"");
        assert_eq!(refused("ssl_certificate_cache max=1 valid=x;"), "invalid parameter \"valid=x\"");
        assert_eq!(refused("ssl_certificate_cache on;"), "invalid parameter \"on\"");
    }
}
