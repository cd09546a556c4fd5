//! `ngx_http_log`: access logs.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Fault, Outcome, Setting, core::syslog, units};
use crate::http::conf::{Loc, LocationBuild};
use crate::http::file;
use crate::http::location::Kind;
use crate::http::module::{Handlers, Module};
use crate::http::modules::core::{document_root, path_bytes};
use crate::http::modules::symlinks::walk;
use crate::http::request::Request;
use crate::http::walk::{Failed, Links};
use crate::log::{Level, LogFileCache, OpenFile, SyslogPeer};
use crate::net::clock;
use crate::syntax::Directive;
use crate::value::Template;
use crate::value::log_format::LogFormat;

/// The module.
pub struct Log;

const DEFAULT_PATH: &[u8] = b"logs/access.log";
const COMBINED: &[u8] = b"$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
    \"$http_referer\" \"$http_user_agent\"";

/// `log_format` directives in order.
#[derive(Clone, Debug, Default)]
pub struct MainConf {
    formats: Vec<(Box<[u8]>, Arc<LogFormat>)>,
}

impl Conf for MainConf {
    fn merge(&mut self, _: &Self, _: &mut Build) -> Outcome {
        Ok(())
    }
}

/// One `access_log`.
#[derive(Debug)]
pub struct AccessLog {
    target: Target,
    format: Arc<LogFormat>,
    /// `if=`
    filter: Option<Template>,
}

#[derive(Debug)]
enum Target {
    File(Arc<OpenFile>),
    Syslog(Arc<SyslogPeer>),
    /// A path with variables, and the second of the last complaint about writing there.
    Path(Template, AtomicI64),
}

/// `open_log_file_cache`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileCache {
    max: usize,
    inactive: Duration,
    min_uses: u32,
    valid: Duration,
}

/// The logs of a location.
#[derive(Clone, Debug)]
pub struct LocConf {
    logs: Vec<Arc<AccessLog>>,
    off: bool,
    cache: Setting<Option<Arc<FileCache>>>,
    /// 1 for the http block, more within: the default log is only opened for servers that want it.
    depth: u8,
}

impl Default for LocConf {
    fn default() -> Self {
        LocConf { logs: Vec::new(), off: false, cache: Setting::unset(None), depth: 0 }
    }
}

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, cf: &mut Build) -> Outcome {
        self.depth = parent.depth.saturating_add(1);
        self.cache.inherit(&parent.cache);
        if self.logs.is_empty() && !self.off {
            self.logs.clone_from(&parent.logs);
            self.off = parent.off;
        }
        if self.depth > 1 && self.logs.is_empty() && !self.off {
            let target = Target::File(cf.files.add(cf.full_path(DEFAULT_PATH)));
            let format = combined(cf)?;
            self.logs.push(Arc::new(AccessLog { target, format, filter: None }));
        }
        Ok(())
    }
}

impl Module for Log {
    type Main = MainConf;
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_log",
        setters: &[
            ("log_format", log_format),
            ("access_log", access_log),
            ("open_log_file_cache", open_log_file_cache),
        ],
    };

    fn close(location: &mut LocationBuild, _: &mut Build) -> Outcome {
        if matches!(location.kind, Kind::Server) {
            // A server merges even where it says nothing, since it may get the default log.
            location.conf.log();
        }
        Ok(())
    }

    fn handlers(loc: &Loc, to: &mut Handlers) {
        if !loc.log.off && !loc.log.logs.is_empty() {
            to.log.push(write_logs);
        }
    }
}

fn shown(text: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(text)
}

fn combined(cf: &mut Build) -> Outcome<Arc<LogFormat>> {
    Ok(Arc::new(LogFormat::parse([COMBINED], &mut cf.http.vars)?))
}

fn log_format(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let name = d.arg(1);
    let known = &cf.http.main().log().formats;
    if name == b"combined" || known.iter().any(|(other, _)| **other == *name) {
        return Err(Fault::here(format!("duplicate \"log_format\" name \"{}\"", shown(name))));
    }
    let format = LogFormat::parse(d.args().skip(1), &mut cf.http.vars)?;
    cf.http.main().log().formats.push((name.into(), Arc::new(format)));
    Ok(())
}

fn format_of(cf: &mut Build, name: &[u8]) -> Outcome<Arc<LogFormat>> {
    if name.eq_ignore_ascii_case(b"combined") {
        return combined(cf);
    }
    let formats = &cf.http.main().log().formats;
    let found = formats.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    let format = found.map(|(_, format)| format.clone());
    format.ok_or_else(|| Fault::here(format!("unknown log format \"{}\"", shown(name))))
}

