//! Private keys under a password: PKCS#8 with PBES2 (RFC 8018 section 6.2) and OpenSSL's older PEM encryption
//! (RFC 1421 headers), both with AES in CBC mode.

use super::der::{self, INTEGER, OCTET_STRING, OID, SEQUENCE};
use super::pem::Block;
use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, Algorithm, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::pbkdf2;
use md5::{Digest, Md5};
use std::num::NonZeroU32;

/// Why an encrypted key stays closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncryptedError {
    /// The password is wrong, or the data damaged.
    BadDecrypt,
    /// Not one of the ciphers and key derivations this program has.
    Unsupported,
}

/// A key found behind a password.
pub enum Opened {
    /// The content of a `PRIVATE KEY` block.
    Pkcs8(Vec<u8>),
    /// The content of the block as it would be without encryption.
    Same(Vec<u8>),
}

/// Whether the block needs a password.
pub fn is_encrypted(block: &Block) -> bool {
    block.label == "ENCRYPTED PRIVATE KEY"
        || header(block, "Proc-Type").is_some_and(|v| v.ends_with("ENCRYPTED"))
}

/// Opens the block with one password.
pub fn open(block: &Block, password: &[u8]) -> Result<Opened, EncryptedError> {
    if block.label == "ENCRYPTED PRIVATE KEY" {
        return pbes2(&block.der, password).map(Opened::Pkcs8);
    }
    let (name, iv) =
        header(block, "DEK-Info").and_then(|v| v.split_once(',')).ok_or(EncryptedError::Unsupported)?;
    let cipher = match name {
        "AES-128-CBC" => &AES_128,
        "AES-192-CBC" => &AES_192,
        "AES-256-CBC" => &AES_256,
        _ => return Err(EncryptedError::Unsupported),
    };
    let iv = hex(iv).ok_or(EncryptedError::BadDecrypt)?;
    let salt = iv.get(..8).ok_or(EncryptedError::BadDecrypt)?;
    let key = bytes_to_key(password, salt, key_len(cipher));
    decrypt(cipher, &key, &iv, &block.der).map(Opened::Same)
}

fn header<'a>(block: &'a Block, name: &str) -> Option<&'a str> {
    block.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    let digits = digits.filter(|d| d.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|p| p[0] << 4 | p[1]).collect())
}

fn key_len(cipher: &'static Algorithm) -> usize {
    match cipher {
        c if *c == AES_128 => 16,
        c if *c == AES_192 => 24,
        _ => 32,
    }
}

/// OpenSSL's `EVP_BytesToKey()` with MD5 and one round.
fn bytes_to_key(password: &[u8], salt: &[u8], len: usize) -> Vec<u8> {
    let mut key = Vec::new();
    let mut last: Vec<u8> = Vec::new();
    while key.len() < len {
        let mut md5 = Md5::new();
        md5.update(&last);
        md5.update(password);
        md5.update(salt);
        last = md5.finalize().to_vec();
        key.extend_from_slice(&last);
    }
    key.truncate(len);
    key
}

fn decrypt(
    cipher: &'static Algorithm,
    key: &[u8],
    iv: &[u8],
    data: &[u8],
) -> Result<Vec<u8>, EncryptedError> {
    let bad = |_| EncryptedError::BadDecrypt;
    let iv: [u8; 16] = iv.try_into().map_err(|_| EncryptedError::BadDecrypt)?;
    let key = UnboundCipherKey::new(cipher, key).map_err(bad)?;
    let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).map_err(bad)?;
    let mut buffer = data.to_vec();
    let plain = key.decrypt(&mut buffer, DecryptionContext::Iv128(FixedLength::from(iv))).map_err(bad)?;
    Ok(plain.to_vec())
}

/// EncryptedPrivateKeyInfo (RFC 5208 section 6) to PrivateKeyInfo.
fn pbes2(der: &[u8], password: &[u8]) -> Result<Vec<u8>, EncryptedError> {
    let p = Pbes2::parse(der).ok_or(EncryptedError::Unsupported)?;
    let mut key = vec![0; key_len(p.cipher)];
    pbkdf2::derive(p.hash, p.rounds, p.salt, password, &mut key);
    decrypt(p.cipher, &key, p.iv, p.data)
}

struct Pbes2<'a> {
    hash: pbkdf2::Algorithm,
    rounds: NonZeroU32,
    salt: &'a [u8],
    cipher: &'static Algorithm,
    iv: &'a [u8],
    data: &'a [u8],
}

const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
const PBKDF2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c];
/// id-hmacWith...; the last byte tells the hash.
const HMAC: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02];
/// The arc of the AES object identifiers; the last byte tells key size and mode.
const AES: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01];
/// More rounds than this would only serve to keep the start busy.
const MAX_ROUNDS: u32 = 50_000_000;

// === impl Pbes2 ===

impl<'a> Pbes2<'a> {
    fn parse(der: &'a [u8]) -> Option<Self> {
        let (info, _) = der::tagged(SEQUENCE, der)?;
        let (algorithm, info) = der::tagged(SEQUENCE, info)?;
        let (data, _) = der::tagged(OCTET_STRING, info)?;
        let (oid, algorithm) = der::tagged(OID, algorithm)?;
        let (parameters, _) = der::tagged(SEQUENCE, algorithm)?;
        if oid != PBES2 {
            return None;
        }
        let (kdf, parameters) = der::tagged(SEQUENCE, parameters)?;
        let (scheme, _) = der::tagged(SEQUENCE, parameters)?;

        let (oid, scheme) = der::tagged(OID, scheme)?;
        let (iv, _) = der::tagged(OCTET_STRING, scheme)?;
        let cipher = match oid.strip_prefix(AES)? {
            [2] => &AES_128,
            [22] => &AES_192,
            [42] => &AES_256,
            _ => return None,
        };

        let (oid, kdf) = der::tagged(OID, kdf)?;
        let (kdf, _) = der::tagged(SEQUENCE, kdf)?;
        if oid != PBKDF2 {
            return None;
        }
        let (salt, kdf) = der::tagged(OCTET_STRING, kdf)?;
        let (rounds, mut kdf) = der::tagged(INTEGER, kdf)?;
        let rounds = NonZeroU32::new(der::small(rounds)?).filter(|n| n.get() <= MAX_ROUNDS)?;
        if let Some((_key_length, rest)) = der::tagged(INTEGER, kdf) {
            kdf = rest;
        }
        let hash = match der::tagged(SEQUENCE, kdf) {
            None => pbkdf2::PBKDF2_HMAC_SHA1,
            Some((prf, _)) => match der::tagged(OID, prf)?.0.strip_prefix(HMAC)? {
                [7] => pbkdf2::PBKDF2_HMAC_SHA1,
                [9] => pbkdf2::PBKDF2_HMAC_SHA256,
                [10] => pbkdf2::PBKDF2_HMAC_SHA384,
                [11] => pbkdf2::PBKDF2_HMAC_SHA512,
                _ => return None,
            },
        };
        Some(Pbes2 { hash, rounds, salt, cipher, iv, data })
    }
}
