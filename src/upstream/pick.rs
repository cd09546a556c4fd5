//! Choosing peers for one request: first one, and others when it fails.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::balance::least_time::{LeastTime, Metric};
use super::balance::{Method, hash, ip_hash, least_conn, random, round_robin};
use super::group::{Group, GroupRef, Peers};
use super::live::Live;
use super::peer::{Down, Peer, State, Tier, Tried};
use super::state::UpstreamState;
use super::sticky::Bond;
use crate::net::clock;
use crate::value::{Context, Template, VarId};

/// What balancing may ask of a request or session.
pub trait KeySource {
    /// The client's address, for `ip_hash`; none for clients on unix sockets.
    fn client(&self) -> Option<IpAddr>;
    /// The value of a key.
    fn value(&self, template: &Template) -> Bytes;
    /// Appends a variable's value; false where it has none.
    fn variable(&self, id: VarId, out: &mut Vec<u8>) -> bool;
}

/// A [`KeySource`] made of anything that templates are evaluated against.
pub struct Source<'a, C: Context> {
    /// The request or session.
    pub context: &'a C,
    /// The client's address.
    pub client: Option<IpAddr>,
}

impl<C: Context> KeySource for Source<'_, C> {
    fn client(&self) -> Option<IpAddr> {
        self.client
    }

    fn value(&self, template: &Template) -> Bytes {
        template.eval(self.context)
    }

    fn variable(&self, id: VarId, out: &mut Vec<u8>) -> bool {
        crate::value::variable(self.context, id, out)
    }
}

/// Nobody is left to try: `no live upstreams`. The attempt's peer is the group itself.
#[derive(Clone, Debug)]
pub struct NoLive {
    /// The group's name.
    pub name: Arc<str>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With a response, or for no fault of the peer.
    Done,
    /// With a response that another peer might better (403, 404).
    Next,
    /// The peer failed.
    Failed,
}

/// What the method keeps for one request.
#[derive(Debug)]
enum Walk {
    Plain,
    IpHash(ip_hash::Walk),
    Hash(hash::Walk),
    Random { misses: u32 },
}

/// The choice of peers for one request or session. Holds a connection's place with the chosen peer until
/// [`Pick::release`], or until dropped.
#[derive(Debug)]
pub struct Pick {
    group: GroupRef,
    /// The peers there were at the beginning, where they come and go.
    peers: Option<Arc<Peers>>,
    backup: bool,
    tried: Tried,
    tries: u32,
    walk: Walk,
    bond: Bond,
    current: Option<u32>,
    /// Counted by `least_time ... inflight` since this moment.
    inflight: Option<u64>,
}

impl Pick {
    pub(super) fn new(group: GroupRef, source: &impl KeySource) -> Pick {
        let shared = group.live.as_ref().map(Live::peers);
        let peers = shared.as_deref().unwrap_or(&group.fixed);
        let walk = match &group.method {
            Method::IpHash => Walk::IpHash(ip_hash::Walk::new(source.client())),
            Method::Hash(key) => Walk::Hash(hash::Walk::new(source.value(key))),
            Method::ConsistentHash(key) => {
                Walk::Hash(hash::Walk::consistent(source.value(key), &peers.points))
            }
            Method::Random | Method::RandomTwo => Walk::Random { misses: 0 },
            _ => Walk::Plain,
        };
        let bond = group.sticky.as_ref().map(|sticky| sticky.bond(source)).unwrap_or_default();
        let tries = peers.tries();
        Pick {
            group,
            peers: shared,
            backup: false,
            tried: Tried::default(),
            tries,
            walk,
            bond,
            current: None,
            inflight: None,
        }
    }

    /// The group that is chosen from.
    pub fn group(&self) -> &GroupRef {
        &self.group
    }

    /// The peer chosen last, until it is released.
    pub fn peer(&self) -> Option<&Peer> {
        Some(&self.tier().peers[self.current? as usize])
    }

    fn all(&self) -> &Peers {
        self.peers.as_deref().unwrap_or(&self.group.fixed)
    }

    fn tier(&self) -> &Tier {
        self.all().tier(self.backup)
    }

