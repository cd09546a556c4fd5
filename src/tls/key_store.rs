//! Keys that a URI names, `store:file:/path`: what of OpenSSL's stores needs no provider (ossl_store-file(7)).

use std::io;
use std::path::Path;

use rustls::pki_types::PrivateKeyDer;

use super::der::{self, INTEGER, OCTET_STRING, SEQUENCE};
use super::encrypted;
use super::error::{fopen_failed, system_failed};
use super::keys;
use super::pem::{self, Block};

const NO_PASSWORD: &str =
    "error:07880106:common libcrypto routines::passed invalid argument:No password method specified";
const UNSUPPORTED: &str = "error:1608010C:STORE routines::unsupported";

/// The first private key in the file that `uri` names, PEM or DER, and whether it is encrypted: the first of `passwords`
/// is then tried, and no other. As in OpenSSL a relative path is one of the working directory.
///
/// # Errors
/// The call that failed, with OpenSSL's reasons.
pub fn private_key(uri: &str, passwords: &[Vec<u8>]) -> Result<(PrivateKeyDer<'static>, bool), String> {
    let path = found(uri).map_err(|why| format!("OSSL_STORE_open() failed (SSL: {why})"))?;
    let content = match std::fs::read(path) {
        Ok(content) => content,
        // A store of files: their names are no keys.
        Err(e) if e.kind() == io::ErrorKind::IsADirectory => Vec::new(),
        Err(e) => {
            return Err(format!("OSSL_STORE_open() failed (SSL: {})", fopen_failed(path, "rb", &e)));
        }
    };
    let key = match has_pem(&content) {
        true => first_of_pem(&content, passwords),
        false => of_der(content, passwords),
    };
    match key {
        Ok(Some(key)) => Ok(key),
        Ok(None) => Err("OSSL_STORE_load() failed".to_owned()),
        Err(ssl) => Err(format!("OSSL_STORE_load() failed (SSL: {ssl})")),
    }
}

/// The path of the file that `uri` names: the text as it is, or what follows `file:`.
fn found(uri: &str) -> Result<&str, String> {
    let unregistered = |scheme| format!("error:16000069:STORE routines::unregistered scheme:scheme={scheme}");
    let (other, after_file) = match uri.split_once(':') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("file") => (None, Some(rest)),
        Some((scheme, rest)) => (Some((scheme, rest)), None),
        None => (None, None),
    };
    let mut why = Vec::new();
    if !other.is_some_and(|(_, rest)| rest.starts_with("//")) {
        match as_file(uri, after_file) {
            Ok(path) => return Ok(path),
            Err(reason) => why.push(format!("{}{reason}", unregistered("file"))),
        }
    }
    if let Some((scheme, _)) = other {
        let loaders = "No store loader found. For standard store loaders you need at least one of the default or base \
            providers available. Did you forget to load them? Info: Global default library context";
        let unsupported = format!("{UNSUPPORTED}:{loaders}, Scheme ({scheme} : 0), Properties (<null>)");
        why.extend([unregistered(scheme), unsupported]);
    }
    Err(why.join(" "))
}

/// The first of two paths that exists: all of `uri`, and what is after its `file:`.
fn as_file<'a>(uri: &'a str, after_scheme: Option<&'a str>) -> Result<&'a str, String> {
    let missing = |path: &str| {
        let found = std::fs::metadata(Path::new(path));
        found.err().map(|e| format!(" {}", system_failed(&e, &format!("stat({path})"))))
    };
    let mut why = String::new();
    let authority = after_scheme.and_then(|rest| rest.strip_prefix("//"));
    if authority.is_none() {
        match missing(uri) {
            None => return Ok(uri),
            Some(reason) => why = reason,
        }
    }
    let path = match (authority, after_scheme) {
        (Some(authority), _) => {
            let host = authority.split_once('/').map(|(host, _)| host);
            match host.filter(|host| host.is_empty() || host.eq_ignore_ascii_case("localhost")) {
                Some(host) => &authority[host.len()..],
                None => return Err(" error:1C8000DF:Provider routines::uri authority unsupported".to_owned()),
            }
        }
        (None, Some(rest)) => rest,
        (None, None) => return Err(why),
    };
    if !path.starts_with('/') {
        return Err(
            why + &format!(" error:1C8000DB:Provider routines::path must be absolute:Given path={path}")
        );
    }
    missing(path).map_or(Ok(path), |reason| Err(why + &reason))
}

