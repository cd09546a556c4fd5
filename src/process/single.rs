//! `master_process off`: one process that reads the configuration and serves it, for development.

use super::init::{Cycle, Standing, make};
use super::threads::{self, Crew, Serving};
use super::worker::{Signals, finish, log_panics};
use super::{Configuration, Load, Options, daemon, pidfile, privileges};
use crate::log::{self, Level};
use crate::net::listen::Listener;
use nix::sys::signal::Signal;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;

/// Serves until told to end. A configuration once in force stays in memory, as connections may use it.
pub(super) fn run(options: &Options, load: Load<'_>, cycle: Cycle, standing: Standing) -> ExitCode {
    let mut cycle: &'static Cycle = Box::leak(Box::new(cycle));
    privileges::set_environment(&cycle.core().env);
    log_panics(cycle.log());
    let served = threads::run(cycle.core(), async |crew: &Crew| {
        let signals = Signals::new()?;
        serve(crew, cycle);
        loop {
            let received = signals.next().await?;
            let log = cycle.log();
            match received.signal {
                Signal::SIGQUIT => {
                    received.log(log, ", shutting down");
                    return Ok(cycle);
                }
                Signal::SIGTERM | Signal::SIGINT => {
                    received.log(log, ", exiting");
                    return Ok(cycle);
                }
                Signal::SIGUSR1 => {
                    received.log(log, ", reopening logs");
                    cycle.reopen(None);
                }
                Signal::SIGHUP => {
                    received.log(log, ", reconfiguring");
                    log::error(log, Level::Notice, None, format_args!("reconfiguring"));
                    if let Ok((next, _)) = make(options, load, Some(cycle), Vec::new(), log) {
                        cycle = Box::leak(Box::new(next));
                        log::set_main(cycle.log());
                        // Logged by the callee; standard error then stays where it is.
                        let _ = daemon::redirect_stderr(cycle.core());
                        serve(crew, cycle);
                    }
                }
                _ => received.log(log, ""),
            }
        }
    });
    match served {
        Ok(Ok(last)) => {
            let last: &'static Cycle = last;
            pidfile::delete(&last.core().pid, last.log());
            last.close_listeners(true, standing);
            finish(&*last.configuration)
        }
        Err(reason) | Ok::<_, io::Error>(Err(reason)) => {
            let what = format_args!("starting worker threads failed");
            log::error_errno(cycle.log(), Level::Emerg, None, &reason, what);
            ExitCode::from(2)
        }
    }
}

/// The cycle keeps its sockets for the next configuration. The threads get copies, since a descriptor can be
/// watched only once and for a moment two configurations watch the same socket.
fn serve(crew: &Crew, cycle: &'static Cycle) {
    let configuration: &'static dyn Configuration = &*cycle.configuration;
    let copy = |fd: &Arc<OwnedFd>| fd.try_clone().map_or_else(|_| fd.clone(), Arc::new);
    let share = |listener: &Listener| Listener {
        listen: listener.listen.clone(),
        fd: copy(&listener.fd),
        more: listener.more.iter().map(copy).collect(),
        inherited: listener.inherited,
    };
    let listeners = cycle.listeners.borrow().iter().map(share).collect();
    crew.start(Serving { configuration, listeners });
}
