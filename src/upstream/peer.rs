//! One address of a server, and what is known of how it does.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use md5::{Digest, Md5};

use crate::net::Address;

/// Whether a server takes requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Down {
    /// It does.
    #[default]
    Up,
    /// `down`
    Down,
    /// `drain`: only those that are bound to it.
    Draining,
}

/// What the configuration says of a server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `weight`, 0 only for the one server of an implied group.
    pub weight: i64,
    /// `max_conns`, 0 for no limit.
    pub max_conns: u32,
    /// `max_fails`, 0 where failures do not count.
    pub max_fails: u32,
    /// `fail_timeout` in seconds.
    pub fail_timeout: i64,
    /// `down`, `drain`
    pub down: Down,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { weight: 1, max_conns: 0, max_fails: 1, fail_timeout: 10, down: Down::Up }
    }
}

/// One address of a server.
#[derive(Debug)]
pub struct Peer {
    /// Where to connect.
    pub address: Address,
    /// As `$upstream_addr` has it.
    pub name: Arc<str>,
    /// As the `server` directive has it; consistent hashing places this.
    pub server: Arc<[u8]>,
    /// What the directive says.
    pub settings: Settings,
    /// See [`Peer::sid`]; once asked for, where it is not `route`.
    sid: OnceLock<Box<str>>,
    /// Peers of a group with the same address have the same number.
    pub address_id: u32,
    /// The server of the group that is resolved while serving, where it comes of one.
    pub(super) origin: Option<u32>,
    counts: Arc<Counts>,
}

/// What every request changes, apart from what it only reads: threads do not wait for each other's cache lines.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Counts {
    conns: AtomicU32,
    fails: AtomicU32,
}

impl Peer {
    /// A peer nobody used so far.
    pub fn new(
        address: Address,
        name: Arc<str>,
        server: Arc<[u8]>,
        settings: Settings,
        route: Option<&str>,
    ) -> Peer {
        let sid = route.map(Box::<str>::from).map(OnceLock::from).unwrap_or_default();
        Peer { address, name, server, settings, sid, address_id: 0, origin: None, counts: Arc::default() }
    }

    /// The same peer once more, for another list; what is counted is counted for both.
    pub(super) fn again(&self) -> Peer {
        Peer {
            address: self.address.clone(),
            name: self.name.clone(),
            server: self.server.clone(),
            settings: self.settings.clone(),
            sid: self.sid.clone(),
            address_id: self.address_id,
            origin: self.origin,
            counts: self.counts.clone(),
        }
    }

    /// What `sticky` calls it: `route`, or MD5 of the name.
    pub fn sid(&self) -> &str {
        let md5 = || Md5::digest(self.name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        self.sid.get_or_init(md5)
    }

    /// Whether both are one.
    pub(super) fn is(&self, other: &Peer) -> bool {
        Arc::ptr_eq(&self.counts, &other.counts)
    }

    /// Connections in use; idle ones do not count. A group's only peer is not counted without `max_conns`.
    pub fn conns(&self) -> u32 {
        self.counts.conns.load(Relaxed)
    }

    /// Failed attempts that count at present.
    pub fn fails(&self) -> u32 {
        self.counts.fails.load(Relaxed)
    }

    /// One failure more; how many there are then.
    pub(super) fn add_fail(&self) -> u32 {
        self.counts.fails.fetch_add(1, Relaxed) + 1
    }

    pub(super) fn clear_fails(&self) {
        self.counts.fails.store(0, Relaxed);
    }

    pub(super) fn acquire(&self) {
        self.counts.conns.fetch_add(1, Relaxed);
    }

    pub(super) fn release(&self) {
        self.counts.conns.fetch_sub(1, Relaxed);
    }

    /// Whether `max_conns` allows no more.
    pub(super) fn full(&self) -> bool {
        self.settings.max_conns != 0 && self.conns() >= self.settings.max_conns
    }

    /// Whether it failed too often too recently.
    pub(super) fn failing(&self, state: &State, sec: i64) -> bool {
        let s = &self.settings;
        s.max_fails != 0 && self.fails() >= s.max_fails && sec - state.checked <= s.fail_timeout
    }

    /// Whether any balancer may choose it.
    pub(super) fn usable(&self, state: &State, sec: i64) -> bool {
        self.settings.down == Down::Up && !self.failing(state, sec) && !self.full()
    }
}

/// What changes about a peer, behind its tier's lock. Times are in milliseconds, moments in seconds of the
/// monotonic clock.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub(super) current_weight: i64,
    pub(super) effective_weight: i64,
    /// The last failure.
    pub(super) accessed: i64,
    /// The last failure, or the last time it was given a chance after one.
    pub(super) checked: i64,
    pub(super) connect_time: u64,
    /// To the header, or in stream to the first byte.
    pub(super) first_time: u64,
    pub(super) response_time: u64,
    pub(super) inflight_time: u64,
    pub(super) inflight_last: u64,
    pub(super) inflight_changed: u64,
    pub(super) inflight: u64,
}

