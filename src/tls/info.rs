//! What is known of a TLS connection after its handshake: the stuff of the `$ssl_*` variables.

use super::ciphers;
use super::dn;
use super::groups;
use super::ocsp::StatusError;
use super::pem;
use super::verdict::VerifyError;
use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, NamedGroup, ProtocolVersion, SignatureScheme};
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

/// What a client offered in its hello.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offered {
    pub ciphers: Box<[u16]>,
    pub curves: Box<[u16]>,
    pub schemes: Box<[u16]>,
}

/// A connection's handshake, looked back upon. Values that nginx gives as empty strings are empty or `None` here.
#[derive(Debug, Clone)]
pub struct TlsInfo {
    pub(super) version: Option<ProtocolVersion>,
    pub(super) suite: Option<CipherSuite>,
    pub(super) group: Option<NamedGroup>,
    pub(super) scheme: Option<SignatureScheme>,
    pub(super) offered: Offered,
    /// The name the client asked for, as sent.
    pub server_name: Option<Box<str>>,
    pub reused: bool,
    /// None before the handshake is done.
    pub(super) session_id: Option<[u8; 32]>,
    /// The protocol agreed on by ALPN.
    pub alpn: Option<Box<[u8]>>,
    /// The peer's certificate.
    pub(super) certificate: Option<CertificateDer<'static>>,
    /// The verdict on a client's certificate, when `ssl_verify_client` asks for one and the client sent one.
    pub verdict: Option<Result<(), VerifyError>>,
    /// What responders say of a client's good certificate, where `ssl_ocsp` has them asked.
    pub status: Result<(), StatusError>,
}

// === impl TlsInfo ===

impl TlsInfo {
    /// `$ssl_protocol`.
    pub fn protocol(&self) -> &'static str {
        self.version.map_or("", ciphers::protocol_name)
    }

    /// `$ssl_cipher`.
    pub fn cipher(&self) -> &'static str {
        self.suite.map_or("", ciphers::cipher_name)
    }

    /// `$ssl_ciphers`.
    pub fn ciphers(&self) -> String {
        ciphers::cipher_list(&self.offered.ciphers)
    }

    /// `$ssl_curve`.
    pub fn curve(&self) -> String {
        self.group.map(groups::group_name).unwrap_or_default()
    }

    /// `$ssl_curves`.
    pub fn curves(&self) -> String {
        groups::group_list(&self.offered.curves)
    }

    /// `$ssl_sigalg`: the scheme the server signed the handshake with; nothing when it was resumed.
    pub fn sigalg(&self) -> String {
        self.scheme.map(groups::scheme_name).unwrap_or_default()
    }

    /// `$ssl_sigalgs`: the codes a client offers, as nginx gives them with OpenSSL 3.
    pub fn sigalgs(&self) -> String {
        self.offered.schemes.iter().map(|s| format!("0x{s:04x}")).collect::<Vec<_>>().join(":")
    }

    /// `$ssl_session_id`: 64 hexadecimal digits; under TLSv1.3 a resumed session has those of the one it resumes.
    pub fn session_id(&self) -> String {
        self.session_id.map_or_else(String::new, |id| hex(&id))
    }

    /// `$ssl_session_reused`.
    pub fn session_reused(&self) -> &'static str {
        if self.reused { "r" } else { "." }
    }

    /// `$ssl_client_verify`.
    pub fn client_verify(&self) -> String {
        match (&self.certificate, self.verdict) {
            (None, _) => "NONE".to_owned(),
            (Some(_), Some(Err(e))) => format!("FAILED:{}", e.reason()),
            (Some(_), _) => match self.status {
                Err(e) => format!("FAILED:{e}"),
                Ok(()) => "SUCCESS".to_owned(),
            },
        }
    }

    /// The peer's certificate, if it sent one.
    pub fn certificate(&self) -> Option<PeerCertificate<'_>> {
        let der = self.certificate.as_ref()?;
        X509Certificate::from_der(der).ok().map(|(_, cert)| PeerCertificate { der, cert })
    }
}

/// A peer's certificate, for the `$ssl_client_*` variables.
pub struct PeerCertificate<'a> {
    der: &'a [u8],
    cert: X509Certificate<'a>,
}

// === impl PeerCertificate ===

