//! The resolver of `resolver`: names asked for while serving, over UDP and TCP, kept as long as they are valid.
//!
//! ```text
//! resolver.addresses(name, timeout).await   kept answer, or a query in flight that others wait for too, or a new one
//! resolver.services(name, service, timeout) SRV records, then the addresses of each
//! ```
//!
//! Each thread keeps its own answers. A query is [`exchange`]d by a task of its own: whoever waits may give up.

mod exchange;
mod keep;
pub mod message;
mod services;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Deadline, clock};
use keep::{Found, Keep};
pub use services::{Services, Target};

/// A name without addresses.
pub const HOST_NOT_FOUND: Failure = Failure(3);
/// There was no answer in time.
pub const TIMED_OUT: Failure = Failure(libc::ETIMEDOUT as u16);

/// Aliases followed for one name.
const MAX_ALIASES: usize = 50;
/// Seconds for which a name that has no addresses is taken to have none, for those who ask again by a timer.
const FAILURE_VALID: i64 = 10;

/// Why there are no addresses: the code of the server (RFC 1035, section 4.1.1), or the system's of a timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure(pub u16);

impl fmt::Display for Failure {
    /// `3: Host not found`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match *self {
            Failure(1) => "Format error",
            Failure(2) => "Server failure",
            HOST_NOT_FOUND => "Host not found",
            Failure(4) => "Unimplemented",
            Failure(5) => "Operation refused",
            TIMED_OUT => "Operation timed out",
            _ => "Unknown error",
        };
        write!(f, "{}: {words}", self.0)
    }
}

impl std::error::Error for Failure {}

/// Name servers and how to ask them.
#[derive(Debug)]
pub struct Resolver {
    /// Tells it from others of this process.
    id: usize,
    servers: Vec<SocketAddr>,
    /// Seconds that answers are valid, whatever they say.
    valid: Option<u32>,
    ipv4: bool,
    ipv6: bool,
}

/// The addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// In the order to be tried.
    pub addresses: Vec<IpAddr>,
    /// Until when, in seconds of the monotonic clock ([`now`]).
    pub valid: i64,
}

/// Seconds of the monotonic clock.
pub fn now() -> i64 {
    (clock::now() / 1000) as i64
}

impl Resolver {
    /// Asks `servers` in turn, which are not to be empty, for addresses of the families given.
    pub fn new(servers: Vec<SocketAddr>, valid: Option<u32>, ipv4: bool, ipv6: bool) -> Resolver {
        static IDS: AtomicUsize = AtomicUsize::new(0);
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        Resolver { id, servers, valid, ipv4, ipv6 }
    }

    /// The addresses of a name, within `timeout` milliseconds; 0 is no limit.
    ///
    /// # Errors
    /// What the server said, or [`TIMED_OUT`].
    pub async fn addresses(&self, name: &[u8], timeout: u64) -> Result<Answer, Failure> {
        let keep = Keep::of(self);
        let name = normal(name);
        within(timeout, async {
            let (found, fresh) = follow(&keep, false, name).await?;
            let addresses = found.addresses(!fresh);
            Ok(Answer { addresses, valid: found.valid })
        })
        .await
    }

    /// The servers of a service of a domain, and their addresses.
    pub async fn services(&self, domain: &[u8], service: &[u8], timeout: u64) -> Services {
        services::find(self, domain, service, timeout).await
    }

    /// Until when a failure is not to be looked into again.
    pub fn failure_valid(&self) -> i64 {
        now() + self.valid.map_or(FAILURE_VALID, i64::from)
    }
}

/// What is asked for: lower case, without a dot at the end.
fn normal(name: &[u8]) -> Vec<u8> {
    name.strip_suffix(b".").unwrap_or(name).to_ascii_lowercase()
}

/// Looks a name up through its aliases; whether the answer is a new one.
async fn follow(keep: &Rc<Keep>, services: bool, mut name: Vec<u8>) -> Result<(Rc<Found>, bool), Failure> {
    for _ in 0..=MAX_ALIASES {
        let (found, fresh) = keep.look_up(services, &name).await?;
        match &found.alias {
            Some(alias) => name = alias.clone(),
            None => return Ok((found, fresh)),
        }
    }
    Err(HOST_NOT_FOUND)
}

async fn within<T>(timeout: u64, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    if timeout == 0 {
        return work.await;
    }
    let deadline = Deadline::never();
    deadline.set(timeout);
    deadline.limit(work).await.unwrap_or(Err(TIMED_OUT))
}

/// Chance below `n`, for orders of addresses; 0 where `n` is.
fn random(n: usize) -> usize {
    let mut bytes = [0; 8];
    // Without randomness the order is that of the answer.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    (u64::from_ne_bytes(bytes) % n.max(1) as u64) as usize
}

#[cfg(test)]
mod tests;
