//! Ways to choose a peer, one file each. All choose among the peers of one tier whose states are locked.

pub mod hash;
pub mod ip_hash;
pub mod least_conn;
pub mod least_time;
pub mod random;
pub mod round_robin;

use crate::value::Template;

/// How often hashes and chance miss before round robin decides.
pub(super) const MAX_MISSES: u32 = 20;

/// How a group chooses.
#[derive(Clone, Debug, Default)]
pub enum Method {
    /// Smooth weighted round robin.
    #[default]
    RoundRobin,
    /// `ip_hash`
    IpHash,
    /// `hash KEY`
    Hash(Template),
    /// `hash KEY consistent`
    ConsistentHash(Template),
    /// `least_conn`
    LeastConn,
    /// `least_time`
    LeastTime(least_time::LeastTime),
    /// `random`
    Random,
    /// `random two`
    RandomTwo,
}
