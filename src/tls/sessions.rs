//! Sessions that outlive a connection: tickets (RFC 5077, RFC 8446 section 4.6.1) and the session cache.
//!
//! Both are bound to a context, a digest of the virtual server's name, certificates and client CAs, so that a session
//! of one server is not taken up by another: nginx does the same with OpenSSL's session id context.

use super::error::Error;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{constant_time, hkdf, rand};
use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Identifies a virtual server to its sessions.
pub type Context = [u8; 32];

const NAME_LEN: usize = 16;
const TIME_LEN: usize = 8;
/// RFC 8446 section 4.6.1: no ticket lives longer than seven days.
const MAX_LIFETIME: u32 = 604_800;

/// Keys of session tickets.
///
/// Random keys are a chain: every period's key is derived from a secret, and the next secret from the last, which is
/// then forgotten. Processes that inherit the secret (by `fork`, or with [`TicketKeys::export`]) therefore move from
/// key to key together without speaking to each other, and tickets outlive reloads.
pub struct TicketKeys {
    source: Source,
    ring: Mutex<Arc<Ring>>,
}

enum Source {
    /// From files: the first key makes tickets, all of them open tickets.
    Files,
    /// Random; the period in seconds, when the first one began, and the current link of the chain.
    Chain { period: u64, origin: u64, state: Mutex<Chain> },
}

struct Chain {
    secret: [u8; 32],
    epoch: u64,
}

#[derive(Default)]
struct Ring {
    epoch: u64,
    /// The key that makes tickets comes first.
    keys: Vec<Arc<TicketKey>>,
}

struct TicketKey {
    name: [u8; NAME_LEN],
    key: LessSafeKey,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| Error::Library("RAND_bytes() failed".to_owned()))?;
    Ok(bytes)
}

struct Len(usize);

impl hkdf::KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-SHA256 (RFC 5869) of a secret for one purpose.
fn derive<const N: usize>(secret: &[u8], purpose: &[u8]) -> Result<[u8; N], Error> {
    let mut out = [0; N];
    hkdf::Salt::new(hkdf::HKDF_SHA256, b"nxr session tickets")
        .extract(secret)
        .expand(&[purpose], Len(N))
        .and_then(|okm| okm.fill(&mut out))
        .map_err(|_| Error::Library("HKDF failed".to_owned()))?;
    Ok(out)
}

// === impl TicketKey ===

impl TicketKey {
    fn new(name: [u8; NAME_LEN], key: [u8; 32]) -> Result<Arc<Self>, Error> {
        let key =
            UnboundKey::new(&AES_256_GCM, &key).map_err(|_| Error::Library("bad ticket key".to_owned()))?;
        Ok(Arc::new(TicketKey { name, key: LessSafeKey::new(key) }))
    }

    fn of_secret(secret: &[u8; 32]) -> Result<Arc<Self>, Error> {
        TicketKey::new(derive(secret, b"name")?, derive(secret, b"key")?)
    }
}

// === impl Chain ===

impl Chain {
    fn advance(&mut self) -> Result<(), Error> {
        self.secret = derive(&self.secret, b"next")?;
        self.epoch += 1;
        Ok(())
    }

    /// The keys of `epoch` and of the one before. The chain stays one step behind, to be able to give both.
    fn ring(&mut self, epoch: u64) -> Result<Ring, Error> {
        while self.epoch + 1 < epoch {
            self.advance()?;
        }
        let mut keys = vec![TicketKey::of_secret(&self.secret)?];
        if self.epoch < epoch {
            keys.insert(0, TicketKey::of_secret(&derive(&self.secret, b"next")?)?);
        }
        Ok(Ring { epoch, keys })
    }
}

// === impl TicketKeys ===

impl TicketKeys {
    /// Random keys, changed every `period`; tickets can be opened for at least that long.
    pub fn random(period: Duration) -> Result<Arc<Self>, Error> {
        let period = period.as_secs().max(1);
        // The present second is not over: no key has less than its period.
        Self::chain(random()?, 0, period, now() + 1)
    }