impl PeerCertificate<'_> {
    /// `$ssl_client_raw_cert`: PEM.
    pub fn raw(&self) -> String {
        pem::encode("CERTIFICATE", self.der)
    }

    /// `$ssl_client_cert`: PEM with a tab before every line but the first, for a header.
    pub fn folded(&self) -> String {
        self.raw().trim_end_matches('\n').replace('\n', "\n\t")
    }

    /// `$ssl_client_escaped_cert`: PEM, URL-encoded.
    pub fn escaped(&self) -> String {
        let mut out = String::new();
        for b in self.raw().bytes() {
            match b {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    out.push(char::from(b))
                }
                _ => {
                    let _ = write!(out, "%{b:02X}");
                }
            }
        }
        out
    }

    /// `$ssl_client_fingerprint`: SHA-1 in hexadecimal.
    pub fn fingerprint(&self) -> String {
        hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, self.der).as_ref())
    }

    /// `$ssl_client_serial`.
    pub fn serial(&self) -> String {
        let bytes = self.cert.raw_serial();
        let (sign, mut magnitude) = match bytes.first() {
            Some(first) if first & 0x80 != 0 => ("-", negate(bytes)),
            _ => ("", bytes.to_vec()),
        };
        while magnitude.len() > 1 && magnitude[0] == 0 {
            magnitude.remove(0);
        }
        format!("{sign}{}", hex(&magnitude).to_ascii_uppercase())
    }

    /// `$ssl_client_s_dn`.
    pub fn subject(&self) -> String {
        dn::rfc2253(self.cert.subject())
    }

    /// `$ssl_client_i_dn`.
    pub fn issuer(&self) -> String {
        dn::rfc2253(self.cert.issuer())
    }

    /// `$ssl_client_s_dn_legacy`.
    pub fn subject_legacy(&self) -> String {
        dn::oneline(self.cert.subject())
    }

    /// `$ssl_client_i_dn_legacy`.
    pub fn issuer_legacy(&self) -> String {
        dn::oneline(self.cert.issuer())
    }

    /// `$ssl_client_v_start`.
    pub fn valid_from(&self) -> String {
        time(self.cert.validity().not_before)
    }

    /// `$ssl_client_v_end`.
    pub fn valid_until(&self) -> String {
        time(self.cert.validity().not_after)
    }

    /// `$ssl_client_v_remain`: whole days.
    pub fn days_remaining(&self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
        (self.cert.validity().not_after.timestamp().saturating_sub(now) / 86400).max(0)
    }
}

/// Two's complement.
fn negate(bytes: &[u8]) -> Vec<u8> {
    let mut carry = true;
    let mut out: Vec<u8> = bytes
        .iter()
        .rev()
        .map(|b| {
            let (value, over) = (!b).overflowing_add(u8::from(carry));
            carry = over;
            value
        })
        .collect();
    out.reverse();
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// As `ASN1_TIME_print()` has it.
fn time(at: ASN1Time) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let t = at.to_datetime();
    let month = MONTHS.get(usize::from(u8::from(t.month())).wrapping_sub(1)).unwrap_or(&"");
    format!("{month} {:2} {:02}:{:02}:{:02} {} GMT", t.day(), t.hour(), t.minute(), t.second(), t.year())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::keys;

    fn of(name: &str) -> TlsInfo {
        let path = format!("{}/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR"));
        TlsInfo {
            version: Some(ProtocolVersion::TLSv1_3),
            suite: Some(CipherSuite::TLS13_AES_128_GCM_SHA256),
            group: Some(NamedGroup::secp256r1),
            scheme: None,
            offered: Offered::default(),
            server_name: None,
            reused: false,
            session_id: Some([0xab; 32]),
            alpn: None,
            certificate: keys::certificates(&path).unwrap().into_iter().next(),
            verdict: None,
            status: Ok(()),
        }
    }

    #[test]
    fn certificates_are_described_as_openssl_does() {
        let info = of("client.crt");
        let cert = info.certificate().unwrap();
        assert_eq!(cert.serial(), "1A2B3C");
        assert_eq!(cert.issuer(), "CN=nxr test root,O=nxr");
        assert_eq!(cert.issuer_legacy(), "/O=nxr/CN=nxr test root");
        assert_eq!(cert.valid_from(), "Jan  1 00:00:00 2020 GMT");
        assert_eq!(cert.valid_until(), "Jan  1 00:00:00 2120 GMT");
        assert!(cert.days_remaining() > 20_000);
        let path = format!("{}/fixtures/tls/client.crt", env!("CARGO_MANIFEST_DIR"));
        let pem = std::fs::read_to_string(path).unwrap();
        assert_eq!(cert.raw(), pem);
        assert!(cert.folded().starts_with("-----BEGIN CERTIFICATE-----\n\tMI"));
        assert!(cert.folded().ends_with("\n\t-----END CERTIFICATE-----"));
        assert!(cert.escaped().starts_with("-----BEGIN%20CERTIFICATE-----%0AMI"));
        assert_eq!(cert.fingerprint().len(), 40);
        assert_eq!(of("expired.crt").certificate().unwrap().days_remaining(), 0);
    }

    #[test]
    fn verdicts_have_their_words() {
        let mut info = of("client.crt");
        info.verdict = Some(Ok(()));
        assert_eq!(info.client_verify(), "SUCCESS");
        info.verdict = Some(Err(VerifyError(10)));
        assert_eq!(info.client_verify(), "FAILED:certificate has expired");
        info.verdict = Some(Ok(()));
        info.status = Err(StatusError::Revoked);
        assert_eq!(info.client_verify(), "FAILED:certificate revoked");
        info.certificate = None;
        assert_eq!(info.client_verify(), "NONE");
        assert_eq!(info.protocol(), "TLSv1.3");
        assert_eq!(info.cipher(), "TLS_AES_128_GCM_SHA256");
        assert_eq!(info.curve(), "prime256v1");
        assert_eq!(info.session_id(), "ab".repeat(32));
    }

    #[test]
    fn negative_serials() {
        assert_eq!(negate(&[0xff]), [1]);
        assert_eq!(negate(&[0xff, 0x00]), [1, 0]);
    }
}
