//! Tasks of streams, each with `send_timeout`: a client that opens no window gets no more of the response.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use hyper::rt::Executor;

use super::stream::Shared;
use crate::net::Deadline;

/// Spawns the futures of hyper's streams on this thread.
#[derive(Clone)]
pub(super) struct Tasks;

thread_local! {
    /// What the stream that is polled just now shares with its writer.
    static BEGUN: RefCell<Option<Rc<Shared>>> = const { RefCell::new(None) };
}

/// A stream tells its task what to watch.
pub(super) fn begun(shared: &Rc<Shared>) {
    BEGUN.set(Some(shared.clone()));
}

impl<F: Future + 'static> Executor<F> for Tasks {
    fn execute(&self, stream: F) {
        tokio::task::spawn_local(async move {
            let mut stream = pin!(stream);
            let mut watched: Option<Rc<Shared>> = None;
            let mut stalled: Option<(u64, Deadline)> = None;
            poll_fn(|cx| {
                let done = stream.as_mut().poll(cx).is_ready();
                // Taken in any case: it must not outlive the stream, nor be taken for another's.
                let begun = BEGUN.take();
                if done {
                    return Poll::Ready(());
                }
                watched = watched.take().or(begun);
                let Some(watched) = &watched else { return Poll::Pending };
                let Some(given) = watched.waits_for_window() else {
                    stalled = None;
                    return Poll::Pending;
                };
                if stalled.as_ref().is_none_or(|(before, _)| *before != given) {
                    let deadline = Deadline::never();
                    deadline.set(watched.send_timeout());
                    stalled = Some((given, deadline));
                }
                match &stalled {
                    Some((_, deadline)) if deadline.poll_expired(cx).is_ready() => {
                        watched.timed_out();
                        Poll::Ready(())
                    }
                    _ => Poll::Pending,
                }
            })
            .await
        });
    }
}
