//! Counters in memory that master, old and new workers share: connection numbers go on over a reload, and
//! stub_status counts what all workers did.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Threads with counters of their own; those beyond share.
const THREADS: usize = 64;

/// Counters of one thread; adding to them meets no other thread.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct Stats {
    pub accepted: AtomicU64,
    pub handled: AtomicU64,
    pub requests: AtomicU64,
    /// Connections open now.
    pub active: AtomicI64,
    /// Of these, reading a request's head.
    pub reading: AtomicI64,
    /// Of these, answering.
    pub writing: AtomicI64,
    /// Of these, idle.
    pub waiting: AtomicI64,
}

/// Counts one thing as long as it lives. It may end in another thread: only the sum of all threads has a meaning.
#[derive(Debug)]
pub struct Counted(&'static AtomicI64);

impl Counted {
    /// Adds one until it is dropped.
    pub fn new(counter: &'static AtomicI64) -> Counted {
        counter.fetch_add(1, Ordering::Relaxed);
        Counted(counter)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[repr(C, align(128))]
struct Number(AtomicU64);

#[repr(C)]
struct Shared {
    connection: Number,
    threads: [Stats; THREADS],
}

static SHARED: OnceLock<&'static Shared> = OnceLock::new();

thread_local! {
    static THREAD: Cell<usize> = const { Cell::new(0) };
}

/// Makes the shared memory; called in the master before it forks.
pub(super) fn share() {
    shared();
}

/// Chooses the counters of this thread.
pub(super) fn enter(thread: usize) {
    THREAD.set(thread % THREADS);
}

/// The counters of this thread.
pub fn stats() -> &'static Stats {
    &shared().threads[THREAD.get()]
}

/// The number of the next connection, to a client or an upstream server; the first is 1.
pub fn next_connection_number() -> u64 {
    shared().connection.0.fetch_add(1, Ordering::Relaxed) + 1
}

impl Stats {
    /// What all threads of all workers counted together.
    pub fn total() -> Stats {
        let total = Stats::default();
        for thread in &shared().threads {
            for (sum, one) in [
                (&total.accepted, &thread.accepted),
                (&total.handled, &thread.handled),
                (&total.requests, &thread.requests),
            ] {
                sum.fetch_add(one.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            for (sum, one) in [
                (&total.active, &thread.active),
                (&total.reading, &thread.reading),
                (&total.writing, &thread.writing),
                (&total.waiting, &thread.waiting),
            ] {
                sum.fetch_add(one.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        total
    }
}

fn shared() -> &'static Shared {
    SHARED.get_or_init(|| {
        let size = size_of::<Shared>();
        // SAFETY: a fresh anonymous mapping of that size is zero, which is valid for atomics, aligned to a
        // page, and never unmapped.
        unsafe {
            let address = libc::mmap(
                std::ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            if address == libc::MAP_FAILED {
                // Counting then goes on in each process alone.
                return Box::leak(Box::new(std::mem::zeroed()));
            }
            &*address.cast::<Shared>()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_count_apart_and_are_added_up() {
        let before = Stats::total().requests.load(Ordering::Relaxed);
        let threads: Vec<_> = (0..3)
            .map(|index| {
                std::thread::spawn(move || {
                    enter(index);
                    stats().requests.fetch_add(5, Ordering::Relaxed);
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(Stats::total().requests.load(Ordering::Relaxed) - before, 15);
        let active = || Stats::total().active.load(Ordering::Relaxed);
        let counted = Counted::new(&stats().active);
        let with = active();
        drop(counted);
        assert_eq!(active(), with - 1);
        let number = next_connection_number();
        assert!(next_connection_number() > number);
    }
}