    /// Random keys of a period in seconds. They stay for as long as the master does, so that tickets outlive a reload;
    /// workers inherit them.
    pub fn lasting(period: u64) -> Result<Arc<Self>, Error> {
        static KEYS: Mutex<Vec<(u64, Arc<TicketKeys>)>> = Mutex::new(Vec::new());
        let mut all = KEYS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, keys)) = all.iter().find(|(p, _)| *p == period) {
            // A worker is about to be started: it need not know of keys whose time has passed.
            keys.advance();
            return Ok(keys.clone());
        }
        let keys = Self::random(Duration::from_secs(period))?;
        all.push((period, keys.clone()));
        Ok(keys)
    }

    fn chain(secret: [u8; 32], epoch: u64, period: u64, origin: u64) -> Result<Arc<Self>, Error> {
        let mut chain = Chain { secret, epoch };
        let ring = chain.ring(epoch)?;
        Ok(Arc::new(TicketKeys {
            source: Source::Chain { period, origin, state: Mutex::new(chain) },
            ring: Mutex::new(Arc::new(ring)),
        }))
    }

    /// Keys from `ssl_session_ticket_key` files: 48 or 80 bytes each, the first 16 of them a name.
    pub fn from_files(paths: &[String]) -> Result<Arc<Self>, Error> {
        let mut keys = Vec::new();
        for path in paths {
            let bytes = std::fs::read(path).map_err(|e| Error::Open {
                call: "open()",
                name: path.clone(),
                errno: e.raw_os_error().unwrap_or(libc::EIO),
            })?;
            keys.push(Self::file_key(&bytes).ok_or_else(|| Error::TicketKeySize { name: path.clone() })??);
        }
        let ring = Mutex::new(Arc::new(Ring { epoch: 0, keys }));
        Ok(Arc::new(TicketKeys { source: Source::Files, ring }))
    }

    fn file_key(bytes: &[u8]) -> Option<Result<Arc<TicketKey>, Error>> {
        if bytes.len() != 48 && bytes.len() != 80 {
            return None;
        }
        let name = *bytes.first_chunk::<NAME_LEN>()?;
        Some(derive(bytes, b"file").and_then(|key| TicketKey::new(name, key)))
    }

    /// The state of random keys, to be handed to a process that does not inherit memory. Highly secret.
    pub fn export(&self) -> Option<Vec<u8>> {
        let Source::Chain { period, origin, state } = &self.source else { return None };
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = state.secret.to_vec();
        out.extend(state.epoch.to_be_bytes());
        out.extend(period.to_be_bytes());
        out.extend(origin.to_be_bytes());
        Some(out)
    }

    /// The keys that [`TicketKeys::export`] described.
    pub fn import(bytes: &[u8]) -> Result<Arc<Self>, Error> {
        let bad = || Error::Library("bad ticket keys".to_owned());
        let (secret, rest) = bytes.split_first_chunk::<32>().ok_or_else(bad)?;
        let (epoch, rest) = rest.split_first_chunk::<8>().ok_or_else(bad)?;
        let (period, rest) = rest.split_first_chunk::<8>().ok_or_else(bad)?;
        let origin: [u8; 8] = rest.try_into().map_err(|_| bad())?;
        let (epoch, period) = (u64::from_be_bytes(*epoch), u64::from_be_bytes(*period));
        let origin = u64::from_be_bytes(origin);
        if period == 0 || epoch > now().saturating_sub(origin) / period {
            return Err(bad());
        }
        Self::chain(*secret, epoch, period, origin)
    }

    /// Forgets keys whose time has passed. The master calls it before it forks; workers do it as they go.
    pub fn advance(&self) {
        self.ring_at(now());
    }

    fn ring_at(&self, now: u64) -> Arc<Ring> {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if let Source::Chain { period, origin, state } = &self.source {
            let epoch = now.saturating_sub(*origin) / period;
            if ring.epoch < epoch {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                // Without new keys the old ones serve on.
                if let Ok(new) = state.ring(epoch) {
                    *ring = Arc::new(new);
                }
            }
        }
        Arc::clone(&ring)
    }

    /// The tickets of one virtual server; they can be taken up for `timeout`.
    pub fn tickets(self: &Arc<Self>, context: Context, timeout: Duration) -> Arc<dyn ProducesTickets> {
        Arc::new(Tickets { keys: Arc::clone(self), context, timeout: timeout.as_secs() })
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKeys")
    }
}

