//! What names meant, kept over a reload: the worker writes it to a file without a name that it has from the master,
//! and the master reads it when it makes the next configuration.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::directives::Draft;
use super::live::Place;

/// Bytes before the text: its length and CRC-32.
const HEAD: usize = 8;
/// Longest text.
const MOST: usize = 1 << 20;

/// A file for one group.
#[derive(Clone, Debug)]
pub struct Record(Arc<File>);

type Files = HashMap<(bool, String), Record>;

static FILES: Mutex<Option<Files>> = Mutex::new(None);

impl Record {
    /// The file of a group of this name in http or stream; none where there is no file to be had.
    pub fn open(stream: bool, group: &str) -> Option<Record> {
        let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
        let files = files.get_or_insert_default();
        let key = (stream, group.to_ascii_lowercase());
        if let Some(known) = files.get(&key) {
            return Some(known.clone());
        }
        let file = memfd_create(c"upstream", MFdFlags::MFD_CLOEXEC).ok()?;
        let record = Record(Arc::new(File::from(file)));
        files.insert(key, record.clone());
        Some(record)
    }

    /// Replaces what is there.
    pub fn write(&self, text: &[u8]) {
        if text.len() > MOST {
            return;
        }
        let mut whole = Vec::with_capacity(HEAD + text.len());
        whole.extend_from_slice(&(text.len() as u32).to_ne_bytes());
        whole.extend_from_slice(&crc32fast::hash(text).to_ne_bytes());
        whole.extend_from_slice(text);
        // What is not written is not known after a reload, and resolved then.
        let _ = self.0.write_all_at(&whole, 0);
    }

    /// What was written last; nothing where it is being written now.
    pub fn read(&self) -> Vec<Known> {
        let mut head = [0; HEAD];
        if self.0.read_exact_at(&mut head, 0).is_err() {
            return Vec::new();
        }
        let [a, b, c, d, e, f, g, h] = head;
        let length = (u32::from_ne_bytes([a, b, c, d]) as usize).min(MOST);
        let mut text = vec![0; length];
        let read = self.0.read_exact_at(&mut text, HEAD as u64);
        if read.is_err() || crc32fast::hash(&text) != u32::from_ne_bytes([e, f, g, h]) {
            return Vec::new();
        }
        parse(&String::from_utf8_lossy(&text))
    }
}

/// What one server meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    host: String,
    service: String,
    backup: bool,
    /// Until when, in seconds since 1970.
    pub valid: i64,
    pub(super) places: Vec<Place>,
}

impl Known {
    pub(super) fn new(server: &Draft, valid: i64, places: Vec<Place>) -> Known {
        let (host, service) = key(server);
        Known { host, service, backup: server.backup, valid, places }
    }

    /// Whether it is this server that meant it.
    pub fn is_of(&self, server: &Draft) -> bool {
        (&self.host, &self.service, self.backup) == (&key(server).0, &key(server).1, server.backup)
    }
}

fn key(server: &Draft) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&server.host), text(server.service.as_deref().unwrap_or_default()))
}

/// A line for each server, and one for each of its addresses; fields have tabs between them.
pub fn text(all: impl Iterator<Item = Known>) -> Vec<u8> {
    let mut text = String::new();
    for known in all {
        let plain = |word: &str| !word.contains(['\t', '\n']);
        if !plain(&known.host) || !plain(&known.service) {
            continue;
        }
        text += &format!("{}\t{}\t{}\t{}\n", known.host, known.service, known.backup, known.valid);
        for place in &known.places {
            let server = String::from_utf8_lossy(&place.server);
            if plain(&server) {
                text += &format!("\t{}\t{}\t{}\t{server}\n", place.address, place.weight, place.backup);
            }
        }
    }
    text.into_bytes()
}

fn parse(text: &str) -> Vec<Known> {
    let mut all: Vec<Known> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split('\t').collect();
        match words[..] {
            ["", address, weight, backup, server] => {
                let (Some(known), Ok(address), Ok(weight)) =
                    (all.last_mut(), address.parse(), weight.parse())
                else {
                    continue;
                };
                let server = server.as_bytes().into();
                known.places.push(Place { address, server, weight, backup: backup == "true" });
            }
            [host, service, backup, valid] => all.push(Known {
                host: host.to_owned(),
                service: service.to_owned(),
                backup: backup == "true",
                valid: valid.parse().unwrap_or(0),
                places: Vec::new(),
            }),
            _ => {}
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let record = Record::open(true, "a-group-of-this-test").unwrap();
        assert_eq!(record.read(), []);
        let server = Draft { host: b"a.test".to_vec(), service: Some(b"http".to_vec()), ..Draft::default() };
        let place = |address: &str, backup| Place {
            address: address.parse().unwrap(),
            server: b"s.test"[..].into(),
            weight: 3,
            backup,
        };
        let known = Known::new(&server, 1234, vec![place("127.0.0.1:80", false), place("[::1]:81", true)]);
        record.write(&text([known.clone()].into_iter()));
        assert_eq!(Record::open(true, "A-Group-of-this-test").unwrap().read(), std::slice::from_ref(&known));
        assert!(known.is_of(&server) && !known.is_of(&Draft { backup: true, ..server }));
        record.write(b"shorter");
        assert_eq!(record.read(), []);
        record.0.write_all_at(b"x", HEAD as u64).unwrap();
        assert_eq!(record.read(), []);
    }
}
