//! The worker: gives up root, serves, and obeys the master's signals.

use super::init::Cycle;
use super::signals::{self, Received};
use super::threads::{self, Crew, Serving};
use super::{Configuration, privileges, set_exiting, title};
use crate::log::{self, ErrorLog, Level};
use crate::net::Deadline;
use nix::sys::signal::Signal;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::getppid;
use std::future::poll_fn;
use std::io;
use std::panic::PanicHookInfo;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The exit code of a worker that is not to be started again.
const FATAL: i32 = 2;
/// How long connections may take to close once `worker_shutdown_timeout` is over.
const CLOSING: Duration = Duration::from_secs(5);

/// The worker's whole life, in the process just forked.
pub(super) fn run(cycle: Rc<Cycle>, daemonized: bool) -> ! {
    let cycle: &'static Rc<Cycle> = Box::leak(Box::new(cycle));
    let (core, log) = (cycle.core(), cycle.log());
    if privileges::apply(core).is_err() {
        std::process::exit(FATAL);
    }
    title::set("worker process");
    log_panics(log);
    let configuration: &'static dyn Configuration = &*cycle.configuration;
    let listeners = cycle.listeners.take();
    let served = threads::run(core, async |crew: &Crew| {
        let signals = Signals::new()?;
        crew.start(Serving { configuration, listeners });
        lead(crew, cycle, &signals, daemonized).await
    });
    if let Err(reason) | Ok(Err(reason)) = served {
        log::error_errno(log, Level::Emerg, None, &reason, format_args!("starting worker threads failed"));
        std::process::exit(FATAL);
    }
    log::error(log, Level::Notice, None, format_args!("exiting"));
    finish(configuration)
}

/// Writes what logs hold back, and ends the process.
pub(super) fn finish(configuration: &'static dyn Configuration) -> ! {
    let log = &configuration.core().error_log;
    configuration.files().flush(log);
    log::error(log, Level::Notice, None, format_args!("exit"));
    // A build that counts for `compat/bench/train` writes its counts in such a handler.
    #[cfg(counting)]
    std::process::exit(0);
    // SAFETY: _exit(2) runs no handlers, which other threads, still running, could not stand.
    #[cfg(not(counting))]
    unsafe {
        libc::_exit(0)
    }
}

/// Sends panics to the error log, where someone sees them.
pub(super) fn log_panics(log: &ErrorLog) {
    let log = log.clone();
    std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        let text = info.payload().downcast_ref::<&str>().copied();
        let message = text.or_else(|| info.payload().downcast_ref::<String>().map(String::as_str));
        let message = message.unwrap_or("no message");
        match info.location() {
            Some(place) => log::error(&log, Level::Alert, None, format_args!("panic: {message}, at {place}")),
            None => log::error(&log, Level::Alert, None, format_args!("panic: {message}")),
        }
    }));
}

/// Returns when the process is to end.
async fn lead(crew: &Crew, cycle: &'static Cycle, signals: &Signals, daemonized: bool) -> io::Result<()> {
    let configuration: &'static dyn Configuration = &*cycle.configuration;
    let mut exiting = false;
    let mut deadline = None;
    loop {
        tokio::select! {
            biased;
            received = signals.next() => match obey(received?, cycle.log(), daemonized) {
                Order::Terminate => return Ok(()),
                Order::Quit => {
                    log::error(cycle.log(), Level::Notice, None, format_args!("gracefully shutting down"));
                    title::set("worker process is shutting down");
                    if !std::mem::replace(&mut exiting, true) {
                        set_exiting();
                        crew.stop_accepting().await;
                        crew.close_idle(configuration);
                        deadline = cycle.core().shutdown_timeout.map(Deadline::after);
                    }
                }
                Order::Reopen => cycle.reopen(None),
                Order::None => {}
            },
            () = crew.loads.drained(), if exiting => return Ok(()),
            () = until(&deadline), if deadline.is_some() => {
                if !crew.close_all(configuration) {
                    return Ok(());
                }
                // Whatever is left then is left to the system.
                let _ = Deadline::after(CLOSING).limit(crew.loads.drained()).await;
                return Ok(());
            }
        }
    }
}

async fn until(deadline: &Option<Deadline>) {
    match deadline {
        Some(deadline) => poll_fn(|cx| deadline.poll_expired(cx)).await,
        None => std::future::pending().await,
    }
}

enum Order {
    Terminate,
    Quit,
    Reopen,
    None,
}

/// Logs a signal, unless the master sent it, and says what it means.
fn obey(received: Received, log: &ErrorLog, daemonized: bool) -> Order {
    let (order, action) = match received.signal {
        Signal::SIGQUIT => (Order::Quit, ", shutting down"),
        Signal::SIGWINCH if daemonized => (Order::Quit, ", shutting down"),
        Signal::SIGTERM | Signal::SIGINT => (Order::Terminate, ", exiting"),
        Signal::SIGUSR1 => (Order::Reopen, ", reopening logs"),
        Signal::SIGHUP | Signal::SIGUSR2 | Signal::SIGIO => (Order::None, ", ignoring"),
        _ => (Order::None, ""),
    };
    // nginx's master speaks to its workers through a channel, which leaves no such line.
    if received.sender != getppid().as_raw() {
        received.log(log, action);
    }
    order
}

/// Signals as a stream.
pub(super) struct Signals(AsyncFd<SignalFd>);

// === impl Signals ===

impl Signals {
    pub(super) fn new() -> io::Result<Signals> {
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let fd = SignalFd::with_flags(&signals::handled(), flags)?;
        // SAFETY: the descriptor keeps its number, and is open as long as the `AsyncFd` holds it.
        Ok(Signals(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?))
    }

    pub(super) async fn next(&self) -> io::Result<Received> {
        loop {
            let mut ready = self.0.readable().await?;
            match self.0.get_ref().read_signal()? {
                None => ready.clear_ready(),
                Some(info) => {
                    let Ok(signal) = Signal::try_from(info.ssi_signo as i32) else { continue };
                    return Ok(Received { signal, sender: info.ssi_pid as i32 });
                }
            }
        }
    }
}
