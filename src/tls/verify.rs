//! Certificate paths (RFC 5280 section 6), judged step by step as OpenSSL does, because its error numbers and words
//! are what `$ssl_client_verify` and the error log show.
//!
//! As under nginx, verification goes on after an error, and the last one is the verdict: every step can only turn
//! "good" into "bad", never back.

use super::constraints;
use super::crl::Crls;
use super::dn;
use super::signed::{is_weak, signed_parts, verify_signed};
use super::verdict::{Verdict, VerifyError};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use x509_parser::asn1_rs::Oid;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{ASN1Time, FromDer, GeneralName, X509Certificate, X509Version};

/// What the certificate is to be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Client,
    Server,
    /// Signing OCSP responses: its rules for the leaf are looked at by who asks.
    Responder,
}

/// Trust anchors, revocation lists and the limits of a path.
pub struct PathVerifier {
    store: Arc<Store>,
    depth: usize,
    purpose: Purpose,
    algorithms: &'static [&'static dyn SignatureVerificationAlgorithm],
}

/// Trust anchors, intermediates and revocation lists.
struct Store {
    certificates: Vec<CertificateDer<'static>>,
    /// Places by canonical subject.
    subjects: HashMap<Vec<u8>, Vec<usize>>,
    crls: Crls,
}

/// Signatures that are tried to choose among issuers of one name, so that nobody can make a path cost more.
const MOST_TRIES: usize = 100;

/// One certificate of a path.
struct Link<'a> {
    cert: X509Certificate<'a>,
    der: &'a [u8],
    trusted: bool,
}

// === impl PathVerifier ===

impl fmt::Debug for PathVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PathVerifier")
            .field("anchors", &self.store.certificates.len())
            .field("depth", &self.depth)
            .finish()
    }
}

impl PathVerifier {
    /// `depth` is the number of certificates allowed between leaf and anchor.
    pub fn new(
        certificates: Vec<CertificateDer<'static>>,
        crls: &[Vec<u8>],
        depth: usize,
        purpose: Purpose,
        provider: &CryptoProvider,
    ) -> Arc<Self> {
        let mut subjects: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        for (i, der) in certificates.iter().enumerate() {
            if let Ok((_, cert)) = X509Certificate::from_der(der) {
                subjects.entry(dn::canonical(cert.subject())).or_default().push(i);
            }
        }
        let algorithms = provider.signature_verification_algorithms.all;
        let store = Arc::new(Store { certificates, subjects, crls: Crls::new(crls) });
        Arc::new(PathVerifier { store, depth, purpose, algorithms })
    }

    /// The same store for responders, whose paths are as long as OpenSSL's default allows.
    pub fn for_responders(&self) -> Arc<Self> {
        const DEPTH: usize = 100;
        Arc::new(PathVerifier {
            store: Arc::clone(&self.store),
            depth: DEPTH,
            purpose: Purpose::Responder,
            algorithms: self.algorithms,
        })
    }

