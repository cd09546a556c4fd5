//! The main and events contexts: `ngx_core`, `ngx_errlog`, `ngx_events`, `ngx_event_core`, `ngx_epoll`, `ngx_regex`,
//! `ngx_thread_pool`, and the blocks that begin there.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use nix::unistd::geteuid;

use super::build::Commands;
use super::grammar::{self, Context, Support};
use super::listen::Side;
use super::{Build, Fault, Outcome, Setting, set, units};
use crate::log::{ErrorLogBuilder, Level, SyslogPeer, Target};
use crate::net::host;
use crate::process::{Account, Affinity, Core, EnvVariable};
use crate::settings;
use crate::syntax::Directive;

settings! {
    /// Directives of the main context.
    pub struct Main {
        daemon: bool = true,
        master_process: bool = true,
        pid: Bytes = Bytes::new(),
        worker_processes: usize = 1,
        user: Option<Account> = None,
        worker_priority: i32 = 0,
        worker_cpu_affinity: Affinity = Affinity::None,
        worker_rlimit_nofile: usize = 0,
        /// Bytes.
        worker_rlimit_core: u64 = 0,
        /// Milliseconds.
        worker_shutdown_timeout: u64 = 0,
        working_directory: Bytes = Bytes::new(),
        /// Checked only.
        timer_resolution: u64 = 0,
        /// Checked only.
        lock_file: Bytes = Bytes::new(),
        /// Checked only.
        debug_points: bool = false,
        /// Checked only: patterns are always compiled where the machine allows.
        pcre_jit: bool = true,
        /// Checked only: for QUIC.
        quic_bpf: bool = false,
        /// The next configuration takes over certificates and keys whose files have not changed.
        ssl_object_cache_inheritable: bool = true,
    }
}

settings! {
    /// Directives of the events block.
    pub struct Events {
        worker_connections: usize = 512,
        /// Checked only: there is but one method.
        method: () = (),
        multi_accept: bool = false,
        /// Checked only: connections are spread by load.
        accept_mutex: bool = false,
        /// Milliseconds.
        accept_mutex_delay: u64 = 500,
        /// Checked only.
        epoll_events: usize = 512,
        /// Checked only.
        worker_aio_requests: usize = 32,
    }
}

/// The main context while it is read.
#[derive(Debug, Default)]
pub struct CoreBuild {
    pub main: Main,
    /// None before the `events` block.
    pub events: Option<Events>,
    pub env: Vec<EnvVariable>,
    pub error_log: ErrorLogBuilder,
    /// Some `error_log` is `stderr`.
    pub log_use_stderr: bool,
    /// Some `proxy_bind` is transparent.
    pub transparent: bool,
    /// Too late for `load_module`: a block of modules was begun.
    modules_used: bool,
    loaded_modules: Vec<String>,
    thread_pools: Vec<ThreadPool>,
}

/// A name that `thread_pool` defines or `aio threads=` uses. Files are read in the runtime's own threads.
#[derive(Debug)]
struct ThreadPool {
    name: Vec<u8>,
    defined: bool,
    at: String,
}

