//! From the command line to a running process: loading a configuration, opening what it names, and going on
//! as master, as a single process, or not at all.

use super::{
    Configuration, Core, Load, LoadOptions, Options, Task, daemon, master, pidfile, signals, single,
};
use super::{stats, title, upgrade};
use crate::cli::{NGINX_VERSION, VERSION};
use crate::log::{self, ErrorLog, Level};
use crate::net::listen::{Address, Listener};
use crate::net::open;
use crate::net::{clock, host};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{Uid, chown, getpid, getppid};
use std::cell::RefCell;
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A configuration in force, with its open sockets.
pub(super) struct Cycle {
    pub(super) configuration: Box<dyn Configuration>,
    /// Emptied in the process that serves them.
    pub(super) listeners: RefCell<Vec<Listener>>,
}

/// What a process is to others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// Who started it: a terminal, or the process that went to the background with it.
    pub(super) parent: i32,
    /// In the background, or a new binary that took over.
    pub(super) daemonized: bool,
}

/// Files the configuration was read from, with their content.
type Files = Vec<(PathBuf, Vec<u8>)>;

/// Does what the command line asks for.
pub fn run(options: &Options, load: Load<'_>) -> ExitCode {
    clock::update_zone();
    let test = matches!(options.task, Task::Test { .. });
    let level = if test { Level::Info } else { Level::Notice };
    let log = ErrorLog::built_in(options.paths.error_log.as_deref(), level);
    log::set_main(&log);

    let inherited = if options.task == Task::Serve { upgrade::inherited(&log) } else { None };
    let took_over = inherited.is_some();
    let Ok((cycle, files)) = make(options, load, None, inherited.unwrap_or_default(), &log) else {
        if test {
            let file = options.paths.conf_file.display();
            log::stderr(format_args!("configuration file {file} test failed"));
        }
        return ExitCode::FAILURE;
    };
    match options.task {
        Task::Test { dump } => report_test(options, dump.then_some(files)),
        Task::Signal(signal) => {
            if pidfile::send(cycle.core(), signal, &log) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Task::Serve => {
            drop((files, log));
            serve(options, load, cycle, took_over)
        }
    }
}

/// Loads a configuration and opens what it names, taking over the sockets of `old`. Everything that fails is
/// logged to `log`, and `old` goes on untouched.
pub(super) fn make(
    options: &Options,
    load: Load<'_>,
    old: Option<&Cycle>,
    inherited: Vec<Listener>,
    log: &ErrorLog,
) -> Result<(Cycle, Files), ()> {
    clock::update_zone();
    let load_options = LoadOptions {
        paths: &options.paths,
        parameters: options.parameters.as_deref(),
        task: options.task,
        quiet: options.quiet,
        log,
    };
    let loaded = load(&load_options).map_err(drop)?;
    let cycle = Cycle { configuration: loaded.configuration, listeners: RefCell::default() };
    if matches!(options.task, Task::Signal(_)) {
        return Ok((cycle, loaded.files));
    }

    let (core, test) = (cycle.core(), load_options.test());
    if core.cpu_affinity.differs_from(core.worker_processes) {
        let what = format_args!(
            "the number of \"worker_processes\" is not equal to the number of \"worker_cpu_affinity\" masks, \
             using last mask for remaining worker processes"
        );
        log::error(log, Level::Warn, None, what);
    }
    if test {
        pidfile::create(&core.pid, true, log)?;
    } else if let Some(old) = old
        && old.core().pid != core.pid
    {
        pidfile::create(&core.pid, false, log)?;
        pidfile::delete(&old.core().pid, log);
    }
    create_directories(&cycle, log)?;
    cycle.configuration.files().open(log).map_err(drop)?;

    let before = old.map_or(inherited, |old| old.listeners.take());
    let opened = open::open(cycle.configuration.listens(), &before, test, log);
    let Ok(opened) = opened else {
        if let Some(old) = old {
            old.listeners.replace(before);
        }
        return Err(());
    };
    if !test {
        log::error(cycle.log(), Level::Notice, None, format_args!("using the \"epoll\" event method"));
    }
    check_open_files(core, cycle.log());
    open::close_unused(before, &opened, cycle.log());
    cycle.listeners.replace(opened);
    Ok((cycle, loaded.files))
}

fn report_test(options: &Options, dump: Option<Files>) -> ExitCode {
    if !options.quiet {
        let file = options.paths.conf_file.display();
        log::stderr(format_args!("configuration file {file} test is successful"));
    }
    let mut stdout = io::stdout().lock();
    for (path, content) in dump.unwrap_or_default() {
        // Whoever closed standard output does not want the rest.
        let _ = writeln!(stdout, "# configuration file {}:", path.display());
        let _ = stdout.write_all(&content);
        let _ = stdout.write_all(b"\n");
    }
    let _ = stdout.flush();
    ExitCode::SUCCESS
}

fn serve(options: &Options, load: Load<'_>, cycle: Cycle, took_over: bool) -> ExitCode {
    log_system(cycle.log());
    if signals::block(cycle.log()).is_err() {
        return ExitCode::FAILURE;
    }
    let mut standing = Standing { parent: getppid().as_raw(), daemonized: took_over };
    if !took_over && cycle.core().daemon {
        let before = getpid().as_raw();
        if daemon::daemonize(cycle.log()).is_err() {
            return ExitCode::FAILURE;
        }
        standing = Standing { parent: before, daemonized: true };
    }
    let core = cycle.core();
    if pidfile::create(&core.pid, false, cycle.log()).is_err() || daemon::redirect_stderr(core).is_err() {
        return ExitCode::FAILURE;
    }
    log::use_stderr(false);
    log::set_main(cycle.log());
    log::forward_tracing();
    stats::share();
    title::prepare();
    if core.master {
        master::run(options, load, cycle, standing)
    } else {
        single::run(options, load, cycle, standing)
    }
}

fn log_system(log: &ErrorLog) {
    let notice = |what: std::fmt::Arguments<'_>| log::error(log, Level::Notice, None, what);
    // The second name is for those who look for the version of nginx whose ways these are.
    notice(format_args!("nxr/{VERSION} (as nginx/{NGINX_VERSION})"));
    notice(format_args!("OS: {}", host::system()));
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        notice(format_args!("getrlimit(RLIMIT_NOFILE): {}:{}", soft as i64, hard as i64));
    }
}

