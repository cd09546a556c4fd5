//! Protocols and cipher suites: the language of `ssl_protocols`, `ssl_ciphers` and `Ciphersuites` (OpenSSL's
//! cipher lists) put into terms of what rustls has, and OpenSSL's names of what was negotiated.

use super::cipher_table::{Auth, Enc, Kx, Mac, SUITES, Since, Suite};
use super::error::Error;
use super::key_schedule;
use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
use rustls::sign::SigningKey;
use rustls::{CipherSuite, ProtocolVersion, SupportedCipherSuite, SupportedProtocolVersion};

/// A protocol that `ssl_protocols` can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    SslV2,
    SslV3,
    TlsV1,
    TlsV1_1,
    TlsV1_2,
    TlsV1_3,
}

/// The outcome of a cipher list.
#[derive(Debug, Clone, Default)]
pub struct Ciphers {
    /// Suites of TLSv1.2, the preferred first.
    pub tls12: Vec<SupportedCipherSuite>,
    /// Suites that the list asks for by name or by class and that this program lacks: worth a warning.
    pub lacking: Vec<&'static str>,
    /// Words that name neither a suite nor a class.
    pub unknown: Vec<String>,
}

const NO_MATCH: &str = "error:0A0000B9:SSL routines::no cipher match";
const INVALID_COMMAND: &str = "error:0A000118:SSL routines::invalid command";

// === impl Protocol ===

impl Protocol {
    /// The name as `ssl_protocols` and `$ssl_protocol` have it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::SslV2 => "SSLv2",
            Protocol::SslV3 => "SSLv3",
            Protocol::TlsV1 => "TLSv1",
            Protocol::TlsV1_1 => "TLSv1.1",
            Protocol::TlsV1_2 => "TLSv1.2",
            Protocol::TlsV1_3 => "TLSv1.3",
        }
    }
}

/// The protocols rustls has among `wanted`, and those it lacks. None left is an error.
pub fn protocols(
    wanted: &[Protocol],
) -> Result<(Vec<&'static SupportedProtocolVersion>, Vec<Protocol>), Error> {
    let mut found = Vec::new();
    let mut lacking = Vec::new();
    for protocol in wanted {
        match protocol {
            Protocol::TlsV1_2 => found.push(&rustls::version::TLS12),
            Protocol::TlsV1_3 => found.push(&rustls::version::TLS13),
            other => lacking.push(*other),
        }
    }
    match found.is_empty() {
        true => Err(Error::NoUsableProtocols),
        false => Ok((found, lacking)),
    }
}

/// `$ssl_protocol`.
pub fn protocol_name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        _ => "unknown",
    }
}

/// OpenSSL's name of a suite, if it has one.
pub fn suite_name(id: u16) -> Option<&'static str> {
    match id {
        0x00ff => Some("TLS_EMPTY_RENEGOTIATION_INFO_SCSV"),
        0x5600 => Some("TLS_FALLBACK_SCSV"),
        _ => SUITES.iter().find(|s| s.id == id).map(|s| s.name),
    }
}

/// Whether a suite of TLSv1.2 is one that rustls has and that the key can serve.
pub(super) fn signs_with(suite: CipherSuite, key: &dyn SigningKey) -> bool {
    match supported(u16::from(suite)) {
        Some(SupportedCipherSuite::Tls12(suite)) => key.choose_scheme(suite.sign).is_some(),
        _ => false,
    }
}

/// `$ssl_cipher`.
pub fn cipher_name(suite: CipherSuite) -> &'static str {
    suite_name(u16::from(suite)).unwrap_or("(NONE)")
}

/// `$ssl_ciphers`: the names of what a client offers, those without a name in hexadecimal.
pub fn cipher_list(ids: &[u16]) -> String {
    let names: Vec<String> =
        ids.iter().map(|id| suite_name(*id).map_or_else(|| format!("0x{id:04x}"), str::to_owned)).collect();
    names.join(":")
}

fn supported(id: u16) -> Option<SupportedCipherSuite> {
    let older = ALL_CIPHER_SUITES.iter().filter(|suite| suite.tls13().is_none());
    key_schedule::suites().chain(older.copied()).find(|suite| u16::from(suite.suite()) == id)
}

/// All suites of TLSv1.3 in OpenSSL's order.
pub fn default_ciphersuites() -> Vec<SupportedCipherSuite> {
    SUITES.iter().filter(|s| s.since == Since::Tls13).filter_map(|s| supported(s.id)).collect()
}

