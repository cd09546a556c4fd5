//! The server side: one `rustls::ServerConfig` for every virtual server, and the choice of a certificate for a client.

use super::ciphers::{self, Protocol};
use super::dn;
use super::error::Error;
use super::groups;
use super::handshake_signature;
use super::keys;
use super::objects::{self, Configured, Objects};
use super::ocsp::{Checker, ClientStatus, Resolving, Staple, Staples, Stapling};
use super::record::Listen;
use super::sessions::{Context, SessionCache, TicketKeys};
use super::verdict::VerifyError;
use super::verify::{PathVerifier, Purpose};
use aws_lc_rs::digest;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureAlgorithm, SignatureScheme,
    SupportedCipherSuite,
};
use std::sync::Arc;
use std::time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate};

/// `ssl_verify_client`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VerifyMode {
    #[default]
    Off,
    On,
    Optional,
    OptionalNoCa,
}

/// A certificate with its key: paths, or `data:` values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificatePair {
    pub certificate: String,
    pub key: String,
}

/// What one virtual server says about TLS. Paths are complete.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// Keeps sessions of different uses apart, as nginx's "HTTP" and "STREAM".
    pub session_label: &'static str,
    pub protocols: Vec<Protocol>,
    /// An OpenSSL cipher list.
    pub ciphers: String,
    /// `ssl_conf_command Ciphersuites`.
    pub ciphersuites: Option<String>,
    /// `ssl_ecdh_curve`.
    pub curves: String,
    pub prefer_server_ciphers: bool,
    pub certificates: Vec<CertificatePair>,
    /// Names of certificates as they are written, where they have variables: `certificates` is empty then, and
    /// [`Server::showing`] says for every handshake what is shown.
    pub varying: Vec<String>,
    /// Lines of `ssl_password_file`; empty when there is none.
    pub passwords: Vec<Vec<u8>>,
    /// `ssl_stapling`.
    pub stapling: Option<Stapling>,
    /// `ssl_ocsp`.
    pub client_status: Option<ClientStatus>,
    /// `ssl_session_tickets`, with the keys to use.
    pub tickets: Option<Arc<TicketKeys>>,
    pub session_cache: Option<SessionCache>,
    pub session_timeout: Duration,
    pub verify: VerifyMode,
    pub verify_depth: usize,
    /// `ssl_client_certificate`: trusted, and its names are sent to clients.
    pub client_certificate: Option<String>,
    /// `ssl_trusted_certificate`: trusted without being named to clients.
    pub trusted_certificate: Option<String>,
    pub crl: Option<String>,
    /// `ssl_early_data`.
    pub early_data: bool,
    /// Protocols for ALPN, the preferred first. Empty: no ALPN.
    pub alpn: Vec<Vec<u8>>,
    /// Most bytes of payload in a record; over 16384 is 16384 (RFC 8446, section 5.1).
    pub record_size: usize,
}

impl Default for ServerTls {
    fn default() -> Self {
        ServerTls {
            session_label: "HTTP",
            protocols: vec![Protocol::TlsV1_2, Protocol::TlsV1_3],
            ciphers: "HIGH:!aNULL:!MD5".to_owned(),
            ciphersuites: None,
            curves: "auto".to_owned(),
            prefer_server_ciphers: false,
            certificates: Vec::new(),
            varying: Vec::new(),
            passwords: Vec::new(),
            stapling: None,
            client_status: None,
            tickets: None,
            session_cache: None,
            session_timeout: Duration::from_secs(300),
            verify: VerifyMode::Off,
            verify_depth: 1,
            client_certificate: None,
            trusted_certificate: None,
            crl: None,
            early_data: false,
            alpn: Vec::new(),
            record_size: MAX_RECORD,
        }
    }
}

/// A virtual server ready for handshakes.
#[derive(Debug)]
pub struct Server {
    pub(super) config: Arc<ServerConfig>,
    pub(super) verify: Option<Arc<PathVerifier>>,
    /// Most bytes of text in a record.
    pub(super) record_size: usize,
    /// It speaks TLSv1.3.
    pub(super) tls13: bool,
    /// Asks about clients' certificates.
    pub(super) checker: Option<Arc<Checker>>,
    pub(super) staples: Staples,
    /// What the configuration asks for and this program lacks; worth a warning.
    pub warnings: Vec<String>,
    /// Why certificates are not stapled.
    pub not_stapled: Vec<String>,
}

