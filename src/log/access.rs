//! Writing lines of access logs: at once or through a buffer, and to files whose paths are known only at
//! run time.

use super::{ErrorLog, Level, OpenFile, error, error_errno, open_append};
use crate::net::{clock, deadline};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The `buffer=`, `flush=` and `gzip=` of an `access_log`; shared by all that log to the file.
#[derive(Debug)]
pub struct Buffer {
    size: usize,
    flush: Option<Duration>,
    /// Level of compression.
    gzip: Option<u32>,
    lines: Mutex<Vec<u8>>,
}

/// The same file was given another buffer: nginx's `access_log "x" already defined with conflicting parameters`.
#[derive(Debug, PartialEq, Eq)]
pub struct BufferConflict;

/// `open_log_file_cache`: files opened at run time, kept open while they are used. One a thread.
#[derive(Debug)]
pub struct LogFileCache {
    max: usize,
    inactive: Duration,
    min_uses: u32,
    valid: Duration,
    files: HashMap<PathBuf, Cached>,
    clock: u64,
}

#[derive(Debug)]
struct Cached {
    fd: Option<Arc<OwnedFd>>,
    identity: (u64, u64),
    uses: u32,
    checked: u64,
    accessed: u64,
    turn: u64,
}

// === impl OpenFile ===

impl OpenFile {
    /// Gives the file a buffer of `size` bytes that is written when full, and `flush` after its first line
    /// if that is set; each write is compressed where `gzip` gives a level, 1 to 9.
    pub fn set_buffer(
        &self,
        size: usize,
        flush: Option<Duration>,
        gzip: Option<u32>,
    ) -> Result<(), BufferConflict> {
        let buffer = self.buffer.get_or_init(|| Buffer { size, flush, gzip, lines: Mutex::new(Vec::new()) });
        let same = buffer.size == size && buffer.flush == flush && buffer.gzip == gzip;
        if same { Ok(()) } else { Err(BufferConflict) }
    }

    /// Writes one line, its end included. Failures go to `log`, at most one a minute.
    pub fn write_line(self: &Arc<Self>, line: &[u8], log: &ErrorLog) {
        let Some(buffer) = self.buffer.get() else { return self.write_now(line, log) };
        let mut lines = buffer.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() + line.len() > buffer.size {
            self.write_out(&mut lines, log);
        }
        if line.len() > buffer.size {
            return self.write_now(line, log);
        }
        if lines.is_empty() {
            lines.reserve(buffer.size);
            if let Some(delay) = buffer.flush {
                self.flush_later(delay, log);
            }
        }
        lines.extend_from_slice(line);
    }

    /// Writes what is buffered.
    pub fn flush(&self, log: &ErrorLog) {
        if let Some(buffer) = self.buffer.get() {
            self.write_out(&mut buffer.lines.lock().unwrap_or_else(PoisonError::into_inner), log);
        }
    }

    fn flush_later(self: &Arc<Self>, delay: Duration, log: &ErrorLog) {
        if tokio::runtime::Handle::try_current().is_ok() {
            let (file, log) = (self.clone(), log.clone());
            tokio::task::spawn_local(async move {
                deadline::sleep(deadline::millis(delay)).await;
                file.flush(&log);
            });
        }
    }

    fn write_out(&self, lines: &mut Vec<u8>, log: &ErrorLog) {
        if !lines.is_empty() {
            self.write_now(lines, log);
            lines.clear();
        }
    }

    fn write_now(&self, bytes: &[u8], log: &ErrorLog) {
        let second = clock::wall().sec;
        let path = self.path().display();
        let compressed = self.buffer.get().and_then(|b| b.gzip).map(|level| compress(bytes, level));
        let bytes = compressed.as_deref().unwrap_or(bytes);
        match self.write(bytes, second) {
            Some(Ok(written)) if written < bytes.len() && self.may_complain(second) => {
                let all = bytes.len();
                error(
                    log,
                    Level::Alert,
                    None,
                    format_args!("write() to \"{path}\" was incomplete: {written} of {all}"),
                );
            }
            Some(Err(reason)) if self.may_complain(second) => {
                error_errno(log, Level::Alert, None, &reason, format_args!("write() to \"{path}\" failed"));
            }
            _ => {}
        }
    }
}

/// One member of a gzip file (RFC 1952, section 2.2); as many as follow each other are one file.
fn compress(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut member = GzEncoder::new(Vec::new(), Compression::new(level));
    // Writing to memory does not fail.
    let _ = member.write_all(bytes);
    member.finish().unwrap_or_default()
}

// === impl LogFileCache ===

impl LogFileCache {
    /// At most `max` files stay open (none: every line opens its file); one not used for `inactive`, or less
    /// often than `min_uses` within it, is closed; after `valid` it is checked that the path still is this file.
    pub fn new(max: usize, inactive: Duration, min_uses: u32, valid: Duration) -> LogFileCache {
        LogFileCache { max, inactive, min_uses, valid, files: HashMap::new(), clock: 0 }
    }

