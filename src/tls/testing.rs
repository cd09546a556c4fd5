//! Certificates and OCSP responses made as tests need them.

use super::der;
use super::ocsp::response::Status;
use super::signed::key_parts;
use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A key and a certificate for it.
pub struct Made {
    key: EcdsaKeyPair,
    pub cert: CertificateDer<'static>,
}

/// What is to stand in a certificate.
pub struct Wish<'a> {
    pub subject: &'a str,
    pub serial: u8,
    /// Made by [`extension`].
    pub extensions: &'a [Vec<u8>],
    /// UTCTime.
    pub from: &'a str,
    pub to: &'a str,
}

impl Default for Wish<'_> {
    fn default() -> Self {
        Wish { subject: "x", serial: 1, extensions: &[], from: "200101000000Z", to: "491231000000Z" }
    }
}

pub fn seq(parts: &[&[u8]]) -> Vec<u8> {
    der::encode(der::SEQUENCE, parts)
}

fn oid(content: &[u8]) -> Vec<u8> {
    der::encode(der::OID, &[content])
}

/// An extension of id-ce (`[0x55, 0x1d, N]`) or any other object identifier.
pub fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
    seq(&[&oid(id), critical, &der::encode(der::OCTET_STRING, &[value])])
}

/// basicConstraints of a CA; with or without a limit of the path's length.
pub fn ca(limit: Option<u8>) -> Vec<u8> {
    let limit = limit.map(|n| vec![2, 1, n]).unwrap_or_default();
    extension(&[0x55, 0x1d, 19], true, &seq(&[&[1, 1, 0xff], &limit]))
}

/// keyUsage: certificate signing is 4, revocation list signing 2, digital signature 0x80.
pub fn key_usage(bits: u8) -> Vec<u8> {
    extension(&[0x55, 0x1d, 15], true, &[3, 2, 0, bits])
}

/// extKeyUsage of one of id-kp.
pub fn usage(kp: u8) -> Vec<u8> {
    extension(&[0x55, 0x1d, 37], false, &seq(&[&oid(&[0x2b, 6, 1, 5, 5, 7, 3, kp])]))
}

/// authorityInfoAccess with a responder.
pub fn responder(url: &str) -> Vec<u8> {
    let url = der::encode(0x86, &[url.as_bytes()]);
    let access = seq(&[&oid(&[0x2b, 6, 1, 5, 5, 7, 0x30, 1]), &url]);
    extension(&[0x2b, 6, 1, 5, 5, 7, 1, 1], false, &seq(&[&access]))
}

fn name(text: &str) -> Vec<u8> {
    let attribute = seq(&[&oid(&[0x55, 4, 3]), &der::encode(0x0c, &[text.as_bytes()])]);
    seq(&[&der::encode(0x31, &[&attribute])])
}

/// ecdsa-with-SHA256
const ALGORITHM: &[u8] = &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
/// id-ecPublicKey on P-256
const EC: &[u8] =
    &[0x30, 19, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];

fn bits(content: &[u8]) -> Vec<u8> {
    der::encode(der::BIT_STRING, &[&[0], content])
}

fn signed(key: &EcdsaKeyPair, message: &[u8], more: &[u8]) -> Vec<u8> {
    let signature = key.sign(&SystemRandom::new(), message).unwrap();
    seq(&[message, ALGORITHM, &bits(signature.as_ref()), more])
}

// === impl Made ===

impl Made {
    /// A self-signed certificate.
    pub fn root(wish: &Wish<'_>) -> Made {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let cert = certificate(&key, wish.subject, &key, wish);
        Made { key, cert }
    }

    /// A certificate by this one.
    pub fn issue(&self, wish: &Wish<'_>) -> Made {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let cert = certificate(&self.key, &self.subject(), &key, wish);
        Made { key, cert }
    }

    /// A revocation list of serial numbers, from 2020 to 2049 but for years to add.
    pub fn crl(&self, years: u8, revoked: &[u8], extensions: &[Vec<u8>]) -> Vec<u8> {
        let time = |year: u8| der::encode(0x17, &[format!("{year:02}0101000000Z").as_bytes()]);
        let revoked: Vec<_> = revoked.iter().map(|serial| seq(&[&[2, 1, *serial], &time(20)])).collect();
        let revoked = match revoked.as_slice() {
            [] => Vec::new(),
            list => seq(&list.iter().map(Vec::as_slice).collect::<Vec<_>>()),
        };
        let extensions = match extensions {
            [] => Vec::new(),
            list => der::encode(0xa0, &[&seq(&list.iter().map(Vec::as_slice).collect::<Vec<_>>())]),
        };
        let parts = [
            &[2, 1, 1],
            ALGORITHM,
            &name(&self.subject()),
            &time(20 + years),
            &time(49),
            &revoked,
            &extensions,
        ];
        signed(&self.key, &seq(&parts), &[])
    }

    fn subject(&self) -> String {
        let (_, cert) = X509Certificate::from_der(&self.cert).unwrap();
        cert.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned()
    }

