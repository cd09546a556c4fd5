//! The master: waits for signals, keeps the worker running, reloads, hands over.

use super::children::{Child, Children};
use super::init::{Cycle, Standing, make};
use super::signals::{self, Received};
use super::{Load, Options, daemon, pidfile, title, upgrade, worker};
use crate::log::{self, Level};
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid, fork, getppid};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

/// The first wait for workers told to terminate; it doubles, and after a second they are killed.
const TERMINATION_DELAY: Duration = Duration::from_millis(50);
/// How long a new worker may take to start before the old one is told to quit.
const START_DELAY: Duration = Duration::from_millis(100);

struct Master<'a> {
    options: &'a Options,
    load: Load<'a>,
    cycle: Rc<Cycle>,
    standing: Standing,
    children: Children,
    asked: Asked,
    new_binary: Option<Pid>,
    noaccepting: bool,
    /// Set while workers are being terminated.
    delay: Option<Duration>,
    /// Signals to ignore before workers are told to terminate once more.
    patience: usize,
}

/// What signals asked for since the last turn.
#[derive(Debug, Default)]
struct Asked {
    reap: bool,
    terminate: bool,
    quit: bool,
    reconfigure: bool,
    reopen: bool,
    change_binary: bool,
    noaccept: bool,
    restart: bool,
}

/// Runs until the last worker has ended.
pub(super) fn run(options: &Options, load: Load<'_>, cycle: Cycle, standing: Standing) -> ExitCode {
    let arguments: Vec<_> = options.arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    title::set(&format!("master process {}", arguments.join(" ")));
    let mut master = Master {
        options,
        load,
        cycle: Rc::new(cycle),
        standing,
        children: Children::default(),
        asked: Asked::default(),
        new_binary: None,
        noaccepting: false,
        delay: None,
        patience: 0,
    };
    master.start_workers(false);
    let mut live = true;
    loop {
        master.wait();
        if std::mem::take(&mut master.asked.reap) {
            live = master.reap();
        }
        if !live && (master.asked.terminate || master.asked.quit) {
            master.exit();
            return ExitCode::SUCCESS;
        }
        if master.asked.terminate {
            master.terminate();
        } else if master.asked.quit {
            master.signal_workers(Signal::SIGQUIT);
            master.cycle.close_listeners(master.new_binary.is_none(), master.standing);
        } else {
            live |= master.act();
        }
    }
}

// === impl Master ===

