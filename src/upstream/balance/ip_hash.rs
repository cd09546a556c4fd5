//! `ip_hash`: by the first three bytes of an IPv4 address, or all of an IPv6 address.

use std::net::IpAddr;

use super::MAX_MISSES;
use crate::upstream::peer::{State, Tier, Tried};

/// Where the hash of one request has come to.
#[derive(Debug)]
pub struct Walk {
    addr: [u8; 16],
    len: usize,
    hash: u32,
    misses: u32,
}

impl Walk {
    /// Clients without an internet address are all alike.
    pub(crate) fn new(client: Option<IpAddr>) -> Walk {
        let mut addr = [0; 16];
        let len = match client {
            Some(IpAddr::V4(ip)) => {
                addr[..4].copy_from_slice(&ip.octets());
                3
            }
            Some(IpAddr::V6(ip)) => {
                addr = ip.octets();
                16
            }
            None => 3,
        };
        Walk { addr, len, hash: 89, misses: 0 }
    }

    /// None where round robin should decide.
    pub(crate) fn choose(
        &mut self,
        tier: &Tier,
        states: &[State],
        tried: &Tried,
        hint: Option<&[u8]>,
        sec: i64,
    ) -> Option<usize> {
        if self.misses > MAX_MISSES || tier.peers.len() < 2 {
            return None;
        }
        if let Some(at) = hint.and_then(|hint| tier.by_sid(states, tried, hint, sec)) {
            return Some(at);
        }
        let mut hash = self.hash;
        loop {
            for byte in &self.addr[..self.len] {
                hash = (hash * 113 + u32::from(*byte)) % 6271;
            }
            let at = tier.at_weight(i64::from(hash) % tier.total_weight);
            if !tried.has(at) && tier.peers[at].usable(&states[at], sec) {
                self.hash = hash;
                return Some(at);
            }
            self.misses += 1;
            if self.misses > MAX_MISSES {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::upstream::testing::{group, take_from};

    /// ((89 * 113 + 10) * 113 + 1) * 113 + 2, each step modulo 6271, is 3816.
    #[test]
    fn three_bytes_of_ipv4_decide() {
        let expected = [10u32, 1, 2].iter().fold(89u32, |h, b| (h * 113 + b) % 6271);
        let g = group("ip_hash", &["a", "b", "c"]);
        let server = |ip: &str| {
            let mut pick = take_from(g, ip.parse().ok(), "");
            pick.next(0).unwrap().server.to_vec()
        };
        let at = [b"a", b"b", b"c"][(expected % 3) as usize];
        assert_eq!(server("10.1.2.3"), at);
        assert_eq!(server("10.1.2.200"), at);
        let six = [0u32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let expected = six.iter().fold(89u32, |h, b| (h * 113 + b) % 6271);
        assert_eq!(server("::1"), [b"a", b"b", b"c"][(expected % 3) as usize]);
    }

    #[test]
    fn a_failing_peer_is_left_for_another_and_taken_up_again() {
        let g = group("ip_hash", &["a", "b"]);
        let client = "10.1.2.3".parse().ok();
        let mut pick = take_from(g, client, "");
        let first = pick.next(1_000_000).unwrap().server.clone();
        pick.fail(1_000_000);
        let other = pick.next(1_000_000).unwrap().server.clone();
        assert_ne!(first, other);
        drop(pick);
        assert_eq!(take_from(g, client, "").next(1_010_000).unwrap().server, other);
        assert_eq!(take_from(g, client, "").next(1_011_000).unwrap().server, first);
    }
}