    /// No cache: `open_log_file_cache off`.
    pub fn off() -> LogFileCache {
        LogFileCache::new(0, Duration::ZERO, 1, Duration::ZERO)
    }

    /// The file at `path`, open for appending.
    pub fn open(&mut self, path: &Path) -> io::Result<Arc<OwnedFd>> {
        if self.max == 0 {
            return Ok(Arc::new(open_append(path)?));
        }
        let now = clock::now();
        self.expire(now);
        self.clock += 1;
        let turn = self.clock;
        let valid = self.valid.as_millis() as u64;
        if let Some(cached) = self.files.get_mut(path) {
            cached.uses = cached.uses.saturating_add(1);
            (cached.accessed, cached.turn) = (now, turn);
            if cached.fd.is_some() && now - cached.checked >= valid {
                cached.checked = now;
                if identity(path).ok() != Some(cached.identity) {
                    cached.fd = None;
                }
            }
            if let Some(fd) = &cached.fd {
                return Ok(fd.clone());
            }
        }
        let fd = Arc::new(open_append(path)?);
        let identity = identity(path)?;
        if self.files.len() >= self.max && !self.files.contains_key(path) {
            self.forget_oldest();
        }
        let min_uses = self.min_uses;
        let entry = Cached { fd: None, identity, uses: 1, checked: now, accessed: now, turn };
        let cached = self.files.entry(path.to_path_buf()).or_insert(entry);
        (cached.identity, cached.checked) = (identity, now);
        if cached.uses >= min_uses {
            cached.fd = Some(fd.clone());
        }
        Ok(fd)
    }

    /// Closes every file, as SIGUSR1 asks.
    pub fn clear(&mut self) {
        self.files.clear();
    }

    fn expire(&mut self, now: u64) {
        let inactive = self.inactive.as_millis() as u64;
        self.files.retain(|_, cached| now - cached.accessed <= inactive);
    }

    fn forget_oldest(&mut self) {
        let oldest = self.files.iter().min_by_key(|(_, cached)| cached.turn).map(|(path, _)| path.clone());
        if let Some(path) = oldest {
            self.files.remove(&path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let info = fs::metadata(path)?;
    Ok((info.dev(), info.ino()))
}

#[cfg(test)]
mod tests {
    use super::super::OpenFiles;
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("nxr-access-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn lines_wait_in_the_buffer_until_it_is_full_or_flushed() {
        let directory = scratch("buffer");
        let (files, log) = (OpenFiles::new(), ErrorLog::none());
        let file = files.add(directory.join("access.log"));
        assert_eq!(file.set_buffer(16, None, None), Ok(()));
        assert_eq!(file.set_buffer(32, None, None), Err(BufferConflict));
        files.open(&log).unwrap();
        let content = || fs::read_to_string(file.path()).unwrap();

        file.write_line(b"one-one\n", &log);
        file.write_line(b"two-two\n", &log);
        assert_eq!(content(), "");
        file.write_line(b"three\n", &log);
        assert_eq!(content(), "one-one\ntwo-two\n");
        file.write_line(b"longer than the buffer\n", &log);
        assert_eq!(content(), "one-one\ntwo-two\nthree\nlonger than the buffer\n");
        file.write_line(b"last\n", &log);
        files.flush(&log);
        assert!(content().ends_with("buffer\nlast\n"));
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_buffer_is_written_after_its_flush_time() {
        let directory = scratch("flush");
        let (files, log) = (OpenFiles::new(), ErrorLog::none());
        let file = files.add(directory.join("access.log"));
        file.set_buffer(4096, Some(Duration::from_millis(20)), None).unwrap();
        files.open(&log).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            file.write_line(b"line\n", &log);
            assert_eq!(fs::read(file.path()).unwrap(), b"");
            let written = async {
                while fs::read(file.path()).unwrap() != b"line\n" {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), written).await.unwrap();
        });
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn the_cache_keeps_its_most_recent_files() {
        let directory = scratch("cache");
        let mut cache = LogFileCache::new(2, Duration::from_secs(60), 1, Duration::ZERO);
        let paths: Vec<PathBuf> = (0..3).map(|index| directory.join(index.to_string())).collect();
        let first = cache.open(&paths[0]).unwrap();
        let second = cache.open(&paths[1]).unwrap();
        assert!(Arc::ptr_eq(&first, &cache.open(&paths[0]).unwrap()));
        cache.open(&paths[2]).unwrap();
        assert!(Arc::ptr_eq(&first, &cache.open(&paths[0]).unwrap()));
        assert!(!Arc::ptr_eq(&second, &cache.open(&paths[1]).unwrap()));

        fs::rename(&paths[1], directory.join("moved")).unwrap();
        let again = cache.open(&paths[1]).unwrap();
        nix::unistd::write(&*again, b"x").unwrap();
        assert_eq!(fs::read(&paths[1]).unwrap(), b"x");
        fs::remove_dir_all(directory).unwrap();
    }
}
