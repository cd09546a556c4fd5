//! Certificates, keys, revocation lists and secrets from files or from `data:` values of the configuration.
//!
//! Every name is a path as it is to be opened, or `data:` and the text itself; that of a key can be `store:` and a URI.

use super::der;
use super::encrypted::{self, EncryptedError, Opened};
use super::error::{Error, Object, fopen_failed};
use super::key_store;
use super::pem::{self, Block, PemError};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

const NO_START_LINE: &str = "error:0480006C:PEM routines::no start line:Expecting: ";
const NOT_A_KEY: &str =
    "error:1E08010C:DECODER routines::unsupported:No supported data to decode. Input type: PEM";
const BAD_PKCS8_PASSWORD: &str = "error:1C800064:Provider routines::bad decrypt \
    error:11800074:PKCS12 routines::pkcs12 cipherfinal error:maybe wrong password";
const BAD_PEM_PASSWORD: &str =
    "error:1C800064:Provider routines::bad decrypt error:04800065:PEM routines::bad decrypt";

/// A certificate chain, the leaf first, from PEM.
pub fn certificates(name: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let fail = |call: &str, ssl: &str| Error::Load {
        object: Object::Certificate,
        name: name.to_owned(),
        why: format!("{call}() failed (SSL: {ssl})"),
    };
    let text = contents(name, Object::Certificate)?;
    let mut chain = Vec::new();
    for block in pem::blocks(&text) {
        let call = if chain.is_empty() { "PEM_read_bio_X509_AUX" } else { "PEM_read_bio_X509" };
        let block = block.map_err(|e| fail(call, pem_error(e)))?;
        if is_certificate(&block) {
            let der = certificate(&block).ok_or_else(|| fail(call, &bad_asn1("X509")))?;
            chain.push(der);
        }
    }
    if chain.is_empty() {
        let ssl = format!("{NO_START_LINE}TRUSTED CERTIFICATE");
        return Err(fail("PEM_read_bio_X509_AUX", &ssl));
    }
    Ok(chain)
}

/// Revocation lists from PEM, as DER.
pub fn crls(name: &str) -> Result<Vec<Vec<u8>>, Error> {
    let fail = |ssl: &str| Error::Load {
        object: Object::Crl,
        name: name.to_owned(),
        why: format!("PEM_read_bio_X509_CRL() failed (SSL: {ssl})"),
    };
    let text = contents(name, Object::Crl)?;
    let mut list = Vec::new();
    for block in pem::blocks(&text) {
        let block = block.map_err(|e| fail(pem_error(e)))?;
        if block.label == "X509 CRL" {
            let whole = matches!(CertificateRevocationList::from_der(&block.der), Ok(([], _)));
            list.push(whole.then_some(block.der).ok_or_else(|| fail(&bad_asn1("X509_CRL")))?);
        }
    }
    match list.is_empty() {
        true => Err(fail(&format!("{NO_START_LINE}X509 CRL"))),
        false => Ok(list),
    }
}

/// A private key, PKCS#8, PKCS#1 or SEC1, and whether it is encrypted: `passwords` are then tried in turn.
pub fn private_key(name: &str, passwords: &[Vec<u8>]) -> Result<(PrivateKeyDer<'static>, bool), Error> {
    let failed = |why: String| Error::Load { object: Object::Key, name: name.to_owned(), why };
    if let Some(uri) = name.strip_prefix("store:") {
        return key_store::private_key(uri, passwords).map_err(failed);
    }
    if name.starts_with("engine:") {
        return Err(failed("loading \"engine:...\" certificate keys is not supported".to_owned()));
    }
    let fail = |ssl: &str| failed(format!("PEM_read_bio_PrivateKey() failed (SSL: {ssl})"));
    let text = contents(name, Object::Key)?;
    for block in pem::blocks(&text) {
        let block = block.map_err(|_| fail(NOT_A_KEY))?;
        if block.label.ends_with("PRIVATE KEY") {
            let key = of_block(block, passwords).map_err(|ssl| fail(&ssl))?;
            return key.ok_or_else(|| fail(NOT_A_KEY));
        }
    }
    Err(fail(NOT_A_KEY))
}

