//! Revocation lists (RFC 5280 section 5), read once and looked into as OpenSSL does.

use super::dn;
use super::signed::{signed_parts, verify_signed};
use super::verdict::{Verdict, VerifyError};
use rustls::pki_types::SignatureVerificationAlgorithm;
use std::collections::HashSet;
use x509_parser::extensions::{
    DistributionPointName, GeneralName, IssuingDistributionPoint, ParsedExtension,
};
use x509_parser::prelude::{ASN1Time, CertificateRevocationList, FromDer, ReasonCode, X509Certificate};

/// The lists of `ssl_crl`.
#[derive(Default)]
pub struct Crls(Vec<Crl>);

struct Crl {
    der: Vec<u8>,
    /// In the form to compare by.
    issuer: Vec<u8>,
    key_id: Option<Vec<u8>>,
    this_update: ASN1Time,
    next_update: Option<ASN1Time>,
    /// Something critical in it is not understood.
    unhandled: bool,
    scope: Scope,
    /// Serial numbers without zeros in front.
    revoked: HashSet<Vec<u8>>,
}

/// What a list is about (section 5.2.5).
#[derive(Default)]
struct Scope {
    only_users: bool,
    only_cas: bool,
    /// URLs of the point it is from; empty: none is named.
    points: Vec<Vec<u8>>,
}

// === impl Crls ===

impl Crls {
    /// Reads lists in DER; one that cannot be read is left out.
    pub fn new(lists: &[Vec<u8>]) -> Self {
        Crls(lists.iter().filter_map(|der| Crl::read(der)).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Judges a certificate by the list of its issuer.
    pub(super) fn judge(
        &self,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
        cert: &X509Certificate<'_>,
        issuer: &X509Certificate<'_>,
        now: ASN1Time,
        verdict: &mut Verdict,
    ) {
        let wanted = dn::canonical(cert.issuer());
        let fits = |crl: &&Crl| crl.issuer == wanted && crl.has_key_of(issuer);
        // Of several the one that can be used; among those the newest.
        let best = self.0.iter().filter(fits).max_by_key(|crl| {
            (!crl.unhandled, crl.scope.includes(cert), crl.timely(now).is_ok(), crl.this_update)
        });
        match best {
            Some(crl) => crl.judge(algorithms, cert, issuer, now, verdict),
            None => verdict.bad(VerifyError::UNABLE_TO_GET_CRL),
        }
    }
}

// === impl Crl ===

impl Crl {
    fn read(der: &[u8]) -> Option<Crl> {
        let (_, list) = CertificateRevocationList::from_der(der).ok()?;
        let mut key_id = None;
        let mut scope = Some(Scope::default());
        // Signed and unsigned algorithm have to be one (section 5.1.1.2).
        let mut unhandled = list.tbs_cert_list.signature != list.signature_algorithm;
        for extension in list.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    key_id = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                ParsedExtension::IssuingDistributionPoint(point) => scope = Scope::read(point),
                _ => unhandled |= extension.critical,
            }
        }
        let mut revoked = HashSet::new();
        for entry in list.iter_revoked_certificates() {
            unhandled |= entry.extensions().iter().any(|e| e.critical);
            if entry.reason_code().is_none_or(|(_, reason)| reason != ReasonCode::RemoveFromCRL) {
                revoked.insert(bare(entry.raw_serial()));
            }
        }
        Some(Crl {
            der: der.to_vec(),
            issuer: dn::canonical(list.issuer()),
            key_id,
            this_update: list.last_update(),
            next_update: list.next_update(),
            unhandled: unhandled || scope.is_none(),
            scope: scope.unwrap_or_default(),
            revoked,
        })
    }

    fn has_key_of(&self, issuer: &X509Certificate<'_>) -> bool {
        let has = issuer.extensions().iter().find_map(|e| match e.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
            _ => None,
        });
        match (&self.key_id, has) {
            (Some(wanted), Some(has)) => wanted == has,
            _ => true,
        }
    }

    fn timely(&self, now: ASN1Time) -> Result<(), VerifyError> {
        if now < self.this_update {
            return Err(VerifyError::CRL_NOT_YET_VALID);
        }
        match self.next_update.is_some_and(|next| now > next) {
            true => Err(VerifyError::CRL_HAS_EXPIRED),
            false => Ok(()),
        }
    }

    fn judge(
        &self,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
        cert: &X509Certificate<'_>,
        issuer: &X509Certificate<'_>,
        now: ASN1Time,
        verdict: &mut Verdict,
    ) {
        if !matches!(issuer.key_usage(), Ok(usage) if usage.as_ref().is_none_or(|u| u.value.crl_sign())) {
            verdict.bad(VerifyError::KEYUSAGE_NO_CRL_SIGN);
        }
        if !self.scope.includes(cert) {
            verdict.bad(VerifyError::DIFFERENT_CRL_SCOPE);
        }
        if let Err(error) = self.timely(now) {
            verdict.bad(error);
        }
        let signed = signed_parts(&self.der).is_some_and(|(message, algorithm, signature)| {
            verify_signed(algorithms, issuer.public_key().raw, algorithm, message, signature)
        });
        if !signed {
            verdict.bad(VerifyError::CRL_SIGNATURE_FAILURE);
        }
        if self.unhandled {
            verdict.bad(VerifyError::UNHANDLED_CRITICAL_CRL_EXTENSION);
        }
        if self.revoked.contains(&bare(cert.raw_serial())) {
            verdict.bad(VerifyError::CERT_REVOKED);
        }
    }
}

// === impl Scope ===

impl Scope {
    /// None for lists of some reasons, of other issuers or of attributes, which are not enough or not understood.
    fn read(point: &IssuingDistributionPoint<'_>) -> Option<Scope> {
        if point.indirect_crl || point.only_contains_attribute_certs || point.only_some_reasons.is_some() {
            return None;
        }
        let points = match &point.distribution_point {
            None => Vec::new(),
            Some(name) => Some(urls(name)).filter(|urls| !urls.is_empty())?,
        };
        Some(Scope {
            only_users: point.only_contains_user_certs,
            only_cas: point.only_contains_ca_certs,
            points,
        })
    }

    fn includes(&self, cert: &X509Certificate<'_>) -> bool {
        let ca = matches!(cert.basic_constraints(), Ok(Some(basic)) if basic.value.ca);
        if if ca { self.only_users } else { self.only_cas } {
            return false;
        }
        let is_ours =
            |name: &DistributionPointName<'_>| urls(name).iter().any(|url| self.points.contains(url));
        self.points.is_empty()
            || cert.extensions().iter().any(|e| match e.parsed_extension() {
                ParsedExtension::CRLDistributionPoints(list) => list.points.iter().any(|point| {
                    point.crl_issuer.is_none()
                        && point.reasons.is_none()
                        && point.distribution_point.as_ref().is_some_and(is_ours)
                }),
                _ => false,
            })
    }
}

fn urls(name: &DistributionPointName<'_>) -> Vec<Vec<u8>> {
    let DistributionPointName::FullName(names) = name else { return Vec::new() };
    let url = |name: &GeneralName<'_>| match name {
        GeneralName::URI(url) => Some(url.as_bytes().to_vec()),
        _ => None,
    };
    names.iter().filter_map(url).collect()
}

fn bare(serial: &[u8]) -> Vec<u8> {
    serial.iter().copied().skip_while(|b| *b == 0).collect()
}
