//! From files to [`Ir`]: reads the text of `-g` and the configuration, sets everything, and makes the checks that
//! nginx makes once it is read.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::core;
use super::finding::{self, Finding};
use super::grammar::Context;
use super::listen::{Port, Side};
use super::{Build, Outcome};
use crate::http::Http;
use crate::http::checked;
use crate::log::{self, Level, OpenFiles};
use crate::net::listen::{Address, Kind, Listen};
use crate::process::{self, Core};
use crate::stream::Stream;
use crate::syntax::{self, LoadOptions, Tree};
use crate::tls;

/// What to read, and what nginx has compiled in or from its command line. All paths are whole.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// `-c`
    pub conf_file: PathBuf,
    /// Relative paths of included files, keys and the like start here.
    pub conf_prefix: PathBuf,
    /// Relative paths of logs, the pid file and the like start here.
    pub prefix: PathBuf,
    /// `-g`: directives in front of the file's.
    pub parameters: Option<&'a str>,
    /// `-t`
    pub testing: bool,
    /// Where messages go when no `error_log` names a file; none is standard error.
    pub error_log: Option<PathBuf>,
    /// Where the configuration names no `pid`.
    pub pid: PathBuf,
}

/// What is to be told, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A line of the error log, position included.
    Log(Level, String),
    /// The files were read without error; `-t` says `syntax is ok` here.
    SyntaxIsOk,
}

/// A configuration, complete: nothing of it can be found invalid later.
pub struct Ir {
    /// Settings of processes.
    pub core: Core,
    /// The http block.
    pub http: Option<Http>,
    /// The stream block.
    pub stream: Option<Stream>,
    /// Log files, to be opened.
    pub files: OpenFiles,
    /// Directories to make.
    pub directories: Vec<PathBuf>,
    /// Sockets to open, in nginx's order, and whose each is: the index into its side's ports.
    pub sockets: Vec<Socket>,
    /// The files read, in order, each once, for `-T`.
    pub sources: Vec<(PathBuf, Vec<u8>)>,
}

/// A socket to open and whom its connections are for.
#[derive(Clone, Debug)]
pub struct Socket {
    pub listen: Listen,
    pub side: Side,
    /// Index into the ports of the side.
    pub port: usize,
}

/// Reads and checks a configuration. Nothing is printed: messages are left in `messages`, where the last one says
/// why, if it is not usable.
pub fn load(options: &Options<'_>, messages: &mut Vec<Message>) -> Result<Ir, NotLoaded> {
    let mut cf = Build::new(options);
    let reading = tls::Reading::begin();
    let made = read(options, &mut cf, messages);
    if made.is_ok() {
        reading.keep(*cf.core.main.ssl_object_cache_inheritable);
    }
    if let Err(fault) = &made {
        let text = fault.text(b"", "");
        if !text.is_empty() {
            cf.messages.push((Level::Emerg, text));
        }
    }
    drain(&mut cf, messages);
    made.map_err(|_| NotLoaded)
}

/// Reads and checks the configuration that the command line names, and logs what there is to tell.
pub fn load_and_tell(options: &process::LoadOptions<'_>) -> Result<Ir, NotLoaded> {
    let paths = options.paths;
    let own = Options {
        conf_file: paths.conf_file.clone(),
        conf_prefix: paths.conf_prefix.clone(),
        prefix: paths.prefix.clone(),
        parameters: options.parameters,
        testing: options.test(),
        error_log: paths.error_log.clone(),
        pid: paths.pid.clone(),
    };
    let mut messages = Vec::new();
    let loaded = load(&own, &mut messages);
    for message in messages {
        match message {
            Message::Log(level, text) => log::error(options.log, level, None, format_args!("{text}")),
            Message::SyntaxIsOk => options.syntax_is_ok(),
        }
    }
    loaded
}

/// The configuration is not usable; why is the last message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotLoaded;

/// All that is to be told of a configuration.
#[derive(Debug, Default)]
pub struct Survey {
    /// In the order of the text, as far as they have places.
    pub findings: Vec<Finding>,
    /// The files read.
    pub sources: Vec<(PathBuf, Vec<u8>)>,
}

/// Reads a whole configuration, whatever is wrong with it, and tells all of that.
pub fn survey(options: &Options<'_>) -> Survey {
    let mut cf = Build::new(options);
    cf.findings = Some(Vec::new());
    let mut sources = Vec::new();
    let made = read_files(options, &mut cf, &mut sources);
    let is_whole = !cf.findings.iter().flatten().any(|finding| finding.kind == finding::Kind::Error);
    let made = made.and_then(|()| if is_whole { complete(&mut cf, Vec::new()).map(drop) } else { Ok(()) });
    let mut findings = cf.findings.take().unwrap_or_default();
    findings.extend(cf.checked.findings());
    if let Err(fault) = made {
        findings.push(Finding::message(finding::Kind::Error, &fault.text(b"", "")));
    }
    let warnings = cf.messages.iter().filter(|(level, _)| *level == log::Level::Warn);
    findings.extend(warnings.map(|(_, text)| Finding::message(finding::Kind::Warning, text)));
    findings.iter_mut().for_each(|finding| finding.look_for_place(&sources));
    findings.sort_by_key(|finding| {
        let file = finding.place.file.as_ref();
        let number = sources.iter().position(|(name, _)| Some(name) == file).unwrap_or(usize::MAX);
        (number, finding.place.line, finding.place.column)
    });
    Survey { findings, sources }
}

