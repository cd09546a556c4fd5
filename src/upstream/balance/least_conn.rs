//! `least_conn`: the peer with the fewest connections for its weight; among equals, round robin.

use super::round_robin::gain;
use crate::upstream::peer::{State, Tier, Tried};

/// The peers that share the least `cost` for their weight take turns.
pub(crate) fn choose_least(
    tier: &Tier,
    states: &mut [State],
    tried: &Tried,
    sec: i64,
    cost: impl Fn(usize, &State) -> i64,
) -> Option<usize> {
    let mut least: Option<(usize, i64)> = None;
    let mut many = false;
    for (i, peer) in tier.peers.iter().enumerate() {
        if tried.has(i) || !peer.usable(&states[i], sec) {
            continue;
        }
        let own = cost(i, &states[i]);
        let Some((best, best_cost)) = least else {
            least = Some((i, own));
            continue;
        };
        let (mine, theirs) = (own * tier.peers[best].settings.weight, best_cost * peer.settings.weight);
        if mine < theirs {
            least = Some((i, own));
            many = false;
        } else if mine == theirs {
            many = true;
        }
    }
    let (first, least_cost) = least?;
    let mut best = first;
    let mut total = 0;
    if many {
        for i in first..tier.peers.len() {
            let weight = tier.peers[i].settings.weight;
            if tried.has(i) || !tier.peers[i].usable(&states[i], sec) {
                continue;
            }
            if cost(i, &states[i]) * tier.peers[first].settings.weight != least_cost * weight {
                continue;
            }
            total += gain(&mut states[i], weight);
            if states[i].current_weight > states[best].current_weight {
                best = i;
            }
        }
    }
    states[best].current_weight -= total;
    Some(best)
}

pub(crate) fn choose(
    tier: &Tier,
    states: &mut [State],
    tried: &Tried,
    hint: Option<&[u8]>,
    sec: i64,
) -> Option<usize> {
    let sticky = hint.and_then(|hint| tier.by_sid(states, tried, hint, sec));
    sticky.or_else(|| choose_least(tier, states, tried, sec, |i, _| i64::from(tier.peers[i].conns())))
}

#[cfg(test)]
mod tests {
    use crate::upstream::testing::{group, names, take};

    #[test]
    fn the_least_busy_for_its_weight_is_chosen() {
        let g = group("least_conn", &["a weight=2", "b"]);
        let mut held = Vec::new();
        let mut order = String::new();
        for _ in 0..6 {
            let mut pick = take(g);
            order.push_str(&String::from_utf8_lossy(&pick.next(0).unwrap().server));
            held.push(pick);
        }
        // By hand: (0,0) a first; (1,0) b; (1,1) a; (2,1) equal, a has more credit; then b, a again.
        assert_eq!(order.matches('a').count(), 4);
        assert_eq!(&order[..3], "aba");
        drop(held);
        assert!(g.peers().all(|p| p.conns() == 0));
    }

    #[test]
    fn idle_peers_take_turns() {
        assert_eq!(names(group("least_conn", &["a", "b", "c"]), 6), "a b c a b c");
    }
}
