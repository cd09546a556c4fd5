//! `ngx_stream_log`: `log_format`, `access_log`, `open_log_file_cache`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::conf::build::{self, Commands};
use crate::conf::{Build, Conf, Fault, Outcome, units};
use crate::log::{self, Escape, Level, LogFileCache, OpenFile, SyslogPeer};
use crate::settings;
use crate::stream::conf;
use crate::stream::module::{Handlers, Module};
use crate::stream::session::Session;
use crate::syntax::Directive;
use crate::value::{Template, TemplatePart};

/// The module.
pub struct Log;

/// One `log_format`.
#[derive(Debug)]
pub struct Format {
    name: Box<[u8]>,
    escape: Escape,
    template: Template,
}

/// One `access_log`.
#[derive(Clone, Debug)]
pub struct Access {
    to: Target,
    format: Arc<Format>,
    condition: Option<Template>,
}

#[derive(Clone, Debug)]
enum Target {
    File(Arc<OpenFile>),
    /// A path with variables.
    Path(Template),
    Syslog(Arc<SyslogPeer>),
}

/// `open_log_file_cache`. The number tells caches of several servers apart.
#[derive(Clone, Copy, Debug)]
pub struct CacheOptions {
    id: usize,
    max: usize,
    inactive: u64,
    min_uses: u32,
    valid: u64,
}

settings! {
    /// All formats.
    pub struct Main {
        formats: Vec<Arc<Format>> = Vec::new(),
        /// Caches so far.
        caches: usize = 0,
    }
}

settings! {
    /// Logs of a server.
    pub struct Srv {
        /// Empty after `off`.
        logs: Vec<Access> = Vec::new(),
        off: bool = false,
        cache: Option<CacheOptions> = None,
    }
}

impl Conf for Main {
    fn merge(&mut self, _: &Self, _: &mut Build) -> Outcome {
        Ok(())
    }
}

impl Conf for Srv {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.cache.inherit(&parent.cache);
        if !self.logs.is_set() && !*self.off {
            self.logs.inherit(&parent.logs);
            self.off.inherit(&parent.off);
        }
        Ok(())
    }
}

impl Module for Log {
    type Main = Main;
    type Srv = Srv;
    const COMMANDS: Commands = Commands {
        module: "ngx_stream_log",
        setters: &[
            ("log_format", log_format),
            ("access_log", access_log),
            ("open_log_file_cache", open_log_file_cache),
        ],
    };

    fn handlers(srv: &conf::Srv, to: &mut Handlers) {
        if !*srv.log.off && !srv.log.logs.is_empty() {
            to.log.push(handler);
        }
    }
}

fn shown(text: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(text)
}

fn log_format(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let name = d.arg(1);
    if cf.stream.main().log().formats.iter().any(|format| *format.name == *name) {
        return Err(Fault::here(format!("duplicate \"log_format\" name \"{}\"", shown(name))));
    }
    let mut parts = d.args().skip(1).peekable();
    let mut escape = Escape::Default;
    if let Some(how) = parts.peek().and_then(|word| word.strip_prefix(b"escape=")) {
        escape = Escape::parse(&shown(how))
            .ok_or_else(|| Fault::here(format!("unknown log format escaping \"{}\"", shown(how))))?;
        parts.next();
    }
    let mut text = Vec::new();
    for part in parts {
        if let Some(at) = bare_dollar(part) {
            return Err(Fault::invalid_parameter(&part[at..]));
        }
        text.extend_from_slice(part);
    }
    let template = cf.stream.template(&text)?;
    let format = Format { name: name.into(), escape, template };
    cf.stream.main().log().formats.edit().push(Arc::new(format));
    Ok(())
}

/// Where a `$` is not followed by a name.
fn bare_dollar(part: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'$', part).find(|at| {
        let name = &part[at + 1..];
        let name = name.strip_prefix(b"{").unwrap_or(name);
        !name.first().is_some_and(|c| c.is_ascii_alphanumeric() || *c == b'_')
    })
}

fn access_log(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let path = d.arg(1);
    if path == b"off" {
        cf.stream.srv().log().off.put(true);
        return match d.len() {
            2 => Ok(()),
            _ => Err(Fault::invalid_parameter(d.arg(2))),
        };
    }
    let to = target(cf, path)?;
    if d.len() < 3 {
        return Err(Fault::here("log format is not specified"));
    }
    let formats = &cf.stream.main().log().formats;
    let format = formats.iter().find(|format| format.name.eq_ignore_ascii_case(d.arg(2))).cloned();
    let format = format.ok_or_else(|| Fault::here(format!("unknown log format \"{}\"", shown(d.arg(2)))))?;
    let mut log = Access { to, format, condition: None };
    parameters(cf, d, &mut log)?;
    cf.stream.srv().log().logs.edit().push(log);
    Ok(())
}

fn target(cf: &mut Build, path: &[u8]) -> Outcome<Target> {
    if let Some(parameters) = path.strip_prefix(b"syslog:") {
        return Ok(Target::Syslog(crate::conf::core::syslog(parameters)?));
    }
    if memchr::memchr(b'$', path).is_none() {
        return Ok(Target::File(cf.files.add(cf.full_path(path))));
    }
    let full = crate::http::modules::core::path_bytes(cf.full_path(path));
    Ok(Target::Path(cf.stream.template(&full)?))
}

