//! Turns: a task whose sockets are always ready lets the others go on now and then.

use std::future::Future;
use std::pin::pin;
use std::task::Context;

use super::clock;

/// Bytes after which a transfer's turn is over. More at once would mostly wait in the system, where pacing (tcp-bbr)
/// sends it piece by piece as timers fire.
pub const BYTES: usize = 64 << 10;

/// Has the task polled again once the thread has looked for events: a waker would have it polled before, and with it
/// nobody whose events were not seen yet.
pub fn over(cx: &mut Context<'_>) {
    // It is not told that the thread has waited, because it will not.
    clock::turn();
    let next = pin!(tokio::task::yield_now());
    if next.poll(cx).is_ready() {
        cx.waker().wake_by_ref();
    }
}

/// Returns once the thread has looked for events.
pub async fn next() {
    clock::turn();
    tokio::task::yield_now().await;
}

#[cfg(test)]
mod tests {
    use super::super::socket::tests::pair;
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::io::Write;
    use std::rc::Rc;
    use std::task::Poll;

    #[test]
    fn events_are_looked_for_between_turns() {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().event_interval(512).build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let (socket, mut peer) = pair();
            let turns = Rc::new(Cell::new(0));
            let counted = turns.clone();
            let transfer = tokio::task::spawn_local(poll_fn(move |cx| {
                counted.set(counted.get() + 1);
                if counted.get() == 1 {
                    peer.write_all(b"x").unwrap();
                }
                super::over(cx);
                Poll::<()>::Pending
            }));
            poll_fn(|cx| socket.poll_read_ready(cx)).await.unwrap();
            assert!((1..10).contains(&turns.get()), "{}", turns.get());
            transfer.abort();
        });
    }
}
