//! Certificate paths (RFC 5280 section 6), judged step by step as OpenSSL does, because its error numbers and words
//! are what `$ssl_client_verify` and the error log show.
//!
//! As under nginx, verification goes on after an error, and the last one is the verdict: every step can only turn
//! "good" into "bad", never back.

use super::constraints;
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
use x509_parser::prelude::{
    ASN1Time, CertificateRevocationList, FromDer, GeneralName, X509Certificate, X509Version,
};

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
    crls: Vec<Vec<u8>>,
}

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
        crls: Vec<Vec<u8>>,
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
        let store = Arc::new(Store { certificates, subjects, crls });
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
                verdict.bad(VerifyError::CERT_CHAIN_TOO_LONG);
                return path;
            }
            match self.issuer(&path, others, now) {
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
            let signed = self.signed_by(last.der, &candidate.cert);
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
            for extension in cert.extensions() {
                match extension.parsed_extension() {
                    ParsedExtension::ParseError { .. } => verdict.bad(VerifyError::INVALID_EXTENSION),
                    ParsedExtension::KeyUsage(_)
                    | ParsedExtension::BasicConstraints(_)
                    | ParsedExtension::ExtendedKeyUsage(_)
                    | ParsedExtension::SubjectAlternativeName(_)
                    | ParsedExtension::NameConstraints(_)
                    | ParsedExtension::CertificatePolicies(_)
                    | ParsedExtension::NSCertType(_) => {}
                    _ if extension.critical => verdict.bad(VerifyError::UNHANDLED_CRITICAL_EXTENSION),
                    _ => {}
                }
            }
            let (Ok(basic), Ok(usage), Ok(extended)) =
                (cert.basic_constraints(), cert.key_usage(), cert.extended_key_usage())
            else {
                verdict.bad(VerifyError::INVALID_EXTENSION);
                continue;
            };
            if i > 0 && !is_ca(cert) {
                verdict.bad(VerifyError::INVALID_CA);
            }
            let purpose = extended.is_none_or(|e| match self.purpose {
                Purpose::Client => e.value.client_auth,
                Purpose::Server => e.value.server_auth,
                Purpose::Responder => true,
            });
            let usage = i > 0
                || self.purpose == Purpose::Responder
                || usage.is_none_or(|u| {
                    u.value.digital_signature()
                        || u.value.key_agreement()
                        || (self.purpose == Purpose::Server && u.value.key_encipherment())
                });
            if !purpose || !usage {
                verdict.bad(VerifyError::INVALID_PURPOSE);
            }
            let limit = basic.filter(|b| b.value.ca).and_then(|b| b.value.path_len_constraint);
            if i > 0 && limit.is_some_and(|limit| below > limit) {
                verdict.bad(VerifyError::PATH_LENGTH_EXCEEDED);
            }
            // Self-issued certificates between leaf and anchor do not count (RFC 5280 section 6.1.4).
            if i > 0 && dn::canonical(cert.subject()) != dn::canonical(cert.issuer()) {
                below += 1;
            }
        }
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
            } else if let Some(issuer) = path.get(i + 1)
                && !is_weak(link.der)
                && !self.signed_by(link.der, &issuer.cert)
            {
                verdict.bad(VerifyError::CERT_SIGNATURE_FAILURE);
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
            let wanted = dn::canonical(link.cert.issuer());
            let lists = self.store.crls.iter().filter_map(|der| {
                let (_, crl) = CertificateRevocationList::from_der(der).ok()?;
                (dn::canonical(crl.issuer()) == wanted).then_some((der.as_slice(), crl))
            });
            // Among several lists of one issuer the newest counts.
            match lists.max_by_key(|(_, crl)| crl.last_update()) {
                Some((der, crl)) => self.one_list(der, &crl, &link.cert, &issuer.cert, now, verdict),
                None => verdict.bad(VerifyError::UNABLE_TO_GET_CRL),
            }
        }
    }

    fn one_list(
        &self,
        der: &[u8],
        crl: &CertificateRevocationList<'_>,
        cert: &X509Certificate<'_>,
        issuer: &X509Certificate<'_>,
        now: ASN1Time,
        verdict: &mut Verdict,
    ) {
        if !matches!(issuer.key_usage(), Ok(usage) if usage.as_ref().is_none_or(|u| u.value.crl_sign())) {
            verdict.bad(VerifyError::KEYUSAGE_NO_CRL_SIGN);
        }
        if now < crl.last_update() {
            verdict.bad(VerifyError::CRL_NOT_YET_VALID);
        }
        if crl.next_update().is_some_and(|next| now > next) {
            verdict.bad(VerifyError::CRL_HAS_EXPIRED);
        }
        if !self.signed_by(der, issuer) {
            verdict.bad(VerifyError::CRL_SIGNATURE_FAILURE);
        }
        let mut critical = crl.extensions().iter().any(|e| e.critical);
        for revoked in crl.iter_revoked_certificates() {
            critical |= revoked.extensions().iter().any(|e| e.critical);
            if same_serial(revoked.raw_serial(), cert.raw_serial()) {
                verdict.bad(VerifyError::CERT_REVOKED);
            }
        }
        if critical {
            verdict.bad(VerifyError::UNHANDLED_CRITICAL_CRL_EXTENSION);
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
        && matches!(issuer.key_usage(), Ok(usage) if usage.as_ref().is_none_or(|u| u.value.key_cert_sign()))
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
    if !matches!(cert.key_usage(), Ok(usage) if usage.as_ref().is_none_or(|u| u.value.key_cert_sign())) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::keys;

    const NOW: i64 = 1_750_000_000;

    fn load(name: &str) -> Vec<CertificateDer<'static>> {
        keys::certificates(&format!("{}/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    fn crls() -> Vec<Vec<u8>> {
        keys::crls(&format!("{}/fixtures/tls/ca.crl", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    fn verifier(store: &[&str], depth: usize, purpose: Purpose) -> Arc<PathVerifier> {
        let store = store.iter().flat_map(|n| load(n)).collect();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        PathVerifier::new(store, Vec::new(), depth, purpose, &provider)
    }

    fn judge(store: &[&str], depth: usize, purpose: Purpose, chain: &str) -> u32 {
        verifier(store, depth, purpose).verify(&load(chain), NOW).map_or_else(|e| e.0, |()| 0)
    }

    #[test]
    fn good_paths() {
        use Purpose::*;
        assert_eq!(judge(&["ca.crt"], 1, Client, "client.crt"), 0);
        assert_eq!(judge(&["ca.crt"], 0, Client, "client.crt"), 0);
        assert_eq!(judge(&["ca.crt"], 1, Server, "rsa.crt"), 0);
        assert_eq!(judge(&["ca.crt"], 1, Server, "cn-chain.crt"), 0);
        // The intermediate may come with the trusted certificates, and a leaf may be trusted itself.
        assert_eq!(judge(&["int.crt", "ca.crt"], 1, Client, "client-int.crt"), 0);
        assert_eq!(judge(&["self.crt"], 1, Server, "self.crt"), 0);
    }

    #[test]
    fn verdicts_are_openssls() {
        use Purpose::*;
        assert_eq!(judge(&["self.crt"], 1, Server, "rsa.crt"), 21);
        assert_eq!(judge(&[], 1, Server, "cn-chain.crt"), 20);
        assert_eq!(judge(&["int.crt"], 1, Client, "client-int.crt"), 2);
        assert_eq!(judge(&["ca.crt"], 1, Server, "self.crt"), 18);
        assert_eq!(judge(&["ca.crt"], 0, Server, "cn-chain.crt"), 22);
        assert_eq!(judge(&["ca.crt"], 1, Server, "client.crt"), 26);
        assert_eq!(judge(&["ca.crt"], 1, Client, "rsa.crt"), 26);
        assert_eq!(judge(&["ca.crt"], 1, Server, "ca.crt"), 26);
        assert_eq!(judge(&["ca.crt"], 1, Client, "expired.crt"), 10);
        let early = verifier(&["ca.crt"], 1, Client).verify(&load("client.crt"), 1000);
        assert_eq!(early.unwrap_err().to_string(), "(9:certificate is not yet valid)");
        let mut chain = load("rsa.crt");
        chain.extend(load("ca.crt"));
        let foreign = verifier(&["self.crt"], 1, Server).verify(&chain, NOW).unwrap_err();
        assert_eq!(foreign.to_string(), "(19:self-signed certificate in certificate chain)");
        assert!(foreign.is_only_untrusted());
    }

    #[test]
    fn a_damaged_certificate_is_bad() {
        for at in [300, 150, 200] {
            let mut der = load("rsa.crt")[0].to_vec();
            der[at] ^= 1;
            let chain = [CertificateDer::from(der)];
            assert!(verifier(&["ca.crt"], 1, Purpose::Server).verify(&chain, NOW).is_err());
        }
        let mut der = load("rsa.crt")[0].to_vec();
        *der.last_mut().unwrap() ^= 1;
        let e = verifier(&["ca.crt"], 1, Purpose::Server).verify(&[der.into()], NOW).unwrap_err();
        assert_eq!(e, VerifyError::CERT_SIGNATURE_FAILURE);
    }

    #[test]
    fn a_leaf_cannot_sign() {
        // "self" is not issued by "other", but a chain can claim anything: only names are looked at first.
        let mut chain = load("client.crt");
        chain.extend(load("rsa.crt"));
        assert_eq!(verifier(&["self.crt"], 9, Purpose::Client).verify(&chain, NOW).unwrap_err().0, 21);
    }

    #[test]
    fn revoked_certificates_are_told() {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let judge = |store: &[&str], chain: &str, now: i64| {
            let store = store.iter().flat_map(|n| load(n)).collect();
            PathVerifier::new(store, crls(), 1, Purpose::Client, &provider)
                .verify(&load(chain), now)
                .map_or_else(|e| e.0, |()| 0)
        };
        assert_eq!(judge(&["ca.crt"], "revoked.crt", NOW), 23);
        assert_eq!(judge(&["ca.crt"], "client.crt", NOW), 0);
        assert_eq!(judge(&["ca.crt", "int.crt"], "client-int.crt", NOW), 3);
        assert_eq!(judge(&["self.crt"], "self.crt", NOW), 3);
    }
}
