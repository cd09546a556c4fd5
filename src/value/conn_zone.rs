//! What `limit_conn_zone` shares among threads: how many connections each value of a key has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a page of nginx's shared memory.
const PAGE: usize = 4096;
/// Bytes nginx's node takes besides the key.
const NODE: usize = 36;
/// Bytes nginx's allocator needs to manage a page.
const PER_PAGE: usize = 24;

/// Counts of connections by key. It holds as many keys as nginx's zone of the same size.
#[derive(Debug)]
pub struct ConnZone {
    bytes: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    by_key: HashMap<Box<[u8]>, u32>,
    used: usize,
}

/// Why a connection is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The key has all the connections it may have.
    Limit,
    /// The zone has no room for another key.
    NoRoom,
}

/// A connection's place in a zone, given back when dropped.
#[derive(Debug)]
pub struct Place {
    zone: Arc<ConnZone>,
    key: Box<[u8]>,
}

impl ConnZone {
    /// A zone of `size` bytes.
    pub fn new(size: usize) -> ConnZone {
        let pages = size.saturating_sub(PAGE) / (PAGE + PER_PAGE);
        ConnZone { bytes: pages * PAGE, counts: Mutex::default() }
    }

    /// Counts a connection of `key`, which may have `max`.
    pub fn enter(self: &Arc<Self>, key: &[u8], max: u32) -> Result<Place, Refused> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.by_key.get_mut(key) {
            Some(count) if *count >= max => return Err(Refused::Limit),
            Some(count) => *count += 1,
            None => {
                let used = counts.used + cost(key);
                if used > self.bytes {
                    return Err(Refused::NoRoom);
                }
                counts.used = used;
                counts.by_key.insert(key.into(), 1);
            }
        }
        Ok(Place { zone: self.clone(), key: key.into() })
    }
}

/// Pieces of memory have powers of two for sizes.
fn cost(key: &[u8]) -> usize {
    (NODE + key.len()).next_power_of_two()
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.zone.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.by_key.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.by_key.remove(&self.key);
                counts.used -= cost(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_and_given_back() {
        let zone = Arc::new(ConnZone::new(1 << 20));
        let first = zone.enter(b"a", 2).unwrap();
        let second = zone.enter(b"a", 2).unwrap();
        assert_eq!(zone.enter(b"a", 2).unwrap_err(), Refused::Limit);
        assert!(zone.enter(b"b", 1).is_ok());
        drop(first);
        assert!(zone.enter(b"a", 2).is_ok());
        drop(second);
        assert_eq!(zone.counts.lock().unwrap().by_key.len(), 0);
        assert_eq!(zone.counts.lock().unwrap().used, 0);
    }

    #[test]
    fn a_zone_is_full_when_nginx_would_be() {
        let zone = Arc::new(ConnZone::new(32 << 10));
        let places: Vec<_> = (0..10_000u32).map_while(|n| zone.enter(&n.to_be_bytes(), 1).ok()).collect();
        // Six pages of 64 bytes a piece.
        assert_eq!(places.len(), 6 * 64);
        assert_eq!(zone.enter(b"more", 1).unwrap_err(), Refused::NoRoom);
    }
}
