//! Master, worker and threads.
//!
//! The master has one thread and no runtime. It reads the configuration, opens logs and sockets, forks the
//! worker, and then waits for signals and children. The worker gives up root and serves with
//! `worker_processes` threads, each with a runtime of its own; the configuration is there for ever, since a
//! reload makes a new worker.

mod balance;
mod children;
mod core;
mod daemon;
mod init;
mod master;
pub mod memory;
mod pidfile;
mod privileges;
mod signals;
mod single;
mod stats;
mod threads;
mod title;
mod upgrade;
mod worker;

pub use self::core::{Account, Affinity, Core, CoreError, CpuSet, EnvVariable};
pub use balance::{Full, Slot, client_slot, connection_slot};
pub use init::run;
pub use stats::{Count, Counted, Stats, count, next_connection_number};

use crate::log::{self, ErrorLog, OpenFiles};
use crate::net::Socket;
use crate::net::accept::Peer;
use crate::net::listen::Listen;
use std::ffi::OsString;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// One loaded configuration: what this room needs of it. The methods without a default and those of
/// connections are called in a worker thread, inside its runtime.
pub trait Configuration: Send + Sync + 'static {
    /// The settings of processes.
    fn core(&self) -> &Core;

    /// Sockets to open. [`accepted`](Self::accepted) names one by its place here.
    fn listens(&self) -> &[Listen];

    /// Log files to open.
    fn files(&self) -> &OpenFiles;

    /// Directories to create, owned by the worker's user.
    fn directories(&self) -> &[PathBuf] {
        &[]
    }

    /// Sets up a thread, before its first connection.
    fn start_thread(&'static self, thread: Thread);

    /// Serves a connection: spawns a task that keeps `accepted.slot` until the connection is closed.
    fn accepted(&'static self, listener: usize, accepted: Accepted);

    /// A datagram socket, nonblocking, given once to the first thread.
    fn datagrams(&'static self, listener: usize, socket: UdpSocket) {
        let _ = (listener, socket);
    }

    /// A graceful shutdown began: idle connections of this thread are to be closed, the others to be closed
    /// when their requests end. [`exiting`] is true from now on.
    fn close_idle(&'static self);

    /// `worker_shutdown_timeout` is over: connections of this thread are to be closed now. Returns whether
    /// they will be; if not, the process ends at once.
    fn close_all(&'static self) -> bool {
        false
    }

    /// Connections run short: up to `count` idle ones of this thread are to be closed. Returns how many were.
    fn drain_idle(&'static self, count: usize) -> usize {
        let _ = count;
        0
    }
}

/// Which thread of the worker this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread {
    pub index: usize,
    pub count: usize,
}

/// A connection just taken.
#[derive(Debug)]
pub struct Accepted {
    pub socket: Socket,
    pub peer: Peer,
    /// The number behind `*` in the error log, `$connection`.
    pub number: u64,
    /// Counts the connection until it is dropped.
    pub slot: Slot,
}

/// What the command line asks for, with paths made whole.
#[derive(Clone, Debug)]
pub struct Options {
    pub task: Task,
    pub paths: Paths,
    /// `-g`.
    pub parameters: Option<String>,
    /// `-q`.
    pub quiet: bool,
    /// The command line, for the title and for starting a new binary.
    pub arguments: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    Serve,
    /// `-t`, and with `dump` `-T`.
    Test {
        dump: bool,
    },
    /// `-s`.
    Signal(Signal),
}

/// What `-s` can send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Stop,
    Quit,
    Reopen,
    Reload,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Relative paths of logs, the pid file and the like start here; ends in a slash.
    pub prefix: PathBuf,
    pub conf_file: PathBuf,
    /// Relative paths of included files, keys and the like start here; ends in a slash.
    pub conf_prefix: PathBuf,
    /// The error log before and beside the configuration's; `None` is standard error.
    pub error_log: Option<PathBuf>,
    /// The pid file when the configuration names none.
    pub pid: PathBuf,
}

/// What a configuration is loaded with.
pub struct LoadOptions<'a> {
    pub paths: &'a Paths,
    /// Directives in front of the file's, from `-g`.
    pub parameters: Option<&'a str>,
    pub task: Task,
    pub quiet: bool,
    /// Where problems are told, each by the loader itself.
    pub log: &'a ErrorLog,
}

/// A configuration and the files it was read from, for `-T`.
pub struct Loaded {
    pub configuration: Box<dyn Configuration>,
    pub files: Vec<(PathBuf, Vec<u8>)>,
}

/// The configuration is not usable; the loader has logged why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotLoaded;

/// Reads and checks a configuration.
pub type Load<'a> = &'a dyn Fn(&LoadOptions<'_>) -> Result<Loaded, NotLoaded>;

static EXITING: AtomicBool = AtomicBool::new(false);

/// Whether the worker is shutting down gracefully: connections are not kept alive any more.
pub fn exiting() -> bool {
    EXITING.load(Ordering::Relaxed)
}

fn set_exiting() {
    EXITING.store(true, Ordering::Relaxed);
}

// === impl LoadOptions ===

impl LoadOptions<'_> {
    /// Whether the configuration is only tested.
    pub fn test(&self) -> bool {
        matches!(self.task, Task::Test { .. })
    }

    /// To be called when the file was read without error, before what nginx's modules check afterwards.
    pub fn syntax_is_ok(&self) {
        if self.test() && !self.quiet {
            let file = self.paths.conf_file.display();
            log::stderr(format_args!("the configuration file {file} syntax is ok"));
        }
    }
}

// === impl Signal ===

impl Signal {
    /// The signal that `-s name` sends.
    pub fn parse(name: &str) -> Option<Signal> {
        match name {
            "stop" => Some(Signal::Stop),
            "quit" => Some(Signal::Quit),
            "reopen" => Some(Signal::Reopen),
            "reload" => Some(Signal::Reload),
            _ => None,
        }
    }
}