/// name | nonce | AES-256-GCM(time | session), with the context as associated data.
#[derive(Debug)]
struct Tickets {
    keys: Arc<TicketKeys>,
    context: Context,
    timeout: u64,
}

// === impl Tickets ===

impl Tickets {
    fn seal(&self, plain: &[u8], now: u64) -> Option<Vec<u8>> {
        let ring = self.keys.ring_at(now);
        let key = ring.keys.first()?;
        let nonce: [u8; NONCE_LEN] = random().ok()?;
        let mut sealed = Vec::with_capacity(TIME_LEN + plain.len() + 16);
        sealed.extend(now.to_be_bytes());
        sealed.extend(plain);
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        key.key.seal_in_place_append_tag(nonce_used, Aad::from(self.context), &mut sealed).ok()?;
        Some([&key.name[..], &nonce[..], &sealed].concat())
    }

    fn open(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let ring = self.keys.ring_at(now);
        let key = ring.keys.iter().find(|k| constant_time::verify_slices_are_equal(&k.name, name).is_ok())?;
        let mut buffer = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = key.key.open_in_place(nonce, Aad::from(self.context), &mut buffer).ok()?;
        fresh(plain, now, self.timeout).map(<[u8]>::to_vec)
    }
}

/// What stands behind the time, unless it is too old.
fn fresh(stamped: &[u8], now: u64, timeout: u64) -> Option<&[u8]> {
    let (made, plain) = stamped.split_first_chunk::<TIME_LEN>()?;
    (now.saturating_sub(u64::from_be_bytes(*made)) <= timeout).then_some(plain)
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.timeout).unwrap_or(MAX_LIFETIME).min(MAX_LIFETIME)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, now())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, now())
    }
}

/// A cache of sessions in this process (`ssl_session_cache`), for any number of servers.
#[derive(Debug, Clone)]
pub struct SessionCache {
    sessions: Arc<ServerSessionMemoryCache>,
}

// === impl SessionCache ===

impl SessionCache {
    /// `builtin:N`: room for `sessions`.
    pub fn builtin(sessions: usize) -> Self {
        SessionCache { sessions: ServerSessionMemoryCache::new(sessions.max(1)) }
    }

    /// `shared:name:size`: room for about 4000 sessions a megabyte, as the manual of ngx_http_ssl_module has it.
    pub fn shared(bytes: usize) -> Self {
        Self::builtin(bytes / 256)
    }

    /// The cache as one virtual server sees it.
    pub fn for_server(&self, context: Context, timeout: Duration) -> Arc<dyn StoresServerSessions> {
        Arc::new(CacheView { sessions: Arc::clone(&self.sessions), context, timeout: timeout.as_secs() })
    }
}

#[derive(Debug)]
struct CacheView {
    sessions: Arc<ServerSessionMemoryCache>,
    context: Context,
    timeout: u64,
}

// === impl CacheView ===

impl CacheView {
    fn key(&self, key: &[u8]) -> Vec<u8> {
        [&self.context[..], key].concat()
    }

    fn fresh(&self, stamped: Vec<u8>) -> Option<Vec<u8>> {
        fresh(&stamped, now(), self.timeout).map(<[u8]>::to_vec)
    }
}

impl StoresServerSessions for CacheView {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.sessions.put(self.key(&key), [&now().to_be_bytes()[..], &value].concat())
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.sessions.get(&self.key(key)).and_then(|v| self.fresh(v))
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.sessions.take(&self.key(key)).and_then(|v| self.fresh(v))
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tickets(keys: &Arc<TicketKeys>, context: u8) -> Tickets {
        Tickets { keys: Arc::clone(keys), context: [context; 32], timeout: 300 }
    }

    #[test]
    fn a_ticket_belongs_to_its_context_and_time() {
        let keys = TicketKeys::random(Duration::from_secs(3600)).unwrap();
        let t = now();
        let ticket = tickets(&keys, 1).seal(b"session", t).unwrap();
        assert_eq!(tickets(&keys, 1).open(&ticket, t + 300).unwrap(), b"session");
        assert_eq!(tickets(&keys, 1).open(&ticket, t + 301), None);
        assert_eq!(tickets(&keys, 2).open(&ticket, t), None);
        let mut bad = ticket.clone();
        *bad.last_mut().unwrap() ^= 1;
        assert_eq!(tickets(&keys, 1).open(&bad, t), None);
        assert_eq!(tickets(&TicketKeys::random(Duration::from_secs(9)).unwrap(), 1).open(&ticket, t), None);
    }

