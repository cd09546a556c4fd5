//! The traffic secrets of TLSv1.3, from which the keys after a KeyUpdate are made (RFC 8446 section 7.2).

use std::cell::Cell;
use std::fmt;

use aws_lc_rs::aead::NONCE_LEN;
use aws_lc_rs::hkdf::{Algorithm, HKDF_SHA256, HKDF_SHA384, KeyType, Prk};
use rustls::{CipherSuite, Error, KeyLog};

use super::cipher::Cipher;

/// Bytes of the longest secret: SHA-384's.
const LONGEST: usize = 48;

/// One direction's secret.
pub(super) struct Secret {
    algorithm: Algorithm,
    bytes: [u8; LONGEST],
}

/// What the handshakes of this thread told.
#[derive(Clone, Copy, Default)]
struct Told {
    client: Option<[u8; LONGEST]>,
    server: Option<[u8; LONGEST]>,
}

thread_local! {
    static TOLD: Cell<Told> = const { Cell::new(Told { client: None, server: None }) };
}

/// Takes secrets from rustls: it has no other way to give them from a server that also keeps application data in its
/// tickets. Nothing is written anywhere.
#[derive(Debug)]
pub(in crate::tls) struct Listen;

impl KeyLog for Listen {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        let mut bytes = [0; LONGEST];
        let Some(to) = bytes.get_mut(..secret.len()) else { return };
        to.copy_from_slice(secret);
        let mut told = TOLD.get();
        match label {
            "CLIENT_TRAFFIC_SECRET_0" => told.client = Some(bytes),
            "SERVER_TRAFFIC_SECRET_0" => told.server = Some(bytes),
            _ => {}
        }
        TOLD.set(told);
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, "CLIENT_TRAFFIC_SECRET_0" | "SERVER_TRAFFIC_SECRET_0")
    }
}

/// The secrets of one handshake as far as they are known.
#[derive(Default)]
pub(in crate::tls) struct Secrets {
    client: Option<[u8; LONGEST]>,
    server: Option<[u8; LONGEST]>,
}

struct Len(usize);

impl KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

// === impl Secrets ===

impl Secrets {
    /// Lets a handshake make a step on this thread, and keeps the secrets it makes.
    pub(in crate::tls) fn watch<R>(&mut self, step: impl FnOnce() -> R) -> R {
        TOLD.take();
        let done = step();
        let told = TOLD.take();
        self.client = self.client.or(told.client);
        self.server = self.server.or(told.server);
        done
    }

    /// The secrets of what is sent and received, where the suite is one of TLSv1.3.
    pub(super) fn split(&self, suite: CipherSuite, is_client: bool) -> Option<(Secret, Secret)> {
        let algorithm = match suite {
            CipherSuite::TLS13_AES_256_GCM_SHA384 => HKDF_SHA384,
            CipherSuite::TLS13_AES_128_GCM_SHA256 | CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => {
                HKDF_SHA256
            }
            _ => return None,
        };
        let secret = |bytes| Secret { algorithm, bytes };
        let (client, server) = (secret(self.client?), secret(self.server?));
        Some(if is_client { (client, server) } else { (server, client) })
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        for bytes in [&mut self.client, &mut self.server].into_iter().flatten() {
            forget(bytes);
        }
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

// === impl Secret ===

impl Secret {
    /// Moves to the next secret, and gives the cipher that follows `cipher`.
    pub(super) fn update(&mut self, cipher: &Cipher) -> Result<Cipher, Error> {
        let mut next = [0; LONGEST];
        let len = self.len();
        self.expand(b"traffic upd", &mut next[..len])?;
        forget(&mut self.bytes);
        self.bytes = next;
        forget(&mut next);
        let (mut key, mut iv) = ([0; 32], [0; NONCE_LEN]);
        let key_len = cipher.key_len().min(key.len());
        self.expand(b"key", &mut key[..key_len])?;
        self.expand(b"iv", &mut iv)?;
        let renewed = cipher.renewed(&key[..key_len], iv);
        forget(&mut key);
        renewed
    }

    fn len(&self) -> usize {
        self.algorithm.len()
    }

    /// HKDF-Expand-Label without a context (RFC 8446 section 7.1).
    fn expand(&self, label: &[u8], out: &mut [u8]) -> Result<(), Error> {
        const PREFIX: &[u8] = b"tls13 ";
        let len = (out.len() as u16).to_be_bytes();
        let label_len = [(PREFIX.len() + label.len()) as u8];
        Prk::new_less_safe(self.algorithm, &self.bytes[..self.len()])
            .expand(&[&len, &label_len, PREFIX, label, &[0]], Len(out.len()))
            .and_then(|okm| okm.fill(out))
            .map_err(|_| Error::General("HKDF failed".into()))
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        forget(&mut self.bytes);
    }
}

fn forget(bytes: &mut [u8]) {
    bytes.fill(0);
    std::hint::black_box(bytes);
}
