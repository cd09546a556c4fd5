//! The pid file, and sending a signal to the process it names.

use super::{Core, Signal};
use crate::log::{self, ErrorLog, Level};
use nix::sys::signal::{self, kill};
use nix::unistd::Pid;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes this process's number to `path`; with `test` only opens the file, creating it if need be.
pub(super) fn create(path: &Path, test: bool, log: &ErrorLog) -> Result<(), ()> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o644);
    let name = path.display();
    let emerg = |reason: io::Error, what: std::fmt::Arguments<'_>| {
        log::error_errno(log, Level::Emerg, None, &reason, what);
    };
    let mut file = options
        .truncate(!test)
        .open(path)
        .map_err(|reason| emerg(reason, format_args!("open() \"{name}\" failed")))?;
    if test {
        return Ok(());
    }
    let text = format!("{}\n", nix::unistd::getpid());
    file.write_all(text.as_bytes()).map_err(|reason| {
        log::error_errno(log, Level::Crit, None, &reason, format_args!("pwrite() \"{name}\" failed"))
    })
}

/// Deletes the pid file.
pub(super) fn delete(path: &Path, log: &ErrorLog) {
    if let Err(reason) = fs::remove_file(path) {
        let name = path.display();
        log::error_errno(log, Level::Alert, None, &reason, format_args!("unlink() \"{name}\" failed"));
    }
}

/// Sends what `-s` asks for. Returns whether it was sent; if not, why is in the log.
pub(super) fn send(core: &Core, what: Signal, log: &ErrorLog) -> bool {
    log::error(log, Level::Notice, None, format_args!("signal process started"));
    let name = core.pid.display();
    let mut file = match fs::File::open(&core.pid) {
        Ok(file) => file,
        Err(reason) => {
            log::error_errno(log, Level::Error, None, &reason, format_args!("open() \"{name}\" failed"));
            return false;
        }
    };
    // As much as the longest number with its end.
    let mut text = [0; 22];
    let count = match file.read(&mut text) {
        Ok(count) => count,
        Err(reason) => {
            log::error_errno(log, Level::Crit, None, &reason, format_args!("read() \"{name}\" failed"));
            return false;
        }
    };
    let text = text[..count].trim_ascii_end_of_line();
    let Some(pid) = number(text) else {
        let text = log::bytes(text);
        log::error(log, Level::Error, None, format_args!("invalid PID number \"{text}\" in \"{name}\""));
        return false;
    };
    let signal = what.number();
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) => true,
        Err(errno) => {
            let what = format_args!("kill({pid}, {}) failed", signal as i32);
            log::error_errno(log, Level::Alert, None, &errno.into(), what);
            false
        }
    }
}

fn number(text: &[u8]) -> Option<i32> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

trait EndOfLine {
    fn trim_ascii_end_of_line(&self) -> &[u8];
}

impl EndOfLine for [u8] {
    fn trim_ascii_end_of_line(&self) -> &[u8] {
        let end = self.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |at| at + 1);
        &self[..end]
    }
}

impl Signal {
    fn number(self) -> signal::Signal {
        match self {
            Signal::Stop => signal::Signal::SIGTERM,
            Signal::Quit => signal::Signal::SIGQUIT,
            Signal::Reopen => signal::Signal::SIGUSR1,
            Signal::Reload => signal::Signal::SIGHUP,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_holds_a_number() {
        assert_eq!(number(b"123\r\n".trim_ascii_end_of_line()), Some(123));
        for wrong in [&b""[..], b"\n", b"-1\n", b"12a\n", b"99999999999\n"] {
            assert_eq!(number(wrong.trim_ascii_end_of_line()), None);
        }
    }

    #[test]
    fn a_test_leaves_the_content() {
        let path = std::env::temp_dir().join(format!("nxr-pidfile-{}", std::process::id()));
        let log = ErrorLog::none();
        create(&path, true, &log).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
        create(&path, false, &log).unwrap();
        create(&path, true, &log).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        delete(&path, &log);
        assert!(!path.exists());
        assert_eq!(create(Path::new("/no-such-directory/pid"), true, &log), Err(()));
    }
}