/// The value of `Ciphersuites`: names of TLSv1.3 suites with colons between them. The second list has names that
/// are right but lacking here.
pub fn ciphersuites(value: &str) -> Result<(Vec<SupportedCipherSuite>, Vec<String>), Error> {
    let (mut found, mut lacking) = (Vec::<SupportedCipherSuite>::new(), Vec::new());
    let mut known = 0;
    for name in value.split(':').map(str::trim).filter(|n| !n.is_empty()) {
        let suite = SUITES.iter().find(|s| s.since == Since::Tls13 && s.name == name);
        match suite.and_then(|s| supported(s.id)) {
            Some(suite) if found.iter().any(|f| f.suite() == suite.suite()) => {}
            Some(suite) => found.push(suite),
            None if name.starts_with("TLS_AES_128_CCM") => {
                known += 1;
                lacking.push(name.to_owned());
            }
            None => lacking.push(name.to_owned()),
        }
    }
    if found.is_empty() && known == 0 && !value.is_empty() {
        return Err(Error::ConfCommand {
            name: "Ciphersuites".to_owned(),
            value: value.to_owned(),
            ssl: format!("{NO_MATCH} error:0A000180:SSL routines::bad value:cmd=Ciphersuites, value={value}"),
        });
    }
    Ok((found, lacking))
}

/// Evaluates a cipher list (ciphers(1) of OpenSSL).
pub fn ciphers(list: &str) -> Result<Ciphers, Error> {
    let fail = |ssl| Error::Ciphers { list: list.to_owned(), ssl };
    let mut state = Selection::new();
    let mut out = Ciphers::default();
    let mut rest = list;
    if let Some(after) = list.strip_prefix("DEFAULT")
        && after.chars().next().is_none_or(is_separator)
    {
        state.default_list();
        rest = after;
    }
    while let Some(first) = rest.chars().next() {
        if is_separator(first) {
            rest = &rest[1..];
            continue;
        }
        let action = match first {
            '-' => Action::Delete,
            '+' => Action::MoveToEnd,
            '!' => Action::Kill,
            '@' => Action::Special,
            _ => Action::Add,
        };
        if action != Action::Add {
            rest = &rest[1..];
        }
        let end = rest.find(|c: char| !is_word(c) && c != '+').unwrap_or(rest.len());
        let (rule, after) = rest.split_at(end);
        if rule.split('+').any(str::is_empty) || after.chars().next().is_some_and(|c| !is_separator(c)) {
            return Err(fail(INVALID_COMMAND));
        }
        rest = after;
        if action == Action::Special {
            match rule.strip_prefix("SECLEVEL=") {
                None if rule == "STRENGTH" => state.sort_by_strength(),
                Some("0" | "1" | "2" | "3" | "4" | "5") => {}
                _ => return Err(fail(INVALID_COMMAND)),
            }
        } else if rule == "DEFAULT" && action == Action::Add {
            // Only at the start does it mean anything.
        } else {
            match Rule::parse(rule) {
                Some(rule) => state.apply(action, &rule),
                None if action == Action::Add => out.unknown.push(rule.to_owned()),
                None => {}
            }
        }
    }
    for suite in state.active() {
        match supported(suite.id) {
            Some(s) => out.tls12.push(s),
            None => out.lacking.push(suite.name),
        }
    }
    if out.tls12.is_empty() && out.lacking.is_empty() {
        return Err(fail(NO_MATCH));
    }
    Ok(out)
}

fn is_separator(c: char) -> bool {
    matches!(c, ':' | ' ' | ';' | ',')
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '=' | '_')
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Add,
    Delete,
    MoveToEnd,
    Kill,
    Special,
}

