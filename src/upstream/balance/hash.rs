//! `hash`: by a key, modulo (as Cache::Memcached does) or consistently (as Cache::Memcached::Fast does).

use std::sync::Arc;

use bytes::Bytes;
use crc32fast::Hasher;

use super::{MAX_MISSES, round_robin};
use crate::upstream::peer::{Peer, State, Tier, Tried};

/// Where the hash of one request has come to.
#[derive(Debug)]
pub struct Walk {
    key: Bytes,
    hash: u32,
    rehash: u32,
    misses: u32,
}

impl Walk {
    /// Of a `hash KEY` group.
    pub(crate) fn new(key: Bytes) -> Walk {
        Walk { key, hash: 0, rehash: 0, misses: 0 }
    }

    /// Of a `hash KEY consistent` group: begins at the first point at or after the key's hash.
    pub(crate) fn consistent(key: Bytes, points: &Points) -> Walk {
        let hash = crc32fast::hash(&key);
        let at = points.0.partition_point(|p| p.hash < hash);
        Walk { hash: at as u32, ..Walk::new(key) }
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
        if self.misses > MAX_MISSES || tier.peers.len() < 2 || self.key.is_empty() {
            return None;
        }
        if let Some(at) = hint.and_then(|hint| tier.by_sid(states, tried, hint, sec)) {
            return Some(at);
        }
        loop {
            let mut crc = Hasher::new();
            if self.rehash > 0 {
                crc.update(self.rehash.to_string().as_bytes());
            }
            crc.update(&self.key);
            self.hash = self.hash.wrapping_add(crc.finalize() >> 16 & 0x7fff);
            self.rehash += 1;
            let at = tier.at_weight(i64::from(self.hash) % tier.total_weight);
            if !tried.has(at) && tier.peers[at].usable(&states[at], sec) {
                return Some(at);
            }
            self.misses += 1;
            if self.misses > MAX_MISSES {
                return None;
            }
        }
    }

