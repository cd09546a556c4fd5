//! Keys that are names of hosts or any text: exact, or with wildcards for hosts. Letters' case does not matter.

use super::texts::{Inserted, Texts, TooLarge};

/// `map_hash_max_size`, `map_hash_bucket_size` and their like. nxr's tables grow by themselves; the sizes only decide whether
/// nginx would have refused the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashSize {
    /// Buckets at most.
    pub max: usize,
    /// Bytes of a bucket.
    pub bucket: usize,
}

/// Bytes of a processor's cache line, as nginx takes them.
const CACHE_LINE: usize = 64;

impl Default for HashSize {
    fn default() -> Self {
        HashSize { max: 2048, bucket: CACHE_LINE }
    }
}

/// A table from keys to values.
#[derive(Clone, Debug)]
pub struct Keys<V> {
    exact: Texts,
    exact_values: Vec<V>,
    /// `example.com` of `*.example.com` and `.example.com`; the latter also matches the name itself.
    heads: Texts,
    head_values: Vec<(V, bool)>,
    /// `www.example` of `www.example.*`
    tails: Texts,
    tail_values: Vec<V>,
}

impl<V> Default for Keys<V> {
    fn default() -> Self {
        Keys {
            exact: Texts::default(),
            exact_values: Vec::new(),
            heads: Texts::default(),
            head_values: Vec::new(),
            tails: Texts::default(),
            tail_values: Vec::new(),
        }
    }
}

/// Why a key was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdded {
    /// It is there already, perhaps in another form.
    Conflict,
    /// Its wildcard is none.
    Invalid,
    /// There are too many bytes.
    TooLarge,
}

impl From<TooLarge> for NotAdded {
    fn from(_: TooLarge) -> Self {
        NotAdded::TooLarge
    }
}

fn insert<V>(texts: &mut Texts, values: &mut Vec<V>, key: &[u8], value: V) -> Result<(), NotAdded> {
    match texts.insert(key)? {
        Inserted::Old(_) => Err(NotAdded::Conflict),
        Inserted::New(_) => {
            values.push(value);
            Ok(())
        }
    }
}

impl<V: Copy> Keys<V> {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.heads.is_empty() && self.tails.is_empty()
    }

    /// Adds a key; with `wildcards`, `*.example.com`, `.example.com` and `www.example.*` are patterns.
    pub fn add(&mut self, key: &[u8], value: V, wildcards: bool) -> Result<(), NotAdded> {
        let mut lower = [0; 256];
        let long;
        let key = match lower.get_mut(..key.len()) {
            Some(lower) => {
                lower.copy_from_slice(key);
                lower.make_ascii_lowercase();
                &*lower
            }
            None => {
                long = key.to_ascii_lowercase();
                &long
            }
        };
        if !wildcards {
            return insert(&mut self.exact, &mut self.exact_values, key, value);
        }
        let stars = memchr::memchr_iter(b'*', key).count();
        if stars > 1 || memchr::memmem::find(key, b"..").is_some() || memchr::memchr(0, key).is_some() {
            return Err(NotAdded::Invalid);
        }
        match key {
            [b'.', name @ ..] if !name.is_empty() => {
                if self.exact.find(name).is_some() {
                    return Err(NotAdded::Conflict);
                }
                insert(&mut self.heads, &mut self.head_values, name, (value, true))
            }
            [b'*', b'.', name @ ..] if !name.is_empty() => {
                insert(&mut self.heads, &mut self.head_values, name, (value, false))
            }
            [name @ .., b'.', b'*'] if !name.is_empty() => {
                insert(&mut self.tails, &mut self.tail_values, name, value)
            }
            _ if stars > 0 => Err(NotAdded::Invalid),
            _ if self.heads.find(key).is_some_and(|id| self.head_values[id as usize].1) => {
                Err(NotAdded::Conflict)
            }
            _ => insert(&mut self.exact, &mut self.exact_values, key, value),
        }
    }

    /// Gives back spare memory, once all keys are added.
    pub fn shrink(&mut self) {
        for texts in [&mut self.exact, &mut self.heads, &mut self.tails] {
            texts.shrink();
        }
        self.exact_values.shrink_to_fit();
    }

    /// nginx's refusal of keys that its hash table, called `name`, has no room for.
    pub fn check_sizes(&self, name: &str, size: HashSize) -> Result<(), String> {
        let refused = |what: &str, n: usize| {
            Err(format!("could not build {name}, you should increase {name}_{what}: {n}"))
        };
        let bucket = size.bucket.next_multiple_of(CACHE_LINE);
        let whole = (0..self.exact.len() as u32).map(|i| self.exact.get(i));
        let parts = [&self.heads, &self.tails];
        let labels = parts.iter().flat_map(|t| (0..t.len() as u32).map(|i| t.get(i)));
        let labels = labels.flat_map(|name| name.split(|c| *c == b'.'));
        for key in whole.chain(labels) {
            if size.max == 0 {
                return refused("max_size", size.max);
            }
            if bucket > 65536 - CACHE_LINE {
                return Err(format!("could not build {name}, too large {name}_bucket_size: {bucket}"));
            }
            // A pointer, the length and the key, aligned, and a pointer that ends the bucket.
            if bucket < 8 + (key.len() + 2).next_multiple_of(8) + 8 {
                return refused("bucket_size", bucket);
            }
        }
        Ok(())
    }

    /// The value of `key`: exact, then of the longest wildcard at its beginning, then at its end.
    pub fn find(&self, key: &[u8]) -> Option<V> {
        if let Some(id) = self.exact.find_caseless(key) {
            return Some(self.exact_values[id as usize]);
        }
        if key.is_empty() {
            return None;
        }
        self.find_head(key).or_else(|| self.find_tail(key))
    }

    fn find_head(&self, key: &[u8]) -> Option<V> {
        if self.heads.is_empty() {
            return None;
        }
        if let Some(id) = self.heads.find_caseless(key)
            && let (value, true) = self.head_values[id as usize]
        {
            return Some(value);
        }
        memchr::memchr_iter(b'.', key)
            .find_map(|dot| self.heads.find_caseless(&key[dot + 1..]))
            .map(|id| self.head_values[id as usize].0)
    }

    fn find_tail(&self, key: &[u8]) -> Option<V> {
        if self.tails.is_empty() {
            return None;
        }
        memchr::memrchr_iter(b'.', key)
            .find_map(|dot| self.tails.find_caseless(&key[..dot]))
            .map(|id| self.tail_values[id as usize])
    }
}
