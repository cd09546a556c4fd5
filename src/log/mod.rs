//! The error log in nginx's form, the files behind it and behind access logs, and syslog.

mod access;
mod bridge;
mod escape;
mod files;
mod level;
mod line;
mod syslog;

pub use access::{Buffer, BufferConflict, LogFileCache};
pub use bridge::forward_tracing;
pub use escape::{Escape, escape};
pub use files::{NotOpened, OpenFile, OpenFiles, open_append};
pub use level::{Level, LevelError};
pub use line::{Bytes, bytes, os_error};
pub use syslog::{SyslogError, SyslogPeer};

use crate::net::clock;
use line::Line;
use std::fmt::Arguments;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// Where error messages of one configuration level go. Cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct ErrorLog(Arc<Chain>);

#[derive(Debug)]
struct Chain {
    /// Least grave level first: writing stops at the first target that does not take the message.
    targets: OnceLock<Vec<(Target, Level)>>,
}

/// One `error_log`.
#[derive(Clone, Debug)]
pub enum Target {
    File(Arc<OpenFile>),
    Stderr,
    Syslog(Arc<SyslogPeer>),
}

/// `error_log` directives of one level, collected in order.
#[derive(Clone, Debug, Default)]
pub struct ErrorLogBuilder(Vec<(Target, Level)>);

/// Until the process is on its own, warnings and worse also go to standard error.
static USE_STDERR: AtomicBool = AtomicBool::new(true);
static PROGRAM_NAME: OnceLock<&'static str> = OnceLock::new();
static MAIN: RwLock<Option<ErrorLog>> = RwLock::new(None);

/// The name before a level on standard error: `nxr`, or `nginx` when started under that name.
pub fn set_program_name(name: &'static str) {
    let _ = PROGRAM_NAME.set(name);
}

/// See [`set_program_name`].
pub fn program_name() -> &'static str {
    PROGRAM_NAME.get().copied().unwrap_or("nxr")
}

/// Stops (or starts) repeating warnings and worse on standard error.
pub fn use_stderr(on: bool) {
    USE_STDERR.store(on, Ordering::Relaxed);
}

/// Whether the process still starts up, see [`use_stderr`].
pub fn uses_stderr() -> bool {
    USE_STDERR.load(Ordering::Relaxed)
}

/// Makes `log` the log for messages that belong to no server or connection.
pub fn set_main(log: &ErrorLog) {
    *MAIN.write().unwrap_or_else(PoisonError::into_inner) = Some(log.clone());
}

/// The log for messages that belong to no server or connection; standard error before one is set.
pub fn main() -> ErrorLog {
    let main = MAIN.read().unwrap_or_else(PoisonError::into_inner).clone();
    main.unwrap_or_else(|| ErrorLog::stderr(Level::Notice))
}

/// Logs `message`; `connection` is the number after the `*`.
#[cold]
pub fn error(log: &ErrorLog, level: Level, connection: Option<u64>, message: Arguments<'_>) {
    if log.enabled(level) {
        log.write(level, connection, message, None, format_args!(""));
    }
}

/// Logs `message` and the system's reason: `connect() failed (111: Connection refused)`.
#[cold]
pub fn error_errno(
    log: &ErrorLog,
    level: Level,
    connection: Option<u64>,
    reason: &io::Error,
    message: Arguments<'_>,
) {
    if log.enabled(level) {
        log.write(level, connection, message, Some(reason), format_args!(""));
    }
}

/// Logs `message`, the system's reason if there is one, and then what was being done:
/// ` while connecting to upstream, client: 127.0.0.1, ...`. Debug messages leave the last part out.
#[cold]
pub fn error_context(
    log: &ErrorLog,
    level: Level,
    connection: Option<u64>,
    reason: Option<&io::Error>,
    message: Arguments<'_>,
    context: Arguments<'_>,
) {
    if log.enabled(level) {
        log.write(level, connection, message, reason, context);
    }
}