fn check_open_files(core: &Core, log: &ErrorLog) {
    let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let connections = core.worker_connections;
    let limit = core.rlimit_nofile.unwrap_or(soft);
    if connections as u64 > soft && connections as u64 > limit {
        let what = format_args!("{connections} worker_connections exceed open file resource limit: {limit}");
        log::error(log, Level::Warn, None, what);
    }
}

fn create_directories(cycle: &Cycle, log: &ErrorLog) -> Result<(), ()> {
    let owner = cycle.core().user.as_ref().map(|account| account.uid);
    for path in cycle.configuration.directories() {
        create_directory(path, owner, log)?;
    }
    Ok(())
}

fn create_directory(path: &Path, owner: Option<Uid>, log: &ErrorLog) -> Result<(), ()> {
    let name = path.display();
    let emerg = |reason: io::Error, what: std::fmt::Arguments<'_>| {
        log::error_errno(log, Level::Emerg, None, &reason, what);
    };
    match DirBuilder::new().mode(0o700).create(path) {
        Err(reason) if reason.kind() != io::ErrorKind::AlreadyExists => {
            emerg(reason, format_args!("mkdir() \"{name}\" failed"));
            return Err(());
        }
        _ => {}
    }
    let Some(owner) = owner else { return Ok(()) };
    let info =
        fs::metadata(path).map_err(|reason| emerg(reason, format_args!("stat() \"{name}\" failed")))?;
    if info.uid() != owner.as_raw() {
        chown(path, Some(owner), None)
            .map_err(|errno| emerg(errno.into(), format_args!("chown(\"{name}\", {owner}) failed")))?;
    }
    let mode = info.permissions().mode();
    if mode & 0o700 != 0o700 {
        fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o700))
            .map_err(|reason| emerg(reason, format_args!("chmod() \"{name}\" failed")))?;
    }
    Ok(())
}

// === impl Cycle ===

impl Cycle {
    pub(super) fn core(&self) -> &Core {
        self.configuration.core()
    }

    pub(super) fn log(&self) -> &ErrorLog {
        &self.core().error_log
    }

    /// Opens log files again; root gives them to the worker's user.
    pub(super) fn reopen(&self, owner: Option<Uid>) {
        log::error(self.log(), Level::Notice, None, format_args!("reopening logs"));
        self.configuration.files().reopen(owner, self.log());
        // Logged by the callee; standard error then stays where it is.
        let _ = daemon::redirect_stderr(self.core());
    }

    /// Closes the sockets. With `delete` the files of unix sockets go too, but for those that the parent
    /// which gave them may still use.
    pub(super) fn close_listeners(&self, delete: bool, standing: Standing) {
        for listener in self.listeners.take() {
            let parent_uses = listener.inherited && getppid().as_raw() == standing.parent;
            if let Address::Unix(path) = &listener.listen.address
                && delete
                && !parent_uses
            {
                open::delete(path, self.log());
            }
        }
    }
}
