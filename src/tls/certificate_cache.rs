//! Certificates and keys that are loaded in the middle of handshakes, and kept for a while
//! (`ssl_certificate_cache`, `proxy_ssl_certificate_cache`).

use super::error::Error;
use super::objects::{Chain, FileId, Key, Objects, is_data};
use crate::net::clock;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// A cache of a configuration, shared by all threads.
#[derive(Debug)]
pub struct CertificateCache {
    /// Most chains and keys together.
    max: usize,
    /// Seconds for which an object is taken for unchanged without a look at its file.
    valid: u64,
    /// Seconds for which an object is kept that nobody asks for.
    inactive: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    nodes: HashMap<Id, Node>,
    /// By the order of their last use.
    used: BTreeMap<u64, Id>,
    /// The next use's number.
    uses: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Chain,
    Key,
}

type Id = (Kind, Arc<str>);

#[derive(Debug, Clone)]
enum Object {
    Chain(Arc<Chain>),
    Key(Arc<Key>),
}

#[derive(Debug)]
struct Node {
    object: Object,
    file: Option<FileId>,
    /// Seconds.
    created: u64,
    /// Seconds.
    accessed: u64,
    /// In `State::used`.
    use_number: u64,
}

/// What is known of a name.
enum Found {
    Good(Object),
    /// To be compared with its file.
    Stale(Object, Option<FileId>),
    Nothing,
}

// === impl CertificateCache ===

impl CertificateCache {
    /// An empty one: at most `max` objects, times in seconds.
    pub fn new(max: usize, valid: u64, inactive: u64) -> Self {
        CertificateCache { max, valid, inactive, state: Mutex::default() }
    }

    /// The object, from here or by `load`, which also tells whether it may be kept. Files are read outside the lock.
    fn fetch(
        &self,
        kind: Kind,
        name: &str,
        anew: bool,
        now: u64,
        load: impl FnOnce() -> Result<(Object, bool), Error>,
    ) -> Result<Object, Error> {
        let id = (kind, Arc::from(name));
        let found = self.with(|state| state.find(&id, anew && !is_data(name), now, self.valid));
        let stale = match found {
            Found::Good(object) => return Ok(object),
            Found::Stale(object, file) => {
                let file_now = FileId::of(name);
                if !anew && file_now.is_some() && file_now == file {
                    self.with(|state| state.refresh(&id, object.clone(), file, now));
                    return Ok(object);
                }
                true
            }
            Found::Nothing => false,
        };
        // The file is looked at first: one that changes while it is read is found changed next time.
        let file = FileId::of(name);
        let loaded = load();
        self.with(|state| match (&loaded, stale) {
            (Ok((object, true)), true) => state.refresh(&id, object.clone(), file, now),
            (Ok((object, true)), false) => {
                state.expire(false, now, self.inactive);
                if state.nodes.len() >= self.max {
                    state.expire(true, now, self.inactive);
                }
                state.refresh(&id, object.clone(), file, now);
            }
            _ => state.remove(&id),
        });
        loaded.map(|(object, _)| object)
    }

    fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

// === impl State ===

impl State {
    fn find(&mut self, id: &Id, anew: bool, now: u64, valid: u64) -> Found {
        let Some(node) = self.nodes.get(id) else { return Found::Nothing };
        let object = node.object.clone();
        if !is_data(&id.1) && (anew || now.saturating_sub(node.created) > valid) {
            return Found::Stale(object, node.file);
        }
        self.touch(id, now);
        Found::Good(object)
    }

    fn touch(&mut self, id: &Id, now: u64) {
        if let Some(node) = self.nodes.get_mut(id) {
            self.used.remove(&node.use_number);
            node.accessed = now;
            node.use_number = self.uses;
            self.used.insert(self.uses, id.clone());
            self.uses += 1;
        }
    }

    /// Puts in what was just found to be current.
    fn refresh(&mut self, id: &Id, object: Object, file: Option<FileId>, now: u64) {
        let use_number = match self.nodes.get(id) {
            Some(node) => node.use_number,
            // No use has this number yet.
            None => self.uses,
        };
        let node = Node { object, file, created: now, accessed: now, use_number };
        self.nodes.insert(id.clone(), node);
        self.touch(id, now);
    }

    fn remove(&mut self, id: &Id) {
        if let Some(node) = self.nodes.remove(id) {
            self.used.remove(&node.use_number);
        }
    }

    /// Drops up to two objects that nobody asked for in a while, after the one not used for longest if `forced`.
    fn expire(&mut self, forced: bool, now: u64, inactive: u64) {
        let first = usize::from(!forced);
        for n in first..3 {
            let Some((_, id)) = self.used.first_key_value() else { return };
            let id = id.clone();
            let accessed = self.nodes.get(&id).map_or(0, |node| node.accessed);
            if n != 0 && now.saturating_sub(accessed) <= inactive {
                return;
            }
            self.remove(&id);
        }
    }
}

/// Objects for one connection: from a cache, or from their files every time.
#[derive(Debug, Clone, Copy)]
pub struct ForConnection<'a> {
    cache: Option<&'a CertificateCache>,
    /// Seconds.
    now: u64,
}

// === impl ForConnection ===

impl<'a> ForConnection<'a> {
    /// With or without a cache.
    pub fn new(cache: Option<&'a CertificateCache>) -> Self {
        ForConnection { cache, now: clock::now() / 1000 }
    }
}