fn read_files(options: &Options<'_>, cf: &mut Build, sources: &mut Vec<(PathBuf, Vec<u8>)>) -> Outcome {
    let mut prefix = options.conf_prefix.as_os_str().as_bytes().to_vec();
    if !prefix.is_empty() && !prefix.ends_with(b"/") {
        prefix.push(b'/');
    }
    let how = LoadOptions::new(prefix);
    if let Some(parameters) = options.parameters {
        walk(cf, &syntax::parse_str(parameters.as_bytes(), &how), sources)?;
    }
    walk(cf, &syntax::load(&options.conf_file, &how), sources)
}

fn read(options: &Options<'_>, cf: &mut Build, messages: &mut Vec<Message>) -> Outcome<Ir> {
    let mut sources = Vec::new();
    read_files(options, cf, &mut sources)?;
    drain(cf, messages);
    let complete = complete(cf, sources);
    if complete.is_ok() {
        checked::refuse(cf)?;
    }
    messages.push(Message::SyntaxIsOk);
    complete
}

/// What nginx does once the files are read.
fn complete(cf: &mut Build, sources: Vec<(PathBuf, Vec<u8>)>) -> Outcome<Ir> {
    let (http, stream) = (cf.http_ready.take(), cf.stream_ready.take());
    let mut sockets = Vec::new();
    for side in &cf.sides {
        let ports: &[Port] = match side {
            Side::Http => http.as_ref().map_or(&[], |http| &http.ports),
            Side::Stream => stream.as_ref().map_or(&[], |stream| &stream.ports),
        };
        let own = ports.iter().enumerate();
        sockets.extend(own.map(|(index, port)| Socket {
            listen: port.listen.clone(),
            side: *side,
            port: index,
        }));
    }
    cf.zones.check()?;
    let core = core::finish(cf, sockets.len())?;
    for Socket { listen, .. } in &mut sockets {
        if listen.reuseport && listen.kind == Kind::Datagram && matches!(listen.address, Address::Inet(_)) {
            listen.sockets = core.worker_processes.max(1);
        }
    }
    Ok(Ir {
        core,
        http,
        stream,
        files: cf.files.clone(),
        directories: std::mem::take(&mut cf.directories),
        sockets,
        sources,
    })
}

fn walk(cf: &mut Build, tree: &Tree, sources: &mut Vec<(PathBuf, Vec<u8>)>) -> Outcome {
    sources.extend(tree.files().map(|(name, text)| (super::build::path(name), text.to_vec())));
    cf.items(tree.items(), Context::MAIN)
}

fn drain(cf: &mut Build, messages: &mut Vec<Message>) {
    messages.extend(cf.messages.drain(..).map(|(level, text)| Message::Log(level, text)));
}