/// The parameters of an `access_log` after its format.
#[derive(Default)]
struct Parameters {
    buffer: usize,
    flush: Option<Duration>,
    gzip: Option<u32>,
    filter: Option<Template>,
}

impl Parameters {
    /// Compresses with this level, which needs a buffer.
    fn gzip(&mut self, level: u32) {
        self.gzip = Some(level);
        if self.buffer == 0 {
            self.buffer = 64 << 10;
        }
    }
}

fn parameters(cf: &mut Build, d: &Directive<'_>) -> Outcome<Parameters> {
    let mut p = Parameters::default();
    for word in d.args().skip(2) {
        if let Some(size) = word.strip_prefix(b"buffer=") {
            p.buffer = units::size(size)
                .filter(|size| *size > 0)
                .ok_or_else(|| Fault::here(format!("invalid buffer size \"{}\"", shown(size))))?;
        } else if let Some(time) = word.strip_prefix(b"flush=") {
            let time = units::milliseconds(time)
                .filter(|time| *time > 0)
                .ok_or_else(|| Fault::here(format!("invalid flush time \"{}\"", shown(time))))?;
            p.flush = Some(Duration::from_millis(time));
        } else if word == b"gzip" {
            p.gzip(1);
        } else if let Some(level) = word.strip_prefix(b"gzip=") {
            match units::number(level) {
                Some(level @ 1..=9) => p.gzip(level as u32),
                _ => return Err(Fault::here(format!("invalid compression level \"{}\"", shown(level)))),
            }
        } else if let Some(condition) = word.strip_prefix(b"if=") {
            p.filter = Some(cf.http.template(condition)?);
        } else {
            return Err(Fault::invalid_parameter(word));
        }
    }
    if p.flush.is_some() && p.buffer == 0 {
        let path = shown(d.arg(1));
        return Err(Fault::here(format!("no buffer is defined for access_log \"{path}\"")));
    }
    Ok(p)
}

fn access_log(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let path = d.arg(1);
    if path == b"off" {
        if d.len() > 2 {
            return Err(Fault::invalid_parameter(d.arg(2)));
        }
        cf.http.loc().log().off = true;
        return Ok(());
    }
    let target = if let Some(parameters) = path.strip_prefix(b"syslog:") {
        Target::Syslog(syslog(parameters)?)
    } else if memchr::memchr(b'$', path).is_some() {
        let full = path_bytes(cf.full_path(path));
        Target::Path(cf.http.template(&full)?, AtomicI64::new(0))
    } else {
        Target::File(cf.files.add(cf.full_path(path)))
    };
    let name = if d.len() >= 3 { d.arg(2) } else { b"combined" };
    let format = format_of(cf, name)?;
    let parameters = parameters(cf, d)?;
    if parameters.buffer > 0 {
        match &target {
            Target::Path(..) => return Err(Fault::here("buffered logs cannot have variables in name")),
            Target::Syslog(_) => return Err(Fault::here("logs to syslog cannot be buffered")),
            Target::File(file) => {
                file.set_buffer(parameters.buffer, parameters.flush, parameters.gzip).map_err(|_| {
                    let path = shown(path);
                    Fault::here(format!("access_log \"{path}\" already defined with conflicting parameters"))
                })?;
            }
        }
    }
    let log = AccessLog { target, format, filter: parameters.filter };
    cf.http.loc().log().logs.push(Arc::new(log));
    Ok(())
}

fn open_log_file_cache(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let to = &mut cf.http.loc().log().cache;
    to.once()?;
    let mut cache =
        FileCache { max: 0, inactive: Duration::from_secs(10), min_uses: 1, valid: Duration::from_secs(60) };
    let mut off = false;
    for word in d.args() {
        let failed = || Fault::here(format!("invalid \"open_log_file_cache\" parameter \"{}\"", shown(word)));
        let number = |text| units::number(text).ok_or_else(failed);
        let seconds = |text| units::seconds(text).map(Duration::from_secs).ok_or_else(failed);
        if let Some(text) = word.strip_prefix(b"max=") {
            cache.max = usize::try_from(number(text)?).unwrap_or(usize::MAX);
        } else if let Some(text) = word.strip_prefix(b"inactive=") {
            cache.inactive = seconds(text)?;
        } else if let Some(text) = word.strip_prefix(b"min_uses=") {
            cache.min_uses = u32::try_from(number(text)?).unwrap_or(u32::MAX);
        } else if let Some(text) = word.strip_prefix(b"valid=") {
            cache.valid = seconds(text)?;
        } else if word == b"off" {
            off = true;
        } else {
            return Err(failed());
        }
    }
    if off {
        return to.set(None);
    }
    if cache.max == 0 {
        return Err(Fault::here("\"open_log_file_cache\" must have \"max\" parameter"));
    }
    to.set(Some(Arc::new(cache)))
}

