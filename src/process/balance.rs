//! Which thread serves a connection, and how many there may be.

use super::stats::{Count, count};
use crate::log::{self, ErrorLog, Level};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use tokio::sync::Notify;

/// The connections of all threads of the worker.
#[derive(Debug)]
pub(super) struct Loads {
    threads: Box<[Load]>,
    /// `worker_connections`; times the threads, the limit of the worker.
    connections: usize,
    /// Someone waits until no client is left.
    draining: AtomicBool,
    drained: Notify,
    /// The second of the last warning that connections run short.
    warned: AtomicI64,
}

/// One cache line a thread.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Load {
    clients: AtomicUsize,
    others: AtomicUsize,
}

/// One connection counted; dropping it counts it out.
#[derive(Debug)]
pub struct Slot {
    loads: &'static Loads,
    thread: u32,
    /// Also one of stub_status' active connections.
    client: bool,
}

thread_local! {
    static CURRENT: Cell<Option<(&'static Loads, usize)>> = const { Cell::new(None) };
}

/// Counts a connection that is not a client's, such as one to an upstream server, against
/// `worker_connections`. `None`, with nginx's alert in `log`, when there are too many.
pub fn connection_slot(
    log: &ErrorLog,
    connection: Option<u64>,
    context: std::fmt::Arguments<'_>,
) -> Option<Slot> {
    let (loads, thread) = CURRENT.get()?;
    let slot = loads.take(thread, false);
    if slot.is_none() {
        loads.complain(log, connection, context);
    }
    slot
}

/// There are as many connections as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Counts a client that no listener of connections has taken: the worker waits for it before it exits. No slot where
/// nobody counts.
///
/// # Errors
/// There are too many; nginx's alert is in `log`.
pub fn client_slot(log: &ErrorLog, context: std::fmt::Arguments<'_>) -> Result<Option<Slot>, Full> {
    let Some((loads, thread)) = CURRENT.get() else { return Ok(None) };
    let slot = loads.take_client(thread);
    if slot.is_none() {
        loads.complain(log, None, context);
    }
    slot.map(Some).ok_or(Full)
}

// === impl Loads ===

impl Loads {
    pub(super) fn new(threads: usize, connections: usize) -> Loads {
        Loads {
            threads: (0..threads.max(1)).map(|_| Load::default()).collect(),
            connections,
            draining: AtomicBool::new(false),
            drained: Notify::new(),
            warned: AtomicI64::new(0),
        }
    }

    /// Makes the calling thread the one with that index.
    pub(super) fn enter(&'static self, thread: usize) {
        CURRENT.set(Some((self, thread)));
    }

    /// The thread that should serve a connection which `thread` has taken: itself unless another has less by
    /// more than one.
    pub(super) fn choose(&self, thread: usize) -> usize {
        let count = |load: &Load| load.clients.load(Ordering::Relaxed);
        let own = self.threads.get(thread).map_or(usize::MAX, count);
        let least = self.threads.iter().map(count).enumerate().min_by_key(|(_, count)| *count);
        match least {
            Some((other, least)) if own > least + 1 => other,
            _ => thread,
        }
    }

    /// Counts a client of `thread`, unless there are too many.
    pub(super) fn take_client(&'static self, thread: usize) -> Option<Slot> {
        self.take(thread, true)
    }

    /// Whether no more than a sixteenth of the connections is free, which is when idle ones are closed.
    pub(super) fn is_short(&self) -> bool {
        let limit = self.limit();
        limit - self.total().min(limit) <= limit / 16
    }

    /// Whether the shortage may be told now: once a second.
    pub(super) fn may_warn(&self, second: i64) -> bool {
        self.warned.swap(second, Ordering::Relaxed) != second
    }

    pub(super) fn complain(&self, log: &ErrorLog, connection: Option<u64>, context: std::fmt::Arguments<'_>) {
        let what = format_args!("{} worker_connections are not enough", self.connections);
        log::error_context(log, Level::Alert, connection, None, what, context);
    }

    pub(super) fn connections(&self) -> usize {
        self.connections
    }

    pub(super) fn clients(&self) -> usize {
        self.threads.iter().map(|load| load.clients.load(Ordering::Acquire)).sum()
    }

    /// Waits until no client is left.
    pub(super) async fn drained(&self) {
        self.draining.store(true, Ordering::SeqCst);
        loop {
            let drained = self.drained.notified();
            if self.clients() == 0 {
                return;
            }
            drained.await;
        }
    }

    fn limit(&self) -> usize {
        self.connections.saturating_mul(self.threads.len())
    }

    fn total(&self) -> usize {
        let one = |load: &Load| load.clients.load(Ordering::Relaxed) + load.others.load(Ordering::Relaxed);
        self.threads.iter().map(one).sum()
    }

    fn take(&'static self, thread: usize, client: bool) -> Option<Slot> {
        let load = self.threads.get(thread)?;
        if self.total() >= self.limit() {
            return None;
        }
        load.counter(client).fetch_add(1, Ordering::Relaxed);
        if client {
            count(Count::Active, 1);
        }
        Some(Slot { loads: self, thread: thread as u32, client })
    }
}

// === impl Load ===

impl Load {
    fn counter(&self, client: bool) -> &AtomicUsize {
        if client { &self.clients } else { &self.others }
    }
}

// === impl Slot ===

impl Drop for Slot {
    fn drop(&mut self) {
        if self.client {
            // Perhaps not the thread that counted it: what counts is the sum.
            count(Count::Active, -1);
        }
        self.loads.threads[self.thread as usize].counter(self.client).fetch_sub(1, Ordering::SeqCst);
        if self.client && self.loads.draining.load(Ordering::SeqCst) && self.loads.clients() == 0 {
            self.loads.drained.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(threads: usize, connections: usize) -> &'static Loads {
        Box::leak(Box::new(Loads::new(threads, connections)))
    }

    #[test]
    fn busy_connections_spread_evenly_whoever_takes_them() {
        let loads = loads(2, 512);
        let slots: Vec<Slot> = (0..64).map(|_| loads.take_client(loads.choose(0)).unwrap()).collect();
        let first = slots.iter().filter(|slot| slot.thread == 0).count();
        assert!((31..=33).contains(&first), "{first}");
    }

    #[test]
    fn the_limit_counts_the_whole_worker() {
        let loads = loads(2, 2);
        let slots: Vec<_> = (0..4).map(|at| loads.take(0, at % 2 == 0).unwrap()).collect();
        assert!(loads.take_client(1).is_none());
        assert!(loads.is_short() && loads.may_warn(5) && !loads.may_warn(5) && loads.may_warn(6));
        drop(slots);
        assert!(!loads.is_short());
        assert!(loads.take_client(1).is_some());
    }

    #[test]
    fn waiting_ends_with_the_last_client() {
        let loads = loads(1, 8);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let slot = loads.take_client(0).unwrap();
        let other = loads.take(0, false).unwrap();
        runtime.block_on(async {
            let task = tokio::spawn(async move {
                tokio::task::yield_now().await;
                drop(slot);
            });
            loads.drained().await;
            task.await.unwrap();
        });
        drop(other);
    }
}