/// The key of a block and whether it is encrypted: `passwords` are then tried in turn. None where it is no key; an error
/// is OpenSSL's account.
pub(super) fn of_block(
    block: Block,
    passwords: &[Vec<u8>],
) -> Result<Option<(PrivateKeyDer<'static>, bool)>, String> {
    let encrypted = encrypted::is_encrypted(&block);
    let (label, der) = match encrypted {
        true => unlock(block, passwords)?,
        false => (block.label, block.der),
    };
    let key = match label.as_str() {
        "PRIVATE KEY" => PrivateKeyDer::Pkcs8(der.into()),
        "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(der.into()),
        "EC PRIVATE KEY" => PrivateKeyDer::Sec1(der.into()),
        _ => return Ok(None),
    };
    Ok(Some((key, encrypted)))
}

/// The complaint about what is no key.
pub(super) fn not_a_key(name: &str) -> Error {
    Error::Load {
        object: Object::Key,
        name: name.to_owned(),
        why: format!("PEM_read_bio_PrivateKey() failed (SSL: {NOT_A_KEY})"),
    }
}

/// The lines of an `ssl_password_file`, without empty ones; at least one password, be it empty.
pub fn passwords(path: &str) -> Result<Vec<Vec<u8>>, Error> {
    let mut text = Vec::new();
    let failed = |call: &'static str| {
        move |e: std::io::Error| Error::Open {
            call,
            name: path.to_owned(),
            errno: e.raw_os_error().unwrap_or(libc::EIO),
        }
    };
    File::open(path).map_err(failed("open()"))?.read_to_end(&mut text).map_err(failed("read()"))?;
    let lines: Vec<Vec<u8>> = text
        .split(|b| *b == b'\n')
        .map(|l| l.strip_suffix(b"\r").unwrap_or(l).to_vec())
        .filter(|l| !l.is_empty())
        .collect();
    match lines {
        lines if lines.iter().any(|l| l.len() >= 512) => Err(Error::PasswordLine { name: path.to_owned() }),
        lines if lines.is_empty() => Ok(vec![Vec::new()]),
        lines => Ok(lines),
    }
}

/// A secret of any kind: all bytes of a file.
pub fn secret(path: &str) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|e| Error::Open {
        call: "open()",
        name: path.to_owned(),
        errno: e.raw_os_error().unwrap_or(libc::EIO),
    })
}

/// An OCSP response for `ssl_stapling_file`, as DER.
pub fn ocsp_response(path: &str) -> Result<Vec<u8>, Error> {
    let der = std::fs::read(path).map_err(|e| Error::Bio {
        call: "BIO_new_file",
        name: path.to_owned(),
        ssl: fopen_failed(path, "rb", &e),
    })?;
    match der::tagged(der::SEQUENCE, &der) {
        Some((body, _)) if !body.is_empty() => Ok(der),
        _ => Err(Error::Bio { call: "d2i_OCSP_RESPONSE_bio", name: path.to_owned(), ssl: String::new() }),
    }
}

/// A Diffie-Hellman parameter file: checked as nginx checks it. No suite here uses it.
pub fn dhparam(path: &str) -> Result<(), Error> {
    let text = std::fs::read(path).map_err(|e| Error::Bio {
        call: "BIO_new_file",
        name: path.to_owned(),
        ssl: fopen_failed(path, "r", &e),
    })?;
    let fail = |ssl: &str| Error::Bio {
        call: "PEM_read_bio_Parameters",
        name: path.to_owned(),
        ssl: ssl.to_owned(),
    };
    for block in pem::blocks(&text) {
        let block = block.map_err(|e| fail(pem_error(e)))?;
        if matches!(block.label.as_str(), "DH PARAMETERS" | "X9.42 DH PARAMETERS") {
            return Ok(());
        }
    }
    Err(fail(NOT_A_KEY))
}