/// Certificates from a client's to the anchor.
pub(super) type Path = Vec<CertificateDer<'static>>;

/// Most bytes of payload in a record (RFC 8446, section 5.1).
const MAX_RECORD: usize = 16384;
/// Fewest bytes of payload in a record that rustls will make.
const LEAST_RECORD: usize = 64;
/// Bytes before a record's payload, which rustls counts in.
const RECORD_HEADER: usize = 5;

/// The ticket buffer nginx gives OpenSSL for early data, `NGX_SSL_BUFSIZE`.
const MAX_EARLY_DATA: u32 = 16384;

// === impl Server ===

impl Server {
    /// Loads everything the settings name. Call it as root: keys may be readable by root alone.
    pub fn new(settings: &ServerTls) -> Result<Arc<Self>, Error> {
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

        let (mut certificates, named) = Certificates::load(settings)?;
        let (client, responders) = ClientCertificates::load(settings, &provider)?;
        let context = context(settings, &certificates, client.as_ref());
        let not_stapled = certificates.staple(settings, &named, &responders);
        let staples = certificates.staples.clone();
        let checker = settings.client_status.clone().map(|s| Arc::new(Checker::new(s, responders)));
        let verify = client.as_ref().map(|c| Arc::clone(&c.path));

        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(|e| Error::Library(e.to_string()))?;
        let builder = match client {
            Some(client) => builder.with_client_cert_verifier(Arc::new(client)),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(certificates));
        config.ignore_client_order = settings.prefer_server_ciphers;
        config.alpn_protocols = settings.alpn.clone();
        if settings.record_size < MAX_RECORD {
            config.max_fragment_size = Some(settings.record_size.max(LEAST_RECORD) + RECORD_HEADER);
        }
        config.send_tls13_tickets = 2;
        if let Some(keys) = &settings.tickets {
            config.ticketer = keys.tickets(context, settings.session_timeout);
        }
        config.session_storage = match &settings.session_cache {
            Some(cache) => cache.for_server(context, settings.session_timeout),
            None => Arc::new(NoServerSessionStorage {}),
        };
        if settings.early_data {
            // rustls takes early data only with sessions it can take out of a cache, so that none is replayed.
            config.max_early_data_size = MAX_EARLY_DATA;
        }
        config.enable_secret_extraction = true;
        config.key_log = Arc::new(Listen);
        let record_size = settings.record_size.clamp(LEAST_RECORD, MAX_RECORD);
        let tls13 = settings.protocols.contains(&Protocol::TlsV1_3);
        let config = Arc::new(config);
        Ok(Arc::new(Server { config, verify, record_size, tls13, checker, staples, warnings, not_stapled }))
    }

    /// How names of OCSP responders are resolved; known only when all of the configuration is read.
    pub fn set_resolving(&self, resolving: Resolving) {
        if let Some(checker) = &self.checker {
            checker.set_resolving(resolving.clone());
        }
        self.staples.set_resolving(resolving);
    }

    /// The same server speaking other protocols on top.
    pub fn with_alpn(&self, alpn: Vec<Vec<u8>>) -> Arc<Self> {
        let mut config = ServerConfig::clone(&self.config);
        config.alpn_protocols = alpn;
        self.with(config, self.staples.clone())
    }

    /// The same server with these certificates. To what is known only in a handshake nothing is stapled.
    pub fn showing(&self, keys: Vec<CertifiedKey>) -> Arc<Self> {
        let mut config = ServerConfig::clone(&self.config);
        config.cert_resolver = Arc::new(Certificates::new(keys.into_iter().map(Arc::new)));
        self.with(config, Staples::default())
    }

    fn with(&self, config: ServerConfig, staples: Staples) -> Arc<Self> {
        Arc::new(Server {
            config: Arc::new(config),
            verify: self.verify.clone(),
            record_size: self.record_size,
            tls13: self.tls13,
            checker: self.checker.clone(),
            staples,
            warnings: Vec::new(),
            not_stapled: Vec::new(),
        })
    }

