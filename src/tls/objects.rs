//! Certificates and keys as they are kept and shared: loaded once for a configuration, and taken over by the next one
//! while their files stay the same (`ssl_object_cache_inheritable`).

use super::error::Error;
use super::keys::{self, bad_asn1, not_a_key, spki_bits};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SigningKey};
use std::cell::RefCell;
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::error::Object;

/// A chain of certificates, the leaf first.
#[derive(Debug)]
pub struct Chain {
    certificates: Vec<CertificateDer<'static>>,
    /// The leaf's subjectPublicKey.
    public: Option<Vec<u8>>,
    /// Bits of the leaf's RSA key.
    rsa_bits: Option<usize>,
}

/// A private key.
#[derive(Debug)]
pub struct Key {
    /// None for a key that can sign nothing here.
    signer: Option<Arc<dyn SigningKey>>,
    /// It needed a password, which another asker may not have.
    pub encrypted: bool,
}

// === impl Chain ===

impl Chain {
    /// Reads a chain.
    pub fn load(name: &str) -> Result<Chain, Error> {
        let certificates = keys::certificates(name)?;
        let leaf = certificates.first().map(|c| c.as_ref()).unwrap_or_default();
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| Error::Load {
            object: Object::Certificate,
            name: name.to_owned(),
            why: format!("PEM_read_bio_X509_AUX() failed (SSL: {})", bad_asn1("X509")),
        })?;
        let public = spki_bits(parsed.public_key().raw).map(<[u8]>::to_vec);
        let rsa_bits = match parsed.public_key().parsed() {
            Ok(x509_parser::public_key::PublicKey::RSA(rsa)) => Some(rsa.key_size()),
            _ => None,
        };
        Ok(Chain { certificates, public, rsa_bits })
    }
}

// === impl Key ===

impl Key {
    /// Reads a key; `passwords` are tried in turn where it is encrypted.
    pub fn load(name: &str, passwords: &[Vec<u8>]) -> Result<Key, Error> {
        let (der, encrypted) = keys::private_key(name, passwords)?;
        Ok(Key { signer: any_supported_type(&der).ok(), encrypted })
    }
}

/// Where chains and keys come from. `anew` asks for the file as it is now, whatever is known of it.
pub trait Objects {
    /// What begins the names of OpenSSL's functions in complaints.
    const CALLS: &'static str;

    fn chain(&self, name: &str, anew: bool) -> Result<Arc<Chain>, Error>;

    fn key(&self, name: &str, passwords: &[Vec<u8>], anew: bool) -> Result<Arc<Key>, Error>;

    /// A chain with its key, ready to sign handshakes. A pair that does not fit may have been caught in the middle of
    /// its files' replacement: both are read once more.
    fn certified_key(&self, cert: &str, key: &str, passwords: &[Vec<u8>]) -> Result<CertifiedKey, Error> {
        match self.pair(cert, key, passwords, false) {
            Err(Error::KeyMismatch { .. }) => self.pair(cert, key, passwords, true),
            done => done,
        }
    }

    /// The same, at the first try.
    fn pair(&self, cert: &str, key: &str, passwords: &[Vec<u8>], anew: bool) -> Result<CertifiedKey, Error> {
        let chain = self.chain(cert, anew)?;
        let signer = match self.key(key, passwords, anew)?.signer.clone() {
            Some(signer) => signer,
            None if chain.rsa_bits.is_some_and(|bits| bits < 2048) => {
                return Err(Error::KeyTooSmall { calls: Self::CALLS, name: cert.to_owned() });
            }
            None => return Err(not_a_key(key)),
        };
        if let Some(public) = signer.public_key() {
            let ours = spki_bits(public.as_ref());
            if ours.is_some() && ours != chain.public.as_deref() {
                return Err(Error::KeyMismatch { calls: Self::CALLS, key: key.to_owned() });
            }
        }
        Ok(CertifiedKey::new(chain.certificates.clone(), signer))
    }
}

/// What tells whether a file is still the one that was read: inode and seconds of its last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    inode: u64,
    changed: i64,
}

// === impl FileId ===