fn unlock(block: Block, passwords: &[Vec<u8>]) -> Result<(String, Vec<u8>), String> {
    let pkcs8 = block.label == "ENCRYPTED PRIVATE KEY";
    let bad = if pkcs8 { BAD_PKCS8_PASSWORD } else { BAD_PEM_PASSWORD };
    if passwords.is_empty() {
        return Err("error:1400006B:UI routines::processing error:while reading strings \
                    error:0480006D:PEM routines::problems getting password"
            .to_owned());
    }
    let mut why = String::new();
    for password in passwords {
        match encrypted::open(&block, password) {
            Ok(Opened::Pkcs8(der)) => return Ok(("PRIVATE KEY".to_owned(), der)),
            // A wrong password can leave valid padding by chance; a key it is not.
            Ok(Opened::Same(der)) if der::tagged(der::SEQUENCE, &der).is_some() => {
                return Ok((block.label, der));
            }
            Ok(Opened::Same(_)) => why = bad.to_owned(),
            Err(EncryptedError::BadDecrypt) => why = bad.to_owned(),
            Err(EncryptedError::Unsupported) => {
                return Err("error:04800072:PEM routines::unsupported encryption".to_owned());
            }
        }
    }
    Err(why)
}

fn contents(name: &str, object: Object) -> Result<Cow<'_, [u8]>, Error> {
    if let Some(data) = name.strip_prefix("data:") {
        return Ok(Cow::Borrowed(data.as_bytes()));
    }
    match std::fs::read(name) {
        Ok(text) => Ok(Cow::Owned(text)),
        // fopen() succeeds on a directory: reading it then finds nothing.
        Err(e) if e.kind() == std::io::ErrorKind::IsADirectory => Ok(Cow::Owned(Vec::new())),
        Err(e) => Err(Error::Load {
            object,
            name: name.to_owned(),
            why: format!("BIO_new_file() failed (SSL: {})", fopen_failed(name, "r", &e)),
        }),
    }
}

fn is_certificate(block: &Block) -> bool {
    matches!(block.label.as_str(), "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE")
}

/// The certificate alone: `TRUSTED CERTIFICATE` has OpenSSL's notes on trust after it.
fn certificate(block: &Block) -> Option<CertificateDer<'static>> {
    let der = der::first(&block.der)?;
    X509Certificate::from_der(der).ok()?;
    (der.len() == block.der.len() || block.label == "TRUSTED CERTIFICATE")
        .then(|| CertificateDer::from(der.to_vec()))
}

fn pem_error(e: PemError) -> &'static str {
    match e {
        PemError::BadEndLine => "error:04800066:PEM routines::bad end line",
        PemError::BadBase64 => "error:04800064:PEM routines::bad base64 decode",
    }
}

pub(super) fn bad_asn1(what: &str) -> String {
    format!(
        "error:0688010A:asn1 encoding routines::nested asn1 error:Type={what} \
         error:0488000D:PEM routines::ASN1 lib"
    )
}

/// The subjectPublicKey of a SubjectPublicKeyInfo.
pub(super) fn spki_bits(spki: &[u8]) -> Option<&[u8]> {
    let (body, _) = der::tagged(der::SEQUENCE, spki)?;
    let (_, _, rest) = der::element(body)?;
    der::element(rest).map(|(_, bits, _)| bits)
}

#[cfg(test)]
mod tests {
    use super::super::objects::{Configured, Objects};
    use super::*;
    use rustls::sign::CertifiedKey;