    /// Does something to a peer's state where it is kept now; nowhere, once the peer is gone.
    fn with_state<T>(&self, at: usize, change: impl FnOnce(&mut State) -> T) -> Option<T> {
        let tier = self.tier();
        let now = self.group.live.as_ref().map(Live::peers);
        match (&now, &self.peers) {
            (Some(now), Some(peers)) if !Arc::ptr_eq(now, peers) => {
                let tier_now = now.tier(self.backup);
                let at = tier_now.place_of(&tier.peers[at])?;
                tier_now.states().get_mut(at).map(change)
            }
            _ => tier.states().get_mut(at).map(change),
        }
    }

    /// Attempts that may still be made.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// Allows at most that many attempts (`proxy_next_upstream_tries`); 0 is no limit. Call before the first.
    pub fn limit_tries(&mut self, limit: u32) {
        if limit != 0 {
            self.tries = self.tries.min(limit);
        }
    }

    /// Gives back an attempt that failed because a kept connection had been closed meanwhile.
    pub fn retry_kept(&mut self) {
        self.tries += 1;
    }

    /// Chooses a peer. `now` is in milliseconds of [`clock::now`].
    ///
    /// # Errors
    /// All peers are down, failing, full or tried.
    pub fn next(&mut self, now: u64) -> Result<&Peer, NoLive> {
        self.settle(End::Done, None, now);
        let mut plain = false;
        let at = loop {
            if let Some(at) = self.choose(now, &mut plain) {
                break at;
            }
            if self.backup || self.all().backup.is_none() {
                return Err(NoLive { name: self.group.name.clone() });
            }
            self.backup = true;
            self.tried.clear();
        };
        self.current = Some(at as u32);
        Ok(&self.tier().peers[at])
    }

    /// Chooses in the present tier. `plain` is set once the method left it to round robin.
    fn choose(&mut self, now: u64, plain: &mut bool) -> Option<usize> {
        let Pick { group, peers, backup, tried, walk, bond, inflight, .. } = self;
        let group: &Group = group;
        let peers = peers.as_deref().unwrap_or(&group.fixed);
        let tier = peers.tier(*backup);
        let hint = bond.hint.as_deref();
        let sec = (now / 1000) as i64;
        if tier.single {
            let peer = &tier.peers[0];
            let bound = hint.is_some_and(|h| peer.sid().as_bytes() == h);
            let up = peer.settings.down == Down::Up || bound && peer.settings.down == Down::Draining;
            if !up || peer.full() {
                return None;
            }
            if tier.counts(peer) {
                peer.acquire();
            }
            return Some(0);
        }
        let mut states = tier.states();
        let states: &mut [State] = &mut states;
        let by_walk = match walk {
            _ if *plain => None,
            Walk::Plain => None,
            Walk::IpHash(walk) => walk.choose(tier, states, tried, hint, sec),
            Walk::Hash(walk) => match group.method {
                Method::ConsistentHash(_) => {
                    walk.choose_consistent(&peers.points, tier, states, tried, hint, sec)
                }
                _ => walk.choose(tier, states, tried, hint, sec),
            },
            Walk::Random { misses } => {
                let two = matches!(group.method, Method::RandomTwo);
                random::choose(tier, states, tried, hint, sec, misses, two)
            }
        };
        let at = match (by_walk, &group.method) {
            (Some(at), _) => at,
            (None, Method::LeastConn) => least_conn::choose(tier, states, tried, hint, sec)?,
            (None, Method::LeastTime(least)) => {
                let at = least.choose(tier, states, tried, hint, now)?;
                *inflight = least.begin(&mut states[at], now).then_some(now);
                at
            }
            (None, _) => {
                *plain = true;
                round_robin::choose(tier, states, tried, hint, sec)?
            }
        };
        let (peer, state) = (&tier.peers[at], &mut states[at]);
        peer.acquire();
        tried.set(at);
        if sec - state.checked > peer.settings.fail_timeout {
            state.checked = sec;
        }
        Some(at)
    }

    /// Ends the attempt at the chosen peer; true where it is disabled now, which is to be logged as
    /// `upstream server temporarily disabled`.
    pub fn release(&mut self, end: End, times: &UpstreamState, now: u64) -> bool {
        self.settle(end, Some(times), now)
    }

