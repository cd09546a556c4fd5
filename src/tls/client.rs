//! The client side: connections to upstreams.

use super::ciphers::{self, Protocol};
use super::constraints;
use super::error::Error;
use super::handshake_signature;
use super::objects::{self, Configured, Objects};
use super::record::Listen;
use super::server::{CertificatePair, provider};
use super::verdict::VerifyError;
use super::verify::{PathVerifier, Purpose};
use aws_lc_rs::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, DnsName, IpAddr, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme};
use std::fmt;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a location or server says about TLS to its upstream. Paths are complete.
#[derive(Debug, Clone)]
pub struct ClientTls {
    pub protocols: Vec<Protocol>,
    /// An OpenSSL cipher list.
    pub ciphers: String,
    /// `proxy_ssl_conf_command Ciphersuites`.
    pub ciphersuites: Option<String>,
    /// `proxy_ssl_conf_command Groups`.
    pub curves: String,
    /// `proxy_ssl_server_name`: send the name (RFC 6066 section 3).
    pub server_name: bool,
    pub verify: bool,
    pub verify_depth: usize,
    pub trusted_certificate: Option<String>,
    pub crl: Option<String>,
    pub certificate: Option<CertificatePair>,
    pub passwords: Vec<Vec<u8>>,
    pub session_reuse: bool,
    /// Protocols to offer by ALPN. Empty: no ALPN.
    pub alpn: Vec<Vec<u8>>,
}

impl Default for ClientTls {
    fn default() -> Self {
        ClientTls {
            protocols: vec![Protocol::TlsV1_2, Protocol::TlsV1_3],
            ciphers: "DEFAULT".to_owned(),
            ciphersuites: None,
            curves: "auto".to_owned(),
            server_name: false,
            verify: false,
            verify_depth: 1,
            trusted_certificate: None,
            crl: None,
            certificate: None,
            passwords: Vec::new(),
            session_reuse: true,
            alpn: Vec::new(),
        }
    }
}

/// Why an upstream's certificate was refused. `Display` gives what nginx logs at `[error]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamRefused {
    Verify(VerifyError),
    Name(String),
}

impl fmt::Display for UpstreamRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpstreamRefused::Verify(e) => write!(f, "upstream SSL certificate verify error: {e}"),
            UpstreamRefused::Name(name) => write!(f, "upstream SSL certificate does not match \"{name}\""),
        }
    }
}

impl std::error::Error for UpstreamRefused {}

/// Opens connections with one set of settings; sessions are shared by all of them.
#[derive(Debug)]
pub struct Connector {
    pub(super) config: Arc<ClientConfig>,
    verify: bool,
    /// What the configuration asks for and this program lacks; worth a warning.
    pub warnings: Vec<String>,
}

/// Sessions kept for an upstream: eight tickets for each of so many names.
const SESSIONS: usize = 256;

// === impl Connector ===