/// Writes `nxr: message` to standard error, whatever the logs are.
pub fn stderr(message: Arguments<'_>) {
    let mut line = Line::new();
    line.push(format_args!("{}: {message}", program_name()));
    write_stderr(line.finish());
}

/// Writes `nxr: message (13: Permission denied)` to standard error.
pub fn stderr_errno(reason: &io::Error, message: Arguments<'_>) {
    let mut line = Line::new();
    line.push(format_args!("{}: {message}", program_name()));
    line.push_reason(reason);
    write_stderr(line.finish());
}

fn write_stderr(bytes: &[u8]) {
    // Nowhere is left to tell that this failed.
    let _ = nix::unistd::write(io::stderr(), bytes);
}

// === impl ErrorLog ===

impl ErrorLog {
    /// A log to standard error alone.
    pub fn stderr(level: Level) -> ErrorLog {
        ErrorLogBuilder(vec![(Target::Stderr, level)]).build()
    }

    /// A log that takes nothing.
    pub fn none() -> ErrorLog {
        ErrorLogBuilder::default().build()
    }

    /// The log of the time before a configuration is read: the file of `-e`, or standard error if that is
    /// `None` or cannot be opened, in which case standard error is told so.
    pub fn built_in(path: Option<&Path>, level: Level) -> ErrorLog {
        let Some(path) = path else { return ErrorLog::stderr(level) };
        let file = OpenFile::new(path.to_path_buf());
        if let Err(error) = file.open() {
            let path = path.display();
            stderr_errno(
                &error,
                format_args!("[alert] could not open error log file: open() \"{path}\" failed"),
            );
            return ErrorLog::stderr(level);
        }
        ErrorLogBuilder(vec![(Target::File(Arc::new(file)), level)]).build()
    }

    /// A log that takes nothing until [`complete`](Self::complete) says what it is.
    pub fn pending() -> ErrorLog {
        ErrorLog(Arc::new(Chain { targets: OnceLock::new() }))
    }

    /// Makes a pending log, and all its clones, the one that is built; has no effect on any other.
    pub fn complete(&self, log: ErrorLogBuilder) {
        let _ = self.0.targets.set(log.0);
    }

    /// Whether any target takes messages of `level`.
    #[inline]
    pub fn enabled(&self, level: Level) -> bool {
        self.targets().first().is_some_and(|(_, limit)| level <= *limit)
    }

    /// The targets with their levels, least grave first.
    pub fn targets(&self) -> &[(Target, Level)] {
        self.0.targets.get().map_or(&[], Vec::as_slice)
    }

    /// The first file of the log, whose descriptor standard error is given once the process is on its own.
    pub fn first_file(&self) -> Option<&Arc<OpenFile>> {
        self.targets().iter().find_map(|(target, _)| match target {
            Target::File(file) => Some(file),
            _ => None,
        })
    }

    fn write(
        &self,
        level: Level,
        connection: Option<u64>,
        message: Arguments<'_>,
        reason: Option<&io::Error>,
        context: Arguments<'_>,
    ) {
        let mut line = Line::new();
        let start = line.head(level, connection);
        line.push(message);
        if let Some(reason) = reason {
            line.push_reason(reason);
        }
        if level != Level::Debug {
            line.push(context);
        }
        let bytes = line.finish();

        let second = clock::wall().sec;
        let mut wrote_stderr = false;
        for (target, limit) in self.targets() {
            if level > *limit {
                break;
            }
            match target {
                Target::File(file) => drop(file.write(bytes, second)),
                Target::Stderr => {
                    write_stderr(bytes);
                    wrote_stderr = true;
                }
                Target::Syslog(peer) => peer.write_error(level, bytes),
            }
        }
        if uses_stderr() && level <= Level::Warn && !wrote_stderr {
            let mut copy = Line::new();
            copy.push(format_args!("{}: [{}] ", program_name(), level.name()));
            copy.push_bytes(bytes.get(start..bytes.len() - 1).unwrap_or_default());
            write_stderr(copy.finish());
        }
    }
}

