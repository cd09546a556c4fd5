//! File descriptors: what the standard library offers no safe call for.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Makes the number of `target` refer to the file of `source`, close-on-exec, in one step: a thread that
/// writes to `target` at that moment reaches either the old file or the new one, never a closed number.
pub fn replace(source: OwnedFd, target: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both numbers are open for the length of the call; dup3(2) keeps `target` open.
    let done = unsafe { libc::dup3(source.as_raw_fd(), target.as_raw_fd(), libc::O_CLOEXEC) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets or clears close-on-exec.
pub fn set_close_on_exec(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let flags = if on { libc::FD_CLOEXEC } else { 0 };
    // SAFETY: F_SETFD takes an int and touches no memory of ours.
    let done = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, flags) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Watches a descriptor for input in the runtime of the calling thread.
pub fn watch(fd: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: an `OwnedFd` keeps its number, and stays open as long as the `AsyncFd` holds it.
    let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    watched.map_err(io::Error::from)
}
