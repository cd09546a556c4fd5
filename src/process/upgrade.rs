//! Starting a new binary on the sockets of this one, and being such a binary.

use super::init::Cycle;
use super::{privileges, signals};
use crate::log::{self, ErrorLog, Level};
use crate::net::fd;
use crate::net::inherit::inherit;
use crate::net::listen::Listener;
use nix::unistd::{ForkResult, Pid, execve, fork};
use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The variable that names inherited sockets: numbers, each with a semicolon.
const VARIABLE: &str = "NGINX";

/// The sockets this process was given, if it was started to take over; `None` if not.
pub(super) fn inherited(log: &ErrorLog) -> Option<Vec<Listener>> {
    let list = std::env::var_os(VARIABLE)?.into_string().unwrap_or_default();
    log::error(log, Level::Notice, None, format_args!("using inherited sockets from \"{list}\""));
    let mut sockets = Vec::new();
    let mut rest = list.as_str();
    while let Some(end) = rest.find([':', ';']) {
        let Ok(number) = rest[..end].parse::<u16>() else {
            let what = format_args!(
                "invalid socket number \"{rest}\" in {VARIABLE} environment variable, ignoring the rest of the variable"
            );
            log::error(log, Level::Emerg, None, what);
            return Some(sockets);
        };
        sockets.extend(inherit(i32::from(number), log).map(Listener::from));
        rest = &rest[end + 1..];
    }
    if !rest.is_empty() {
        let what =
            format_args!("invalid socket number \"{rest}\" in {VARIABLE} environment variable, ignoring");
        log::error(log, Level::Emerg, None, what);
    }
    Some(sockets)
}

/// Starts `arguments[0]` with the listening sockets. The pid file is moved aside first, and back if that is
/// as far as it gets.
pub(super) fn start(cycle: &Cycle, arguments: &[OsString]) -> Option<Pid> {
    let (core, log) = (cycle.core(), cycle.log());
    let (pid, old) = (&core.pid, core.old_pid());
    let (from, to) = (pid.display(), old.display());
    let binary =
        arguments.first().map(|argument| argument.to_string_lossy().into_owned()).unwrap_or_default();
    let program = Program::new(cycle, arguments)?;
    if let Err(reason) = std::fs::rename(pid, &old) {
        let what =
            format_args!("rename() {from} to {to} failed before executing new binary process \"{binary}\"");
        log::error_errno(log, Level::Alert, None, &reason, what);
        return None;
    }
    // SAFETY: the master has one thread.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => program.execute(cycle, &binary),
        Ok(ForkResult::Parent { child }) => {
            log::error(log, Level::Notice, None, format_args!("start new binary process {child}"));
            Some(child)
        }
        Err(errno) => {
            let what = format_args!("fork() failed while spawning \"new binary process\"");
            log::error_errno(log, Level::Alert, None, &errno.into(), what);
            if let Err(reason) = std::fs::rename(&old, pid) {
                let what = format_args!(
                    "rename() {to} back to {from} failed after an attempt to execute new binary process \"{binary}\""
                );
                log::error_errno(log, Level::Alert, None, &reason, what);
            }
            None
        }
    }
}

struct Program {
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

// === impl Program ===

impl Program {
    /// `None` when there is no program to start, or it cannot be named to the system.
    fn new(cycle: &Cycle, arguments: &[OsString]) -> Option<Program> {
        let arguments: Vec<CString> =
            arguments.iter().map(|argument| CString::new(argument.as_bytes()).ok()).collect::<Option<_>>()?;
        let mut variables = privileges::environment(&cycle.core().env);
        let listeners = cycle.listeners.borrow();
        let sockets = listeners.iter().flat_map(Listener::sockets);
        let sockets: String = sockets.map(|fd| format!("{};", fd.as_raw_fd())).collect();
        variables.push((VARIABLE.into(), sockets.into()));
        let join = |(name, value): (OsString, OsString)| {
            CString::new([name.as_bytes(), b"=", &value.into_vec()].concat()).ok()
        };
        Some(Program {
            path: arguments.first()?.clone(),
            arguments,
            environment: variables.into_iter().filter_map(join).collect(),
        })
    }

    /// Becomes the program, or ends.
    fn execute(&self, cycle: &Cycle, binary: &str) -> ! {
        signals::unblock();
        for socket in cycle.listeners.borrow().iter().flat_map(Listener::sockets) {
            // A socket that stays closed to the new binary is reported by it.
            let _ = fd::set_close_on_exec(socket.as_fd(), false);
        }
        let Err(errno) = execve(&self.path, &self.arguments, &self.environment);
        let what = format_args!("execve() failed while executing new binary process \"{binary}\"");
        log::error_errno(cycle.log(), Level::Alert, None, &errno.into(), what);
        std::process::exit(1)
    }
}
