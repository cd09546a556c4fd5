//! The signature by which a peer proves in a handshake that a certificate's key is its own (RFC 8446 section 4.4.3,
//! RFC 5246 section 7.4.8). It is checked whatever is thought of the certificate, X.509 v1 included.

use super::signed::key_parts;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use rustls::{CertificateError, DigitallySignedStruct, Error};
use x509_parser::prelude::{FromDer, X509Certificate};

fn bad(e: CertificateError) -> Error {
    Error::InvalidCertificate(e)
}

fn spki<'a>(cert: &'a CertificateDer<'_>) -> Result<&'a [u8], Error> {
    match X509Certificate::from_der(cert.as_ref()) {
        // Bytes behind a certificate would change its fingerprint and nothing else.
        Ok(([], parsed)) => Ok(parsed.tbs_certificate.subject_pki.raw),
        _ => Err(bad(CertificateError::BadEncoding)),
    }
}

pub fn tls12(
    provider: &CryptoProvider,
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let (algorithm, key) = key_parts(spki(cert)?).ok_or_else(|| bad(CertificateError::BadEncoding))?;
    let supported = &provider.signature_verification_algorithms;
    let fitting = supported
        .mapping
        .iter()
        .filter(|(scheme, _)| *scheme == dss.scheme)
        .flat_map(|(_, algorithms)| algorithms.iter())
        .filter(|a| a.public_key_alg_id().as_ref() == algorithm);
    for candidate in fitting {
        if candidate.verify_signature(key, message, dss.signature()).is_ok() {
            return Ok(HandshakeSignatureValid::assertion());
        }
    }
    Err(bad(CertificateError::BadSignature))
}

pub fn tls13(
    provider: &CryptoProvider,
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let spki = SubjectPublicKeyInfoDer::from(spki(cert)?);
    verify_tls13_signature_with_raw_key(message, &spki, dss, &provider.signature_verification_algorithms)
}
