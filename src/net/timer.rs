//! A timer of the system, watched by the runtime of its thread: timerfd_create(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;

use super::fd;

/// A timer of milliseconds on the clock of [`super::clock::now`].
pub struct Timer(AsyncFd<Arc<OwnedFd>>);

impl Timer {
    /// One that is not set.
    pub fn new() -> io::Result<Timer> {
        // SAFETY: the call touches no memory of ours; a result other than -1 is a descriptor that nothing else owns.
        let timer = unsafe {
            let fd = libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC);
            if fd == -1 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        fd::watch(Arc::new(timer)).map(Timer)
    }

    /// Comes due once the clock shows `at`; without one, never.
    pub fn set(&self, at: Option<u64>) {
        // All zero would be never.
        let at = at.map_or(0, |at| at.max(1));
        let value = libc::timespec {
            tv_sec: (at / 1000).try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: (at % 1000 * 1_000_000) as libc::c_long,
        };
        let once =
            libc::itimerspec { it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        let fd = self.0.get_ref().as_fd().as_raw_fd();
        // SAFETY: `once` is valid for the call, which may leave the former value nowhere; the descriptor is open. It
        // fails for none of these arguments.
        unsafe { libc::timerfd_settime(fd, libc::TFD_TIMER_ABSTIME, &once, std::ptr::null_mut()) };
    }

    /// Ready once it is due; then it is not set any more.
    pub fn poll_due(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let mut count = [0; 8];
            match ready.try_io(|timer| Ok(nix::unistd::read(timer.get_ref(), &mut count)?)) {
                Ok(done) => return Poll::Ready(done.map(drop)),
                Err(_not_due) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::net::clock;

    #[test]
    fn it_comes_due_when_set_and_not_before() {
        let rt = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        rt.block_on(async {
            let timer = Timer::new().unwrap();
            for wait in [0, 20] {
                let at = clock::now() + wait;
                timer.set(Some(at + 60_000));
                timer.set(Some(at));
                poll_fn(|cx| timer.poll_due(cx)).await.unwrap();
                assert!(clock::now() >= at);
            }
            timer.set(Some(1));
            timer.set(None);
            let mut cx = Context::from_waker(std::task::Waker::noop());
            assert!(timer.poll_due(&mut cx).is_pending());
        });
    }
}