    fn fixture(name: &str) -> String {
        format!("{}/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR"))
    }

    fn pair(cert: &str, key: &str) -> Result<CertifiedKey, Error> {
        Configured.certified_key(&fixture(cert), &fixture(key), &[])
    }

    #[test]
    fn loads_every_key_format() {
        for (cert, key) in [
            ("rsa.crt", "rsa.key"),
            ("rsa.crt", "rsa-pkcs1.key"),
            ("ecdsa.crt", "ecdsa.key"),
            ("ecdsa.crt", "ecdsa-sec1.key"),
            ("cn-chain.crt", "cn.key"),
        ] {
            pair(cert, key).unwrap();
        }
        assert_eq!(certificates(&fixture("cn-chain.crt")).unwrap().len(), 2);
        let text = std::fs::read_to_string(fixture("ecdsa.crt")).unwrap();
        assert_eq!(
            certificates(&format!("data:{text}")).unwrap(),
            certificates(&fixture("ecdsa.crt")).unwrap()
        );
        assert_eq!(crls(&fixture("ca.crl")).unwrap().len(), 1);
    }

    #[test]
    fn opens_encrypted_keys_with_one_of_the_passwords() {
        let words = [b"wrong".to_vec(), b"nxr".to_vec()];
        for (cert, key) in [("ecdsa.crt", "ecdsa-enc.key"), ("rsa.crt", "rsa-enc.key")] {
            Configured.certified_key(&fixture(cert), &fixture(key), &words).unwrap();
        }
        let e = private_key(&fixture("ecdsa-enc.key"), &words[..1]).unwrap_err().to_string();
        assert!(e.contains("pkcs12 cipherfinal error:maybe wrong password)"), "{e}");
        let e = private_key(&fixture("rsa-enc.key"), &words[..1]).unwrap_err().to_string();
        assert!(e.ends_with("error:04800065:PEM routines::bad decrypt)"), "{e}");
        let e = private_key(&fixture("rsa-enc.key"), &[]).unwrap_err().to_string();
        assert!(e.contains("problems getting password"), "{e}");
    }

    #[test]
    fn says_what_openssl_says() {
        assert_eq!(
            certificates("/nosuch.crt").unwrap_err().to_string(),
            "cannot load certificate \"/nosuch.crt\": BIO_new_file() failed (SSL: \
             error:80000002:system library::No such file or directory:calling fopen(/nosuch.crt, r) \
             error:10000080:BIO routines::no such file)"
        );
        assert_eq!(
            certificates("data:abc").unwrap_err().to_string(),
            "cannot load certificate \"data:abc\": PEM_read_bio_X509_AUX() failed (SSL: \
             error:0480006C:PEM routines::no start line:Expecting: TRUSTED CERTIFICATE)"
        );
        assert_eq!(
            private_key("data:abc", &[]).unwrap_err().to_string(),
            "cannot load certificate key \"data:abc\": PEM_read_bio_PrivateKey() failed (SSL: \
             error:1E08010C:DECODER routines::unsupported:No supported data to decode. Input type: PEM)"
        );
        let other = fixture("other.key");
        assert_eq!(
            pair("ecdsa.crt", "other.key").unwrap_err().to_string(),
            format!(
                "SSL_CTX_use_PrivateKey(\"{other}\") failed \
                 (SSL: error:05800074:x509 certificate routines::key values mismatch)"
            )
        );
        let text = std::fs::read_to_string(fixture("ecdsa.crt")).unwrap();
        let cut = format!("data:{text}{}", &text[..200]);
        let e = certificates(&cut).unwrap_err().to_string();
        assert!(
            e.ends_with("PEM_read_bio_X509() failed (SSL: error:04800066:PEM routines::bad end line)"),
            "{e}"
        );
        let e = crls("data:").unwrap_err().to_string();
        assert_eq!(
            e,
            "cannot load CRL \"data:\": PEM_read_bio_X509_CRL() failed \
             (SSL: error:0480006C:PEM routines::no start line:Expecting: X509 CRL)"
        );
        let e = private_key("engine:x:y", &[]).unwrap_err().to_string();
        assert!(e.ends_with("loading \"engine:...\" certificate keys is not supported"), "{e}");
        assert_eq!(
            passwords("/nosuch").unwrap_err().to_string(),
            "open() \"/nosuch\" failed (2: No such file or directory)"
        );
    }
}
