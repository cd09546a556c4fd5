//! Smooth weighted round robin: each round every peer gains its weight, and the chosen one loses the sum.

use crate::upstream::peer::{State, Tier, Tried};

/// One round among the usable peers for which `among` holds. `sticky` is preferred to the winner, and still pays.
pub(crate) fn round(
    tier: &Tier,
    states: &mut [State],
    sticky: Option<usize>,
    sec: i64,
    mut among: impl FnMut(usize) -> bool,
) -> Option<usize> {
    let mut best: Option<usize> = None;
    let mut total = 0;
    for (i, peer) in tier.peers.iter().enumerate() {
        if !among(i) || !peer.usable(&states[i], sec) {
            continue;
        }
        total += gain(&mut states[i], peer.settings.weight);
        if best.is_none_or(|b| states[i].current_weight > states[b].current_weight) {
            best = Some(i);
        }
    }
    let best = sticky.or(best)?;
    states[best].current_weight -= total;
    Some(best)
}

/// A peer's turn to gain weight; one that failed regains its full weight step by step.
pub(crate) fn gain(state: &mut State, weight: i64) -> i64 {
    let gained = state.effective_weight;
    state.current_weight += gained;
    if state.effective_weight < weight {
        state.effective_weight += 1;
    }
    gained
}

/// Chooses in turn. A peer that `sticky` binds to is taken as it is once it is far enough in debt.
pub(crate) fn choose(
    tier: &Tier,
    states: &mut [State],
    tried: &Tried,
    hint: Option<&[u8]>,
    sec: i64,
) -> Option<usize> {
    let sticky = hint.and_then(|hint| tier.by_sid(states, tried, hint, sec));
    if let Some(at) = sticky {
        let limit = -(tier.total_weight - tier.peers[at].settings.weight);
        if states[at].current_weight <= limit {
            return Some(at);
        }
    }
    round(tier, states, sticky, sec, |i| !tried.has(i))
}

#[cfg(test)]
mod tests {
    use crate::upstream::testing::{group, names, take};

    #[test]
    fn weights_are_spread_evenly() {
        let g = group("", &["a weight=5", "b", "c"]);
        assert_eq!(names(g, 14), "a a b a c a a a a b a c a a");
    }

    #[test]
    fn equal_weights_take_turns() {
        let g = group("", &["a", "b", "c"]);
        assert_eq!(names(g, 7), "a b c a b c a");
    }

    #[test]
    fn one_request_tries_each_peer_once_and_then_none() {
        let g = group("", &["a", "b", "c down"]);
        let mut pick = take(g);
        assert_eq!(pick.tries(), 2);
        assert_eq!(&*pick.next(0).unwrap().server, b"a");
        pick.fail(0);
        assert_eq!(&*pick.next(0).unwrap().server, b"b");
        pick.fail(0);
        assert_eq!(pick.tries(), 0);
        assert!(pick.next(0).is_err());
    }
}
