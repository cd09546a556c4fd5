//! Whether a response is to be believed: who signed it, and when (RFC 6960 section 3.2, as `OCSP_basic_verify()` and
//! `OCSP_check_validity()` see it).

use super::request::sha1;
use super::response::{Basic, ResponderId, Single, time};
use crate::tls::dn;
use crate::tls::signed::signed_parts;
use crate::tls::verdict::VerifyError;
use crate::tls::verify::PathVerifier;
use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use std::fmt;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

/// Whose signature will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Any certificate's that comes along (`ssl_stapling_verify off`).
    Anyone,
    /// That of a certificate of the chain at hand, or else one with a path to an anchor (`ssl_stapling_verify on`).
    Chain,
    /// One with a path to an anchor (`ssl_ocsp`).
    Path,
}

/// Why a response is not believed, in OpenSSL's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unbelievable {
    NoSigner,
    Signature,
    Path(VerifyError),
    /// Signed by somebody who is neither the issuer nor charged by it; whether by one of the issuer's certificates.
    NotTrusted {
        issued: bool,
    },
}

impl fmt::Display for Unbelievable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OCSP_basic_verify() failed (SSL:")?;
        match self {
            Unbelievable::NoSigner => {
                f.write_str(" error:13800076:OCSP routines::signer certificate not found")?
            }
            Unbelievable::Signature => f.write_str(" error:13800075:OCSP routines::signature failure")?,
            Unbelievable::Path(e) => write!(
                f,
                " error:13800065:OCSP routines::certificate verify error:Verify error: {}",
                e.reason()
            )?,
            Unbelievable::NotTrusted { issued } => {
                if *issued {
                    f.write_str(" error:13800067:OCSP routines::missing ocspsigning usage")?;
                }
                f.write_str(" error:13800070:OCSP routines::root ca not trusted")?;
            }
        }
        f.write_str(")")
    }
}

/// Checks who signed a response. `chain` is what is known already, beside what comes with the response; `now` is
/// seconds since 1970.
///
/// # Errors
/// What OpenSSL has against it.
pub fn signer(
    basic: &Basic<'_>,
    chain: &[CertificateDer<'_>],
    verifier: &PathVerifier,
    trust: Trust,
    now: i64,
) -> Result<(), Unbelievable> {
    let known = chain.iter().map(|c| (c.as_ref(), true));
    let mut candidates = known.chain(basic.certificates.iter().map(|c| (*c, false)));
    let found = candidates.find_map(|(der, known)| {
        let (_, cert) = X509Certificate::from_der(der).ok()?;
        is_named(&cert, basic.responder).then_some((der, cert, known))
    });
    let (der, cert, known) = found.ok_or(Unbelievable::NoSigner)?;
    let (message, algorithm, signature) = signed_parts(basic.der).ok_or(Unbelievable::Signature)?;
    if !verifier.signed(&cert, algorithm, message, signature) {
        return Err(Unbelievable::Signature);
    }
    if trust == Trust::Anyone || (trust == Trust::Chain && known) {
        return Ok(());
    }
    let mut untrusted = vec![CertificateDer::from(der)];
    untrusted.extend(basic.certificates.iter().map(|c| CertificateDer::from(*c)));
    untrusted.extend(chain.iter().map(|c| CertificateDer::from(c.as_ref())));
    let path = verifier.path(&untrusted, now).map_err(Unbelievable::Path)?;
    is_entitled(&cert, path.get(1), basic)
}

fn is_named(cert: &X509Certificate<'_>, id: ResponderId<'_>) -> bool {
    match id {
        ResponderId::Name(name) => X509Name::from_der(name)
            .is_ok_and(|(_, name)| dn::canonical(&name) == dn::canonical(cert.subject())),
        ResponderId::Key(hash) => sha1(&cert.public_key().subject_public_key.data) == hash,
    }
}

/// The issuer of the certificates asked about, or somebody with a certificate of the issuer that says so
/// (RFC 6960 section 4.2.2.2).
fn is_entitled(
    cert: &X509Certificate<'_>,
    above: Option<&CertificateDer<'_>>,
    basic: &Basic<'_>,
) -> Result<(), Unbelievable> {
    if let Some((_, above)) = above.and_then(|der| X509Certificate::from_der(der).ok())
        && is_issuer(&above, basic)
    {
        let charged = matches!(cert.extended_key_usage(), Ok(Some(usage)) if usage.value.ocsp_signing);
        return if charged { Ok(()) } else { Err(Unbelievable::NotTrusted { issued: true }) };
    }
    match is_issuer(cert, basic) {
        true => Ok(()),
        false => Err(Unbelievable::NotTrusted { issued: false }),
    }
}

/// Whether a certificate is the issuer in everything that a response says.
fn is_issuer(cert: &X509Certificate<'_>, basic: &Basic<'_>) -> bool {
    let is = |single: &Single<'_>| {
        let Some(algorithm) = hash(single.hash) else { return false };
        let same = |bytes: &[u8], wanted: &[u8]| digest::digest(algorithm, bytes).as_ref() == wanted;
        same(cert.subject().as_raw(), single.name_hash)
            && same(&cert.public_key().subject_public_key.data, single.key_hash)
    };
    !basic.singles.is_empty() && basic.singles.iter().all(is)
}

fn hash(oid: &[u8]) -> Option<&'static digest::Algorithm> {
    const SHA2: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2];
    match oid.strip_prefix(SHA2) {
        Some([1]) => Some(&digest::SHA256),
        Some([2]) => Some(&digest::SHA384),
        Some([3]) => Some(&digest::SHA512),
        _ => (oid == super::request::SHA1).then_some(&digest::SHA1_FOR_LEGACY_USE_ONLY),
    }
}

/// Seconds by which clocks may differ.
const SLACK: i64 = 300;

/// Checks that what is said of a certificate is of now; returns until when it may be relied on, if it says so.
///
/// # Errors
/// nginx's words.
pub fn is_timely(single: &Single<'_>, now: i64) -> Result<Option<i64>, &'static str> {
    macro_rules! failed {
        ($ssl:literal) => {
            concat!("OCSP_check_validity() failed (SSL: error:138000", $ssl, ")")
        };
    }
    let this = time(single.this_update).ok_or(failed!("7B:OCSP routines::error in thisupdate field"))?;
    if this > now + SLACK {
        return Err(failed!("7E:OCSP routines::status not yet valid"));
    }
    let Some(next) = single.next_update else { return Ok(None) };
    let next = time(next).ok_or(failed!("7A:OCSP routines::error in nextupdate field"))?;
    if next < now - SLACK {
        return Err(failed!("7D:OCSP routines::status expired"));
    }
    if next < this {
        return Err(failed!("7C:OCSP routines::nextupdate before thisupdate"));
    }
    Ok(Some(next))
}
