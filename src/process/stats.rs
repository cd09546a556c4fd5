//! Counters in memory that master, old and new workers share: connection numbers go on over a reload, and
//! stub_status counts what all workers did.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Threads with counters of their own; those beyond share.
const THREADS: usize = 64;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    Accepted,
    Handled,
    Requests,
    /// Connections open now.
    Active,
    /// Of these, reading a request's head.
    Reading,
    /// Of these, answering.
    Writing,
    /// Of these, idle.
    Waiting,
}

/// So many of a thing are told even by a thread that never waits.
const MANY: u64 = 256;

const COUNTS: usize = Count::Waiting as usize + 1;

/// Counts one thing as long as it lives. It may end in another thread: only the sum of all threads has a meaning.
#[derive(Debug)]
pub struct Counted(Count);

impl Counted {
    /// Adds one until it is dropped.
    pub fn new(what: Count) -> Counted {
        count(what, 1);
        Counted(what)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        count(self.0, -1);
    }
}

#[repr(C, align(128))]
struct Number(AtomicU64);

/// Counters of one thread; adding to them meets no other thread.
#[repr(C, align(128))]
struct Counters([AtomicI64; COUNTS]);

#[repr(C)]
struct Shared {
    connection: Number,
    threads: [Counters; THREADS],
}

static SHARED: OnceLock<&'static Shared> = OnceLock::new();

thread_local! {
    /// Which counters are this thread's; none before it has chosen.
    static THREAD: Cell<Option<usize>> = const { Cell::new(None) };
    /// What it counted since it told the others.
    static OWN: [Cell<i64>; COUNTS] = const { [const { Cell::new(0) }; COUNTS] };
}

/// Makes the shared memory; called in the master before it forks.
pub(super) fn share() {
    shared();
}

/// Chooses the counters of this thread, which will call [`tell`] whenever it waits.
pub(super) fn enter(thread: usize) {
    THREAD.set(Some(thread % THREADS));
}

/// Adds to what is counted.
pub fn count(what: Count, n: i64) {
    if THREAD.get().is_none() {
        shared().threads[0].0[what as usize].fetch_add(n, Ordering::Relaxed);
        return;
    }
    OWN.with(|own| {
        let own = &own[what as usize];
        own.set(own.get() + n);
        if own.get().unsigned_abs() >= MANY {
            tell();
        }
    });
}

/// Adds what this thread counted to what all see: much of it comes to nothing before anyone could look.
pub(super) fn tell() {
    let Some(thread) = THREAD.get() else { return };
    OWN.with(|own| {
        for (own, all) in own.iter().zip(&shared().threads[thread].0) {
            let n = own.take();
            if n != 0 {
                all.fetch_add(n, Ordering::Relaxed);
            }
        }
    });
}

/// The number of the next connection, to a client or an upstream server; the first is 1.
pub fn next_connection_number() -> u64 {
    shared().connection.0.fetch_add(1, Ordering::Relaxed) + 1
}

/// What all threads of all workers counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats([i64; COUNTS]);

impl Stats {
    /// As it is now. A thread that is busy may have counted some more.
    pub fn total() -> Stats {
        tell();
        let sum = |what: usize| shared().threads.iter().map(|t| t.0[what].load(Ordering::Relaxed)).sum();
        Stats(std::array::from_fn(sum))
    }

    /// One of the counts.
    pub fn get(&self, what: Count) -> i64 {
        self.0[what as usize]
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
        let before = Stats::total().get(Count::Handled);
        let threads: Vec<_> = (0..3)
            .map(|index| {
                std::thread::spawn(move || {
                    enter(index);
                    count(Count::Handled, 5);
                    tell();
                    // Told once only.
                    tell();
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        // A thread that has not chosen is seen at once.
        std::thread::spawn(|| count(Count::Handled, 1)).join().unwrap();
        assert_eq!(Stats::total().get(Count::Handled) - before, 16);
        let number = next_connection_number();
        assert!(next_connection_number() > number);
    }

    #[test]
    fn what_is_counted_ends() {
        std::thread::spawn(|| {
            enter(0);
            let active = || OWN.with(|own| own[Count::Active as usize].get());
            let counted = Counted::new(Count::Active);
            assert_eq!(active(), 1);
            drop(counted);
            assert_eq!(active(), 0);
        })
        .join()
        .unwrap();
    }
}