impl FileId {
    /// None for what is no file, or none any more.
    pub(super) fn of(name: &str) -> Option<FileId> {
        if is_data(name) {
            return None;
        }
        std::fs::metadata(name).ok().map(|m| FileId { inode: m.ino(), changed: m.mtime() })
    }
}

/// Whether a name is the text itself.
pub(super) fn is_data(name: &str) -> bool {
    name.starts_with("data:")
}

// === what one reading of a configuration loads ===

/// One object and where it came from.
#[derive(Debug)]
struct Loaded<T> {
    value: Arc<T>,
    file: Option<FileId>,
}

/// Objects of a kind by name.
#[derive(Debug)]
struct Kind<T> {
    now: HashMap<String, Loaded<T>>,
    /// Of the configuration in force.
    before: HashMap<String, Loaded<T>>,
}

impl<T> Default for Kind<T> {
    fn default() -> Self {
        Kind { now: HashMap::new(), before: HashMap::new() }
    }
}

#[derive(Debug, Default)]
struct Shelf {
    reading: bool,
    chains: Kind<Chain>,
    keys: Kind<Key>,
    authorities: Kind<Vec<CertificateDer<'static>>>,
    crls: Kind<Vec<Vec<u8>>>,
}

thread_local! {
    /// A configuration is read by one thread from its beginning to its end.
    static SHELF: RefCell<Shelf> = RefCell::default();
}

/// A configuration being read: until its end, what is named twice is read once.
#[derive(Debug)]
pub struct Reading(());

// === impl Reading ===

impl Reading {
    /// Begins.
    pub fn begin() -> Reading {
        SHELF.with_borrow_mut(|shelf| shelf.reading = true);
        Reading(())
    }

    /// The configuration is good; `inheritable` leaves its objects to the next one.
    pub fn keep(self, inheritable: bool) {
        SHELF.with_borrow_mut(|shelf| {
            shelf.chains.keep(inheritable);
            shelf.keys.keep(inheritable);
            shelf.authorities.keep(inheritable);
            shelf.crls.keep(inheritable);
        });
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        SHELF.with_borrow_mut(|shelf| {
            shelf.reading = false;
            shelf.chains.now.clear();
            shelf.keys.now.clear();
            shelf.authorities.now.clear();
            shelf.crls.now.clear();
        });
    }
}

impl<T> Kind<T> {
    fn keep(&mut self, inheritable: bool) {
        self.before = std::mem::take(&mut self.now);
        if !inheritable {
            self.before.clear();
        }
    }

    fn known(&self, name: &str) -> Option<Arc<T>> {
        self.now.get(name).map(|found| found.value.clone())
    }

    /// What the configuration in force has of the same text or of the same file, unchanged.
    fn inherited(&self, name: &str, file: Option<FileId>) -> Option<Arc<T>> {
        let found = self.before.get(name)?;
        (is_data(name) || file.is_some() && file == found.file).then(|| found.value.clone())
    }
}

/// The object of a name: known, inherited or loaded. `load` also tells whether it may be kept.
fn shelved<T>(
    kind: fn(&mut Shelf) -> &mut Kind<T>,
    name: &str,
    anew: bool,
    load: impl FnOnce() -> Result<(T, bool), Error>,
) -> Result<Arc<T>, Error> {
    let reading = SHELF.with_borrow(|shelf| shelf.reading);
    let anew = anew && !is_data(name);
    if !reading {
        return load().map(|(value, _)| Arc::new(value));
    }
    let known = SHELF.with_borrow_mut(|shelf| match anew {
        true => None,
        false => kind(shelf).known(name),
    });
    if let Some(known) = known {
        return Ok(known);
    }
    let file = FileId::of(name);
    let inherited = SHELF.with_borrow_mut(|shelf| match anew {
        true => None,
        false => kind(shelf).inherited(name, file),
    });
    let value = match inherited {
        Some(value) => value,
        None => {
            let (value, lasting) = load()?;
            let value = Arc::new(value);
            if !lasting {
                return Ok(value);
            }
            value
        }
    };
    let loaded = Loaded { value: value.clone(), file };
    SHELF.with_borrow_mut(|shelf| kind(shelf).now.insert(name.to_owned(), loaded));
    Ok(value)
}