fn parameters(cf: &mut Build, d: &Directive<'_>, log: &mut Access) -> Outcome {
    let (mut size, mut flush, mut gzip) = (0, 0, None);
    for word in d.args().skip(2) {
        if let Some(value) = word.strip_prefix(b"buffer=") {
            size = units::size(value)
                .filter(|size| *size > 0)
                .ok_or_else(|| Fault::here(format!("invalid buffer size \"{}\"", shown(value))))?;
        } else if let Some(value) = word.strip_prefix(b"flush=") {
            flush = units::milliseconds(value)
                .filter(|time| *time > 0)
                .ok_or_else(|| Fault::here(format!("invalid flush time \"{}\"", shown(value))))?;
        } else if word == b"gzip" || word.starts_with(b"gzip=") {
            let level = word.strip_prefix(b"gzip=").unwrap_or(b"1");
            gzip = match units::number(level) {
                Some(level @ 1..=9) => Some(level as u32),
                _ => return Err(Fault::here(format!("invalid compression level \"{}\"", shown(level)))),
            };
            if size == 0 {
                size = 64 << 10;
            }
        } else if let Some(value) = word.strip_prefix(b"if=") {
            log.condition = Some(cf.stream.template(value)?);
        } else {
            return Err(Fault::invalid_parameter(word));
        }
    }
    if size == 0 {
        return match flush {
            0 => Ok(()),
            _ => Err(Fault::here(format!("no buffer is defined for access_log \"{}\"", shown(d.arg(1))))),
        };
    }
    match &log.to {
        Target::Path(_) => Err(Fault::here("buffered logs cannot have variables in name")),
        Target::Syslog(_) => Err(Fault::here("logs to syslog cannot be buffered")),
        Target::File(file) => {
            let flush = (flush > 0).then(|| Duration::from_millis(flush));
            file.set_buffer(size, flush, gzip).map_err(|_| {
                let path = shown(d.arg(1));
                Fault::here(format!("access_log \"{path}\" already defined with conflicting parameters"))
            })
        }
    }
}

fn open_log_file_cache(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    cf.stream.srv().log().cache.once()?;
    let id = *cf.stream.main().log().caches;
    let mut options = CacheOptions { id, max: 0, inactive: 10, min_uses: 1, valid: 60 };
    let mut off = false;
    for word in d.args() {
        let read = if let Some(value) = word.strip_prefix(b"max=") {
            units::number(value).map(|n| options.max = n as usize)
        } else if let Some(value) = word.strip_prefix(b"inactive=") {
            units::seconds(value).map(|n| options.inactive = n)
        } else if let Some(value) = word.strip_prefix(b"min_uses=") {
            units::number(value).map(|n| options.min_uses = u32::try_from(n).unwrap_or(u32::MAX))
        } else if let Some(value) = word.strip_prefix(b"valid=") {
            units::seconds(value).map(|n| options.valid = n)
        } else {
            (word == b"off").then(|| off = true)
        };
        if read.is_none() {
            let word = shown(word);
            return Err(Fault::here(format!("invalid \"open_log_file_cache\" parameter \"{word}\"")));
        }
    }
    if off {
        return cf.stream.srv().log().cache.set(None);
    }
    if options.max == 0 {
        return Err(Fault::here("\"open_log_file_cache\" must have \"max\" parameter"));
    }
    cf.stream.main().log().caches.put(id + 1);
    cf.stream.srv().log().cache.set(Some(options))
}

fn handler(s: &mut Session) {
    thread_local! {
        static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    let server = s.server;
    for access in &**server.srv.log.logs {
        if let Some(condition) = &access.condition {
            let value = condition.eval(s);
            if value.is_empty() || &*value == b"0" {
                continue;
            }
        }
        LINE.with_borrow_mut(|line| {
            line.clear();
            write_line(s, access, line);
        });
    }
}

fn write_line(s: &Session, access: &Access, line: &mut Vec<u8>) {
    if let Target::Syslog(peer) = &access.to {
        peer.add_header(line);
    }
    let format = &access.format;
    format.template.visit(s, |part| match part {
        TemplatePart::Text(text) => line.extend_from_slice(text),
        TemplatePart::Value(value) => log::escape(format.escape, value, line),
    });
    match &access.to {
        Target::Syslog(peer) => match peer.send(line) {
            Ok(n) if n == line.len() => {}
            Ok(n) => {
                let all = line.len();
                s.error(Level::Warn, format_args!("send() to syslog has written only {n} of {all}"));
            }
            Err(_) => s.error(Level::Warn, format_args!("send() to syslog failed")),
        },
        Target::File(file) => {
            line.push(b'\n');
            file.write_line(line, s.server.log());
        }
        Target::Path(path) => {
            line.push(b'\n');
            write_to_path(s, &path.eval(s), line);
        }
    }
}

fn write_to_path(s: &Session, path: &[u8], line: &[u8]) {
    thread_local! {
        static CACHES: RefCell<HashMap<usize, LogFileCache>> = RefCell::default();
    }
    let path: PathBuf = build::path(path);
    let opened = match &*s.server.srv.log.cache {
        None => LogFileCache::off().open(&path),
        Some(o) => CACHES.with_borrow_mut(|caches| {
            let cache = caches.entry(o.id).or_insert_with(|| {
                let (inactive, valid) = (Duration::from_secs(o.inactive), Duration::from_secs(o.valid));
                LogFileCache::new(o.max, inactive, o.min_uses, valid)
            });
            cache.open(&path)
        }),
    };
    let shown = path.display();
    match opened {
        Ok(file) => {
            if let Err(errno) = nix::unistd::write(&*file, line) {
                s.errno(Level::Alert, &errno.into(), format_args!("write() to \"{shown}\" failed"));
            }
        }
        Err(reason) => s.errno(Level::Crit, &reason, format_args!("open() \"{shown}\" failed")),
    }
}