// === impl ErrorLogBuilder ===

impl ErrorLogBuilder {
    pub fn new() -> ErrorLogBuilder {
        ErrorLogBuilder::default()
    }

    /// Adds a target behind those that take at least as much.
    pub fn add(&mut self, target: Target, level: Level) {
        let position = self.0.iter().position(|(_, other)| level > *other).unwrap_or(self.0.len());
        self.0.insert(position, (target, level));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether some target is a file (or standard error). If none is at the top level, nginx adds the
    /// default error log at level `error`.
    pub fn has_file(&self) -> bool {
        self.0.iter().any(|(target, _)| matches!(target, Target::File(_) | Target::Stderr))
    }

    pub fn build(self) -> ErrorLog {
        ErrorLog(Arc::new(Chain { targets: self.0.into() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_to(directory: &Path, levels: &[Level]) -> (ErrorLog, Vec<std::path::PathBuf>) {
        let files = OpenFiles::new();
        let mut builder = ErrorLogBuilder::new();
        let mut paths = Vec::new();
        for (index, level) in levels.iter().enumerate() {
            let path = directory.join(format!("{index}.log"));
            builder.add(Target::File(files.add(&path)), *level);
            paths.push(path);
        }
        let log = builder.build();
        files.open(&log).unwrap();
        (log, paths)
    }

    fn scratch(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("nxr-log-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_line_has_nginx_form() {
        let directory = scratch("form");
        let (log, paths) = log_to(&directory, &[Level::Info]);
        let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        error_context(
            &log,
            Level::Error,
            Some(7),
            Some(&refused),
            format_args!("connect() failed"),
            format_args!(" while connecting to upstream, client: {}", bytes(b"\xff1")),
        );
        let line = std::fs::read(&paths[0]).unwrap();
        let (time, rest) = line.split_at(19);
        assert_eq!(time[4], b'/');
        let expected = format!(
            " [error] {}#{}: *7 connect() failed (111: Connection refused) while connecting to upstream, client: ",
            std::process::id(),
            nix::unistd::gettid()
        );
        assert_eq!(rest, [expected.as_bytes(), b"\xff1\n"].concat());
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn several_logs_take_what_their_level_says() {
        let directory = scratch("levels");
        let (log, paths) = log_to(&directory, &[Level::Error, Level::Debug, Level::Notice]);
        error(&log, Level::Info, None, format_args!("one"));
        error(&log, Level::Error, None, format_args!("two"));
        let count = |index: usize| std::fs::read_to_string(&paths[index]).unwrap().lines().count();
        assert_eq!([count(0), count(1), count(2)], [1, 2, 1]);
        assert!(!ErrorLog::none().enabled(Level::Emerg));
        let (pending, builder) = (ErrorLog::pending(), ErrorLogBuilder(vec![(Target::Stderr, Level::Warn)]));
        let clone = pending.clone();
        assert!(!pending.enabled(Level::Emerg));
        pending.complete(builder);
        assert!(clone.enabled(Level::Warn) && !clone.enabled(Level::Info));
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_file_moved_away_is_made_again_on_reopening() {
        let directory = scratch("reopen");
        let path = directory.join("error.log");
        let files = OpenFiles::new();
        let mut builder = ErrorLogBuilder::new();
        builder.add(Target::File(files.add(&path)), Level::Info);
        assert!(builder.has_file());
        let log = builder.build();
        files.open(&log).unwrap();
        error(&log, Level::Info, None, format_args!("before"));
        std::fs::rename(&path, directory.join("error.log.1")).unwrap();
        error(&log, Level::Info, None, format_args!("between"));
        files.reopen(None, &log);
        error(&log, Level::Info, None, format_args!("after"));
        let old = std::fs::read_to_string(directory.join("error.log.1")).unwrap();
        let new = std::fs::read_to_string(&path).unwrap();
        assert!(old.contains(": before\n") && old.contains(": between\n") && !old.contains("after"));
        assert!(new.ends_with(": after\n") && new.lines().count() == 1);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
