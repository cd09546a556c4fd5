//! Deadlines that cost a store to move: one timer a thread, entries that are looked at only when they come due.
//!
//! A deadline that is dropped leaves its place in the heap, but neither its waker (that would keep the memory of the
//! task) nor, once such places are the greater part of the heap, the place.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::timer::Timer;

const NEVER: u64 = u64::MAX;
/// Places in the heap that are not worth a sweep.
const FEW: usize = 64;

struct Entry {
    /// When to fire, in milliseconds of the thread's clock.
    at: Cell<u64>,
    /// The earliest place in the heap that holds this entry.
    armed: Cell<u64>,
    waker: Cell<Option<Waker>>,
    /// Deadlines that share this entry.
    owners: Cell<u32>,
}

struct Due(u64, Rc<Entry>);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

struct Timers {
    heap: RefCell<BinaryHeap<Reverse<Due>>>,
    /// Entries that a deadline owns.
    owned: Cell<usize>,
    /// What the timer is set to.
    next: Cell<u64>,
    /// None before the first deadline is set, and where the system gave none.
    timer: RefCell<Option<Rc<Timer>>>,
}

thread_local! {
    static TIMERS: Timers = const { Timers {
        heap: RefCell::new(BinaryHeap::new()),
        owned: Cell::new(0),
        next: Cell::new(NEVER),
        timer: RefCell::new(None),
    }};
}

impl Timers {
    fn now(&self) -> u64 {
        super::clock::now()
    }

    fn arm(&self, at: u64, entry: &Rc<Entry>) {
        entry.armed.set(at);
        self.heap.borrow_mut().push(Reverse(Due(at, entry.clone())));
        if at < self.next.get() {
            self.look_at(at);
        }
    }

    /// Has the driver look at the heap then.
    fn look_at(&self, at: u64) {
        // Without one, the next to be armed tries again.
        if self.start().is_ok()
            && let Some(timer) = &*self.timer.borrow()
        {
            timer.set((at != NEVER).then_some(at));
            self.next.set(at);
        }
    }

    fn start(&self) -> io::Result<()> {
        if self.timer.borrow().is_none() {
            let timer = Rc::new(Timer::new()?);
            tokio::task::spawn_local(Driver(timer.clone()).run());
            self.timer.replace(Some(timer));
        }
        Ok(())
    }

    /// Gives back the places of entries that nobody owns, or that are armed elsewhere.
    fn sweep(&self) {
        let mut heap = self.heap.borrow_mut();
        if heap.len() > FEW + 2 * self.owned.get() {
            heap.retain(|Reverse(due)| due.1.owners.get() > 0 && due.1.armed.get() == due.0);
        }
    }

    /// Wakes what is due and returns when to look again.
    fn turn(&self) -> u64 {
        #[cfg(test)]
        tests::LOOKED.set(tests::LOOKED.get() + 1);
        let now = self.now();
        loop {
            let entry = {
                let mut heap = self.heap.borrow_mut();
                match heap.peek() {
                    Some(Reverse(due)) if due.0 <= now => {}
                    Some(Reverse(due)) => return due.0,
                    None => return NEVER,
                }
                let Some(Reverse(due)) = heap.pop() else { continue };
                if due.1.armed.get() != due.0 {
                    continue;
                }
                due.1
            };
            entry.armed.set(NEVER);
            let at = entry.at.get();
            if at > now {
                if at != NEVER && entry.owners.get() > 0 {
                    entry.armed.set(at);
                    self.heap.borrow_mut().push(Reverse(Due(at, entry)));
                }
            } else if let Some(waker) = entry.waker.take() {
                waker.wake();
            }
        }
    }
}

/// The one task a thread that waits for the earliest deadline.
struct Driver(Rc<Timer>);

impl Driver {
    async fn run(self) {
        while std::future::poll_fn(|cx| self.0.poll_due(cx)).await.is_ok() {
            // What came due is so on the clock, though the thread may not have waited for it.
            super::clock::turn();
            TIMERS.with(|t| t.look_at(t.turn()));
        }
    }
}

impl Drop for Driver {
    /// With the runtime that it was a task of goes the timer. Another one takes its own.
    fn drop(&mut self) {
        let _ = TIMERS.try_with(|t| {
            t.next.set(NEVER);
            t.timer.take()
        });
    }
}

/// Makes the timer of this thread, so that it is there when descriptors run short.
pub fn start() -> io::Result<()> {
    TIMERS.with(Timers::start)
}

/// A point in time that can be moved. Belongs to the thread that made it.
pub struct Deadline(Rc<Entry>);

impl Clone for Deadline {
    fn clone(&self) -> Self {
        self.0.owners.set(self.0.owners.get() + 1);
        Deadline(self.0.clone())
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let owners = self.0.owners.get() - 1;
        self.0.owners.set(owners);
        if owners == 0 {
            self.0.at.set(NEVER);
            drop(self.0.waker.take());
            // Past the thread's end there is no heap either.
            let _ = TIMERS.try_with(|t| {
                t.owned.set(t.owned.get() - 1);
                t.sweep();
            });
        }
    }
}

impl Default for Deadline {
    fn default() -> Self {
        Deadline::never()
    }
}

impl Deadline {
    /// One that does not come due until it is set.
    pub fn never() -> Deadline {
        TIMERS.with(|t| t.owned.set(t.owned.get() + 1));
        Deadline(Rc::new(Entry {
            at: Cell::new(NEVER),
            armed: Cell::new(NEVER),
            waker: Cell::new(None),
            owners: Cell::new(1),
        }))
    }

    /// Comes due in that time from now.
    pub fn after(time: Duration) -> Deadline {
        let deadline = Deadline::never();
        deadline.set(millis(time));
        deadline
    }

