//! Upstream groups, for http and stream alike: peers, balancing, failures, idle connections.
//!
//! ```text
//! upstream {...} / proxy_pass --directives--> Groups --finish--> Group (shared by all threads)
//! a request: group.start(source) -> Pick;  pick.next(now) -> Peer;  keepalive::take or connect::connect;
//!            pick.release(end, state, now);  keepalive::put
//! ```

pub mod balance;
pub mod connect;
pub mod directives;
pub mod group;
pub mod groups;
pub mod keepalive;
pub mod live;
pub mod peer;
pub mod pick;
pub mod remembered;
pub mod state;
pub mod sticky;
#[cfg(test)]
mod testing;

pub use group::{Group, GroupRef};
pub use groups::{GroupId, Groups, RunTime};
pub use peer::Peer;
pub use pick::{End, KeySource, NoLive, Pick, Source};
pub use state::UpstreamState;
