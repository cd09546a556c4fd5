//! Signatures in X.509 structures (RFC 5280 section 4.1.1).

use super::der;
use rustls::pki_types::SignatureVerificationAlgorithm;

/// The part signed, the algorithm's identifier and the signature of a certificate or revocation list.
pub fn signed_parts(der: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (body, _) = der::tagged(der::SEQUENCE, der)?;
    let message = der::first(body)?;
    let (algorithm, rest) = der::tagged(der::SEQUENCE, body.get(message.len()..)?)?;
    let (_, bits, _) = der::element(rest)?;
    Some((message, algorithm, bits.strip_prefix(&[0])?))
}

/// The algorithm's identifier and the key of a SubjectPublicKeyInfo.
pub fn key_parts(spki: &[u8]) -> Option<(&[u8], &[u8])> {
    let (body, _) = der::tagged(der::SEQUENCE, spki)?;
    let (algorithm, rest) = der::tagged(der::SEQUENCE, body)?;
    let (_, bits, _) = der::element(rest)?;
    Some((algorithm, bits.strip_prefix(&[0])?))
}

pub fn verify_signed(
    algorithms: &[&dyn SignatureVerificationAlgorithm],
    spki: &[u8],
    signature_algorithm: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    let Some((key_algorithm, key)) = key_parts(spki) else { return false };
    algorithms
        .iter()
        .filter(|a| {
            a.signature_alg_id().as_ref() == signature_algorithm
                && a.public_key_alg_id().as_ref() == key_algorithm
        })
        .any(|a| a.verify_signature(key, message, signature).is_ok())
}

/// Signed with MD5 or SHA-1: OpenSSL's security level 2 has none of it.
pub fn is_weak(der: &[u8]) -> bool {
    let Some((_, algorithm, _)) = signed_parts(der) else { return false };
    let Some((oid, _)) = der::tagged(der::OID, algorithm) else { return false };
    const RSA_PKCS1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];
    oid == ECDSA_SHA1 || matches!(oid.strip_prefix(RSA_PKCS1), Some([2..=5]))
}