impl Objects for ForConnection<'_> {
    const CALLS: &'static str = "SSL";

    fn chain(&self, name: &str, anew: bool) -> Result<Arc<Chain>, Error> {
        let load = || Chain::load(name).map(Arc::new);
        let Some(cache) = self.cache else { return load() };
        let load_object = || load().map(|chain| (Object::Chain(chain), true));
        match cache.fetch(Kind::Chain, name, anew, self.now, load_object)? {
            Object::Chain(chain) => Ok(chain),
            // Not reached: the kind is part of what it is looked up by.
            Object::Key(_) => load(),
        }
    }

    fn key(&self, name: &str, passwords: &[Vec<u8>], anew: bool) -> Result<Arc<Key>, Error> {
        let load = || Key::load(name, passwords).map(Arc::new);
        let Some(cache) = self.cache else { return load() };
        let load_object = || {
            load().map(|key| {
                let lasting = !key.encrypted;
                (Object::Key(key), lasting)
            })
        };
        match cache.fetch(Kind::Key, name, anew, self.now, load_object)? {
            Object::Key(key) => Ok(key),
            // Not reached: the kind is part of what it is looked up by.
            Object::Chain(_) => load(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    fn fixture(name: &str) -> String {
        format!("{}/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR"))
    }

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("nxr-cache-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        /// Replaces a pair of files, by rename.
        fn put(&self, to: &str, from: &str) {
            for kind in ["crt", "key"] {
                let new = self.0.join("new");
                std::fs::copy(fixture(&format!("{from}.{kind}")), &new).unwrap();
                std::fs::rename(new, self.path(to, kind)).unwrap();
            }
        }

        fn remove(&self, name: &str) {
            for kind in ["crt", "key"] {
                std::fs::remove_file(self.path(name, kind)).unwrap();
            }
        }

        fn path(&self, name: &str, kind: &str) -> PathBuf {
            Path::new(&self.0).join(format!("{name}.{kind}"))
        }

        fn get(&self, cache: &CertificateCache, name: &str, now: u64) -> Result<Vec<u8>, Error> {
            let (cert, key) = (self.path(name, "crt"), self.path(name, "key"));
            let objects = ForConnection { cache: Some(cache), now };
            let pair = objects.certified_key(cert.to_str().unwrap(), key.to_str().unwrap(), &[]);
            pair.map(|pair| pair.cert[0].to_vec())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn objects_are_valid_for_a_time_then_compared_with_their_files() {
        let folder = Folder::new("valid");
        let cache = CertificateCache::new(4, 60, 600);
        folder.put("a", "ecdsa");
        let first = folder.get(&cache, "a", 1000).unwrap();
        folder.put("a", "rsa");
        assert_eq!(folder.get(&cache, "a", 1060).unwrap(), first);
        let second = folder.get(&cache, "a", 1061).unwrap();
        assert_ne!(second, first);
        // Unchanged: valid for another while.
        assert_eq!(folder.get(&cache, "a", 1200).unwrap(), second);
        folder.remove("a");
        assert_eq!(folder.get(&cache, "a", 1260).unwrap(), second);
        folder.get(&cache, "a", 1261).unwrap_err();
        assert_eq!(
            cache.with(|state| state.nodes.len()),
            1,
            "the certificate went, its key was not asked for"
        );
    }

    #[test]
    fn the_object_not_used_for_longest_makes_room() {
        let folder = Folder::new("room");
        let cache = CertificateCache::new(4, 60, 600);
        for (name, from) in [("a", "ecdsa"), ("b", "rsa"), ("c", "ecdsa")] {
            folder.put(name, from);
        }
        folder.get(&cache, "a", 1).unwrap();
        folder.get(&cache, "b", 1).unwrap();
        folder.get(&cache, "a", 2).unwrap();
        folder.get(&cache, "c", 3).unwrap();
        ["a", "b", "c"].iter().for_each(|name| folder.remove(name));
        folder.get(&cache, "b", 4).unwrap_err();
        folder.get(&cache, "a", 4).unwrap();
        folder.get(&cache, "c", 4).unwrap();
        let state = cache.state.lock().unwrap();
        assert_eq!((state.nodes.len(), state.used.len()), (4, 4));
    }

    #[test]
    fn what_nobody_asks_for_goes_when_something_comes() {
        let folder = Folder::new("inactive");
        let cache = CertificateCache::new(8, 1000, 10);
        folder.put("a", "ecdsa");
        folder.put("b", "rsa");
        folder.get(&cache, "a", 1).unwrap();
        folder.remove("a");
        folder.get(&cache, "a", 11).unwrap();
        folder.get(&cache, "b", 22).unwrap();
        folder.get(&cache, "a", 22).unwrap_err();
    }

    #[test]
    fn encrypted_keys_are_not_kept() {
        let cache = CertificateCache::new(8, 1000, 10);
        let objects = ForConnection { cache: Some(&cache), now: 1 };
        let (cert, key) = (fixture("ecdsa.crt"), fixture("ecdsa-enc.key"));
        objects.certified_key(&cert, &key, &[b"nxr".to_vec()]).unwrap();
        objects.certified_key(&cert, &key, &[]).unwrap_err();
        assert_eq!(cache.with(|state| state.nodes.len()), 1);
    }

    #[test]
    fn complaints_are_about_a_connection() {
        let e = ForConnection::new(None)
            .certified_key(&fixture("ecdsa.crt"), &fixture("other.key"), &[])
            .unwrap_err()
            .to_string();
        assert!(e.starts_with("SSL_use_PrivateKey(\"") && e.ends_with("key values mismatch)"), "{e}");
    }
}