    /// Comes due in `ms` milliseconds from now.
    pub fn set(&self, ms: u64) {
        TIMERS.with(|t| {
            // The clock's present millisecond is over in part: one more, so that nothing comes due early.
            let at = t.now().saturating_add(ms.max(1)).saturating_add(1);
            self.0.at.set(at);
            if at < self.0.armed.get() {
                t.arm(at, &self.0);
            }
        });
    }

    /// As [`Deadline::set`], and has the task woken then.
    pub fn renew(&self, ms: u64, cx: &Context<'_>) {
        self.set(ms);
        self.wake(cx);
    }

    /// Does not come due any more.
    pub fn clear(&self) {
        self.0.at.set(NEVER);
    }

    /// Whether it is past.
    pub fn expired(&self) -> bool {
        let at = self.0.at.get();
        at != NEVER && TIMERS.with(|t| t.now()) >= at
    }

    /// Ready once it is past; else the task is woken then.
    pub fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.expired() {
            return Poll::Ready(());
        }
        self.wake(cx);
        Poll::Pending
    }

    fn wake(&self, cx: &Context<'_>) {
        let known = self.0.waker.take().filter(|waker| waker.will_wake(cx.waker()));
        self.0.waker.set(Some(known.unwrap_or_else(|| cx.waker().clone())));
    }

    /// Waits for `work`, or for this deadline: then `None`.
    pub async fn limit<F: Future>(&self, work: F) -> Option<F::Output> {
        let mut work = pin!(work);
        std::future::poll_fn(|cx| self.poll_limited(work.as_mut(), cx)).await
    }

    fn poll_limited<F: Future>(&self, work: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        if let Poll::Ready(done) = work.poll(cx) {
            return Poll::Ready(Some(done));
        }
        self.poll_expired(cx).map(|()| None)
    }
}

/// Milliseconds of a time.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Waits `ms` milliseconds.
pub async fn sleep(ms: u64) {
    let deadline = Deadline::never();
    deadline.set(ms);
    std::future::poll_fn(|cx| deadline.poll_expired(cx)).await
}

#[cfg(test)]
mod tests {
    use super::super::socket::tests::run;
    use super::*;
    use std::time::Instant;

    impl Entry {
        fn has_waker(&self) -> bool {
            let waker = self.waker.take();
            let has = waker.is_some();
            self.waker.set(waker);
            has
        }
    }

    thread_local! {
        /// How often the timer of this thread came due.
        pub(super) static LOOKED: Cell<u32> = const { Cell::new(0) };
    }

    #[test]
    fn a_deadline_ends_what_does_not_come() {
        run(async {
            let d = Deadline::never();
            let start = Instant::now();
            d.set(20);
            assert!(d.limit(std::future::pending::<()>()).await.is_none());
            assert!(start.elapsed() >= Duration::from_millis(19));
        });
    }

    #[test]
    fn it_fires_on_a_thread_that_never_waits() {
        run(async {
            crate::net::clock::once_a_turn();
            let late = Deadline::never();
            late.set(5);
            let mut limited = pin!(late.limit(std::future::pending::<()>()));
            let mut polled = async || std::future::poll_fn(|cx| Poll::Ready(limited.as_mut().poll(cx))).await;
            assert!(polled().await.is_pending());
            // The driver begins to look.
            tokio::task::yield_now().await;
            std::thread::sleep(Duration::from_millis(10));
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            assert!(polled().await.is_ready());
            // Not again and again, until somebody looks at the clock of the system.
            assert!(LOOKED.get() <= 2, "{}", LOOKED.get());
        });
    }

    #[test]
    fn moving_it_later_costs_no_wake_and_moving_it_earlier_counts() {
        run(async {
            let late = Deadline::never();
            let start = Instant::now();
            late.set(10);
            late.set(60);
            assert!(late.limit(std::future::pending::<()>()).await.is_none());
            assert!(start.elapsed() >= Duration::from_millis(59));
            let early = Deadline::never();
            early.set(60_000);
            early.set(10);
            assert!(early.limit(std::future::pending::<()>()).await.is_none());
            assert!(start.elapsed() < Duration::from_secs(5));
        });
    }

    #[test]
    fn what_is_dropped_leaves_neither_its_task_nor_its_place() {
        run(async {
            let kept = Deadline::never();
            kept.set(60_000);
            for _ in 0..1000 {
                let alive = Rc::new(());
                let inside = alive.clone();
                let task = tokio::task::spawn_local(async move {
                    let deadline = Deadline::never();
                    deadline.set(60_000);
                    let copy = deadline.clone();
                    let work = async {
                        tokio::task::yield_now().await;
                        drop(inside);
                    };
                    assert!(copy.limit(work).await.is_some());
                    assert!(deadline.0.has_waker());
                    Rc::downgrade(&deadline.0)
                });
                let entry = task.await.unwrap();
                assert!(entry.upgrade().is_none_or(|entry| !entry.has_waker()));
                assert_eq!(Rc::strong_count(&alive), 1);
            }
            TIMERS.with(|t| {
                let places = t.heap.borrow().len();
                assert!(places <= FEW + 2 * t.owned.get() + 1, "{places} for {}", t.owned.get());
                assert!(t.heap.borrow().iter().any(|Reverse(due)| Rc::ptr_eq(&due.1, &kept.0)));
            });
        });
    }

    #[test]
    fn a_cleared_one_never_comes() {
        run(async {
            let d = Deadline::never();
            d.set(5);
            d.clear();
            let other = Deadline::never();
            other.set(30);
            assert!(other.limit(d.limit(std::future::pending::<()>())).await.is_none());
        });
    }
}