    /// None where round robin should decide.
    pub(crate) fn choose_consistent(
        &mut self,
        points: &Points,
        tier: &Tier,
        states: &mut [State],
        tried: &Tried,
        hint: Option<&[u8]>,
        sec: i64,
    ) -> Option<usize> {
        if self.misses > MAX_MISSES || tier.single || self.key.is_empty() || points.0.is_empty() {
            return None;
        }
        if let Some(at) = hint.and_then(|hint| tier.by_sid(states, tried, hint, sec)) {
            return Some(at);
        }
        loop {
            let server = &points.0[self.hash as usize % points.0.len()].server;
            let among = |i: usize| !tried.has(i) && tier.peers[i].server == *server;
            if let Some(at) = round_robin::round(tier, states, None, sec, among) {
                return Some(at);
            }
            self.hash = self.hash.wrapping_add(1);
            self.misses += 1;
            if self.misses > MAX_MISSES {
                return None;
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Point {
    hash: u32,
    server: Arc<[u8]>,
}

/// The ring of consistent hashing: 160 points for each unit of weight, in order.
#[derive(Clone, Debug, Default)]
pub struct Points(Vec<Point>);

impl Points {
    /// None where there is no memory for them.
    pub(crate) fn new(peers: &[Peer]) -> Option<Points> {
        let total: i64 = peers.iter().map(|p| p.settings.weight).sum();
        let mut points = Vec::new();
        points.try_reserve_exact(usize::try_from(total).ok()?.checked_mul(160)?).ok()?;
        for peer in peers {
            let (host, port) = split(&peer.server);
            let mut base = Hasher::new();
            base.update(host);
            base.update(&[0]);
            base.update(port);
            let mut previous = 0u32;
            for _ in 0..peer.settings.weight * 160 {
                let mut crc = base.clone();
                crc.update(&previous.to_le_bytes());
                previous = crc.finalize();
                points.push(Point { hash: previous, server: peer.server.clone() });
            }
        }
        points.sort_by_key(|p| p.hash);
        points.dedup_by_key(|p| p.hash);
        Some(Points(points))
    }
}

/// Host and port of a server as written; unix sockets have their path only.
fn split(server: &[u8]) -> (&[u8], &[u8]) {
    if server.len() >= 5 && server[..5].eq_ignore_ascii_case(b"unix:") {
        return (&server[5..], b"");
    }
    match server.iter().rposition(|c| !c.is_ascii_digit()) {
        Some(at) if server[at] == b':' => (&server[..at], &server[at + 1..]),
        _ => (server, b""),
    }
}

#[cfg(test)]
mod tests {
    use crate::upstream::testing::{group, take_from};

    fn server(g: &'static crate::upstream::Group, key: &str) -> String {
        let mut pick = take_from(g, None, key);
        String::from_utf8_lossy(&pick.next(0).unwrap().server).into_owned()
    }

    /// CRC-32 bit by bit, so that the test does not rest on the crate the code uses.
    fn crc(parts: &[&[u8]]) -> u32 {
        let mut crc = !0u32;
        for byte in parts.concat() {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = if crc & 1 != 0 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            }
        }
        !crc
    }

    #[test]
    fn keys_fall_where_the_crc_says() {
        assert_eq!(crc(&[b"123456789"]), 0xcbf4_3926);
        let g = group("hash $key", &["a weight=2", "b", "c"]);
        for key in ["/", "/index.html", "x", "127.0.0.1", "session-17"] {
            let place = (crc(&[key.as_bytes()]) >> 16 & 0x7fff) % 4;
            assert_eq!(server(g, key), ["a", "a", "b", "c"][place as usize], "{key}");
        }
    }

    #[test]
    fn a_miss_hashes_again_with_its_number_before_the_key() {
        let g = group("hash $key", &["a", "b down", "c down", "d down"]);
        let key = "some-key";
        let mut hash = 0;
        let mut place = 1;
        let mut rounds = 0;
        while place != 0 && rounds <= 20 {
            let number = rounds.to_string();
            let prefix = if rounds == 0 { "" } else { &number };
            hash += crc(&[prefix.as_bytes(), key.as_bytes()]) >> 16 & 0x7fff;
            place = hash % 4;
            rounds += 1;
        }
        let mut pick = take_from(g, None, key);
        assert_eq!(&*pick.next(0).unwrap().server, b"a");
    }

    #[test]
    fn consistent_points_are_those_of_the_formula() {
        let servers = ["127.0.0.1:8081", "127.0.0.1:8082 weight=2", "backend", "unix:/tmp/s:1"];
        let g = group("hash $key consistent", &servers);
        let mut ring: Vec<(u32, &str)> = Vec::new();
        for (name, host, port, weight) in [
            ("127.0.0.1:8081", "127.0.0.1", "8081", 1),
            ("127.0.0.1:8082", "127.0.0.1", "8082", 2),
            ("backend", "backend", "", 1),
            ("unix:/tmp/s:1", "/tmp/s:1", "", 1),
        ] {
            let mut previous = 0u32;
            for _ in 0..weight * 160 {
                previous = crc(&[host.as_bytes(), b"\0", port.as_bytes(), &previous.to_le_bytes()]);
                ring.push((previous, name));
            }
        }
        ring.sort_by_key(|(hash, _)| *hash);
        for n in 0..500 {
            let key = format!("key{n}");
            let hash = crc(&[key.as_bytes()]);
            let place = ring.iter().position(|(h, _)| *h >= hash).unwrap_or(0);
            assert_eq!(server(g, &key), ring[place].1, "{key}");
        }
    }

    #[test]
    fn an_empty_key_takes_turns() {
        let g = group("hash $key consistent", &["a", "b"]);
        assert_eq!([server(g, ""), server(g, ""), server(g, "")], ["a", "b", "a"]);
    }

    #[test]
    fn keys_stay_when_a_server_goes() {
        let all = group("hash $key consistent", &["a", "b", "c"]);
        let less = group("hash $key consistent", &["a", "b"]);
        for n in 0..200 {
            let key = format!("key{n}");
            let before = server(all, &key);
            if before != "c" {
                assert_eq!(server(less, &key), before);
            }
        }
    }
}
