//! Going to the background, and where standard error goes then.

use super::Core;
use crate::log::{self, ErrorLog, Level};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};
use std::fs::OpenOptions;
use std::io;

/// Forks; the parent exits, the child goes on without a terminal.
pub(super) fn daemonize(log: &ErrorLog) -> Result<(), ()> {
    let emerg = |what: &'static str| {
        move |reason: io::Error| {
            log::error_errno(log, Level::Emerg, None, &reason, format_args!("{what} failed"));
        }
    };
    // SAFETY: the process has one thread.
    match unsafe { fork() } {
        Err(errno) => {
            emerg("fork()")(errno.into());
            return Err(());
        }
        Ok(ForkResult::Parent { .. }) => std::process::exit(0),
        Ok(ForkResult::Child) => {}
    }
    setsid().map_err(|errno| emerg("setsid()")(errno.into()))?;
    umask(Mode::empty());
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    let null = null.map_err(emerg("open(\"/dev/null\")"))?;
    dup2_stdin(&null).map_err(|errno| emerg("dup2(STDIN)")(errno.into()))?;
    dup2_stdout(&null).map_err(|errno| emerg("dup2(STDOUT)")(errno.into()))
}

/// Sends standard error to the first file of the error log, unless an `error_log` is `stderr`.
pub(super) fn redirect_stderr(core: &Core) -> Result<(), ()> {
    if core.log_use_stderr {
        return Ok(());
    }
    let Some(fd) = core.error_log.first_file().and_then(|file| file.fd()) else { return Ok(()) };
    dup2_stderr(fd).map_err(|errno| {
        log::error_errno(
            &core.error_log,
            Level::Alert,
            None,
            &errno.into(),
            format_args!("dup2(STDERR_FILENO) failed"),
        );
    })
}