impl Ir {
    /// The sockets to open, for [`crate::net::open::open`].
    pub fn listens(&self) -> Vec<Listen> {
        self.sockets.iter().map(|socket| socket.listen.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Level;

    /// Loads a text as the configuration and gives what came of it, and the messages' texts.
    fn loaded(text: &str, parameters: Option<&str>) -> (Result<Ir, NotLoaded>, Vec<Message>) {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("nxr-load-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("c"), text).unwrap();
        let options = Options {
            conf_file: folder.join("c"),
            conf_prefix: folder.join(""),
            prefix: "/p/".into(),
            parameters,
            testing: true,
            error_log: Some("/p/e.log".into()),
            pid: "/p/pid".into(),
        };
        let mut messages = Vec::new();
        let ir = load(&options, &mut messages);
        let place = format!(" in {}", folder.join("c").display());
        for message in &mut messages {
            if let Message::Log(_, text) = message {
                *text = text.replace(&place, " in c");
            }
        }
        std::fs::remove_dir_all(folder).unwrap();
        (ir, messages)
    }

    fn refused(text: &str) -> String {
        let (ir, mut messages) = loaded(text, None);
        assert!(ir.is_err(), "{text}");
        match messages.pop() {
            Some(Message::Log(Level::Emerg, text)) => text,
            other => panic!("{other:?}"),
        }
    }

    fn core(text: &str) -> Core {
        loaded(text, None).0.unwrap().core
    }

    #[test]
    fn an_error_comes_after_what_was_told_before() {
        let (ir, messages) = loaded("events { debug_connection ::1; }\nhttp { server { bogus; } }", None);
        assert!(ir.is_err());
        assert!(matches!(&messages[0], Message::Log(Level::Warn, text) if text.ends_with("in c:1")));
        let last = Message::Log(Level::Emerg, "unknown directive \"bogus\" in c:2".into());
        assert_eq!(messages.last(), Some(&last));
        let (ir, messages) = loaded("daemon on;", None);
        assert!(ir.is_err());
        let no_events = Message::Log(Level::Emerg, "no \"events\" section in configuration".into());
        assert_eq!(messages, [Message::SyntaxIsOk, no_events]);
    }

    #[test]
    fn parameters_come_first() {
        let (ir, _) = loaded("events {}", Some("daemon off; pid a/pid;"));
        let core = ir.unwrap().core;
        assert_eq!((core.daemon, core.pid), (false, PathBuf::from("/p/a/pid")));
        let (_, messages) = loaded("events {} daemon on;", Some("daemon off;"));
        let duplicate = Message::Log(Level::Emerg, "\"daemon\" directive is duplicate in c:1".into());
        assert_eq!(messages, [duplicate]);
        let (_, messages) = loaded("events {}", Some("daemon;"));
        let text = "invalid number of arguments in \"daemon\" directive in command line";
        assert_eq!(messages, [Message::Log(Level::Emerg, text.into())]);
    }

    #[test]
    fn settings_of_processes() {
        let text = "worker_processes 3; worker_priority -5; worker_rlimit_core 1k; env A=b; \
                    worker_shutdown_timeout 2s; working_directory /w; events { worker_connections 7; }";
        let core = core(text);
        assert_eq!((core.worker_processes, core.priority, core.worker_connections), (3, -5, 7));
        assert_eq!((core.rlimit_core, core.rlimit_nofile), (Some(1024), None));
        assert_eq!(core.shutdown_timeout, Some(std::time::Duration::from_secs(2)));
        assert_eq!(core.working_directory, Some(PathBuf::from("/w")));
        assert_eq!(core.env[0].value.as_deref(), Some("b"));
    }

    #[test]
    fn error_logs_without_a_file_get_the_default_one() {
        let log = core("events {}").error_log;
        assert_eq!(log.targets().len(), 1);
        assert_eq!(log.first_file().unwrap().path(), std::path::Path::new("/p/e.log"));
        let log = core("error_log a.log info; error_log b.log; events {}").error_log;
        let levels: Vec<Level> = log.targets().iter().map(|(_, level)| *level).collect();
        assert_eq!(levels, [Level::Info, Level::Error]);
        assert_eq!(log.first_file().unwrap().path(), std::path::Path::new("/p/a.log"));
        let (ir, _) = loaded("events {} http { server { listen 127.0.0.1:1; } } error_log x debug;", None);
        assert!(ir.unwrap().sockets[0].listen.log.enabled(Level::Debug));
    }

    #[test]
    fn refusals_in_nginx_words() {
        for (text, words) in [
            ("events {} events {}", "\"events\" directive is duplicate in c:1"),
            ("events {} http {} http {}", "\"http\" directive is duplicate in c:1"),
            ("worker_processes x; events {}", "\"worker_processes\" directive invalid value in c:1"),
            ("events { use kqueue; }", "invalid event type \"kqueue\" in c:1"),
            ("events { worker_connections x; }", "invalid number \"x\" in c:1"),
            ("thread_pool a x=1; events {}", "\"thread_pool\" must have \"threads\" parameter in c:1"),
            ("events {}\nhttp { aio threads=a; }", "unknown thread pool \"a\" in c:2"),
            ("events {} load_module a.so;", "\"load_module\" directive is specified too late in c:1"),
            (
                "load_module modules/a.so; events {}",
                "dlopen() \"/p/modules/a.so\" failed (/p/modules/a.so: cannot open shared object file: \
                 No such file or directory) in c:1",
            ),
            ("error_log memory:1m; events {}", "nginx was built without debug support in c:1"),
            ("error_log a loud; events {}", "invalid log level \"loud\" in c:1"),
            (
                "events { worker_connections 1; } http { server { listen 127.0.0.1:1; } }",
                "1 worker_connections are not enough for 1 listening sockets",
            ),
            (
                "events {}\nhttp { server { large_client_header_buffers 1 64; }\n}",
                "the \"large_client_header_buffers\" size must be equal to or greater than \
                 \"connection_pool_size\" in c:3",
            ),
        ] {
            assert_eq!(refused(text), words, "{text}");
        }
    }

    #[test]
    fn modules_that_are_built_in_may_be_loaded() {
        let (ir, _) = loaded("load_module modules/ngx_stream_module.so; events {}", None);
        assert!(ir.is_ok());
        let twice = "load_module ngx_stream_module.so; load_module ngx_stream_module.so; events {}";
        assert_eq!(refused(twice), "module \"ngx_stream_module\" is already loaded in c:1");
    }

    #[test]
    fn sockets_are_those_of_the_ports() {
        let (ir, _) = loaded("events {} http { server { listen 127.0.0.1:1; listen 127.0.0.1:2-3; } }", None);
        let ir = ir.unwrap();
        let addresses: Vec<String> = ir.listens().iter().map(|listen| listen.address.to_string()).collect();
        assert_eq!(addresses, ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]);
        assert_eq!((ir.sockets[2].side, ir.sockets[2].port), (Side::Http, 2));
        assert_eq!(ir.sources.len(), 1);
    }
}
