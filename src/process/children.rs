//! The processes a master has started.

use crate::log::{self, ErrorLog, Level};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

#[derive(Debug)]
pub(super) struct Child {
    pub(super) pid: Pid,
    pub(super) name: &'static str,
    /// To be started again when it ends by itself.
    pub(super) respawn: bool,
    /// Started by the reload going on, so not meant when the others are told to quit.
    pub(super) just_started: bool,
    /// A new binary: on its own, not to be signalled.
    pub(super) detached: bool,
    /// Told to end.
    pub(super) exiting: bool,
    pub(super) exited: bool,
}

#[derive(Debug, Default)]
pub(super) struct Children(pub(super) Vec<Child>);

// === impl Children ===

impl Children {
    /// Collects who ended, with nginx's messages.
    pub(super) fn collect(&mut self, log: &ErrorLog) {
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(status) => status,
                Err(Errno::EINTR) => continue,
                Err(Errno::ECHILD) => return,
                Err(errno) => {
                    log::error_errno(
                        log,
                        Level::Alert,
                        None,
                        &errno.into(),
                        format_args!("waitpid() failed"),
                    );
                    return;
                }
            };
            let Some(pid) = status.pid() else { return };
            let child = self.0.iter_mut().find(|child| child.pid == pid);
            let name = child.as_ref().map_or("unknown process", |child| child.name);
            match status {
                WaitStatus::Signaled(_, signal, core) => {
                    let (number, core) = (signal as i32, if core { " (core dumped)" } else { "" });
                    let what = format_args!("{name} {pid} exited on signal {number}{core}");
                    log::error(log, Level::Alert, None, what);
                }
                WaitStatus::Exited(_, code) => {
                    let what = format_args!("{name} {pid} exited with code {code}");
                    log::error(log, Level::Notice, None, what);
                }
                _ => continue,
            }
            let Some(child) = child else { continue };
            child.exited = true;
            if matches!(status, WaitStatus::Exited(_, 2)) && child.respawn {
                let what = format_args!("{name} {pid} exited with fatal code 2 and cannot be respawned");
                log::error(log, Level::Alert, None, what);
                child.respawn = false;
            }
        }
    }

    /// Signals every worker; one told to quit is not told twice.
    pub(super) fn signal(&mut self, signal: Signal, log: &ErrorLog) {
        for child in self.0.iter_mut().filter(|child| !child.detached && !child.exited) {
            if std::mem::take(&mut child.just_started) || (child.exiting && signal == Signal::SIGQUIT) {
                continue;
            }
            if let Err(errno) = kill(child.pid, signal) {
                let what = format_args!("kill({}, {}) failed", child.pid, signal as i32);
                log::error_errno(log, Level::Alert, None, &errno.into(), what);
                if errno == Errno::ESRCH {
                    child.exited = true;
                }
            } else if signal != Signal::SIGUSR1 {
                child.exiting = true;
            }
        }
    }

    /// Whether some process that the master waits for is still there.
    pub(super) fn live(&self) -> bool {
        self.0.iter().any(|child| child.exiting || !child.detached)
    }
}
