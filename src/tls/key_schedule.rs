//! What TLS 1.3 derives its keys with (RFC 8446, section 7.1): HKDF (RFC 5869).
//!
//! A handshake derives some thirty values from ten secrets. rustls' own way through aws-lc takes a secret in anew for
//! each, extraction included; here that is done once a secret.

use std::sync::LazyLock;

use aws_lc_rs::hmac::{self, HMAC_SHA256, HMAC_SHA384};
use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
use rustls::crypto::hash::HashAlgorithm;
use rustls::crypto::hmac::Tag;
use rustls::crypto::tls13::{Hkdf, HkdfExpander, OkmBlock, OutputLengthError};
use rustls::{CipherSuiteCommon, SupportedCipherSuite, Tls13CipherSuite};

/// The suites of TLSv1.3 that there are, with the key schedule of this module.
pub(super) fn suites() -> impl Iterator<Item = SupportedCipherSuite> {
    static SUITES: LazyLock<Vec<Tls13CipherSuite>> = LazyLock::new(|| {
        ALL_CIPHER_SUITES.iter().filter_map(|suite| with_schedule(suite.tls13()?)).collect()
    });
    SUITES.iter().map(SupportedCipherSuite::Tls13)
}

fn with_schedule(suite: &Tls13CipherSuite) -> Option<Tls13CipherSuite> {
    let CipherSuiteCommon { suite: name, hash_provider, confidentiality_limit } = suite.common;
    let hkdf_provider = match hash_provider.algorithm() {
        HashAlgorithm::SHA256 => &Schedule(HMAC_SHA256),
        HashAlgorithm::SHA384 => &Schedule(HMAC_SHA384),
        _ => return None,
    };
    let common = CipherSuiteCommon { suite: name, hash_provider, confidentiality_limit };
    Some(Tls13CipherSuite { common, hkdf_provider, aead_alg: suite.aead_alg, quic: suite.quic })
}

/// HKDF over an HMAC (RFC 2104).
struct Schedule(hmac::Algorithm);

impl Schedule {
    fn len(&self) -> usize {
        self.0.digest_algorithm().output_len()
    }

    fn keyed(&self, key: &[u8]) -> Secret {
        Secret(hmac::Key::new(self.0, key))
    }

    /// `HKDF-Extract` (RFC 5869, section 2.2).
    fn extract(&self, salt: Option<&[u8]>, secret: &[u8]) -> Box<dyn HkdfExpander> {
        // As many zeros as a hash has stand for no salt; HMAC fills short keys up with zeros.
        let key = self.keyed(salt.unwrap_or_default()).sign([secret]);
        Box::new(self.keyed(key.as_ref()))
    }
}

impl Hkdf for Schedule {
    fn extract_from_zero_ikm(&self, salt: Option<&[u8]>) -> Box<dyn HkdfExpander> {
        self.extract(salt, &[0; Tag::MAX_LEN][..self.len()])
    }

    fn extract_from_secret(&self, salt: Option<&[u8]>, secret: &[u8]) -> Box<dyn HkdfExpander> {
        self.extract(salt, secret)
    }

    fn expander_for_okm(&self, okm: &OkmBlock) -> Box<dyn HkdfExpander> {
        Box::new(self.keyed(okm.as_ref()))
    }

    fn hmac_sign(&self, key: &OkmBlock, message: &[u8]) -> Tag {
        Tag::new(self.keyed(key.as_ref()).sign([message]).as_ref())
    }
}

/// A secret that values are derived from (`PRK` of RFC 5869, section 2.3), taken in as the key of its HMAC.
struct Secret(hmac::Key);

impl Secret {
    /// The HMAC of `parts`, one after the other.
    fn sign<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        parts.into_iter().for_each(|part| context.update(part));
        context.sign()
    }
}

impl HkdfExpander for Secret {
    fn expand_slice(&self, info: &[&[u8]], output: &mut [u8]) -> Result<(), OutputLengthError> {
        let mut previous = None;
        for (index, chunk) in output.chunks_mut(self.hash_len()).enumerate() {
            let number = [u8::try_from(index + 1).map_err(|_| OutputLengthError)?];
            let before = previous.as_ref().map(hmac::Tag::as_ref);
            let value = self.sign(before.into_iter().chain(info.iter().copied()).chain([&number[..]]));
            chunk.copy_from_slice(&value.as_ref()[..chunk.len()]);
            previous = Some(value);
        }
        Ok(())
    }

    fn expand_block(&self, info: &[&[u8]]) -> OkmBlock {
        OkmBlock::new(self.sign(info.iter().copied().chain([&[1][..]])).as_ref())
    }

    fn hash_len(&self) -> usize {
        self.0.algorithm().digest_algorithm().output_len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::CipherSuite;

    fn hex(text: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(digit).collect()
    }

    #[test]
    fn rfc_5869_a1() {
        let salt = hex("000102030405060708090a0b0c");
        let secret = Schedule(HMAC_SHA256).extract_from_secret(Some(&salt), &[0x0b; 22]);
        let mut okm = [0; 42];
        let info = hex("f0f1f2f3f4f5f6f7f8f9");
        secret.expand_slice(&[&info[..4], &info[4..]], &mut okm).unwrap();
        let expected =
            hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
        assert_eq!(okm[..], expected);
        assert!(secret.expand_slice(&[], &mut [0; 255 * 32]).is_ok());
        assert!(secret.expand_slice(&[], &mut [0; 255 * 32 + 1]).is_err());
    }

    /// Everything is what rustls' own provider makes of it.
    #[test]
    fn it_agrees_with_the_library() {
        let own: Vec<_> = suites().collect();
        let all: Vec<_> = ALL_CIPHER_SUITES.iter().filter_map(|suite| suite.tls13()).collect();
        assert_eq!(own.len(), all.len());
        for (own, theirs) in own.iter().map(|suite| suite.tls13().unwrap()).zip(all) {
            assert_eq!(own.common.suite, theirs.common.suite);
            assert_eq!(own.common.confidentiality_limit, theirs.common.confidentiality_limit);
            let values = |suite: &Tls13CipherSuite| {
                let (hash, hkdf) = (suite.common.hash_provider, suite.hkdf_provider);
                let mut values = vec![hash.hash(b"").as_ref().to_vec()];
                let zero = hkdf.extract_from_zero_ikm(None);
                let salted = hkdf.extract_from_zero_ikm(Some(b"salt"));
                let unsalted = hkdf.extract_from_secret(None, &[3; 32]);
                let block = zero.expand_block(&[b"first ", b"second"]);
                let again = hkdf.expander_for_okm(&block);
                let long = hkdf.expander_for_okm(&OkmBlock::new(&[7; 64]));
                for secret in [zero, salted, unsalted, again, long] {
                    for len in [1, 12, 32, 48, 49, 200] {
                        let mut value = vec![0; len];
                        secret.expand_slice(&[b"info", b"", b"more"], &mut value).unwrap();
                        values.push(value);
                    }
                    values.push(secret.expand_block(&[b"info"]).as_ref().to_vec());
                    assert_eq!(secret.hash_len(), hash.output_len());
                }
                values.push(hkdf.hmac_sign(&block, b"message").as_ref().to_vec());
                (values, hash.output_len(), hash.algorithm())
            };
            assert_eq!(values(own), values(theirs), "{:?}", own.common.suite);
        }
        assert!(own.iter().any(|suite| suite.suite() == CipherSuite::TLS13_AES_256_GCM_SHA384));
    }
}
