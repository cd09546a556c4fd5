//! Responses sent along with a server's certificate (RFC 6066 section 8): fetched when clients come, kept, renewed.

use super::inquiry::{Inquiry, Log, Resolving, now};
use super::judge::Trust;
use super::request::CertId;
use super::responder::{Responder, named_by};
use super::response::Status;
use crate::log::{self, Level};
use crate::tls::verify::{PathVerifier, has_issued};
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use x509_parser::prelude::{FromDer, X509Certificate};

/// `ssl_stapling on`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stapling {
    /// `ssl_stapling_file`: a path.
    pub file: Option<String>,
    /// `ssl_stapling_responder`; empty: what the certificate names.
    pub responder: Vec<u8>,
    /// `ssl_stapling_verify`
    pub verify: bool,
}

/// What is stapled to one certificate.
pub struct Staple {
    /// Without a response.
    bare: Arc<CertifiedKey>,
    /// The file of the certificate.
    name: String,
    id: CertId,
    responder: Responder,
    trust: Trust,
    verifier: Arc<PathVerifier>,
    /// Whether it is being fetched.
    loading: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// With the last good response, and until when that is valid (none: without end).
    stapled: Option<(Arc<CertifiedKey>, Option<i64>)>,
    /// When to ask again.
    refresh: i64,
}

/// Milliseconds for each address of a responder.
const TIMEOUT: u64 = 60_000;
/// Seconds before the end of a response at which it is renewed, and until the next attempt after one that failed.
const SOON: i64 = 300;
/// Most seconds until a response is renewed.
const LONG: i64 = 3600;

/// Why a certificate gets no staple; `Display` gives nginx's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored(String);

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"ssl_stapling\" ignored, {}", self.0)
    }
}

// === impl Staple ===

impl fmt::Debug for Staple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staple").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Staple {
    /// What to staple to the certificate of `name`. Names of responders are resolved here.
    ///
    /// # Errors
    /// [`Ignored`]
    pub fn new(
        bare: &Arc<CertifiedKey>,
        name: &str,
        stapling: &Stapling,
        verifier: &Arc<PathVerifier>,
    ) -> Result<Self, Ignored> {
        let no_issuer = || Ignored(format!("issuer certificate not found for certificate \"{name}\""));
        let (leaf, chain) = bare.cert.split_first().ok_or_else(no_issuer)?;
        let (_, cert) = X509Certificate::from_der(leaf).map_err(|_| no_issuer())?;
        let issued = |der: &&CertificateDer<'_>| {
            X509Certificate::from_der(der).is_ok_and(|(_, issuer)| has_issued(&issuer, &cert))
        };
        let issuer = chain.iter().find(issued).or_else(|| verifier.stored_issuer(&cert));
        let issuer = issuer.and_then(|der| X509Certificate::from_der(der).ok());
        let (_, issuer) = issuer.ok_or_else(no_issuer)?;
        let url = match stapling.responder.as_slice() {
            [] => named_by(&cert)
                .map(str::as_bytes)
                .ok_or_else(|| Ignored(format!("no OCSP responder URL in the certificate \"{name}\"")))?,
            url => url,
        };
        let responder =
            Responder::new(url, true).map_err(|e| Ignored(format!("{e} in the certificate \"{name}\"")))?;
        Ok(Staple {
            bare: Arc::clone(bare),
            name: name.to_owned(),
            id: CertId::new(&cert, &issuer),
            responder,
            trust: if stapling.verify { Trust::Chain } else { Trust::Anyone },
            verifier: Arc::clone(verifier),
            loading: AtomicBool::new(false),
            state: Mutex::default(),
        })
    }

    /// The certificate with the response that is good now.
    pub(super) fn current(&self, now: i64) -> Arc<CertifiedKey> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &state.stapled {
            Some((stapled, valid)) if valid.is_none_or(|valid| valid >= now) => Arc::clone(stapled),
            _ => Arc::clone(&self.bare),
        }
    }

    pub(super) fn is_due(&self, now: i64) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).refresh < now
            && !self.loading.swap(true, Ordering::AcqRel)
    }

    async fn fetch(&self, resolving: Option<&Resolving>) {
        let log = Log { log: log::main(), connection: None, context: String::new() };
        let inquiry = Inquiry {
            id: self.id.clone(),
            chain: self.bare.cert.get(1..).unwrap_or_default(),
            responder: &self.responder,
            resolving,
            timeout: Some(TIMEOUT),
            trust: self.trust,
            verifier: &self.verifier,
            log: &log,
            name: Some(&self.name),
        };
        let found = inquiry.ask().await.filter(|found| {
            let good = found.status == Status::Good;
            if !good {
                let text = format_args!("certificate status \"{}\" in the OCSP response", found.status);
                inquiry.tell(Level::Error, None, Some(&found.address), text);
            }
            good
        });
        self.keep(found.map(|found| (found.response, found.valid)), now());
        self.done();
    }

    pub(super) fn done(&self) {
        self.loading.store(false, Ordering::Release);
    }

    /// Keeps a good response; without one the last good one stays as long as it is valid.
    pub(super) fn keep(&self, response: Option<(Vec<u8>, Option<i64>)>, now: i64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.refresh = now + SOON;
        if let Some((response, valid)) = response {
            let stapled = CertifiedKey { ocsp: Some(response), ..CertifiedKey::clone(&self.bare) };
            state.stapled = Some((Arc::new(stapled), valid));
            state.refresh = valid.map_or(i64::MAX, |v| v - SOON).min(now + LONG).max(now + SOON);
        }
    }
}

/// The staples of a server's certificates.
#[derive(Debug, Clone, Default)]
pub struct Staples {
    staples: Vec<Arc<Staple>>,
    resolving: Arc<OnceLock<Resolving>>,
}

// === impl Staples ===

impl Staples {
    pub fn add(&mut self, staple: Staple) {
        self.staples.push(Arc::new(staple));
    }

    /// How names of responders are resolved; the first that is set counts.
    pub fn set_resolving(&self, resolving: Resolving) {
        // A second server with the same settings has the same resolver.
        let _ = self.resolving.set(resolving);
    }

    fn of(&self, key: &CertifiedKey) -> Option<&Arc<Staple>> {
        self.staples.iter().find(|s| s.bare.cert.first() == key.cert.first())
    }

    /// A certificate with what is stapled to it now.
    pub fn on(&self, key: Arc<CertifiedKey>) -> Arc<CertifiedKey> {
        self.of(&key).map_or(key, |staple| staple.current(now()))
    }

    /// Asks for a new response if it is time. A task of its own does it: call it where tasks can be spawned.
    pub fn update(&self, key: &CertifiedKey) {
        let Some(staple) = self.of(key).filter(|staple| staple.is_due(now())) else { return };
        let (staple, resolving) = (Arc::clone(staple), Arc::clone(&self.resolving));
        tokio::task::spawn_local(async move { staple.fetch(resolving.get()).await });
    }
}