    #[test]
    fn processes_move_along_the_chain_together() {
        let master = TicketKeys::chain([7; 32], 100, 10, 0).unwrap();
        let mut worker = tickets(&master, 1);
        worker.timeout = 1000;
        let ticket = worker.seal(b"x", 1009).unwrap();
        // Another process that inherited the state earlier opens what the first one makes later.
        let mut other = tickets(&TicketKeys::chain([7; 32], 100, 10, 0).unwrap(), 1);
        other.timeout = 1000;
        assert!(other.open(&ticket, 1012).is_some());
        let later = worker.seal(b"y", 1055).unwrap();
        assert_ne!(ticket[..16], later[..16]);
        assert!(other.open(&later, 1061).is_some());
        // Two periods on, the key is forgotten.
        assert!(other.open(&later, 1075).is_none());
        assert!(worker.open(&ticket, 1075).is_none());
    }

    #[test]
    fn a_key_has_its_whole_period() {
        let before = now();
        let keys = tickets(&TicketKeys::random(Duration::from_secs(100)).unwrap(), 1);
        let name = |now: u64| keys.seal(b"x", now).unwrap()[..16].to_vec();
        let first = name(before);
        assert_eq!(name(before + 100), first);
        assert_ne!(name(now() + 101), first);
    }

    #[test]
    fn keys_can_be_handed_on() {
        let keys = TicketKeys::random(Duration::from_secs(3600)).unwrap();
        let ticket = tickets(&keys, 1).seal(b"x", now()).unwrap();
        let copy = TicketKeys::import(&keys.export().unwrap()).unwrap();
        assert!(tickets(&copy, 1).open(&ticket, now()).is_some());
        assert!(TicketKeys::import(b"short").is_err());
    }

    #[test]
    fn files_give_keys_in_order() {
        let dir = std::env::temp_dir().join(format!("nxr-ticket-keys-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = |n: &str, bytes: &[u8]| {
            let path = dir.join(n);
            std::fs::write(&path, bytes).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (a, b) = (path("a", &[1; 48]), path("b", &[2; 80]));
        let old = TicketKeys::from_files(std::slice::from_ref(&a)).unwrap();
        let new = TicketKeys::from_files(&[b.clone(), a.clone()]).unwrap();
        let ticket = tickets(&old, 1).seal(b"x", now()).unwrap();
        assert_eq!(ticket[..16], [1; 16]);
        assert!(tickets(&new, 1).open(&ticket, now()).is_some());
        assert_eq!(tickets(&new, 1).seal(b"x", now()).unwrap()[..16], [2; 16]);
        assert!(new.export().is_none());

        let short = path("c", &[1; 47]);
        assert_eq!(
            TicketKeys::from_files(std::slice::from_ref(&short)).unwrap_err().to_string(),
            format!("\"{short}\" must be 48 or 80 bytes")
        );
        assert_eq!(
            TicketKeys::from_files(&["/nosuch".to_owned()]).unwrap_err().to_string(),
            "open() \"/nosuch\" failed (2: No such file or directory)"
        );
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_cache_keeps_servers_apart() {
        let cache = SessionCache::shared(1 << 20);
        let one = cache.for_server([1; 32], Duration::from_secs(300));
        let two = cache.for_server([2; 32], Duration::from_secs(300));
        assert!(one.put(b"id".to_vec(), b"session".to_vec()));
        assert_eq!(one.get(b"id").unwrap(), b"session");
        assert_eq!(two.get(b"id"), None);
        assert_eq!(one.take(b"id").unwrap(), b"session");
        assert_eq!(one.take(b"id"), None);
    }

    proptest! {
        #[test]
        fn arbitrary_tickets_are_refused(ticket in prop::collection::vec(any::<u8>(), 0..100)) {
            let keys = TicketKeys::chain([7; 32], 1, 1 << 40, 0).unwrap();
            prop_assert_eq!(tickets(&keys, 1).open(&ticket, 5), None);
        }
    }
}