    /// For handshakes, with more certificates behind the own one.
    pub fn certified(&self, chain: &[&Made]) -> CertifiedKey {
        let key = PrivateKeyDer::Pkcs8(self.key.to_pkcs8v1().unwrap().as_ref().to_vec().into());
        let chain = std::iter::once(self).chain(chain.iter().copied()).map(|m| m.cert.clone()).collect();
        CertifiedKey::new(chain, any_supported_type(&key).unwrap())
    }

    /// The same as PEM for settings: certificates and key.
    pub fn pems(&self, chain: &[&Made]) -> (String, String) {
        let chain = std::iter::once(self).chain(chain.iter().copied());
        let chain: String = chain.map(|m| super::pem::encode("CERTIFICATE", &m.cert)).collect();
        let key = super::pem::encode("PRIVATE KEY", self.key.to_pkcs8v1().unwrap().as_ref());
        (chain, key)
    }
}

fn certificate(
    issuer: &EcdsaKeyPair,
    by: &str,
    key: &EcdsaKeyPair,
    wish: &Wish<'_>,
) -> CertificateDer<'static> {
    let spki = seq(&[EC, &bits(key.public_key().as_ref())]);
    let time = |t: &str| der::encode(0x17, &[t.as_bytes()]);
    let extensions: Vec<&[u8]> = wish.extensions.iter().map(Vec::as_slice).collect();
    let extensions = match extensions.as_slice() {
        [] => Vec::new(),
        list => der::encode(0xa3, &[&seq(list)]),
    };
    let version: &[u8] = if extensions.is_empty() { &[] } else { &[0xa0, 3, 2, 1, 2] };
    let tbs = seq(&[
        version,
        &der::encode(der::INTEGER, &[&[wish.serial]]),
        ALGORITHM,
        &name(by),
        &seq(&[&time(wish.from), &time(wish.to)]),
        &name(wish.subject),
        &spki,
        &extensions,
    ]);
    CertificateDer::from(signed(issuer, &tbs, &[]))
}

/// What a responder is to say.
pub struct Say<'a> {
    /// The certificates asked about, with what is said of them.
    pub about: &'a [(&'a Made, Status)],
    pub issuer: &'a Made,
    pub signer: &'a Made,
    /// Certificates to come along.
    pub with: &'a [&'a Made],
    /// The signer is named by its key rather than by its name.
    pub by_key: bool,
    /// GeneralizedTime.
    pub this: &'a str,
    pub next: Option<&'a str>,
}

impl Say<'_> {
    /// An OCSPResponse.
    pub fn response(&self) -> Vec<u8> {
        let sha1 = |b: &[u8]| {
            let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, b);
            der::encode(der::OCTET_STRING, &[hash.as_ref()])
        };
        let time = |t: &str| der::encode(der::GENERALIZED_TIME, &[t.as_bytes()]);
        let parse = |made: &Made, f: &mut dyn FnMut(&X509Certificate<'_>)| {
            f(&X509Certificate::from_der(&made.cert).unwrap().1);
        };
        let (mut issuer_name, mut issuer_key) = (Vec::new(), Vec::new());
        parse(self.issuer, &mut |c| {
            issuer_name = sha1(c.subject().as_raw());
            issuer_key = sha1(key_parts(c.public_key().raw).unwrap().1);
        });
        let mut singles = Vec::new();
        for (made, status) in self.about {
            let mut serial = Vec::new();
            parse(made, &mut |c| serial = der::encode(der::INTEGER, &[c.raw_serial()]));
            let hash = seq(&[&oid(&[0x2b, 0x0e, 3, 2, 0x1a]), &[5, 0]]);
            let status = match status {
                Status::Good => vec![0x80, 0],
                Status::Revoked => der::encode(0xa1, &[&time("20200101000000Z")]),
                Status::Unknown => vec![0x82, 0],
            };
            let next = self.next.map(|next| der::encode(0xa0, &[&time(next)])).unwrap_or_default();
            let id = seq(&[&hash, &issuer_name, &issuer_key, &serial]);
            singles.push(seq(&[&id, &status, &time(self.this), &next]));
        }
        let mut id = Vec::new();
        parse(self.signer, &mut |c| {
            id = match self.by_key {
                true => der::encode(0xa2, &[&sha1(key_parts(c.public_key().raw).unwrap().1)]),
                false => der::encode(0xa1, &[c.subject().as_raw()]),
            };
        });
        let singles = seq(&singles.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let data = seq(&[&id, &time("20200101000000Z"), &singles]);
        let with: Vec<&[u8]> = self.with.iter().map(|m| m.cert.as_ref()).collect();
        let with = if with.is_empty() { Vec::new() } else { der::encode(0xa0, &[&seq(&with)]) };
        let basic = signed(&self.signer.key, &data, &with);
        let basic = der::encode(der::OCTET_STRING, &[&basic]);
        let typed = seq(&[&oid(&[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1]), &basic]);
        seq(&[&[0x0a, 1, 0], &der::encode(0xa0, &[&typed])])
    }
}