/// Objects of the configuration that is being read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Configured;

impl Objects for Configured {
    const CALLS: &'static str = "SSL_CTX";

    fn chain(&self, name: &str, anew: bool) -> Result<Arc<Chain>, Error> {
        shelved(|shelf| &mut shelf.chains, name, anew, || Chain::load(name).map(|chain| (chain, true)))
    }

    fn key(&self, name: &str, passwords: &[Vec<u8>], anew: bool) -> Result<Arc<Key>, Error> {
        shelved(
            |shelf| &mut shelf.keys,
            name,
            anew,
            || {
                let key = Key::load(name, passwords)?;
                let lasting = !key.encrypted;
                Ok((key, lasting))
            },
        )
    }
}

/// Certificates that are trusted.
pub(super) fn authorities(name: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let load = || keys::certificates(name).map(|list| (list, true));
    shelved(|shelf| &mut shelf.authorities, name, false, load).map(|list| (*list).clone())
}

/// Revocation lists, as DER.
pub(super) fn crls(name: &str) -> Result<Vec<Vec<u8>>, Error> {
    let load = || keys::crls(name).map(|list| (list, true));
    shelved(|shelf| &mut shelf.crls, name, false, load).map(|list| (*list).clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::time::{Duration, UNIX_EPOCH};

    fn fixture(name: &str) -> String {
        format!("{}/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR"))
    }

    /// A folder of copies that can be changed.
    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("nxr-objects-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn leaf(cert: &str, key: &str) -> Vec<u8> {
        Configured.certified_key(cert, key, &[]).unwrap().cert[0].to_vec()
    }

    #[test]
    fn a_reading_loads_a_name_once_and_the_next_one_inherits_what_has_not_changed() {
        let folder = folder("inherit");
        let (cert, key) = (folder.join("a.crt"), folder.join("a.key"));
        let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
        let put = |name: &str, age: u64| {
            for (to, kind) in [(cert, "crt"), (key, "key")] {
                std::fs::write(to, std::fs::read(fixture(&format!("{name}.{kind}"))).unwrap()).unwrap();
                let file = std::fs::File::options().write(true).open(to).unwrap();
                file.set_modified(UNIX_EPOCH + Duration::from_secs(age)).unwrap();
            }
        };
        put("ecdsa", 100);
        let reading = Reading::begin();
        let first = leaf(cert, key);
        put("rsa", 100);
        assert_eq!(leaf(cert, key), first, "read twice by one configuration");
        reading.keep(true);

        let reading = Reading::begin();
        assert_eq!(leaf(cert, key), first, "inode and time are the same");
        reading.keep(true);
        put("rsa", 200);
        let reading = Reading::begin();
        let second = leaf(cert, key);
        assert_ne!(second, first, "the time is another");
        // A configuration that is no good leaves nothing behind.
        drop(reading);
        put("ecdsa", 100);
        let reading = Reading::begin();
        assert_eq!(leaf(cert, key), first);
        reading.keep(false);
        put("rsa", 100);
        let reading = Reading::begin();
        assert_eq!(leaf(cert, key), second, "not inheritable");
        drop(reading);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_pair_that_was_half_replaced_is_read_again() {
        let folder = folder("half");
        let (cert, key) = (folder.join("a.crt"), folder.join("a.key"));
        let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
        std::fs::copy(fixture("ecdsa.crt"), cert).unwrap();
        std::fs::copy(fixture("ecdsa.key"), key).unwrap();
        let reading = Reading::begin();
        Configured.chain(cert, false).unwrap();
        std::fs::copy(fixture("rsa.crt"), cert).unwrap();
        std::fs::copy(fixture("rsa.key"), key).unwrap();
        leaf(cert, key);
        drop(reading);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn encrypted_keys_are_asked_for_their_password_every_time() {
        let (cert, key) = (fixture("ecdsa.crt"), fixture("ecdsa-enc.key"));
        let _reading = Reading::begin();
        Configured.certified_key(&cert, &key, &[b"nxr".to_vec()]).unwrap();
        Configured.certified_key(&cert, &key, &[]).unwrap_err();
    }
}
