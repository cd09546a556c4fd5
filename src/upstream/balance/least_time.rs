//! `least_time`: the peer that would finish soonest, by average times and the connections it has.

use super::least_conn::choose_least;
use crate::upstream::peer::{Peer, State, Tier, Tried};
use crate::upstream::state::UpstreamState;

/// Which time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// `connect` (stream)
    Connect,
    /// `header` (http), `first_byte` (stream)
    First,
    /// `last_byte`
    LastByte,
}

/// What the directive says.
#[derive(Clone, Copy, Debug)]
pub struct LeastTime {
    /// Which time counts.
    pub metric: Metric,
    /// Requests that are still running count too.
    pub inflight: bool,
    /// Of a stream block.
    pub stream: bool,
}

/// Times above this are equally bad, in milliseconds.
const MAX_TIME: u64 = 5000;
/// Times this close are equal.
const CLUSTER: u64 = 20;

/// Exponential moving average, with rounding.
fn average(avg: &mut u64, value: u64) {
    *avg = if *avg == 0 { value } else { (0.5 + value as f64 * 0.05 + *avg as f64 * 0.95) as u64 };
}

impl LeastTime {
    /// Time the peer is expected to need for what it has and one more request.
    fn eta(&self, peer: &Peer, state: &State, sec: i64) -> i64 {
        let mut time = match self.metric {
            Metric::Connect => state.connect_time,
            Metric::First => state.first_time,
            Metric::LastByte => state.response_time,
        };
        let timeout = peer.settings.fail_timeout;
        let idle = sec - state.checked;
        if idle > timeout {
            // Half for each fail_timeout gone by: slow peers get their chance.
            time = time.checked_shr(u32::try_from(idle / (timeout + 1)).unwrap_or(u32::MAX)).unwrap_or(0);
        }
        if state.inflight > 0 {
            time = time.max(state.inflight_time);
        }
        let time = if time > MAX_TIME { MAX_TIME } else { time + CLUSTER - time % CLUSTER };
        time as i64 * (1 + i64::from(peer.conns()))
    }

    pub(crate) fn choose(
        &self,
        tier: &Tier,
        states: &mut [State],
        tried: &Tried,
        hint: Option<&[u8]>,
        now: u64,
    ) -> Option<usize> {
        let sec = (now / 1000) as i64;
        if let Some(at) = hint.and_then(|hint| tier.by_sid(states, tried, hint, sec)) {
            return Some(at);
        }
        for (i, peer) in tier.peers.iter().enumerate() {
            let state = &mut states[i];
            if state.inflight > 0 && !tried.has(i) && peer.usable(state, sec) {
                let running = now.saturating_sub(state.inflight_changed);
                average(&mut state.inflight_time, state.inflight_last / state.inflight + running);
            }
        }
        choose_least(tier, states, tried, sec, |i, state| self.eta(&tier.peers[i], state, sec))
    }

    /// A request begins; true where its end must be told.
    pub(crate) fn begin(&self, state: &mut State, now: u64) -> bool {
        if self.inflight {
            if state.inflight > 0 {
                let running = now.saturating_sub(state.inflight_changed) * state.inflight;
                state.inflight_last = state.inflight_last.wrapping_add(running);
            }
            state.inflight_changed = now;
            state.inflight += 1;
        }
        self.inflight
    }

    /// A running request that took `time` so far stops counting as running.
    pub(crate) fn end(state: &mut State, time: u64, now: u64) {
        if state.inflight <= 1 {
            state.inflight_last = 0;
        } else {
            let running = now.saturating_sub(state.inflight_changed) * state.inflight;
            state.inflight_last = state.inflight_last.wrapping_add(running).saturating_sub(time);
            state.inflight_changed = now;
        }
        state.inflight = state.inflight.saturating_sub(1);
    }

    /// A time became known while the request runs. Only with `inflight`; true where it no longer counts as running.
    pub(crate) fn notify(
        &self,
        metric: Metric,
        time: u64,
        state: &mut State,
        running: bool,
        now: u64,
    ) -> bool {
        if !self.inflight || self.metric != metric {
            return false;
        }
        match metric {
            Metric::Connect => average(&mut state.connect_time, time),
            Metric::First => average(&mut state.first_time, time),
            Metric::LastByte => return false,
        }
        if running {
            LeastTime::end(state, time, now);
        }
        running
    }

    /// Counts the times of a successful attempt that [`LeastTime::notify`] has not.
    pub(crate) fn learn(&self, state: &mut State, times: &UpstreamState) {
        if !self.stream && times.header_time.is_none() {
            return;
        }
        let told = |metric| self.inflight && self.metric == metric;
        average(&mut state.response_time, times.response_time.unwrap_or(0));
        if let Some(time) = times.connect_time.filter(|_| !told(Metric::Connect)) {
            average(&mut state.connect_time, time);
        }
        if let Some(time) = times.header_time.filter(|_| !told(Metric::First)) {
            average(&mut state.first_time, time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::pick::End;
    use crate::upstream::testing::{group, take};

    fn serve(g: &'static crate::upstream::Group, now: u64, times: impl Fn(&[u8]) -> u64) -> String {
        let mut pick = take(g);
        let server = pick.next(now).unwrap().server.clone();
        let time = times(&server);
        let state = UpstreamState {
            connect_time: Some(0),
            header_time: Some(time),
            response_time: Some(time),
            ..UpstreamState::default()
        };
        pick.release(End::Done, &state, now);
        String::from_utf8_lossy(&server).into_owned()
    }

    #[test]
    fn averages_move_by_a_twentieth() {
        let mut avg = 0;
        average(&mut avg, 100);
        assert_eq!(avg, 100);
        average(&mut avg, 200);
        assert_eq!(avg, 105);
        average(&mut avg, 105);
        assert_eq!(avg, 105);
    }

    #[test]
    fn the_quicker_peer_is_chosen_once_both_are_known() {
        let g = group("least_time header", &["a", "b"]);
        let times = |s: &[u8]| if s == b"a" { 300 } else { 5 };
        let served: Vec<_> = (0..8).map(|_| serve(g, 1_000_000, times)).collect();
        assert_eq!(served[..2], ["a", "b"]);
        assert!(served[2..].iter().all(|s| s == "b"), "{served:?}");
        // Four times eleven seconds later 300 ms count as 18, in the same cluster as 5.
        let served: Vec<_> = (0..4).map(|_| serve(g, 1_044_000, |_| 5)).collect();
        assert!(served.contains(&"a".to_string()), "{served:?}");
    }

    #[test]
    fn running_requests_count_with_inflight() {
        let g = group("least_time last_byte inflight", &["a", "b"]);
        let mut stuck = take(g);
        assert_eq!(&*stuck.next(0).unwrap().server, b"a");
        // A request has been on "a" for ten seconds: "b" is taken in spite of its own.
        let mut other = take(g);
        assert_eq!(&*other.next(10_000).unwrap().server, b"b");
        let mut third = take(g);
        assert_eq!(&*third.next(10_000).unwrap().server, b"b");
        drop((stuck, other, third));
        assert!(g.fixed.primary.states().iter().all(|s| s.inflight == 0));
    }
}
