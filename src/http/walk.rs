//! Opening a file one directory after the other, so that symbolic links on the way are seen (`disable_symlinks`).

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, fstat, fstatat};

/// Which symbolic links may be followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Links {
    /// All.
    #[default]
    Follow,
    /// Those that belong to the owner of what they lead to.
    SameOwner,
    /// None.
    Refuse,
}

/// How to come to a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// What is allowed.
    pub links: Links,
    /// Bytes of the path, up to a slash, that are not looked at.
    pub from: usize,
}

/// A call that failed, and why.
pub type Failed = (&'static str, io::Error);

const SEARCH: OFlag =
    OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC);

fn failed(error: nix::Error) -> Failed {
    ("openat()", error.into())
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

impl Walk {
    /// Opens the file of this path with `flags`; one that is made gets `mode`.
    pub fn open(self, path: &[u8], flags: OFlag, mode: Mode) -> Result<OwnedFd, Failed> {
        let flags = flags | OFlag::O_CLOEXEC;
        let first =
            |path: &[u8], call| open(as_path(path), SEARCH, Mode::empty()).map_err(|e| (call, e.into()));
        let (mut folder, mut rest) = match self {
            Walk { links: Links::Follow, .. } => {
                return open(as_path(path), flags, mode).map_err(|e| ("open()", e.into()));
            }
            Walk { from: 1.., .. } => {
                let (front, rest) = path.split_at_checked(self.from).unwrap_or((path, b""));
                (Some(first(front, "open()")?), rest.strip_prefix(b"/").unwrap_or(rest))
            }
            _ if path.starts_with(b"/") => (Some(first(b"/", "openat()")?), &path[1..]),
            _ => (None, path),
        };
        while let Some(slash) = memchr::memchr(b'/', rest) {
            if slash > 0 {
                let next = self.step(folder.as_ref(), &rest[..slash], SEARCH, Mode::empty());
                folder = Some(next.map_err(failed)?);
            }
            rest = &rest[slash + 1..];
        }
        if rest.is_empty() {
            // A slash at the end: the directory itself, with the flags that are wanted.
            return openat(at(folder.as_ref()), ".", flags, mode).map_err(failed);
        }
        let makes = flags.intersects(OFlag::O_CREAT | OFlag::O_TRUNC);
        let step = if makes { Walk { links: Links::Refuse, ..self } } else { self };
        step.step(folder.as_ref(), rest, flags, mode).map_err(failed)
    }

    /// Opens one name in a directory.
    fn step(self, folder: Option<&OwnedFd>, name: &[u8], flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
        let (folder, name) = (at(folder), as_path(name));
        if self.links == Links::Refuse {
            return openat(folder, name, flags | OFlag::O_NOFOLLOW, mode);
        }
        let opened = openat(folder, name, flags, mode)?;
        // Which of the two was opened cannot be told, a link may be put there meanwhile: owners are compared in
        // either case.
        let link = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        match fstat(&opened)?.st_uid == link.st_uid {
            true => Ok(opened),
            false => Err(nix::Error::ELOOP),
        }
    }
}

fn at(folder: Option<&OwnedFd>) -> BorrowedFd<'_> {
    folder.map_or(AT_FDCWD, AsFd::as_fd)
}
