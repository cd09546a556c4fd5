//! `limit_rate`: how much of a response may leave when.

use std::task::{Context, Poll, ready};

use crate::net::{Deadline, clock};

/// The pace of one response, head included. After each write it pauses for as long as the rate gives it.
#[derive(Default)]
pub(super) struct Pace {
    /// Bytes a second, 0 for no limit.
    rate: u64,
    /// Bytes before the limit counts.
    after: u64,
    /// Milliseconds of the thread's clock when the request began.
    start_ms: u64,
    /// Until more may leave.
    pause: Option<Deadline>,
}

impl Pace {
    pub(super) fn new(rate: u64, after: u64, start_ms: u64) -> Pace {
        Pace { rate, after, start_ms, pause: None }
    }

    /// Whether there is a limit.
    pub(super) fn limited(&self) -> bool {
        self.rate != 0
    }

    /// How many bytes may leave now, `sent` having left.
    pub(super) fn poll_allowed(&mut self, cx: &mut Context<'_>, sent: u64) -> Poll<usize> {
        if self.rate == 0 {
            return Poll::Ready(usize::MAX);
        }
        loop {
            if let Some(pause) = &self.pause {
                ready!(pause.poll_expired(cx));
                self.pause = None;
            }
            let seconds = (clock::now() / 1000).saturating_sub(self.start_ms / 1000) + 1;
            let quota = self.rate.saturating_mul(seconds).saturating_add(self.after);
            if quota > sent {
                return Poll::Ready(usize::try_from(quota - sent).unwrap_or(usize::MAX));
            }
            self.wait(((sent - quota) as u128 * 1000 / u128::from(self.rate)) as u64 + 1);
        }
    }

    /// `n` bytes left, `sent` before them.
    pub(super) fn left(&mut self, sent: u64, n: u64) {
        if self.rate == 0 {
            return;
        }
        let counted = (sent + n).saturating_sub(self.after) - sent.saturating_sub(self.after);
        let wait = (u128::from(counted) * 1000 / u128::from(self.rate)) as u64;
        if wait > 0 {
            self.wait(wait);
        }
    }

    fn wait(&mut self, ms: u64) {
        let pause = Deadline::never();
        pause.set(ms);
        self.pause = Some(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[test]
    fn a_second_of_bytes_then_a_pause() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let mut cx = Context::from_waker(Waker::noop());
            // A request that has not begun yet is in its first second for ever.
            let mut pace = Pace::new(500, 0, u64::MAX);
            assert_eq!(pace.poll_allowed(&mut cx, 0), Poll::Ready(500));
            pace.left(0, 500);
            assert_eq!(pace.poll_allowed(&mut cx, 500), Poll::Pending);
            let mut late = Pace::new(500, 1000, u64::MAX);
            assert_eq!(late.poll_allowed(&mut cx, 0), Poll::Ready(1500));
            late.left(0, 900);
            assert_eq!(late.poll_allowed(&mut cx, 900), Poll::Ready(600));
            late.left(900, 200);
            assert_eq!(late.poll_allowed(&mut cx, 1100), Poll::Pending);
            assert_eq!(Pace::default().poll_allowed(&mut cx, 1 << 40), Poll::Ready(usize::MAX));
        });
    }
}
