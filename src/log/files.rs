//! The files a configuration logs to. Each path is opened once, whoever names it, and is opened again on
//! SIGUSR1 behind the same descriptor number, so that writers need no lock.

use super::{ErrorLog, Level, access::Buffer, error_errno};
use crate::net::fd;
use nix::unistd::{Uid, chown};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// One log file: registered while the configuration is read, opened once it is known to be valid.
#[derive(Debug)]
pub struct OpenFile {
    path: PathBuf,
    fd: OnceLock<OwnedFd>,
    /// The second in which the disk was found full: nothing is written during it.
    disk_full: AtomicI64,
    /// The second of the last complaint about this file.
    complained: AtomicI64,
    pub(super) buffer: OnceLock<Buffer>,
}

/// The log files of one configuration. Cheap to clone; clones are the same set.
#[derive(Clone, Debug, Default)]
pub struct OpenFiles(Arc<Mutex<BTreeMap<PathBuf, Arc<OpenFile>>>>);

/// The files could not all be opened; why is in the log.
#[derive(Debug, PartialEq, Eq)]
pub struct NotOpened;

/// Opens a log for appending, creating it with mode 0644.
pub fn open_append(path: &Path) -> io::Result<OwnedFd> {
    let file = OpenOptions::new().append(true).create(true).mode(0o644).open(path)?;
    Ok(file.into())
}

// === impl OpenFile ===

impl OpenFile {
    pub(super) fn new(path: PathBuf) -> OpenFile {
        OpenFile {
            path,
            fd: OnceLock::new(),
            disk_full: AtomicI64::new(0),
            complained: AtomicI64::new(0),
            buffer: OnceLock::new(),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptor, once the file is open; its number never changes.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.get().map(AsFd::as_fd)
    }

    /// Opens the file unless it is open.
    pub fn open(&self) -> io::Result<()> {
        if self.fd.get().is_none() {
            // Losing a race here closes the loser's descriptor, which is right.
            let _ = self.fd.set(open_append(&self.path)?);
        }
        Ok(())
    }

    /// One write(2) of all of `bytes`. `None` when nothing was tried: not open, or the disk is full.
    pub(super) fn write(&self, bytes: &[u8], second: i64) -> Option<io::Result<usize>> {
        let fd = self.fd()?;
        if self.disk_full.load(Ordering::Relaxed) == second {
            return None;
        }
        let result = nix::unistd::write(fd, bytes).map_err(io::Error::from);
        if let Err(error) = &result
            && error.raw_os_error() == Some(libc::ENOSPC)
        {
            self.disk_full.store(second, Ordering::Relaxed);
        }
        Some(result)
    }

    /// Whether a failure may be reported now: at most once a minute.
    pub(super) fn may_complain(&self, second: i64) -> bool {
        let last = self.complained.load(Ordering::Relaxed);
        second - last > 59
            && self.complained.compare_exchange(last, second, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn reopen(&self, owner: Option<Uid>, log: &ErrorLog) -> Result<(), ()> {
        let Some(target) = self.fd() else { return Ok(()) };
        let path = self.path.display();
        let emerg = |error: io::Error, what: std::fmt::Arguments<'_>| {
            error_errno(log, Level::Emerg, None, &error, what);
        };
        let fresh = open_append(&self.path)
            .map_err(|error| emerg(error, format_args!("open() \"{path}\" failed")))?;
        if let Some(owner) = owner {
            let info = fs::metadata(&self.path)
                .map_err(|error| emerg(error, format_args!("stat() \"{path}\" failed")))?;
            if info.uid() != owner.as_raw() {
                chown(&self.path, Some(owner), None).map_err(|error| {
                    emerg(error.into(), format_args!("chown(\"{path}\", {owner}) failed"))
                })?;
            }
            let mode = info.permissions().mode();
            if mode & 0o600 != 0o600 {
                fs::set_permissions(&self.path, fs::Permissions::from_mode(mode | 0o600))
                    .map_err(|error| emerg(error, format_args!("chmod() \"{path}\" failed")))?;
            }
        }
        fd::replace(fresh, target).map_err(|error| emerg(error, format_args!("open() \"{path}\" failed")))
    }
}

// === impl OpenFiles ===

impl OpenFiles {
    pub fn new() -> OpenFiles {
        OpenFiles::default()
    }

    /// The file at `path`, registered if it is new.
    pub fn add(&self, path: impl Into<PathBuf>) -> Arc<OpenFile> {
        let path = path.into();
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.entry(path.clone()).or_insert_with(|| Arc::new(OpenFile::new(path))).clone()
    }

    /// All files, in order of path.
    pub fn all(&self) -> Vec<Arc<OpenFile>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Opens every file; stops at the first that cannot be, having logged it at `emerg`.
    pub fn open(&self, log: &ErrorLog) -> Result<(), NotOpened> {
        for file in self.all() {
            if let Err(error) = file.open() {
                let path = file.path.display();
                error_errno(log, Level::Emerg, None, &error, format_args!("open() \"{path}\" failed"));
                return Err(NotOpened);
            }
        }
        Ok(())
    }

    /// Writes what is buffered and opens every file again; the new ones are given to `owner`, if any. A file
    /// that cannot be opened is logged and the old one kept.
    pub fn reopen(&self, owner: Option<Uid>, log: &ErrorLog) {
        for file in self.all() {
            file.flush(log);
            let _ = file.reopen(owner, log);
        }
    }

    /// Writes what is buffered, as at exit.
    pub fn flush(&self, log: &ErrorLog) {
        for file in self.all() {
            file.flush(log);
        }
    }
}

impl From<File> for OpenFile {
    /// A file without a path, as a test or a pipe gives.
    fn from(file: File) -> OpenFile {
        let open = OpenFile::new(PathBuf::new());
        let _ = open.fd.set(file.into());
        open
    }
}