fn has_pem(content: &[u8]) -> bool {
    memchr::memmem::find(content, b"-----BEGIN ").is_some()
}

type Found = Result<Option<(PrivateKeyDer<'static>, bool)>, String>;

fn first_of_pem(text: &[u8], passwords: &[Vec<u8>]) -> Found {
    for block in pem::blocks(text) {
        let block = block.map_err(|_| UNSUPPORTED.to_owned())?;
        if block.label.ends_with("PRIVATE KEY") {
            let of_pkcs8 = block.label == "ENCRYPTED PRIVATE KEY";
            return of_block(block, passwords).map_err(|why| match of_pkcs8 {
                true => format!("{UNSUPPORTED} {why}"),
                false => why,
            });
        }
    }
    Ok(None)
}

fn of_der(der: Vec<u8>, passwords: &[Vec<u8>]) -> Found {
    match der::tagged(SEQUENCE, &der) {
        // PFX (RFC 7292, section 4) begins with its version, which is three.
        Some((pfx, _)) if der::tagged(INTEGER, pfx).is_some_and(|(version, _)| version == [3]) => {
            Err(format!("{UNSUPPORTED}:PKCS#12 is not supported here"))
        }
        // EncryptedPrivateKeyInfo (RFC 5958, section 3).
        Some((info, _)) if is_encrypted_info(info) => {
            let label = "ENCRYPTED PRIVATE KEY".to_owned();
            of_block(Block { label, headers: Vec::new(), der }, passwords)
        }
        _ => Ok(PrivateKeyDer::try_from(der).ok().map(|key| (key, false))),
    }
}

fn is_encrypted_info(info: &[u8]) -> bool {
    let data = der::tagged(SEQUENCE, info).and_then(|(_, rest)| der::tagged(OCTET_STRING, rest));
    data.is_some_and(|(_, rest)| rest.is_empty())
}

fn of_block(block: Block, passwords: &[Vec<u8>]) -> Found {
    if passwords.is_empty() && encrypted::is_encrypted(&block) {
        let why = match block.label.as_str() {
            "ENCRYPTED PRIVATE KEY" => "error:1C80009F:Provider routines::unable to get passphrase",
            _ => "error:04800068:PEM routines::bad password read",
        };
        return Err(format!("{NO_PASSWORD} {why}"));
    }
    keys::of_block(block, &passwords[..passwords.len().min(1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> String {
        format!("{}/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR"))
    }

    fn words(words: &[&str]) -> Vec<Vec<u8>> {
        words.iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    fn der_of(name: &str) -> Vec<u8> {
        let text = std::fs::read(fixture(name)).unwrap();
        pem::blocks(&text).next().unwrap().unwrap().der
    }

    fn why(uri: &str, passwords: &[&str]) -> String {
        private_key(uri, &words(passwords)).unwrap_err()
    }

    #[test]
    fn a_file_has_several_names() {
        let path = fixture("ecdsa.key");
        let (key, encrypted) = keys::private_key(&path, &[]).unwrap();
        assert!(!encrypted);
        for uri in
            [&path, &format!("file:{path}"), &format!("FILE://{path}"), &format!("file://LocalHost{path}")]
        {
            assert_eq!(private_key(uri, &[]).unwrap(), (key.clone_key(), false), "{uri}");
            assert_eq!(keys::private_key(&format!("store:{uri}"), &[]).unwrap().0, key);
        }
    }

    #[test]
    fn what_is_no_file_is_told_in_openssl_s_words() {
        let scheme =
            "OSSL_STORE_open() failed (SSL: error:16000069:STORE routines::unregistered scheme:scheme";
        let stat = "error:80000002:system library::No such file or directory:calling stat";
        assert_eq!(why("/nosuch", &[]), format!("{scheme}=file {stat}(/nosuch))"));
        assert_eq!(why("file:/nosuch", &[]), format!("{scheme}=file {stat}(file:/nosuch) {stat}(/nosuch))"));
        assert_eq!(
            why("file:a", &[]),
            format!(
                "{scheme}=file {stat}(file:a) error:1C8000DB:Provider routines::path must be absolute:Given path=a)"
            )
        );
        for uri in ["file://other/a", "file://localhost", "file://"] {
            let authority = "error:1C8000DF:Provider routines::uri authority unsupported";
            assert_eq!(why(uri, &[]), format!("{scheme}=file {authority})"), "{uri}");
        }
        let other = why("pkcs11:object=a", &[]);
        let begin = format!(
            "{scheme}=file {stat}(pkcs11:object=a) error:16000069:STORE routines::unregistered scheme:scheme=pkcs11 "
        );
        assert!(
            other.starts_with(&begin) && other.contains("Scheme (pkcs11 : 0), Properties (<null>))"),
            "{other}"
        );
        let other = why("x://a/b", &[]);
        assert!(other.starts_with(&format!("{scheme}=x error:1608010C:")), "{other}");
    }

    #[test]
    fn the_first_password_opens_a_key_or_none_does() {
        for (name, unsupported, bad) in [
            (
                "ecdsa-enc.key",
                "error:1608010C:STORE routines::unsupported ",
                "PKCS12 routines::pkcs12 cipherfinal error",
            ),
            ("rsa-enc.key", "", "PEM routines::bad decrypt"),
        ] {
            let path = fixture(name);
            let (key, encrypted) = private_key(&path, &words(&["nxr", "wrong"])).unwrap();
            assert!(encrypted && key == keys::private_key(&path, &words(&["nxr"])).unwrap().0);
            for (passwords, reason) in [(&["wrong", "nxr"][..], bad), (&[], "No password method specified")] {
                let told = why(&path, passwords);
                let begin = format!("OSSL_STORE_load() failed (SSL: {unsupported}error:");
                assert!(told.starts_with(&begin) && told.contains(reason), "{told}");
            }
        }
    }

    #[test]
    fn der_is_a_key_too() {
        let path = std::env::temp_dir().join(format!("nxr-key-store-{}", std::process::id()));
        let file = path.to_str().unwrap();
        for (name, password) in [
            ("ecdsa.key", None),
            ("ecdsa-sec1.key", None),
            ("rsa-pkcs1.key", None),
            ("ecdsa-enc.key", Some("nxr")),
        ] {
            std::fs::write(file, der_of(name)).unwrap();
            let passwords = words(password.as_slice());
            let (expected, _) = keys::private_key(&fixture(name), &passwords).unwrap();
            let found = private_key(file, &passwords).unwrap();
            assert_eq!(found, (expected, password.is_some()), "{name}");
        }
        for (content, told) in [
            (&b"junk"[..], ""),
            (b"", ""),
            (
                b"\x30\x03\x02\x01\x03",
                " (SSL: error:1608010C:STORE routines::unsupported:PKCS#12 is not supported here)",
            ),
            (
                b"-----BEGIN PRIVATE KEY-----\n!!\n-----END PRIVATE KEY-----\n",
                " (SSL: error:1608010C:STORE routines::unsupported)",
            ),
        ] {
            std::fs::write(file, content).unwrap();
            assert_eq!(why(file, &[]), format!("OSSL_STORE_load() failed{told}"));
        }
        std::fs::remove_file(file).unwrap();
        assert_eq!(why(&fixture("ecdsa.crt"), &[]), "OSSL_STORE_load() failed");
        assert_eq!(why(&fixture(""), &[]), "OSSL_STORE_load() failed");
    }
}
