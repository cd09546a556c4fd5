//! A future that shares its task with others, and is polled only when it was woken itself.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// What `work` is woken by.
struct Own {
    woken: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Wake for Own {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        if let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner) {
            task.wake_by_ref();
        }
    }
}

impl Own {
    fn belongs_to(&self, waker: &Waker) {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
    }
}

/// Runs `work`, which costs next to nothing each time its task is woken for something else: the root of a thread is
/// polled at every turn.
pub(super) async fn apart<T>(work: impl Future<Output = T>) -> T {
    let own = Arc::new(Own { woken: AtomicBool::new(true), task: Mutex::default() });
    let waker = Waker::from(own.clone());
    let mut work = pin!(work);
    let mut task = Waker::noop().clone();
    poll_fn(|cx| {
        if !task.will_wake(cx.waker()) {
            task.clone_from(cx.waker());
            own.belongs_to(&task);
        }
        if !own.woken.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        work.as_mut().poll(&mut Context::from_waker(&waker))
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn it_is_polled_when_woken_and_not_else() {
        let (polls, inner) = (Cell::new(0), Cell::new(None));
        let mut work = pin!(apart(poll_fn(|cx| {
            polls.set(polls.get() + 1);
            inner.set(Some(cx.waker().clone()));
            if polls.get() == 2 { Poll::Ready("done") } else { Poll::Pending }
        })));
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..3 {
            assert!(work.as_mut().poll(&mut cx).is_pending());
        }
        assert_eq!(polls.get(), 1);
        inner.take().unwrap().wake();
        assert_eq!(work.as_mut().poll(&mut cx), Poll::Ready("done"));
    }
}
