//! Signals. They stay blocked in every thread: the master waits for them, a worker reads them from a
//! descriptor, and nothing runs in a handler.

use crate::log::{self, ErrorLog, Level};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use std::io;
use std::time::Duration;

/// What nginx handles; SIGPIPE and SIGSYS are ignored.
const HANDLED: [Signal; 10] = [
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGWINCH,
    Signal::SIGTERM,
    Signal::SIGQUIT,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGINT,
    Signal::SIGIO,
    Signal::SIGCHLD,
];

/// A signal and who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) signal: Signal,
    /// 0 when the kernel did.
    pub(super) sender: i32,
}

/// The signals handled.
pub(super) fn handled() -> SigSet {
    HANDLED.into_iter().collect()
}

/// Blocks what is handled and ignores SIGPIPE and SIGSYS.
pub(super) fn block(log: &ErrorLog) -> io::Result<()> {
    // SAFETY: ignoring a signal installs no handler.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::signal(libc::SIGSYS, libc::SIG_IGN);
    }
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&handled()), None).map_err(|errno| {
        let reason = io::Error::from(errno);
        log::error_errno(log, Level::Alert, None, &reason, format_args!("sigprocmask() failed"));
        reason
    })
}

/// Unblocks everything, for a program about to be started.
pub(super) fn unblock() {
    // With a valid set this does not fail.
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Waits for a signal, for ever without `timeout`. `None` when the time is over or the wait was interrupted.
pub(super) fn wait(timeout: Option<Duration>) -> Option<Received> {
    let set = handled();
    // SAFETY: all-zero is valid for siginfo_t; the pointers are valid for the call, or null as allowed.
    // For a signal sent by a process, si_pid is the field in use; for another it is not read.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let time = timeout.map(|timeout| libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let limit = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let number = libc::sigtimedwait(set.as_ref(), &mut info, limit);
        let signal = Signal::try_from(number).ok()?;
        let by_process = matches!(info.si_code, libc::SI_USER | libc::SI_QUEUE | libc::SI_TKILL)
            || signal == Signal::SIGCHLD;
        Some(Received { signal, sender: if by_process { info.si_pid() } else { 0 } })
    }
}

impl Received {
    /// Writes nginx's notice; `action` is what follows, as `, exiting`.
    pub(super) fn log(&self, log: &ErrorLog, action: &str) {
        let (number, name) = (self.signal as i32, self.signal.as_str());
        if self.sender != 0 {
            let what = format_args!("signal {number} ({name}) received from {}{action}", self.sender);
            log::error(log, Level::Notice, None, what);
        } else {
            log::error(log, Level::Notice, None, format_args!("signal {number} ({name}) received{action}"));
        }
    }
}