impl Connector {
    /// Loads everything the settings name.
    pub fn new(settings: &ClientTls) -> Result<Arc<Self>, Error> {
        let mut warnings = Vec::new();
        let provider = provider(
            &settings.ciphers,
            settings.ciphersuites.as_deref(),
            &settings.curves,
            &settings.protocols,
            &mut warnings,
        )?;
        let (versions, lacking) = ciphers::protocols(&settings.protocols)?;
        warnings.extend(lacking.iter().map(|p| format!("protocol \"{}\" is not supported", p.name())));
        let identity = match &settings.certificate {
            Some(pair) => {
                Some(Configured.certified_key(&pair.certificate, &pair.key, &settings.passwords)?)
            }
            None => None,
        };
        let verifier = UpstreamCertificates::load(settings, &provider)?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(|e| Error::Library(e.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(Identity(identity.map(Arc::new))));
        config.enable_secret_extraction = true;
        config.key_log = Arc::new(Listen);
        config.enable_sni = settings.server_name;
        config.alpn_protocols = settings.alpn.clone();
        // nginx does not mind which protocol an upstream selects.
        config.check_selected_alpn = false;
        config.resumption = match settings.session_reuse {
            true => Resumption::in_memory_sessions(SESSIONS),
            false => Resumption::disabled(),
        };
        Ok(Arc::new(Connector { config: Arc::new(config), verify: settings.verify, warnings }))
    }

    /// The same with another certificate of one's own, or with none, and with `alpn` where it is given. Sessions are
    /// not shared with this one: they tell the upstream who one is.
    pub fn varied(&self, identity: Option<CertifiedKey>, alpn: Option<Vec<Vec<u8>>>) -> Arc<Self> {
        let mut config = ClientConfig::clone(&self.config);
        config.client_auth_cert_resolver = Arc::new(Identity(identity.map(Arc::new)));
        config.resumption = Resumption::disabled();
        if let Some(alpn) = alpn {
            config.alpn_protocols = alpn;
        }
        Arc::new(Connector { config: Arc::new(config), verify: self.verify, warnings: Vec::new() })
    }

    /// The same, offering other protocols.
    pub fn offering(&self, alpn: Vec<Vec<u8>>) -> Arc<Self> {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = alpn;
        Arc::new(Connector { config: Arc::new(config), verify: self.verify, warnings: Vec::new() })
    }

    /// Whether the upstream's certificate is for `name`: asked of resumed sessions too, which may have been begun
    /// under another name.
    pub(super) fn check_name(
        &self,
        chain: Option<&[CertificateDer<'_>]>,
        name: &str,
    ) -> Result<(), UpstreamRefused> {
        let leaf = chain.and_then(<[_]>::first).and_then(|c| X509Certificate::from_der(c).ok());
        match leaf {
            _ if !self.verify => Ok(()),
            Some((_, cert)) if constraints::matches_host(&cert, name) => Ok(()),
            _ => Err(UpstreamRefused::Name(name.to_owned())),
        }
    }
}

/// The name as rustls needs it: to send it, and to find sessions by. What cannot be sent becomes an address that
/// stands for the name and is never sent.
pub(super) fn rustls_name(name: &str) -> ServerName<'static> {
    if name.parse::<std::net::IpAddr>().is_err()
        && let Ok(dns) = DnsName::try_from(name.to_owned())
    {
        return ServerName::DnsName(dns);
    }
    let hash = digest::digest(&digest::SHA256, name.as_bytes());
    let mut octets = [0; 16];
    octets.copy_from_slice(hash.as_ref().first_chunk::<16>().unwrap_or(&[0; 16]));
    ServerName::IpAddress(IpAddr::from(std::net::IpAddr::from(octets)))
}

/// Judges the path of an upstream's certificate, or lets it pass when `proxy_ssl_verify` is off.
#[derive(Debug)]
struct UpstreamCertificates {
    path: Option<Arc<PathVerifier>>,
    provider: Arc<CryptoProvider>,
}

// === impl UpstreamCertificates ===

impl UpstreamCertificates {
    fn load(settings: &ClientTls, provider: &Arc<CryptoProvider>) -> Result<Self, Error> {
        let path = match settings.verify {
            false => None,
            true => {
                let trusted = settings.trusted_certificate.as_deref();
                let store = trusted.map(objects::authorities).transpose()?.unwrap_or_default();
                let crls = settings.crl.as_deref().map(objects::crls).transpose()?.unwrap_or_default();
                Some(PathVerifier::new(store, &crls, settings.verify_depth, Purpose::Server, provider))
            }
        };
        Ok(UpstreamCertificates { path, provider: Arc::clone(provider) })
    }
}

impl ServerCertVerifier for UpstreamCertificates {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(path) = &self.path {
            let mut chain = vec![end_entity.clone()];
            chain.extend(intermediates.iter().cloned());
            let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            path.verify(&chain, now).map_err(|e| {
                let e = OtherError(Arc::new(UpstreamRefused::Verify(e)));
                rustls::Error::InvalidCertificate(CertificateError::Other(e))
            })?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        handshake_signature::tls12(&self.provider, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        handshake_signature::tls13(&self.provider, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The certificate shown to upstreams that ask, whatever CAs they hint at.
#[derive(Debug)]
struct Identity(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Identity {
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.as_ref().filter(|k| k.key.choose_scheme(schemes).is_some()).cloned()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}
