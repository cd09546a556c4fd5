//! `random`: by chance and weight; with `two`, the less busy of two.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use super::MAX_MISSES;
use crate::upstream::peer::{State, Tier, Tried};

thread_local! {
    static SEED: Cell<u64> = Cell::new(seed());
}

fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
    let here = &now as *const u64 as u64;
    (now ^ here.rotate_left(32)) | 1
}

/// xorshift64* (Vigna); chance enough for sharing load.
fn random() -> u64 {
    SEED.with(|seed| {
        let mut x = seed.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        seed.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    })
}

/// None where round robin should decide; `misses` belong to the request.
pub(crate) fn choose(
    tier: &Tier,
    states: &[State],
    tried: &Tried,
    hint: Option<&[u8]>,
    sec: i64,
    misses: &mut u32,
    two: bool,
) -> Option<usize> {
    if *misses > MAX_MISSES || tier.peers.len() < 2 {
        return None;
    }
    if let Some(at) = hint.and_then(|hint| tier.by_sid(states, tried, hint, sec)) {
        return Some(at);
    }
    let mut first = None;
    loop {
        let at = tier.at_weight((random() % tier.total_weight as u64) as i64);
        let peer = &tier.peers[at];
        if first != Some(at) && !tried.has(at) && peer.usable(&states[at], sec) {
            let Some(other) = first else {
                if !two {
                    return Some(at);
                }
                first = Some(at);
                continue;
            };
            let rival = &tier.peers[other];
            let mine = i64::from(peer.conns()) * rival.settings.weight;
            let theirs = i64::from(rival.conns()) * peer.settings.weight;
            return Some(if mine > theirs { other } else { at });
        }
        *misses += 1;
        if *misses > MAX_MISSES {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::upstream::testing::{group, names, take};

    #[test]
    fn weights_are_kept_on_the_long_run() {
        let g = group("random", &["a weight=3", "b"]);
        let served = names(g, 4000);
        let a = served.matches('a').count();
        assert!((2700..3300).contains(&a), "{a} of 4000");
    }

    #[test]
    fn of_two_the_less_busy() {
        let g = group("random two", &["a", "b"]);
        let mut held = Vec::new();
        for _ in 0..100 {
            let mut pick = take(g);
            pick.next(0).unwrap();
            held.push(pick);
        }
        let conns: Vec<u32> = g.peers().map(|p| p.conns()).collect();
        assert!(conns[0].abs_diff(conns[1]) <= 20, "{conns:?}");
    }

    #[test]
    fn a_peer_that_is_down_is_never_hit() {
        let g = group("random", &["a", "b down", "c"]);
        assert!(!names(g, 300).contains('b'));
    }
}
