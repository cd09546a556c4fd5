//! Statuses that were found out, kept for all threads (`ssl_ocsp_cache`).

use super::request::{CertId, sha1};
use super::response::Status;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use x509_parser::prelude::X509Certificate;

/// A zone of statuses.
#[derive(Clone)]
pub struct StatusCache {
    room: usize,
    kept: Arc<Mutex<Kept>>,
}

/// Issuer's name, issuer's key and serial number.
pub type Key = [u8; 60];

#[derive(Default)]
struct Kept {
    statuses: HashMap<Key, (Status, i64)>,
    /// The oldest first.
    order: VecDeque<Key>,
}

/// Bytes that nginx needs for a status.
const ENTRY: usize = 256;
/// Seconds for which a status without end is kept.
const ENDLESS: i64 = 3600;
/// Longest serial number (RFC 5280 section 4.1.2.2).
const LONGEST_SERIAL: usize = 20;

/// What a certificate's status is kept under; none where its serial number is too long.
pub fn key(id: &CertId, issuer: &X509Certificate<'_>) -> Option<Key> {
    let mut key = [0; 60];
    key[..20].copy_from_slice(&sha1(issuer.subject().as_raw()));
    key[20..40].copy_from_slice(&id.key_hash);
    if id.serial.len() > LONGEST_SERIAL {
        return None;
    }
    key[40..40 + id.serial.len()].copy_from_slice(&id.serial);
    Some(key)
}

// === impl StatusCache ===

impl StatusCache {
    /// `shared:NAME:SIZE`
    pub fn new(bytes: usize) -> Self {
        StatusCache { room: (bytes / ENTRY).max(1), kept: Arc::default() }
    }

    /// A status that is valid at a time in seconds since 1970.
    pub fn get(&self, key: &Key, now: i64) -> Option<Status> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, valid) = *kept.statuses.get(key)?;
        if valid > now {
            return Some(status);
        }
        kept.statuses.remove(key);
        kept.order.retain(|k| k != key);
        None
    }

    /// Keeps a status for as long as it is valid; the oldest makes room for it.
    pub fn put(&self, key: Key, status: Status, valid: Option<i64>, now: i64) {
        let valid = valid.unwrap_or(now + ENDLESS);
        if valid < now {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.statuses.insert(key, (status, valid)).is_none() {
            kept.order.push_back(key);
        }
        if kept.order.len() > self.room
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.statuses.remove(&oldest);
        }
    }
}

impl fmt::Debug for StatusCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Which one it is, for settings to be told apart.
        write!(f, "StatusCache({:p})", Arc::as_ptr(&self.kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_end_and_make_room() {
        let cache = StatusCache::new(2 * ENTRY);
        let key = |n: u8| [n; 60];
        cache.put(key(1), Status::Good, Some(200), 100);
        assert_eq!(cache.get(&key(1), 199), Some(Status::Good));
        assert_eq!(cache.get(&key(1), 200), None);
        cache.put(key(1), Status::Revoked, None, 100);
        assert_eq!(cache.get(&key(1), 3699), Some(Status::Revoked));
        cache.put(key(2), Status::Good, Some(99), 100);
        assert_eq!(cache.get(&key(2), 98), None);
        cache.put(key(2), Status::Good, None, 100);
        cache.put(key(3), Status::Unknown, None, 100);
        assert_eq!(cache.get(&key(1), 101), None);
        assert_eq!(cache.get(&key(2), 101), Some(Status::Good));
        assert_eq!(cache.get(&key(3), 101), Some(Status::Unknown));
    }
}
