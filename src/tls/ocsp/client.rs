//! Asking about clients' certificates after the handshake (`ssl_ocsp`).

use super::cache::{self, StatusCache};
use super::inquiry::{Inquiry, Log, Resolving, now};
use super::judge::Trust;
use super::request::CertId;
use super::responder::{Responder, named_by};
use super::response::Status;
use crate::log::{self, Level};
use crate::tls::verify::PathVerifier;
use rustls::pki_types::CertificateDer;
use std::fmt;
use std::sync::{Arc, OnceLock};
use x509_parser::prelude::{FromDer, X509Certificate};

/// `ssl_ocsp on` or `leaf`
#[derive(Debug, Clone)]
pub struct ClientStatus {
    /// Only the client's own certificate is asked about, not those between it and the anchor.
    pub leaf: bool,
    /// `ssl_ocsp_responder`; otherwise certificates name it.
    pub responder: Option<Responder>,
    /// `ssl_ocsp_cache`
    pub cache: Option<StatusCache>,
}

/// What is wrong with a client's certificate after all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusError {
    /// Nobody could be asked, or the answer cannot be believed.
    RequestFailed,
    Revoked,
    Unknown,
}

// === impl StatusError ===

impl StatusError {
    /// nginx's words.
    pub fn reason(self) -> &'static str {
        match self {
            StatusError::RequestFailed => "certificate status request failed",
            StatusError::Revoked => "certificate revoked",
            StatusError::Unknown => "certificate status unknown",
        }
    }
}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for StatusError {}

/// [`ClientStatus`] with what it needs to be asked for.
#[derive(Debug)]
pub struct Checker {
    settings: ClientStatus,
    verifier: Arc<PathVerifier>,
    resolving: OnceLock<Resolving>,
}

// === impl Checker ===

impl Checker {
    pub fn new(settings: ClientStatus, verifier: Arc<PathVerifier>) -> Self {
        Checker { settings, verifier, resolving: OnceLock::new() }
    }

    /// How names of responders are resolved; the first that is set counts.
    pub fn set_resolving(&self, resolving: Resolving) {
        // A second server with the same settings has the same resolver.
        let _ = self.resolving.set(resolving);
    }

    /// Asks about every certificate of a path but the anchor, one after another, until one is not good.
    ///
    /// # Errors
    /// [`StatusError`]; why a request failed is logged.
    pub async fn check(&self, path: &[CertificateDer<'_>], log: &Log) -> Result<(), StatusError> {
        let pairs = path.iter().zip(path.iter().skip(1));
        let most = if self.settings.leaf { 1 } else { usize::MAX };
        for (cert, issuer) in pairs.take(most) {
            let status = self.one(cert, issuer, path, log).await.ok_or(StatusError::RequestFailed)?;
            match status {
                Status::Good => {}
                Status::Revoked => return Err(StatusError::Revoked),
                Status::Unknown => return Err(StatusError::Unknown),
            }
        }
        Ok(())
    }

    async fn one(
        &self,
        cert: &[u8],
        issuer: &[u8],
        path: &[CertificateDer<'_>],
        log: &Log,
    ) -> Option<Status> {
        let (_, cert) = X509Certificate::from_der(cert).ok()?;
        let (_, issuer) = X509Certificate::from_der(issuer).ok()?;
        let named;
        let responder = match &self.settings.responder {
            Some(responder) => responder,
            None => {
                named = responder_of(&cert).map_err(|e| tell(log, &e)).ok()?;
                &named
            }
        };
        let id = CertId::new(&cert, &issuer);
        let cache = match &self.settings.cache {
            None => None,
            Some(cache) => {
                let key = cache::key(&id, &issuer)?;
                if let Some(status) = cache.get(&key, now()) {
                    return Some(status);
                }
                Some((cache, key))
            }
        };
        let inquiry = Inquiry {
            id,
            chain: path,
            responder,
            resolving: self.resolving.get(),
            timeout: None,
            trust: Trust::Path,
            verifier: &self.verifier,
            log,
            name: None,
        };
        let found = inquiry.ask().await?;
        if let Some((cache, key)) = cache {
            cache.put(key, found.status, found.valid, now());
        }
        Some(found.status)
    }
}

fn responder_of(cert: &X509Certificate<'_>) -> Result<Responder, String> {
    let url = named_by(cert).ok_or("no OCSP responder URL in certificate")?;
    Responder::new(url.as_bytes(), false).map_err(|e| format!("{e} in certificate"))
}

fn tell(log: &Log, text: &str) {
    let context = format_args!("{}", log.context);
    log::error_context(&log.log, Level::Error, log.connection, None, format_args!("{text}"), context);
}