/// Words joined with `+`: a suite has to match them all.
struct Rule(Vec<fn(&Suite) -> bool>, Option<&'static str>);

impl Rule {
    fn parse(text: &str) -> Option<Rule> {
        let mut classes = Vec::new();
        let mut name = None;
        for word in text.split('+') {
            match SUITES.iter().find(|s| s.name == word && s.since != Since::Tls13) {
                Some(suite) => name = Some(suite.name),
                None => classes.push(class(word)?),
            }
        }
        Some(Rule(classes, name))
    }

    fn matches(&self, suite: &Suite) -> bool {
        self.1.is_none_or(|name| name == suite.name) && self.0.iter().all(|class| class(suite))
    }
}

/// The suites while the rules work on them, as OpenSSL's linked list.
struct Selection(Vec<(&'static Suite, bool)>);

impl Selection {
    fn new() -> Self {
        Selection(SUITES.iter().filter(|s| s.since != Since::Tls13).map(|s| (s, false)).collect())
    }

    fn active(&self) -> impl Iterator<Item = &'static Suite> {
        self.0.iter().filter(|(_, active)| *active).map(|(s, _)| *s)
    }

    fn default_list(&mut self) {
        for (suite, active) in &mut self.0 {
            *active = !not_default(suite) && suite.enc != Enc::Null;
        }
    }

    fn apply(&mut self, action: Action, rule: &Rule) {
        let (hit, mut rest): (Vec<_>, Vec<_>) =
            self.0.iter().copied().partition(|(s, active)| match action {
                Action::Add => !active && rule.matches(s),
                Action::Kill => rule.matches(s),
                _ => *active && rule.matches(s),
            });
        self.0 = match action {
            Action::Delete => hit.into_iter().map(|(s, _)| (s, false)).chain(rest).collect(),
            Action::Kill => rest,
            _ => {
                rest.extend(hit.into_iter().map(|(s, _)| (s, true)));
                rest
            }
        };
    }

    fn sort_by_strength(&mut self) {
        self.0.sort_by_key(|(suite, active)| (*active, std::cmp::Reverse(suite.bits)));
    }
}

fn not_default(s: &Suite) -> bool {
    s.auth == Auth::Null
        || matches!(s.enc, Enc::AriaGcm | Enc::Camellia | Enc::AesCcm | Enc::AesCcm8)
        || s.auth == Auth::Dss
}

fn psk(s: &Suite) -> bool {
    matches!(s.kx, Kx::Psk | Kx::RsaPsk | Kx::DhePsk | Kx::EcdhePsk)
}

fn aes(s: &Suite) -> bool {
    matches!(s.enc, Enc::Aes | Enc::AesGcm | Enc::AesCcm | Enc::AesCcm8)
}

/// What a class name stands for.
fn class(word: &str) -> Option<fn(&Suite) -> bool> {
    Some(match word {
        "ALL" => |s| s.enc != Enc::Null,
        "COMPLEMENTOFALL" | "eNULL" | "NULL" => |s| s.enc == Enc::Null,
        "COMPLEMENTOFDEFAULT" => |s| not_default(s) && s.enc != Enc::Null,
        "HIGH" => |s| s.enc != Enc::Null && s.bits >= 128,
        // The classes of what OpenSSL itself no longer has.
        "MEDIUM" | "LOW" | "EXP" | "EXPORT" | "EXPORT40" | "EXPORT56" | "DES" | "3DES" | "RC4" | "RC2"
        | "IDEA" | "SEED" | "kECDHr" | "kECDHe" | "kDHr" | "kDHd" | "kDH" | "aDH" | "aECDH" | "GOST"
        | "kGOST" | "aGOST" | "aGOST01" => |_| false,
        "kRSA" => |s| s.kx == Kx::Rsa,
        "RSA" => |s| s.kx == Kx::Rsa && s.auth == Auth::Rsa,
        "kDHE" | "kEDH" | "DH" => |s| s.kx == Kx::Dhe,
        "DHE" | "EDH" => |s| s.kx == Kx::Dhe && s.auth != Auth::Null,
        "ADH" => |s| s.kx == Kx::Dhe && s.auth == Auth::Null,
        "kECDHE" | "kEECDH" | "ECDH" => |s| s.kx == Kx::Ecdhe,
        "ECDHE" | "EECDH" => |s| s.kx == Kx::Ecdhe && s.auth != Auth::Null,
        "AECDH" => |s| s.kx == Kx::Ecdhe && s.auth == Auth::Null,
        "kPSK" => |s| s.kx == Kx::Psk,
        "kRSAPSK" => |s| s.kx == Kx::RsaPsk,
        "kDHEPSK" => |s| s.kx == Kx::DhePsk,
        "kECDHEPSK" => |s| s.kx == Kx::EcdhePsk,
        "PSK" => psk,
        "kSRP" | "SRP" => |s| s.kx == Kx::Srp,
        "aRSA" => |s| s.auth == Auth::Rsa,
        "aDSS" | "DSS" => |s| s.auth == Auth::Dss,
        "aECDSA" | "ECDSA" => |s| s.auth == Auth::Ecdsa,
        "aNULL" => |s| s.auth == Auth::Null,
        "aPSK" => |s| s.auth == Auth::Psk,
        "aSRP" => |s| s.auth == Auth::Srp,
        "AES" => aes,
        "AES128" => |s| aes(s) && s.bits == 128,
        "AES256" => |s| aes(s) && s.bits == 256,
        "AESGCM" => |s| s.enc == Enc::AesGcm,
        "AESCCM" => |s| matches!(s.enc, Enc::AesCcm | Enc::AesCcm8),
        "AESCCM8" => |s| s.enc == Enc::AesCcm8,
        "CHACHA20" => |s| s.enc == Enc::Chacha20,
        "ARIA" | "ARIAGCM" => |s| s.enc == Enc::AriaGcm,
        "ARIA128" => |s| s.enc == Enc::AriaGcm && s.bits == 128,
        "ARIA256" => |s| s.enc == Enc::AriaGcm && s.bits == 256,
        "CAMELLIA" => |s| s.enc == Enc::Camellia,
        "CAMELLIA128" => |s| s.enc == Enc::Camellia && s.bits == 128,
        "CAMELLIA256" => |s| s.enc == Enc::Camellia && s.bits == 256,
        "MD5" => |s| s.mac == Mac::Md5,
        "SHA1" | "SHA" => |s| s.mac == Mac::Sha1,
        "SHA256" => |s| s.mac == Mac::Sha256,
        "SHA384" => |s| s.mac == Mac::Sha384,
        "SSLv3" => |s| s.since == Since::Ssl3,
        "TLSv1" | "TLSv1.0" => |s| s.since == Since::Tls1,
        "TLSv1.2" => |s| s.since == Since::Tls12,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(list: &str) -> Vec<&'static str> {
        ciphers(list).unwrap().tls12.iter().map(|s| cipher_name(s.suite())).collect()
    }

    const ALL: [&str; 6] = [
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
    ];

    #[test]
    fn orders_as_openssl_does() {
        assert_eq!(names("HIGH:!aNULL:!MD5"), ALL);
        assert_eq!(names("DEFAULT"), ALL);
        // `openssl ciphers` of 3.0 gives these orders.
        assert_eq!(
            names("ECDHE+AESGCM:AES128+EECDH:kEECDH+CHACHA20:+AES256:@STRENGTH"),
            [ALL[2], ALL[3], ALL[0], ALL[1], ALL[4], ALL[5]]
        );
        assert_eq!(
            names("EECDH+AESGCM:-ECDHE-RSA-AES128-GCM-SHA256:AES128:!aNULL:!kRSA:!DHE:!SHA:!SHA256"),
            [ALL[0], ALL[1], ALL[4], ALL[5]]
        );
        assert_eq!(names("ECDHE-RSA-AES128-GCM-SHA256 ECDHE-RSA-AES256-GCM-SHA384"), [ALL[5], ALL[1]]);
        assert_eq!(names("DEFAULT:!AES:@SECLEVEL=0"), [ALL[2], ALL[3]]);
    }

    #[test]
    fn tells_what_is_lacking_and_what_is_unknown() {
        let c = ciphers("ECDHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES128-GCM-SHA256:FOO:!BAR:!RC4").unwrap();
        assert_eq!(c.tls12.len(), 1);
        assert_eq!(c.lacking, ["DHE-RSA-AES128-GCM-SHA256"]);
        assert_eq!(c.unknown, ["FOO"]);
        let c = ciphers("AES128-SHA").unwrap();
        assert!(c.tls12.is_empty());
    }

    #[test]
    fn refuses_what_openssl_refuses() {
        for (list, ssl) in [
            ("foo", NO_MATCH),
            ("", NO_MATCH),
            ("!HIGH", NO_MATCH),
            ("RC4-MD5:@STRENGTH", NO_MATCH),
            ("HIGH:@FOO", INVALID_COMMAND),
            ("HIGH:!!x", INVALID_COMMAND),
            ("HIGH:a+", INVALID_COMMAND),
        ] {
            assert_eq!(
                ciphers(list).unwrap_err().to_string(),
                format!("SSL_CTX_set_cipher_list(\"{list}\") failed (SSL: {ssl})")
            );
        }
    }

    #[test]
    fn names_protocols_and_ciphersuites() {
        let (found, lacking) = protocols(&[Protocol::TlsV1, Protocol::TlsV1_2, Protocol::TlsV1_3]).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(lacking, [Protocol::TlsV1]);
        assert_eq!(protocols(&[Protocol::SslV3]).unwrap_err(), Error::NoUsableProtocols);

        let (found, lacking) = ciphersuites("TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_CCM_SHA256").unwrap();
        assert_eq!(found[0].suite(), CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
        assert_eq!(lacking, ["TLS_AES_128_CCM_SHA256"]);
        assert_eq!(
            ciphersuites("bar").unwrap_err().to_string(),
            "SSL_CONF_cmd(\"Ciphersuites\", \"bar\") failed (SSL: error:0A0000B9:SSL routines::no cipher \
             match error:0A000180:SSL routines::bad value:cmd=Ciphersuites, value=bar)"
        );
        let order: Vec<_> = default_ciphersuites().iter().map(|s| cipher_name(s.suite())).collect();
        assert_eq!(
            order,
            ["TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"]
        );
        assert_eq!(
            cipher_list(&[0x1301, 0x0a0a, 0xff]),
            "TLS_AES_128_GCM_SHA256:0x0a0a:TLS_EMPTY_RENEGOTIATION_INFO_SCSV"
        );
    }

    proptest! {
        #[test]
        fn any_list_is_answered(list in "[!+:@A-Za-z0-9 é-]{0,40}") {
            let _ = ciphers(&list);
            let _ = ciphersuites(&list);
        }
    }
}