    /// The verdict on a client's certificates, the leaf first; of good ones the path, if somebody has to be asked
    /// about it.
    pub(super) fn verify_client(&self, chain: &[CertificateDer<'_>]) -> Option<Result<Path, VerifyError>> {
        let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
        self.verify.as_ref().map(|verifier| match self.checker {
            None => verifier.verify(chain, now).map(|()| Path::new()),
            Some(_) => verifier.path(chain, now),
        })
    }
}

/// A crypto provider with the suites and groups of the settings only.
pub(super) fn provider(
    list: &str,
    ciphersuites: Option<&str>,
    curves: &str,
    protocols: &[Protocol],
    warnings: &mut Vec<String>,
) -> Result<Arc<CryptoProvider>, Error> {
    let lacking = |kind: &str, name: &str| format!("{kind} \"{name}\" is not supported");
    let tls12 = ciphers::ciphers(list)?;
    // A class such as HIGH asks for nothing in particular: only what is named is missed.
    let named: Vec<&str> = list.split([':', ' ', ',', ';']).collect();
    warnings.extend(tls12.lacking.iter().filter(|n| named.contains(n)).map(|n| lacking("cipher", n)));
    warnings.extend(tls12.unknown.iter().map(|n| lacking("cipher", n)));
    if tls12.tls12.is_empty() && !protocols.contains(&Protocol::TlsV1_3) {
        return Err(Error::NoUsableCiphers { list: list.to_owned() });
    }
    let mut suites: Vec<SupportedCipherSuite> = match ciphersuites {
        None => ciphers::default_ciphersuites(),
        Some(value) => {
            let (found, missing) = ciphers::ciphersuites(value)?;
            warnings.extend(missing.iter().map(|n| lacking("cipher", n)));
            found
        }
    };
    // A hello lists what its protocols can use and no more.
    if !protocols.contains(&Protocol::TlsV1_3) {
        suites.clear();
    }
    if protocols.contains(&Protocol::TlsV1_2) {
        suites.extend(tls12.tls12);
    }
    let groups = groups::groups(curves)?;
    warnings.extend(groups.lacking.iter().map(|n| lacking("curve", n)));
    Ok(Arc::new(CryptoProvider {
        cipher_suites: suites,
        kx_groups: groups.groups,
        ..rustls::crypto::aws_lc_rs::default_provider()
    }))
}

/// Digest of what makes a virtual server's sessions its own: as nginx, the label, the certificates and the client CAs;
/// the way clients are verified as well.
fn context(settings: &ServerTls, certs: &Certificates, client: Option<&ClientCertificates>) -> Context {
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut add = |part: &[u8]| {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    };
    add(settings.session_label.as_bytes());
    add(&[settings.verify as u8]);
    for key in &certs.keys {
        add(key.cert.first().map(|c| c.as_ref()).unwrap_or_default());
    }
    for name in &settings.varying {
        add(name.as_bytes());
    }
    for name in client.map(|c| c.hints.as_slice()).unwrap_or_default() {
        add(name.as_ref());
    }
    let mut out = [0; 32];
    out.copy_from_slice(hash.finish().as_ref());
    out
}

/// Certificates and their files.
type Named = Vec<(String, Arc<CertifiedKey>)>;

/// The certificates of a server, of which a client gets the first it can check.
#[derive(Debug)]
struct Certificates {
    keys: Vec<Arc<CertifiedKey>>,
    staples: Staples,
}

// === impl Certificates ===

impl Certificates {
    /// With the file that each is from, replaced ones included.
    fn load(settings: &ServerTls) -> Result<(Self, Named), Error> {
        let file = settings.stapling.as_ref().and_then(|s| s.file.as_deref());
        let staple = file.map(keys::ocsp_response).transpose()?;
        let mut named = Named::new();
        for pair in &settings.certificates {
            let mut key = Configured.certified_key(&pair.certificate, &pair.key, &settings.passwords)?;
            key.ocsp.clone_from(&staple);
            named.push((pair.certificate.clone(), Arc::new(key)));
        }
        let keys = named.iter().map(|(_, key)| Arc::clone(key));
        Ok((Certificates::new(keys), named))
    }

