//! Files that responses are made of.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::headers::{ETAG, Name};
use super::module::Verdict;
use super::modules::symlinks::walk;
use super::output::Gone;
use super::request::Request;
use super::walk::{Failed, Links};
use crate::log::Level;

/// What a path is.
pub enum Found {
    /// A directory.
    Directory,
    /// A regular file, open for reading.
    File(File, Metadata),
    /// A device, socket or pipe.
    Other,
}

/// Bytes as a path.
pub fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Opens a file for a request; the error says which call failed.
pub fn open(req: &Request, name: &[u8]) -> Result<Found, Failed> {
    // Not blocking, so that a pipe without a writer does not hang the thread.
    let file = File::from(walk(req, name).open(name, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty())?);
    let data = file.metadata().map_err(|e| ("fstat()", e))?;
    Ok(if data.is_dir() {
        Found::Directory
    } else if data.is_file() {
        Found::File(file, data)
    } else {
        Found::Other
    })
}

/// What is at a path, for a request; the error says which call failed.
pub fn stat(req: &Request, name: &[u8]) -> Result<Metadata, Failed> {
    let walk = walk(req, name);
    if walk.links == Links::Follow {
        return std::fs::metadata(path(name)).map_err(|e| ("stat()", e));
    }
    let opened = walk.open(name, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty())?;
    File::from(opened).metadata().map_err(|e| ("fstat()", e))
}

/// Whether an error means that there is no such file.
pub fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG))
}

/// Whether an error means that the file may not be read.
pub fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EMLINK | libc::ELOOP))
}

/// Status and level for the error of a file or directory that cannot be opened.
pub fn status_of(error: &io::Error) -> (u16, Level) {
    match error {
        e if is_missing(e) => (404, Level::Error),
        e if is_forbidden(e) => (403, Level::Error),
        _ => (500, Level::Crit),
    }
}

impl Request {
    /// Answers with a file: length, time, entity tag, type, and the file as body.
    pub async fn respond_file(&mut self, file: &File, data: &Metadata) -> Verdict {
        self.respond_file_with(file, data, None).await
    }

    /// The same, with another field behind the entity tag.
    pub async fn respond_file_with(
        &mut self,
        file: &File,
        data: &Metadata,
        field: Option<(Name, &[u8])>,
    ) -> Verdict {
        if let Err(verdict) = self.discard_body().await {
            return verdict;
        }
        self.action.set("sending response to client");
        let (size, time) = (data.len(), data.mtime());
        self.response.status = 200;
        self.response.content_length = Some(size);
        self.response.last_modified = Some(time);
        if *self.conf.core.etag {
            self.response.headers.add(ETAG, format!("\"{time:x}-{size:x}\"").as_bytes());
        }
        self.set_content_type();
        if let Some((name, value)) = field {
            self.response.headers.add(name, value);
        }
        self.response.allow_ranges = true;
        match self.send_whole(file, size).await {
            Ok(()) => Verdict::Done,
            Err(Gone) => Verdict::Close,
        }
    }

    async fn send_whole(&mut self, file: &File, size: u64) -> Result<(), Gone> {
        self.send_head().await?;
        self.send_file(file, 0, size).await?;
        self.finish().await
    }
}