/// Directives outside of http, stream and mail.
pub static COMMANDS: &[Commands] = &[
    Commands {
        module: "ngx_core",
        setters: &[
            ("daemon", |cf, d| set::flag(&mut cf.core.main.daemon, d)),
            ("master_process", |cf, d| set::flag(&mut cf.core.main.master_process, d)),
            ("timer_resolution", |cf, d| set::msec(&mut cf.core.main.timer_resolution, d)),
            ("pid", |cf, d| set::text(&mut cf.core.main.pid, d)),
            ("lock_file", |cf, d| set::text(&mut cf.core.main.lock_file, d)),
            ("worker_processes", worker_processes),
            ("debug_points", |cf, d| {
                set::choice(&mut cf.core.main.debug_points, d, &[("stop", true), ("abort", true)])
            }),
            ("user", user),
            ("worker_priority", worker_priority),
            ("worker_cpu_affinity", worker_cpu_affinity),
            ("worker_rlimit_nofile", |cf, d| set::number(&mut cf.core.main.worker_rlimit_nofile, d)),
            ("worker_rlimit_core", |cf, d| set::offset(&mut cf.core.main.worker_rlimit_core, d)),
            ("worker_shutdown_timeout", |cf, d| set::msec(&mut cf.core.main.worker_shutdown_timeout, d)),
            ("working_directory", |cf, d| set::text(&mut cf.core.main.working_directory, d)),
            ("env", |cf, d| {
                cf.core.env.push(EnvVariable::parse(&String::from_utf8_lossy(d.arg(1))));
                Ok(())
            }),
            ("load_module", load_module),
        ],
    },
    Commands { module: "ngx_errlog", setters: &[("error_log", error_log)] },
    Commands {
        module: "ngx_regex",
        setters: &[("pcre_jit", |cf, d| set::flag(&mut cf.core.main.pcre_jit, d))],
    },
    Commands {
        module: "ngx_quic_bpf",
        setters: &[("quic_bpf", |cf, d| set::flag(&mut cf.core.main.quic_bpf, d))],
    },
    Commands {
        module: "ngx_openssl",
        setters: &[("ssl_engine", |_, _| Err(Fault::directive("is not supported")))],
    },
    Commands {
        module: "ngx_openssl_cache",
        setters: &[("ssl_object_cache_inheritable", |cf, d| {
            set::flag(&mut cf.core.main.ssl_object_cache_inheritable, d)
        })],
    },
    Commands { module: "ngx_thread_pool", setters: &[("thread_pool", thread_pool)] },
    Commands { module: "ngx_events", setters: &[("events", events)] },
    Commands { module: "ngx_http", setters: &[("http", http)] },
    Commands { module: "ngx_stream", setters: &[("stream", stream)] },
    Commands {
        module: "ngx_event_core",
        setters: &[
            ("worker_connections", worker_connections),
            ("use", use_method),
            ("multi_accept", |cf, d| set::flag(&mut cf.core.events().multi_accept, d)),
            ("accept_mutex", |cf, d| set::flag(&mut cf.core.events().accept_mutex, d)),
            ("accept_mutex_delay", |cf, d| set::msec(&mut cf.core.events().accept_mutex_delay, d)),
            ("debug_connection", debug_connection),
        ],
    },
    Commands {
        module: "ngx_epoll",
        setters: &[
            ("epoll_events", |cf, d| set::number(&mut cf.core.events().epoll_events, d)),
            ("worker_aio_requests", |cf, d| set::number(&mut cf.core.events().worker_aio_requests, d)),
        ],
    },
];

impl CoreBuild {
    fn events(&mut self) -> &mut Events {
        self.events.get_or_insert_default()
    }

    /// A block of modules begins: `load_module` comes too late from now on.
    pub fn modules_used(&mut self) {
        self.modules_used = true;
    }

    /// Notes that a thread pool is used, which must then be defined; none is the one nginx always has.
    pub fn use_thread_pool(&mut self, name: Option<&[u8]>, d: &Directive<'_>) {
        self.pool(name.unwrap_or(b"default"), d);
    }

    fn pool(&mut self, name: &[u8], d: &Directive<'_>) -> &mut ThreadPool {
        let known = self.thread_pools.iter().position(|pool| pool.name == name);
        let index = known.unwrap_or_else(|| {
            let at = d.at().to_string();
            self.thread_pools.push(ThreadPool { name: name.to_vec(), defined: false, at });
            self.thread_pools.len() - 1
        });
        &mut self.thread_pools[index]
    }
}