    fn new(certified: impl Iterator<Item = Arc<CertifiedKey>>) -> Self {
        let mut keys: Vec<Arc<CertifiedKey>> = Vec::new();
        for key in certified {
            // OpenSSL has one place for a kind of key: the last of a kind wins.
            let kind = key.key.algorithm();
            match keys.iter_mut().find(|k| k.key.algorithm() == kind) {
                Some(place) => *place = key,
                None => keys.push(key),
            }
        }
        // Among kinds that a client knows, OpenSSL takes the client's first; without a wish ECDSA is cheaper.
        keys.sort_by_key(|k| k.key.algorithm() == SignatureAlgorithm::RSA);
        Certificates { keys, staples: Staples::default() }
    }

    /// Finds out whom to ask for responses to staple; returns what is in the way of it.
    fn staple(&mut self, settings: &ServerTls, named: &Named, verifier: &Arc<PathVerifier>) -> Vec<String> {
        let Some(stapling) = settings.stapling.as_ref().filter(|s| s.file.is_none()) else {
            return Vec::new();
        };
        let mut ignored = Vec::new();
        for (name, key) in named {
            match Staple::new(key, name, stapling, verifier) {
                Ok(staple) => self.staples.add(staple),
                Err(why) => ignored.push(why.to_string()),
            }
        }
        ignored
    }

    fn choose(&self, hello: &ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let [only] = self.keys.as_slice() {
            return Some(Arc::clone(only));
        }
        let in_order = |fits: &dyn Fn(&CertifiedKey) -> bool| {
            hello.signature_schemes().iter().find_map(|scheme| {
                let scheme = std::slice::from_ref(scheme);
                self.keys.iter().find(|k| fits(k) && k.key.choose_scheme(scheme).is_some())
            })
        };
        // A suite of TLSv1.2 is for one kind of key; under TLSv1.3 any kind will do.
        in_order(&|k| hello.cipher_suites().iter().any(|c| ciphers::signs_with(*c, k.key.as_ref())))
            .or_else(|| in_order(&|_| true))
            .or(self.keys.first())
            .cloned()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(&hello).map(|key| self.staples.on(key))
    }
}

/// Asks clients for certificates and lets every one pass that proves its key: the verdict on its path is found
/// after the handshake, for the request to be answered by it.
#[derive(Debug)]
struct ClientCertificates {
    path: Arc<PathVerifier>,
    hints: Vec<DistinguishedName>,
    provider: Arc<CryptoProvider>,
}

// === impl ClientCertificates ===

impl ClientCertificates {
    /// Who asks clients for certificates, if anybody; and who checks the signatures of OCSP responders.
    fn load(
        settings: &ServerTls,
        provider: &Arc<CryptoProvider>,
    ) -> Result<(Option<Self>, Arc<PathVerifier>), Error> {
        let load = |name: &Option<String>| match name.as_deref() {
            Some(name) if !name.is_empty() => objects::authorities(name),
            _ => Ok(Vec::new()),
        };
        // Bad files are errors even when nobody is verified.
        let mut store = load(&settings.client_certificate)?;
        let mut hints: Vec<DistinguishedName> = Vec::new();
        let mut seen = Vec::new();
        for der in &store {
            if let Ok((_, cert)) = X509Certificate::from_der(der) {
                let name = dn::canonical(cert.subject());
                if !seen.contains(&name) {
                    seen.push(name);
                    hints.push(DistinguishedName::from(cert.subject().as_raw().to_vec()));
                }
            }
        }
        store.extend(load(&settings.trusted_certificate)?);
        let crls = settings.crl.as_deref().map(objects::crls).transpose()?.unwrap_or_default();
        let path = PathVerifier::new(store, &crls, settings.verify_depth, Purpose::Client, provider);
        let responders = path.for_responders();
        let client = ClientCertificates { path, hints, provider: Arc::clone(provider) };
        Ok(((settings.verify != VerifyMode::Off).then_some(client), responders))
    }
}

impl ClientCertVerifier for ClientCertificates {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
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
