//! What `sticky learn` knows: which server each session belongs to.
//!
//! Sessions are in a file without a name: all threads use it, and so do the workers before and after a reload, as long
//! as the zone keeps its name and size. The file is a table of buckets; a session's MD5 says which bucket it is in.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use md5::{Digest, Md5};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::conf::{Fault, Outcome};
use crate::log::{self, Level};
use crate::net::clock;
use crate::upstream::directives::MAX_SID;

/// Bytes of a session: MD5 of its name, when it was used last, length and text of the server's name, CRC-32.
const SLOT: usize = 64;
const LAST: usize = 16;
const LENGTH: usize = 24;
const SID: usize = 25;
const CRC: usize = 60;
/// Bytes of a bucket.
const BUCKET: usize = 16 * SLOT;
/// Bytes of zone for a session: 32k are some 200 sessions, 1m some 8000.
const ZONE_BYTES: usize = 128;

type Slot = [u8; SLOT];

/// A zone of the configuration that is served, or of one being read.
struct Known {
    zone: Box<str>,
    size: usize,
    upstream: Box<str>,
    file: Weak<File>,
}

static ZONES: Mutex<Vec<Known>> = Mutex::new(Vec::new());

/// The sessions of one zone.
#[derive(Debug)]
pub struct Sessions {
    zone: Box<str>,
    /// Milliseconds that a session lasts unused.
    timeout: u64,
    buckets: u64,
    file: Arc<File>,
    /// Held while a bucket is changed.
    changing: Mutex<()>,
}

impl Sessions {
    /// The sessions of a zone: those that a configuration before this one had, where there are such.
    ///
    /// # Errors
    /// The zone is another upstream's so far, or there is no memory for it.
    pub(super) fn open(zone: &str, size: usize, timeout: u64, upstream: &str) -> Outcome<Sessions> {
        let buckets = (size / ZONE_BYTES * SLOT).div_ceil(BUCKET) as u64;
        let mut zones = ZONES.lock().unwrap_or_else(PoisonError::into_inner);
        zones.retain(|known| known.file.strong_count() > 0);
        let known = zones.iter().find(|known| *known.zone == *zone && known.size == size);
        let file = match known.and_then(|known| Some((known, known.file.upgrade()?))) {
            Some((known, _)) if *known.upstream != *upstream => {
                let before = &known.upstream;
                return Err(Fault::whole(format!(
                    "sticky zone \"{zone}\" is used in upstream \"{upstream}\" while previously it was used in \
                     upstream \"{before}\""
                )));
            }
            Some((_, file)) => file,
            None => {
                let file = Arc::new(create(buckets).map_err(|reason| {
                    Fault::whole(format!("memfd_create() of sticky zone \"{zone}\" failed: {reason}"))
                })?);
                let weak = Arc::downgrade(&file);
                zones.push(Known { zone: zone.into(), size, upstream: upstream.into(), file: weak });
                file
            }
        };
        Ok(Sessions { zone: zone.into(), timeout, buckets, file, changing: Mutex::new(()) })
    }

    /// The server a session belongs to.
    pub(super) fn find(&self, session: &[u8]) -> Option<Vec<u8>> {
        let (md5, at) = self.place(session);
        let bucket = self.read(at)?;
        let now = now();
        let slot = bucket.as_chunks::<SLOT>().0.iter().find(|slot| slot[..LAST] == md5)?;
        (self.lasts(slot, now)).then(|| sid(slot).to_vec())
    }

    /// A session's request was answered by a server. A session that is not known yet is only where `create`.
    pub(super) fn used(&self, session: &[u8], server: &[u8], create: bool) {
        let (md5, at) = self.place(session);
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let _locked = Locked::new(&self.file, at);
        let Some(bucket) = self.read(at) else { return };
        let slots = bucket.as_chunks::<SLOT>().0;
        let now = now();
        let lasting = |slot: &Slot| self.lasts(slot, now);
        let known = slots.iter().position(|slot| slot[..LAST] == md5 && lasting(slot));
        let to = match known {
            Some(place) => place,
            None if !create => return,
            None => slots.iter().position(|slot| !lasting(slot)).unwrap_or_else(|| {
                let zone = &self.zone;
                let what = format_args!(
                    "could not allocate node in sticky session zone \"{zone}\", expiring least recently used session"
                );
                log::error(&log::main(), Level::Warn, None, what);
                let oldest = slots.iter().enumerate().min_by_key(|(_, slot)| last(slot));
                oldest.map_or(0, |(place, _)| place)
            }),
        };
        // What is not written is forgotten, and learnt again.
        let _ = self.file.write_all_at(&slot(md5, now, server), at + (to * SLOT) as u64);
    }

    fn place(&self, session: &[u8]) -> ([u8; LAST], u64) {
        let md5: [u8; LAST] = Md5::digest(session).into();
        let hash = u64::from_le_bytes([md5[0], md5[1], md5[2], md5[3], md5[4], md5[5], md5[6], md5[7]]);
        (md5, hash % self.buckets * BUCKET as u64)
    }

