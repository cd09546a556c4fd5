//! `*_store`: whole responses kept as files, for servers that then serve them as their own.

use std::fs::{DirBuilder, File, FileTimes, Permissions};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::Protocol;
use super::exchange::Exchange;
use super::head::Known;
use super::settings::Store;
use crate::http::body::TempFile;
use crate::http::modules::core::map_path;
use crate::http::request::Request;
use crate::log::Level;

impl<P: Protocol> Exchange<P> {
    /// Whether the response whose head was read is to be kept. The client's leaving changes nothing then.
    pub(super) fn stores(&self) -> bool {
        self.settings.store.is_some() && self.buffering
    }

    /// Seconds since 1970 that the kept file is to bear.
    #[inline(never)]
    pub(super) fn store_time(&self) -> Option<i64> {
        let value = self.head.get(Known::LastModified, self.input.bytes())?;
        crate::http::modules::not_modified::parse_time(value)
    }

    /// The body is complete, and `file` holds it: gives it its place.
    pub(super) fn store(&self, req: &Request, mut file: TempFile, time: Option<i64>) -> TempFile {
        let path = match self.settings.store.as_deref() {
            Some(Store::Path(path)) => path.eval(req).to_vec(),
            _ => map_path(req),
        };
        if path.is_empty() {
            return file;
        }
        let to = PathBuf::from(std::ffi::OsString::from_vec(path));
        match place(&file, &to, *self.settings.store_access, time) {
            Ok(()) => file.stays = true,
            Err(Failed { call, path, error }) => {
                req.log(Level::Crit, Some(&error), format_args!("{call} {path} failed"));
            }
        }
        file
    }
}

/// A call that failed, its file names in quotes, and why.
struct Failed {
    call: &'static str,
    path: String,
    error: io::Error,
}

impl Failed {
    fn new(call: &'static str, path: &Path, error: io::Error) -> Failed {
        Failed { call, path: format!("\"{}\"", path.display()), error }
    }

    fn rename(from: &Path, to: &Path, error: io::Error) -> Failed {
        let path = format!("\"{}\" to \"{}\"", from.display(), to.display());
        Failed { call: "rename()", path, error }
    }
}

/// Moves the file to its place, whose directories are made if they are not there.
fn place(file: &TempFile, to: &Path, access: u32, time: Option<i64>) -> Result<(), Failed> {
    let from = &file.path;
    file.file.set_permissions(Permissions::from_mode(access)).map_err(|e| Failed::new("chmod()", from, e))?;
    if let Some(time) = time {
        set_time(&file.file, time).map_err(|e| Failed::new("utimes()", from, e))?;
    }
    let moved = match std::fs::rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // Who may read the files may enter their directories.
            make_folders(to, access | (access & 0o444) >> 2)?;
            std::fs::rename(from, to)
        }
        moved => moved,
    };
    match moved {
        Err(e) if e.raw_os_error() == Some(libc::EXDEV) => copy(file, to, time),
        moved => moved.map_err(|e| Failed::rename(from, to, e)),
    }
}

/// Makes the directories on the way to a file. That one may not be made is told only if none behind it says more.
fn make_folders(to: &Path, mode: u32) -> Result<(), Failed> {
    let mut denied = None;
    let above: Vec<&Path> = to.ancestors().skip(1).collect();
    for folder in above.into_iter().rev().filter(|folder| folder.parent().is_some()) {
        match DirBuilder::new().mode(mode).create(folder) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => denied = None,
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => denied = Some(e),
            Err(e) => return Err(Failed::new("mkdir()", folder, e)),
        }
    }
    denied.map_or(Ok(()), |e| Err(Failed::new("mkdir()", to, e)))
}

/// To another file system: a copy under a name of its own, which then takes the place at once.
fn copy(file: &TempFile, to: &Path, time: Option<i64>) -> Result<(), Failed> {
    let number = file.path.file_name().unwrap_or_default();
    let mut name = to.as_os_str().to_owned();
    name.push(".");
    name.push(number);
    let near = PathBuf::from(name);
    let copied = std::fs::copy(&file.path, &near)
        .and_then(|_| time.map_or(Ok(()), |time| set_time(&File::options().write(true).open(&near)?, time)))
        .map_err(|e| Failed::new("open()", &near, e))
        .and_then(|()| std::fs::rename(&near, to).map_err(|e| Failed::rename(&near, to, e)));
    if copied.is_err() {
        let _ = std::fs::remove_file(&near);
    } else {
        let _ = std::fs::remove_file(&file.path);
    }
    copied
}

fn set_time(file: &File, time: i64) -> io::Result<()> {
    let seconds = Duration::from_secs(time.unsigned_abs());
    let modified = match time {
        0.. => SystemTime::UNIX_EPOCH + seconds,
        _ => SystemTime::UNIX_EPOCH - seconds,
    };
    file.set_times(FileTimes::new().set_accessed(SystemTime::now()).set_modified(modified))
}