    fn settle(&mut self, end: End, times: Option<&UpstreamState>, now: u64) -> bool {
        let Some(at) = self.current.take() else { return false };
        let at = at as usize;
        let running = self.inflight.take();
        let tier = self.tier();
        let (peer, single) = (&tier.peers[at], tier.single);
        if tier.counts(peer) {
            peer.release();
        }
        let disabled = !single && self.judge(at, running, end, times, now);
        self.tries = if single { 0 } else { self.tries.saturating_sub(1) };
        disabled
    }

    /// Draws from an attempt what it says about the peer; true where that is disabled now.
    fn judge(
        &self,
        at: usize,
        running: Option<u64>,
        end: End,
        times: Option<&UpstreamState>,
        now: u64,
    ) -> bool {
        let peer = &self.tier().peers[at];
        let least_time = match &self.group.method {
            Method::LeastTime(least) => Some(least),
            _ => None,
        };
        if end != End::Failed && peer.fails() == 0 && least_time.is_none() {
            return false;
        }
        let disabled = self.with_state(at, |state| {
            if let Some(least) = least_time {
                if let Some(began) = running {
                    let time = times.and_then(|t| t.response_time).unwrap_or(now.saturating_sub(began));
                    LeastTime::end(state, time, now);
                }
                if let (End::Done, Some(times)) = (end, times) {
                    least.learn(state, times);
                }
            }
            if end != End::Failed {
                revive(peer, state);
                return false;
            }
            fail(peer, state, (now / 1000) as i64)
        });
        disabled.unwrap_or(false)
    }

    /// The response's header, or in stream the first byte, came after `state.header_time`.
    pub fn first_byte(&mut self, times: &UpstreamState, now: u64) {
        self.notify(Metric::First, times.header_time, now);
    }

    /// A session's connection is there, after `state.connect_time`. Over TCP that makes the peer count as live
    /// (stream only; http waits for the end of the attempt).
    pub fn connected(&mut self, times: &UpstreamState, tcp: bool, now: u64) {
        self.notify(Metric::Connect, times.connect_time, now);
        let Some(at) = self.current else { return };
        let peer = &self.tier().peers[at as usize];
        if tcp && peer.fails() != 0 {
            self.with_state(at as usize, |state| revive(peer, state));
        }
    }

    fn notify(&mut self, metric: Metric, time: Option<u64>, now: u64) {
        let Method::LeastTime(least) = &self.group.method else { return };
        let (Some(at), Some(time), false) = (self.current, time, self.tier().single) else { return };
        let running = self.inflight.is_some();
        if self.with_state(at as usize, |state| least.notify(metric, time, state, running, now)) == Some(true)
        {
            self.inflight = None;
        }
    }

    /// The chosen peer answers: with its header, or to the end (`sticky learn`).
    pub fn learn(&self, source: &impl KeySource, at_header: bool) {
        if let (Some(sticky), Some(peer)) = (&self.group.sticky, self.peer()) {
            sticky.learn(source, self.bond.session.as_ref(), peer.sid(), at_header);
        }
    }

    /// The value of the `Set-Cookie` that binds the client to the chosen peer (`sticky cookie`). `wall` is in
    /// seconds since 1970.
    pub fn cookie(&self, source: &impl KeySource, wall: i64) -> Option<Vec<u8>> {
        self.group.sticky.as_ref()?.cookie(source, self.peer()?.sid(), wall)
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        if self.current.is_some() {
            self.settle(End::Done, None, clock::now());
        }
    }
}

/// A peer that passed its check is live again.
fn revive(peer: &Peer, state: &State) {
    if state.accessed < state.checked {
        peer.clear_fails();
    }
}

/// Counts a failure; true where there are too many now.
fn fail(peer: &Peer, state: &mut State, sec: i64) -> bool {
    let fails = peer.add_fail();
    state.accessed = sec;
    state.checked = sec;
    let max = peer.settings.max_fails;
    if max != 0 {
        state.effective_weight -= peer.settings.weight / i64::from(max);
    }
    state.effective_weight = state.effective_weight.max(0);
    max != 0 && fails >= max
}

#[cfg(test)]
mod tests;