thread_local! {
    /// The line that is being put together.
    static LINE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// Files open under `open_log_file_cache`, by directive.
    static CACHES: RefCell<HashMap<usize, LogFileCache>> = RefCell::new(HashMap::new());
}

fn write_logs(req: &mut Request) {
    let mut line = LINE.take();
    for log in &req.conf.log.logs {
        if let Some(filter) = &log.filter
            && matches!(&*filter.eval(req), b"" | b"0")
        {
            continue;
        }
        line.clear();
        write(req, log, &mut line);
    }
    LINE.set(line);
}

fn write(req: &Request, log: &AccessLog, line: &mut Vec<u8>) {
    if let Target::Syslog(peer) = &log.target {
        peer.add_header(line);
        log.format.append(req, line);
        match peer.send(line) {
            Err(_) => req.log(Level::Warn, None, format_args!("send() to syslog failed")),
            Ok(n) if n < line.len() => {
                let all = line.len();
                req.log(Level::Warn, None, format_args!("send() to syslog has written only {n} of {all}"));
            }
            Ok(_) => {}
        }
        return;
    }
    log.format.append(req, line);
    line.push(b'\n');
    match &log.target {
        Target::File(file) => file.write_line(line, req.conf.error_log()),
        Target::Path(path, complained) => write_to_path(req, path, complained, line),
        Target::Syslog(_) => {}
    }
}

/// A log whose path has variables is written only where the request's root exists, so that clients cannot choose
/// files freely.
fn write_to_path(req: &Request, path: &Template, complained: &AtomicI64, line: &[u8]) {
    let root = PathBuf::from(std::ffi::OsString::from_vec(document_root(req)));
    let tested = file::stat(req, root.as_os_str().as_bytes()).map_err(|(_, error)| error).and_then(|info| {
        if info.is_dir() { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ENOTDIR)) }
    });
    if let Err(error) = tested {
        let root = root.display();
        req.log(Level::Error, Some(&error), format_args!("testing \"{root}\" existence failed"));
        return;
    }
    let path = PathBuf::from(std::ffi::OsString::from_vec(path.eval(req).to_vec()));
    let file = match open(req, &path) {
        Ok(file) => file,
        Err((call, error)) => {
            let path = path.display();
            req.log(Level::Crit, Some(&error), format_args!("{call} \"{path}\" failed"));
            return;
        }
    };
    let written = nix::unistd::write(&*file, line).map_err(io::Error::from);
    if !matches!(written, Ok(n) if n == line.len()) {
        let now = clock::wall().sec;
        if now - complained.swap(now, Ordering::Relaxed) <= 59 {
            return;
        }
        let (path, all) = (path.display(), line.len());
        match written {
            Ok(n) => req.log(
                Level::Alert,
                None,
                format_args!("write() to \"{path}\" was incomplete: {n} of {all}"),
            ),
            Err(error) => {
                req.log(Level::Alert, Some(&error), format_args!("write() to \"{path}\" failed"));
            }
        }
    }
}

fn open(req: &Request, path: &Path) -> Result<Arc<OwnedFd>, Failed> {
    let name = path.as_os_str().as_bytes();
    let walk = walk(req, name);
    if walk.links != Links::Follow {
        let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT;
        return walk.open(name, flags, Mode::from_bits_truncate(0o644)).map(Arc::new);
    }
    open_cached(req.conf.log.cache.as_ref(), path).map_err(|error| ("open()", error))
}

fn open_cached(cache: Option<&Arc<FileCache>>, path: &Path) -> io::Result<Arc<OwnedFd>> {
    let Some(conf) = cache else { return LogFileCache::off().open(path) };
    CACHES.with_borrow_mut(|caches| {
        let cache = caches
            .entry(Arc::as_ptr(conf) as usize)
            .or_insert_with(|| LogFileCache::new(conf.max, conf.inactive, conf.min_uses, conf.valid));
        cache.open(path)
    })
}