/// The peers of a group that are chosen from together: the servers, or the backup servers.
#[derive(Debug)]
pub struct Tier {
    /// In the order of the file.
    pub peers: Box<[Peer]>,
    /// There is one peer and no backup: failures do not count.
    pub single: bool,
    /// Sum of weights.
    pub total_weight: i64,
    /// Attempts worth making: peers that are not down.
    pub tries: u32,
    states: Mutex<Box<[State]>>,
}

impl Tier {
    /// Peers with fresh states, but for those that were in `before`.
    pub fn new(peers: Vec<Peer>, single: bool, before: Option<&Tier>) -> Tier {
        let known = before.map(|tier| (tier, tier.states()));
        let state = |p: &Peer| {
            let at = known.as_ref().and_then(|(tier, states)| states.get(tier.place_of(p)?));
            at.cloned().unwrap_or(State { effective_weight: p.settings.weight, ..State::default() })
        };
        Tier {
            single,
            total_weight: peers.iter().map(|p| p.settings.weight).sum(),
            tries: peers.iter().filter(|p| p.settings.down == Down::Up).count() as u32,
            states: Mutex::new(peers.iter().map(state).collect()),
            peers: peers.into(),
        }
    }

    pub(super) fn states(&self) -> MutexGuard<'_, Box<[State]>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a peer is.
    pub(super) fn place_of(&self, peer: &Peer) -> Option<usize> {
        self.peers.iter().position(|other| other.is(peer))
    }

    /// Whether connections are counted: an only peer without limit need not be.
    pub(super) fn counts(&self, peer: &Peer) -> bool {
        !self.single || peer.settings.max_conns != 0
    }

    /// The peer that `sticky` means, where it can be had.
    pub(super) fn by_sid(&self, states: &[State], tried: &Tried, hint: &[u8], sec: i64) -> Option<usize> {
        let at = self.peers.iter().position(|p| p.sid().as_bytes() == hint)?;
        let peer = &self.peers[at];
        let refused = tried.has(at)
            || peer.settings.down == Down::Down
            || peer.failing(&states[at], sec)
            || peer.full();
        (!refused).then_some(at)
    }

    /// The peer at `weight` when each takes as many places as it weighs.
    pub(super) fn at_weight(&self, mut weight: i64) -> usize {
        for (i, peer) in self.peers.iter().enumerate() {
            if weight < peer.settings.weight {
                return i;
            }
            weight -= peer.settings.weight;
        }
        0
    }
}

/// Peers one request has tried.
#[derive(Clone, Debug, Default)]
pub struct Tried {
    first: u64,
    more: Vec<u64>,
}

impl Tried {
    pub(super) fn has(&self, at: usize) -> bool {
        let word = match at / 64 {
            0 => self.first,
            n => self.more.get(n - 1).copied().unwrap_or(0),
        };
        word >> (at % 64) & 1 != 0
    }

    pub(super) fn set(&mut self, at: usize) {
        let bit = 1 << (at % 64);
        match at / 64 {
            0 => self.first |= bit,
            n => {
                if self.more.len() < n {
                    self.more.resize(n, 0);
                }
                self.more[n - 1] |= bit;
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.first = 0;
        self.more.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tried_holds_any_number_of_peers() {
        let mut tried = Tried::default();
        for at in [0, 63, 64, 200] {
            assert!(!tried.has(at));
            tried.set(at);
            assert!(tried.has(at));
        }
        assert!(!tried.has(65) && !tried.has(1000));
        tried.clear();
        assert!(!tried.has(0) && !tried.has(200));
    }

    #[test]
    fn the_sid_is_the_route_or_md5_of_the_name() {
        let address: Address = Address::Inet("127.0.0.1:8081".parse().unwrap());
        let peer = |route| {
            Peer::new(address.clone(), "127.0.0.1:8081".into(), b"a"[..].into(), Settings::default(), route)
        };
        assert_eq!(peer(Some("a")).sid(), "a");
        assert_eq!(peer(None).sid(), "df2b80dc43705d28db9be6f29fe58da3");
    }
}