impl Master<'_> {
    /// Waits for a signal and takes those that came with it.
    fn wait(&mut self) {
        match signals::wait(self.delay) {
            Some(received) => self.receive(received),
            None => {
                if let Some(delay) = &mut self.delay {
                    *delay *= 2;
                    self.patience = 0;
                }
            }
        }
        while let Some(received) = signals::wait(Some(Duration::ZERO)) {
            self.receive(received);
        }
    }

    fn receive(&mut self, received: Received) {
        let asked = &mut self.asked;
        let mut ignored = false;
        let action = match received.signal {
            Signal::SIGQUIT => {
                asked.quit = true;
                ", shutting down"
            }
            Signal::SIGTERM | Signal::SIGINT => {
                asked.terminate = true;
                ", exiting"
            }
            Signal::SIGWINCH if self.standing.daemonized => {
                asked.noaccept = true;
                ", stop accepting connections"
            }
            Signal::SIGHUP => {
                asked.reconfigure = true;
                ", reconfiguring"
            }
            Signal::SIGUSR1 => {
                asked.reopen = true;
                ", reopening logs"
            }
            // One upgrade at a time: not while the old binary runs, nor while the new one does.
            Signal::SIGUSR2 if getppid().as_raw() == self.standing.parent || self.new_binary.is_some() => {
                ignored = true;
                ", ignoring"
            }
            Signal::SIGUSR2 => {
                asked.change_binary = true;
                ", changing binary"
            }
            Signal::SIGCHLD => {
                asked.reap = true;
                ""
            }
            _ => "",
        };
        let log = self.cycle.log();
        received.log(log, action);
        if ignored {
            let what = format_args!(
                "the changing binary signal is ignored: you should shutdown or terminate before either old or new \
                 binary's process"
            );
            log::error(log, Level::Crit, None, what);
        }
        if received.signal == Signal::SIGCHLD {
            self.children.collect(log);
        }
    }

    /// Does what was asked for while neither quitting nor terminating; returns whether workers were started.
    fn act(&mut self) -> bool {
        let mut started = false;
        if std::mem::take(&mut self.asked.reconfigure) {
            if self.new_binary.is_some() {
                self.start_workers(false);
                self.noaccepting = false;
                return true;
            }
            started |= self.reconfigure();
        }
        if std::mem::take(&mut self.asked.restart) {
            self.start_workers(false);
            started = true;
        }
        if std::mem::take(&mut self.asked.reopen) {
            let owner = self.cycle.core().user.as_ref().map(|account| account.uid);
            self.cycle.reopen(owner);
            self.signal_workers(Signal::SIGUSR1);
        }
        if std::mem::take(&mut self.asked.change_binary) {
            self.change_binary();
        }
        if std::mem::take(&mut self.asked.noaccept) {
            self.noaccepting = true;
            self.signal_workers(Signal::SIGQUIT);
        }
        started
    }

    fn reconfigure(&mut self) -> bool {
        let log = self.cycle.log().clone();
        log::error(&log, Level::Notice, None, format_args!("reconfiguring"));
        let Ok((cycle, _)) = make(self.options, self.load, Some(&self.cycle), Vec::new(), &log) else {
            return false;
        };
        self.cycle = Rc::new(cycle);
        log::set_main(self.cycle.log());
        // Logged by the callee; standard error then stays where it is.
        let _ = daemon::redirect_stderr(self.cycle.core());
        self.start_workers(true);
        std::thread::sleep(START_DELAY);
        self.signal_workers(Signal::SIGQUIT);
        true
    }

    fn change_binary(&mut self) {
        log::error(self.cycle.log(), Level::Notice, None, format_args!("changing binary"));
        self.new_binary = upgrade::start(&self.cycle, &self.options.arguments);
        if let Some(pid) = self.new_binary {
            self.children.0.push(Child {
                pid,
                name: "new binary process",
                respawn: false,
                just_started: false,
                detached: true,
                exiting: false,
                exited: false,
            });
        }
    }

    fn terminate(&mut self) {
        let delay = *self.delay.get_or_insert(TERMINATION_DELAY);
        if self.patience > 0 {
            self.patience -= 1;
            return;
        }
        self.patience = 3;
        let kill = delay > Duration::from_secs(1);
        self.signal_workers(if kill { Signal::SIGKILL } else { Signal::SIGTERM });
    }

    /// Starts again what ended by itself and forgets the others; returns whether anyone is left.
    fn reap(&mut self) -> bool {
        let stopping = self.asked.terminate || self.asked.quit;
        let (ended, running) =
            std::mem::take(&mut self.children.0).into_iter().partition(|child| child.exited);
        self.children.0 = running;
        let ended: Vec<Child> = ended;
        for child in ended {
            if child.respawn && !child.exiting && !stopping {
                if !self.spawn(false) {
                    let what = format_args!("could not respawn {}", child.name);
                    log::error(self.cycle.log(), Level::Alert, None, what);
                }
            } else if Some(child.pid) == self.new_binary {
                self.take_back();
            }
        }
        self.children.live()
    }

    /// The new binary has ended: this one is the server again.
    fn take_back(&mut self) {
        let core = self.cycle.core();
        let (pid, old) = (&core.pid, core.old_pid());
        if let Err(reason) = std::fs::rename(&old, pid) {
            let binary = self.options.arguments.first().cloned().unwrap_or_default();
            let what = format_args!(
                "rename() {} back to {} failed after the new binary process \"{}\" exited",
                old.display(),
                pid.display(),
                binary.display()
            );
            log::error_errno(self.cycle.log(), Level::Alert, None, &reason, what);
        }
        self.new_binary = None;
        if std::mem::take(&mut self.noaccepting) {
            self.asked.restart = true;
        }
    }

    fn start_workers(&mut self, just_started: bool) {
        log::error(self.cycle.log(), Level::Notice, None, format_args!("start worker processes"));
        self.spawn(just_started);
    }

    fn spawn(&mut self, just_started: bool) -> bool {
        let log = self.cycle.log();
        // SAFETY: the master has one thread, so the child finds every lock free.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => worker::run(self.cycle.clone(), self.standing.daemonized),
            Ok(ForkResult::Parent { child: pid }) => {
                log::error(log, Level::Notice, None, format_args!("start worker process {pid}"));
                self.children.0.push(Child {
                    pid,
                    name: "worker process",
                    respawn: true,
                    just_started,
                    detached: false,
                    exiting: false,
                    exited: false,
                });
                true
            }
            Err(errno) => {
                let what = format_args!("fork() failed while spawning \"worker process\"");
                log::error_errno(log, Level::Alert, None, &errno.into(), what);
                false
            }
        }
    }

    fn signal_workers(&mut self, signal: Signal) {
        self.children.signal(signal, self.cycle.log());
    }

    fn exit(&self) {
        let (core, log) = (self.cycle.core(), self.cycle.log());
        match self.new_binary {
            Some(_) => pidfile::delete(&core.old_pid(), log),
            None => pidfile::delete(&core.pid, log),
        }
        log::error(log, Level::Notice, None, format_args!("exit"));
        self.cycle.close_listeners(self.new_binary.is_none(), self.standing);
    }
}