    /// Judges a chain, the leaf first, at a time in seconds since 1970.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: i64) -> Result<(), VerifyError> {
        self.judge(chain, now, |_| ())
    }

    /// The same, and the path that was found from the leaf to its anchor.
    pub fn path(
        &self,
        chain: &[CertificateDer<'_>],
        now: i64,
    ) -> Result<Vec<CertificateDer<'static>>, VerifyError> {
        self.judge(chain, now, |path| path.iter().map(|l| CertificateDer::from(l.der.to_vec())).collect())
    }

    /// A certificate of the store by which `cert` says it was issued; one that is valid now, if there is.
    pub fn stored_issuer(&self, cert: &X509Certificate<'_>) -> Option<&CertificateDer<'static>> {
        let places = self.store.subjects.get(&dn::canonical(cert.issuer()))?;
        let issuers = places.iter().filter_map(|i| {
            let der = self.store.certificates.get(*i)?;
            let (_, issuer) = X509Certificate::from_der(der).ok()?;
            has_issued(&issuer, cert).then(|| (issuer.validity().is_valid(), der))
        });
        // Of equals the first.
        issuers.reduce(|best, other| if other.0 && !best.0 { other } else { best }).map(|(_, der)| der)
    }

    /// Whether a signature on a message is that of a certificate's key. `algorithm` is the content of an
    /// AlgorithmIdentifier.
    pub fn signed(
        &self,
        signer: &X509Certificate<'_>,
        algorithm: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        verify_signed(self.algorithms, signer.public_key().raw, algorithm, message, signature)
    }

    fn judge<R>(
        &self,
        chain: &[CertificateDer<'_>],
        now: i64,
        good: impl FnOnce(&[Link<'_>]) -> R,
    ) -> Result<R, VerifyError> {
        let mut others = Vec::new();
        let mut leaf = None;
        for (i, der) in chain.iter().enumerate() {
            match X509Certificate::from_der(der) {
                Ok((_, cert)) if i == 0 => leaf = Some(Link { cert, der: der.as_ref(), trusted: false }),
                Ok((_, cert)) => others.push((cert, der.as_ref())),
                Err(_) => {}
            }
        }
        let Some(leaf) = leaf else { return Err(VerifyError::INVALID_EXTENSION) };
        let now = ASN1Time::from_timestamp(now).map_err(|_| VerifyError::CERT_NOT_YET_VALID)?;
        let mut verdict = match self.purpose {
            Purpose::Client | Purpose::Server => Verdict::default(),
            Purpose::Responder => Verdict::of_first(),
        };
        let path = self.build(leaf, &others, now, &mut verdict);
        self.extensions(&path, &mut verdict);
        self.weak_digests(&path, &mut verdict);
        if !self.store.crls.is_empty() && !self.is_exempt(&path) {
            self.revocation(&path, now, &mut verdict);
        }
        self.signatures(&path, now, &mut verdict);
        constraints::check(path.iter().map(|l| &l.cert), &mut |e| verdict.bad(e));
        verdict.result().map(|()| good(&path))
    }

    /// A responder that its issuer vouches for as long as it is valid (RFC 6960 section 4.2.2.2.1).
    fn is_exempt(&self, path: &[Link<'_>]) -> bool {
        self.purpose == Purpose::Responder
            && path.first().is_some_and(|l| l.cert.extensions().iter().any(|e| is_no_check(&e.oid)))
    }

    fn build<'a>(
        &'a self,
        leaf: Link<'a>,
        others: &[(X509Certificate<'a>, &'a [u8])],
        now: ASN1Time,
        verdict: &mut Verdict,
    ) -> Vec<Link<'a>> {
        let mut path = vec![leaf];
        let mut tries = MOST_TRIES;
        while let Some(last) = path.last_mut() {
            if is_self_signed(&last.cert) {
                last.trusted = last.trusted || self.store.certificates.iter().any(|c| c.as_ref() == last.der);
                if !last.trusted {
                    verdict.bad(match path.len() {
                        1 => VerifyError::DEPTH_ZERO_SELF_SIGNED_CERT,
                        _ => VerifyError::SELF_SIGNED_CERT_IN_CHAIN,
                    });
                }
                return path;
            }
            if path.len() > self.depth + 1 {
                // Nothing is looked for any more, and so nothing is found.
                verdict.bad(VerifyError::CERT_CHAIN_TOO_LONG);
                break;
            }
            match self.issuer(&path, others, now, &mut tries) {
                Some(issuer) => path.push(issuer),
                None => break,
            }
        }
        verdict.bad(match path.last() {
            Some(last) if last.trusted => VerifyError::UNABLE_TO_GET_ISSUER_CERT,
            _ => VerifyError::UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
        });
        path
    }

    /// The issuer of a path's last certificate: trusted ones first, then those whose signature and time are right.
    fn issuer<'a>(
        &'a self,
        path: &[Link<'a>],
        others: &[(X509Certificate<'a>, &'a [u8])],
        now: ASN1Time,
        tries: &mut usize,
    ) -> Option<Link<'a>> {
        let last = path.last()?;
        let wanted = dn::canonical(last.cert.issuer());
        let mut best: Option<(u8, Link<'a>)> = None;
        let from_store = self.store.subjects.get(&wanted).into_iter().flatten().filter_map(|i| {
            let der: &'a [u8] = self.store.certificates.get(*i)?.as_ref();
            X509Certificate::from_der(der).ok().map(|(_, cert)| Link { cert, der, trusted: true })
        });
        let sent = others
            .iter()
            .filter(|(cert, _)| dn::canonical(cert.subject()) == wanted)
            .map(|(cert, der)| Link { cert: cert.clone(), der, trusted: false });
        for candidate in from_store.chain(sent) {
            if !key_ids_agree(&last.cert, &candidate.cert) || path.iter().any(|l| l.der == candidate.der) {
                continue;
            }
            let signed = *tries > 0 && self.signed_by(last.der, &candidate.cert);
            *tries = tries.saturating_sub(1);
            let valid = candidate.cert.validity().is_valid_at(now);
            let score = u8::from(signed) * 4 + u8::from(candidate.trusted) * 2 + u8::from(valid);
            if best.as_ref().is_none_or(|(s, _)| score > *s) {
                best = Some((score, candidate));
            }
        }
        best.map(|(_, link)| link)
    }

    fn signed_by(&self, der: &[u8], issuer: &X509Certificate<'_>) -> bool {
        signed_parts(der).is_some_and(|(message, algorithm, signature)| {
            verify_signed(self.algorithms, issuer.public_key().raw, algorithm, message, signature)
        })
    }

    fn extensions(&self, path: &[Link<'_>], verdict: &mut Verdict) {
        let mut below = 0;
        for (i, link) in path.iter().enumerate() {
            let cert = &link.cert;
            understood(cert, verdict);
            let Ok(basic) = cert.basic_constraints() else {
                verdict.bad(VerifyError::INVALID_EXTENSION);
                continue;
            };
            let basic = basic.filter(|b| b.value.ca);
            // Only an anchor may be from before there were basicConstraints (RFC 5280 section 6.1.4 (k)).
            let top = i + 1 == path.len();
            if i > 0 && !(is_ca(cert) && (top || basic.is_some())) {
                verdict.bad(VerifyError::INVALID_CA);
            }
            if !self.suits(cert, i == 0) {
                verdict.bad(VerifyError::INVALID_PURPOSE);
            }
            let limit = basic.and_then(|b| b.value.path_len_constraint);
            if i > 0 && limit.is_some_and(|limit| below > limit) {
                verdict.bad(VerifyError::PATH_LENGTH_EXCEEDED);
            }
            // Self-issued certificates between leaf and anchor do not count (RFC 5280 section 6.1.4).
            if i > 0 && dn::canonical(cert.subject()) != dn::canonical(cert.issuer()) {
                below += 1;
            }
        }
    }

    /// Whether a certificate may be used for the purpose, or be above one that is.
    fn suits(&self, cert: &X509Certificate<'_>, leaf: bool) -> bool {
        let (Ok(usage), Ok(extended)) = (cert.key_usage(), cert.extended_key_usage()) else { return false };
        let purpose = extended.is_none_or(|e| match self.purpose {
            Purpose::Client => e.value.client_auth,
            Purpose::Server => e.value.server_auth,
            Purpose::Responder => true,
        });
        if !leaf || self.purpose == Purpose::Responder {
            return purpose && (leaf || is_ca(cert));
        }
        let usage = usage.is_none_or(|u| {
            u.value.digital_signature()
                || u.value.key_agreement()
                || (self.purpose == Purpose::Server && u.value.key_encipherment())
        });
        purpose && usage && self.suits_netscape(cert)
    }

    /// Certificates from before extKeyUsage say what they are for in an extension of Netscape's.
    fn suits_netscape(&self, cert: &X509Certificate<'_>) -> bool {
        cert.extensions().iter().all(|e| match (e.parsed_extension(), self.purpose) {
            (ParsedExtension::NSCertType(kind), Purpose::Client) => kind.ssl_client(),
            (ParsedExtension::NSCertType(kind), Purpose::Server) => kind.ssl_server(),
            _ => true,
        })
    }

    fn weak_digests(&self, path: &[Link<'_>], verdict: &mut Verdict) {
        let weak = |l: &Link<'_>| !(l.trusted && is_self_signed(&l.cert)) && is_weak(l.der);
        if path.iter().any(weak) {
            verdict.bad(VerifyError::CA_MD_TOO_WEAK);
        }
    }

    fn signatures(&self, path: &[Link<'_>], now: ASN1Time, verdict: &mut Verdict) {
        let top = path.len().saturating_sub(1);
        for (i, link) in path.iter().enumerate().rev() {
            let own = is_self_signed(&link.cert);
            if i == top && !own {
                if top > 0 {
                    continue;
                }
                verdict.bad(VerifyError::UNABLE_TO_VERIFY_LEAF_SIGNATURE);
            } else if let Some(issuer) = path.get(i + 1) {
                if !may_sign_certificates(&issuer.cert) {
                    verdict.bad(VerifyError::KEYUSAGE_NO_CERTSIGN);
                }
                // What is signed weakly is bad already.
                let good = is_consistent(&link.cert) && self.signed_by(link.der, &issuer.cert);
                if !good && !is_weak(link.der) {
                    verdict.bad(VerifyError::CERT_SIGNATURE_FAILURE);
                }
            }
            let validity = link.cert.validity();
            if now < validity.not_before {
                verdict.bad(VerifyError::CERT_NOT_YET_VALID);
            } else if now > validity.not_after {
                verdict.bad(VerifyError::CERT_HAS_EXPIRED);
            }
        }
    }

    /// Every certificate of the path has to be covered by a list of its issuer.
    fn revocation(&self, path: &[Link<'_>], now: ASN1Time, verdict: &mut Verdict) {
        for (i, link) in path.iter().enumerate() {
            let issuer = match path.get(i + 1) {
                Some(issuer) => issuer,
                None if is_self_signed(&link.cert) => link,
                None => {
                    verdict.bad(VerifyError::UNABLE_TO_GET_CRL_ISSUER);
                    continue;
                }
            };
            self.store.crls.judge(self.algorithms, &link.cert, &issuer.cert, now, verdict);
        }
    }
}

/// Reports extensions that are broken, or critical and not understood. Policies are, as long as nobody asks for any.
fn understood(cert: &X509Certificate<'_>, verdict: &mut Verdict) {
    for extension in cert.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::ParseError { .. } => verdict.bad(VerifyError::INVALID_EXTENSION),
            ParsedExtension::KeyUsage(_)
            | ParsedExtension::BasicConstraints(_)
            | ParsedExtension::ExtendedKeyUsage(_)
            | ParsedExtension::SubjectAlternativeName(_)
            | ParsedExtension::NameConstraints(_)
            | ParsedExtension::CertificatePolicies(_)
            | ParsedExtension::PolicyMappings(_)
            | ParsedExtension::PolicyConstraints(_)
            | ParsedExtension::InhibitAnyPolicy(_)
            | ParsedExtension::CRLDistributionPoints(_)
            | ParsedExtension::NSCertType(_) => {}
            _ if extension.critical && !is_no_check(&extension.oid) => {
                verdict.bad(VerifyError::UNHANDLED_CRITICAL_EXTENSION);
            }
            _ => {}
        }
    }
}

/// id-pkix-ocsp-nocheck
fn is_no_check(oid: &Oid<'_>) -> bool {
    oid.as_bytes() == [0x2b, 6, 1, 5, 5, 7, 0x30, 1, 5]
}

/// Whether one certificate is the issuer that another one names, by names, identifiers and what it may be used for.
pub fn has_issued(issuer: &X509Certificate<'_>, cert: &X509Certificate<'_>) -> bool {
    dn::canonical(issuer.subject()) == dn::canonical(cert.issuer())
        && key_ids_agree(cert, issuer)
        && may_sign_certificates(issuer)
}

fn may_sign_certificates(cert: &X509Certificate<'_>) -> bool {
    matches!(cert.key_usage(), Ok(usage) if usage.as_ref().is_none_or(|u| u.value.key_cert_sign()))
}

/// The algorithm that is signed is the one that it is signed by (RFC 5280 section 4.1.1.2).
fn is_consistent(cert: &X509Certificate<'_>) -> bool {
    cert.tbs_certificate.signature == cert.signature_algorithm
}

fn same_serial(a: &[u8], b: &[u8]) -> bool {
    let bare = |s: &[u8]| s.iter().copied().skip_while(|b| *b == 0).collect::<Vec<_>>();
    bare(a) == bare(b)
}

/// Issued by its own subject, as far as names and key identifiers tell.
fn is_self_signed(cert: &X509Certificate<'_>) -> bool {
    dn::canonical(cert.subject()) == dn::canonical(cert.issuer()) && key_ids_agree(cert, cert)
}

fn key_ids_agree(cert: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    let mut wanted = None;
    for extension in cert.extensions() {
        if let ParsedExtension::AuthorityKeyIdentifier(id) = extension.parsed_extension() {
            wanted = Some(id);
        }
    }
    let Some(wanted) = wanted else { return true };
    let has = issuer.extensions().iter().find_map(|e| match e.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id),
        _ => None,
    });
    if let (Some(wanted), Some(has)) = (&wanted.key_identifier, has)
        && wanted.0 != has.0
    {
        return false;
    }
    if wanted.authority_cert_serial.is_some_and(|serial| !same_serial(serial, issuer.raw_serial())) {
        return false;
    }
    let names = wanted.authority_cert_issuer.as_deref().unwrap_or_default();
    names.iter().all(|name| match name {
        GeneralName::DirectoryName(name) => dn::canonical(name) == dn::canonical(issuer.issuer()),
        _ => true,
    })
}

/// May it sign certificates? Old roots (X.509 v1) say nothing about it.
fn is_ca(cert: &X509Certificate<'_>) -> bool {
    if !may_sign_certificates(cert) {
        return false;
    }
    match cert.basic_constraints() {
        Ok(Some(basic)) => basic.value.ca,
        Ok(None) => {
            (cert.version() == X509Version::V1 && is_self_signed(cert))
                || matches!(cert.key_usage(), Ok(Some(_)))
        }
        Err(_) => false,
    }
}