fn words(d: &Directive<'_>) -> Vec<String> {
    d.args().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

fn worker_processes(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let to = &mut cf.core.main.worker_processes;
    to.once()?;
    if d.arg(1) == b"auto" {
        return to.set(host::processors());
    }
    let count = units::number(d.arg(1)).ok_or(Fault::directive("invalid value"))?;
    to.set(usize::try_from(count).unwrap_or(usize::MAX))
}

fn user(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    cf.core.main.user.once()?;
    if !geteuid().is_root() {
        let sentence = "the \"user\" directive makes sense only if the master process runs with super-user \
                        privileges, ignored";
        cf.warn(d.at(), sentence);
        return Ok(());
    }
    let words = words(d);
    let account = Account::find(&words[0], words.get(1).map(String::as_str)).map_err(Fault::here)?;
    cf.core.main.user.set(Some(account))
}

fn worker_priority(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let to = &mut cf.core.main.worker_priority;
    // As nginx: 0 does not count as said.
    if **to != 0 {
        return Err(Fault::directive("is duplicate"));
    }
    let (sign, digits) = match d.arg(1) {
        [b'-', digits @ ..] => (-1, digits),
        [b'+', digits @ ..] => (1, digits),
        digits => (1, digits),
    };
    let number = units::number(digits).ok_or(Fault::directive("invalid number"))?;
    to.put(sign * i32::try_from(number).unwrap_or(i32::MAX));
    Ok(())
}

fn worker_cpu_affinity(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    cf.core.main.worker_cpu_affinity.once()?;
    let words = words(d);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let affinity = Affinity::parse(&words).map_err(Fault::here)?;
    cf.core.main.worker_cpu_affinity.set(affinity)
}

/// `load_module FILE`: nxr has its modules built in, so the file need not be there, but its module must be known.
fn load_module(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    if cf.core.modules_used {
        return Err(Fault::directive("is specified too late"));
    }
    let path = cf.full_path(d.arg(1));
    let shown = path.display();
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    if !is_built_in(&stem) {
        let reason = if path.is_file() {
            "not a module that is built in"
        } else {
            "cannot open shared object file: No such file or directory"
        };
        return Err(Fault::here(format!("dlopen() \"{shown}\" failed ({shown}: {reason})")));
    }
    if cf.core.loaded_modules.contains(&stem) {
        return Err(Fault::here(format!("module \"{stem}\" is already loaded")));
    }
    cf.core.loaded_modules.push(stem);
    Ok(())
}

fn is_built_in(name: &str) -> bool {
    let Some(module) = name.strip_suffix("_module") else { return false };
    grammar::all().any(|row| row.module == module && row.support == Support::Supported)
}

fn error_log(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let mut log = std::mem::take(&mut cf.core.error_log);
    let added = add_error_log(cf, d, &mut log);
    cf.core.error_log = log;
    added
}

/// Adds one `error_log` to those of its level.
pub fn add_error_log(cf: &mut Build, d: &Directive<'_>, log: &mut ErrorLogBuilder) -> Outcome {
    let target = match d.arg(1) {
        b"stderr" => {
            cf.core.log_use_stderr = true;
            Target::Stderr
        }
        name if name.starts_with(b"memory:") => {
            return Err(Fault::here("nginx was built without debug support"));
        }
        name => match name.strip_prefix(b"syslog:") {
            Some(parameters) => Target::Syslog(syslog(parameters)?),
            None => Target::File(cf.files.add(cf.full_path(name))),
        },
    };
    let levels = words(d);
    let level = Level::parse_arguments(levels.iter().skip(1).map(String::as_str)).map_err(Fault::here)?;
    log.add(target, level);
    Ok(())
}

/// Reads what follows `syslog:` in `error_log` and `access_log`.
pub fn syslog(parameters: &[u8]) -> Outcome<Arc<SyslogPeer>> {
    let hostname = host::name().unwrap_or_default();
    let peer = SyslogPeer::parse(&String::from_utf8_lossy(parameters), &hostname);
    Ok(Arc::new(peer.map_err(Fault::here)?))
}

fn thread_pool(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let shown = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
    let pool = cf.core.pool(d.arg(1), d);
    if pool.defined {
        return Err(Fault::here(format!("duplicate thread pool \"{}\"", shown(d.arg(1)))));
    }
    for word in d.args().skip(1) {
        if let Some(count) = word.strip_prefix(b"threads=") {
            if units::number(count).is_none_or(|count| count == 0) {
                return Err(Fault::here(format!("invalid threads value \"{}\"", shown(word))));
            }
            pool.defined = true;
        } else if let Some(length) = word.strip_prefix(b"max_queue=")
            && units::number(length).is_none()
        {
            return Err(Fault::here(format!("invalid max_queue value \"{}\"", shown(word))));
        }
    }
    if !pool.defined {
        return Err(Fault::here("\"thread_pool\" must have \"threads\" parameter"));
    }
    Ok(())
}

fn events(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    if cf.core.events.is_some() {
        return Err(Fault::directive("is duplicate"));
    }
    cf.core.modules_used();
    cf.core.events = Some(Events::default());
    cf.block(d, Context::EVENTS)
}

fn http(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    begin(cf, Side::Http)?;
    cf.http_ready = crate::http::conf::http_block(cf, d)
        .and_then(|()| {
            cf.here = d.end().to_string();
            crate::http::conf::finish(cf)
        })
        .map_err(|fault| at_end(&fault, d))?;
    Ok(())
}

fn stream(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    begin(cf, Side::Stream)?;
    cf.stream_ready = crate::stream::conf::stream_block(cf, d)
        .and_then(|()| {
            cf.here = d.end().to_string();
            crate::stream::conf::finish(cf)
        })
        .map_err(|fault| at_end(&fault, d))?;
    Ok(())
}

fn begin(cf: &mut Build, side: Side) -> Outcome {
    if cf.sides.contains(&side) {
        return Err(Fault::directive("is duplicate"));
    }
    cf.core.modules_used();
    cf.sides.push(side);
    Ok(())
}

/// What is wrong with a block as a whole is found at its end.
fn at_end(fault: &Fault, d: &Directive<'_>) -> Fault {
    Fault::Whole(fault.text(d.name(), d.end()))
}

fn worker_connections(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let to = &mut cf.core.events().worker_connections;
    to.once()?;
    let invalid = || Fault::here(format!("invalid number \"{}\"", String::from_utf8_lossy(d.arg(1))));
    to.set(units::number(d.arg(1)).ok_or_else(invalid)? as usize)
}

fn use_method(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let to: &mut Setting<()> = &mut cf.core.events().method;
    to.once()?;
    if d.arg(1) != b"epoll" {
        let shown = String::from_utf8_lossy(d.arg(1));
        return Err(Fault::here(format!("invalid event type \"{shown}\"")));
    }
    to.set(())
}

fn debug_connection(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let sentence =
        "\"debug_connection\" is ignored, you need to rebuild nginx using --with-debug option to enable it";
    cf.warn(d.at(), sentence);
    Ok(())
}

/// Bytes of a path with all its levels: two levels of subdirectories have at most ten digits and slashes.
const MAX_LEVELS: usize = 10;

/// `*_temp_path`: the folder, which is made at start. Levels are checked and have no effect, since files are made
/// without names.
pub fn temp_path(cf: &mut Build, d: &Directive<'_>) -> Outcome<PathBuf> {
    let name = d.arg(1);
    let path = cf.full_path(name.strip_suffix(b"/").unwrap_or(name));
    let (mut length, mut levels) = (0usize, 0);
    for word in d.args().skip(1) {
        let level = units::number(word).filter(|level| *level != 0);
        length = level
            .and_then(|level| usize::try_from(level).ok()?.checked_add(1)?.checked_add(length))
            .ok_or(Fault::directive("invalid value"))?;
        levels += 1;
    }
    if length > MAX_LEVELS + levels {
        return Err(Fault::directive("invalid value"));
    }
    cf.add_directory(path.clone());
    Ok(path)
}

/// What nginx checks once everything is read, and the settings of processes. `sockets` is the number of sockets
/// to listen on.
pub fn finish(cf: &mut Build, sockets: usize) -> Outcome<Core> {
    let build = std::mem::take(&mut cf.core);
    let main = build.main;
    let mut error_log = build.error_log;
    if !error_log.has_file() {
        let target = match &cf.default_error_log {
            Some(path) => Target::File(cf.files.add(path.clone())),
            None => Target::Stderr,
        };
        error_log.add(target, Level::Error);
    }
    let pid = if main.pid.is_empty() { cf.default_pid.clone() } else { cf.full_path(&main.pid) };
    cf.main_log.complete(error_log);
    let mut core = Core::new(pid, cf.main_log.clone());
    core.user = match &*main.user {
        None if geteuid().is_root() => Some(Account::default_user().map_err(Fault::whole)?),
        account => account.clone(),
    };
    if let Some(pool) = build.thread_pools.iter().find(|pool| !pool.defined && pool.name != b"default") {
        let name = String::from_utf8_lossy(&pool.name);
        return Err(Fault::whole(format!("unknown thread pool \"{name}\"{}", pool.at)));
    }
    let Some(events) = build.events else {
        return Err(Fault::whole("no \"events\" section in configuration"));
    };
    let connections = *events.worker_connections;
    if connections <= sockets {
        let text = format!("{connections} worker_connections are not enough for {sockets} listening sockets");
        return Err(Fault::whole(text));
    }
    core.daemon = *main.daemon;
    core.master = *main.master_process;
    core.worker_processes = *main.worker_processes;
    core.worker_connections = connections;
    core.accept_mutex_delay = std::time::Duration::from_millis(*events.accept_mutex_delay);
    core.multi_accept = *events.multi_accept;
    core.rlimit_nofile = said(&main.worker_rlimit_nofile).map(|limit| limit as u64);
    core.rlimit_core = said(&main.worker_rlimit_core);
    let timeout = said(&main.worker_shutdown_timeout).filter(|timeout| *timeout != 0);
    core.shutdown_timeout = timeout.map(std::time::Duration::from_millis);
    core.priority = *main.worker_priority;
    core.cpu_affinity = (*main.worker_cpu_affinity).clone();
    let directory = &main.working_directory;
    core.working_directory = (!directory.is_empty()).then(|| super::build::path(directory));
    core.env = build.env;
    core.log_use_stderr = build.log_use_stderr;
    core.transparent = build.transparent;
    Ok(core)
}

fn said<T: Copy>(setting: &Setting<T>) -> Option<T> {
    setting.is_set().then(|| **setting)
}