    fn read(&self, at: u64) -> Option<[u8; BUCKET]> {
        let mut bucket = [0; BUCKET];
        self.file.read_exact_at(&mut bucket, at).ok()?;
        Some(bucket)
    }

    /// Whether there is a session in it, whole and used not too long ago.
    fn lasts(&self, slot: &Slot, now: u64) -> bool {
        slot[CRC..] == crc32fast::hash(&slot[..CRC]).to_ne_bytes()
            && now.saturating_sub(last(slot)) < self.timeout
    }
}

fn create(buckets: u64) -> std::io::Result<File> {
    let file = File::from(memfd_create(c"sticky", MFdFlags::MFD_CLOEXEC)?);
    file.set_len(buckets * BUCKET as u64)?;
    Ok(file)
}

/// Milliseconds since 1970: the clock that all processes share.
fn now() -> u64 {
    let wall = clock::wall();
    u64::try_from(wall.sec).unwrap_or(0) * 1000 + u64::from(wall.msec)
}

fn slot(md5: [u8; LAST], now: u64, server: &[u8]) -> Slot {
    let mut slot = [0; SLOT];
    let server = &server[..server.len().min(MAX_SID)];
    slot[..LAST].copy_from_slice(&md5);
    slot[LAST..LENGTH].copy_from_slice(&now.to_ne_bytes());
    slot[LENGTH] = server.len() as u8;
    slot[SID..SID + server.len()].copy_from_slice(server);
    let crc = crc32fast::hash(&slot[..CRC]);
    slot[CRC..].copy_from_slice(&crc.to_ne_bytes());
    slot
}

fn last(slot: &Slot) -> u64 {
    slot[LAST..LENGTH].try_into().map_or(0, u64::from_ne_bytes)
}

fn sid(slot: &Slot) -> &[u8] {
    let length = usize::from(slot[LENGTH]).min(MAX_SID);
    &slot[SID..SID + length]
}

/// A bucket that no other process changes. Without the lock a session may be lost, and is learnt again.
struct Locked<'f>(&'f File, u64);

impl<'f> Locked<'f> {
    fn new(file: &'f File, at: u64) -> Locked<'f> {
        // While one worker takes over from another, both use the file.
        let _ = fcntl(file, FcntlArg::F_SETLKW(&range(at, libc::F_WRLCK)));
        Locked(file, at)
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let _ = fcntl(self.0, FcntlArg::F_SETLK(&range(self.1, libc::F_UNLCK)));
    }
}

fn range(at: u64, kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: at as libc::off_t,
        l_len: BUCKET as libc::off_t,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_created_found_and_moved() {
        let sessions = Sessions::open("created", 32 << 10, 600_000, "u").unwrap();
        sessions.used(b"one", b"a", false);
        assert_eq!(sessions.find(b"one"), None);
        sessions.used(b"one", b"a", true);
        sessions.used(b"two", &[b'x'; 40], true);
        assert_eq!(sessions.find(b"one").as_deref(), Some(&b"a"[..]));
        assert_eq!(sessions.find(b"two").as_deref(), Some(&[b'x'; 32][..]));
        sessions.used(b"one", b"", false);
        assert_eq!(sessions.find(b"one").as_deref(), Some(&b""[..]));
    }

    #[test]
    fn the_next_configuration_has_them_too() {
        let first = Sessions::open("kept", 32 << 10, 600_000, "u").unwrap();
        first.used(b"one", b"a", true);
        let next = Sessions::open("kept", 32 << 10, 600_000, "u").unwrap();
        assert_eq!(next.find(b"one").as_deref(), Some(&b"a"[..]));
        assert_eq!(Sessions::open("kept", 64 << 10, 600_000, "v").unwrap().find(b"one"), None);
        let refused = Sessions::open("kept", 32 << 10, 600_000, "v").unwrap_err().text(b"", "");
        assert!(refused.ends_with("previously it was used in upstream \"u\""), "{refused}");
        drop((first, next));
        assert_eq!(Sessions::open("kept", 32 << 10, 600_000, "v").unwrap().find(b"one"), None);
    }

    #[test]
    fn they_end_and_the_oldest_makes_room() {
        let over = Sessions::open("over", 32 << 10, 0, "u").unwrap();
        over.used(b"one", b"a", true);
        assert_eq!(over.find(b"one"), None);
        let full = Sessions::open("full", 32 << 10, 600_000, "u").unwrap();
        for n in 0..10_000u32 {
            full.used(&n.to_ne_bytes(), b"a", true);
        }
        let found = (0..10_000u32).filter(|n| full.find(&n.to_ne_bytes()).is_some()).count();
        assert_eq!(found, (32 << 10) / ZONE_BYTES);
        assert!(full.find(&9_999u32.to_ne_bytes()).is_some());
    }

    #[test]
    fn what_is_broken_is_not_there() {
        let sessions = Sessions::open("broken", 32 << 10, 600_000, "u").unwrap();
        sessions.used(b"one", b"a", true);
        let (md5, at) = sessions.place(b"one");
        let mut torn = slot(md5, now(), b"b");
        torn[SID] = b'c';
        sessions.file.write_all_at(&torn, at).unwrap();
        assert_eq!(sessions.find(b"one"), None);
    }
}
