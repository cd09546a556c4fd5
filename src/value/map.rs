//! `map`: from one value to another, by exact key, hostname wildcard or regular expression. Used by http and stream.

use std::cell::Cell;
use std::collections::HashMap;

use super::entries::{entries, variable_name};
use super::texts::{Inserted, Texts, TooLarge};
use super::{Context, Get, Regex, Template, VariablesBuilder};
use crate::conf::{Build, Fault, Outcome};
use crate::syntax::Directive;

/// Where a [`Build`] keeps the variables of http or stream.
pub type VariablesOf<C> = fn(&mut Build) -> &mut VariablesBuilder<C>;

/// `map_hash_max_size` and `map_hash_bucket_size`. nxr's tables grow by themselves; the sizes only decide whether
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

/// Number of a value.
type ValueId = u32;

/// A `map` block ready to be looked at.
#[derive(Debug, Default)]
pub struct Map {
    exact: Texts,
    exact_values: Vec<ValueId>,
    /// `example.com` of `*.example.com` and `.example.com`; the latter also matches the name itself.
    heads: Texts,
    head_values: Vec<(ValueId, bool)>,
    /// `www.example` of `www.example.*`
    tails: Texts,
    tail_values: Vec<ValueId>,
    regexes: Vec<(Regex, ValueId)>,
    values: Texts,
    /// Values that have variables in them.
    templates: HashMap<ValueId, Template>,
    default: Option<ValueId>,
    hostnames: bool,
    volatile: bool,
}

/// Why a key was not taken.
#[derive(Debug, PartialEq, Eq)]
enum NotAdded {
    Conflict,
    Invalid,
    TooLarge,
}

impl From<TooLarge> for NotAdded {
    fn from(_: TooLarge) -> Self {
        NotAdded::TooLarge
    }
}

impl Map {
    /// Reads one entry.
    pub fn entry<C: Context>(&mut self, d: &Directive<'_>, vars: &mut VariablesBuilder<C>) -> Outcome {
        match (d.len(), d.name()) {
            (1, b"hostnames") => {
                self.hostnames = true;
                return Ok(());
            }
            (1, b"volatile") => {
                self.volatile = true;
                return Ok(());
            }
            (2, _) => {}
            _ => return Err(Fault::here("invalid number of the map parameters")),
        }
        let value = self.value(d.arg(1), vars)?;
        let key = d.name();
        if key == b"default" {
            if self.default.is_some() {
                return Err(Fault::here("duplicate default map parameter"));
            }
            self.default = Some(value);
            return Ok(());
        }
        if let Some(pattern) = key.strip_prefix(b"~") {
            let (pattern, caseless) = match pattern.strip_prefix(b"*") {
                Some(rest) => (rest, true),
                None => (pattern, false),
            };
            self.regexes.push((Regex::new(pattern, caseless, vars)?, value));
            return Ok(());
        }
        let key = key.strip_prefix(b"\\").unwrap_or(key);
        self.key(key, value).map_err(|error| match error {
            NotAdded::Conflict => {
                let shown = key.to_ascii_lowercase();
                Fault::here(format!("conflicting parameter \"{}\"", String::from_utf8_lossy(&shown)))
            }
            NotAdded::Invalid => {
                Fault::here(format!("invalid hostname or wildcard \"{}\"", String::from_utf8_lossy(key)))
            }
            NotAdded::TooLarge => Fault::here("too many bytes in one map"),
        })
    }

    fn value<C: Context>(&mut self, text: &[u8], vars: &mut VariablesBuilder<C>) -> Outcome<ValueId> {
        match self.values.insert(text).map_err(|_| Fault::here("too many bytes in one map"))? {
            Inserted::Old(id) => Ok(id),
            Inserted::New(id) => {
                if memchr::memchr(b'$', text).is_some() {
                    self.templates.insert(id, Template::parse(text, vars)?);
                }
                Ok(id)
            }
        }
    }

    fn key(&mut self, key: &[u8], value: ValueId) -> Result<(), NotAdded> {
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
        if self.hostnames {
            let stars = memchr::memchr_iter(b'*', key).count();
            if stars > 1 || memchr::memmem::find(key, b"..").is_some() || memchr::memchr(0, key).is_some() {
                return Err(NotAdded::Invalid);
            }
            match key {
                [b'.', name @ ..] if !name.is_empty() => return self.head(name, value, true),
                [b'*', b'.', name @ ..] if !name.is_empty() => return self.head(name, value, false),
                [name @ .., b'.', b'*'] if !name.is_empty() => {
                    return match self.tails.insert(name)? {
                        Inserted::Old(_) => Err(NotAdded::Conflict),
                        Inserted::New(_) => {
                            self.tail_values.push(value);
                            Ok(())
                        }
                    };
                }
                _ if stars > 0 => return Err(NotAdded::Invalid),
                _ => {}
            }
            if self.heads.find(key).is_some_and(|id| self.head_values[id as usize].1) {
                return Err(NotAdded::Conflict);
            }
        }
        match self.exact.insert(key)? {
            Inserted::Old(_) => Err(NotAdded::Conflict),
            Inserted::New(_) => {
                self.exact_values.push(value);
                Ok(())
            }
        }
    }

    fn head(&mut self, name: &[u8], value: ValueId, itself: bool) -> Result<(), NotAdded> {
        if itself && self.exact.find(name).is_some() {
            return Err(NotAdded::Conflict);
        }
        match self.heads.insert(name)? {
            Inserted::Old(_) => Err(NotAdded::Conflict),
            Inserted::New(_) => {
                self.head_values.push((value, itself));
                Ok(())
            }
        }
    }

    /// Gives back spare memory, once all entries are read.
    fn close(&mut self) {
        for texts in [&mut self.exact, &mut self.heads, &mut self.tails, &mut self.values] {
            texts.shrink();
        }
        self.exact_values.shrink_to_fit();
    }

    /// nginx's refusal of keys that its hash table has no room for.
    fn check_sizes(&self, size: HashSize) -> Result<(), String> {
        let refused = |what: &str, n: usize| {
            Err(format!("could not build map_hash, you should increase map_hash_{what}: {n}"))
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
                return Err(format!("could not build map_hash, too large map_hash_bucket_size: {bucket}"));
            }
            // A pointer, the length and the key, aligned, and a pointer that ends the bucket.
            if bucket < 8 + (key.len() + 2).next_multiple_of(8) + 8 {
                return refused("bucket_size", bucket);
            }
        }
        Ok(())
    }

    /// The value of `key`: exact, the longest wildcard, then regular expressions in order, then the default.
    /// The captures of a regular expression are left in the context.
    fn find<C: Context>(&self, ctx: &C, key: &[u8]) -> Option<ValueId> {
        if let Some(id) = self.exact.find_caseless(key) {
            return Some(self.exact_values[id as usize]);
        }
        if key.is_empty() {
            return self.default;
        }
        self.find_head(key)
            .or_else(|| self.find_tail(key))
            .or_else(|| {
                let hit = self.regexes.iter().find(|(regex, _)| regex.exec(ctx.scope(), key));
                hit.map(|(_, value)| *value)
            })
            .or(self.default)
    }

    fn find_head(&self, key: &[u8]) -> Option<ValueId> {
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

    fn find_tail(&self, key: &[u8]) -> Option<ValueId> {
        if self.tails.is_empty() {
            return None;
        }
        memchr::memrchr_iter(b'.', key)
            .find_map(|dot| self.tails.find_caseless(&key[..dot]))
            .map(|id| self.tail_values[id as usize])
    }

    /// Appends the value that `source` leads to. Without a default that is nothing.
    pub fn append<C: Context>(&self, source: &Template, ctx: &C, out: &mut Vec<u8>) {
        thread_local! {
            /// Kept from one look to the next; a map within a map finds it taken and makes its own.
            static KEY: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
        }
        let mut key = KEY.take();
        key.clear();
        source.append(ctx, &mut key);
        let mut text = &key[..];
        if self.hostnames {
            text = text.strip_suffix(b".").unwrap_or(text);
        }
        let value = self.find(ctx, text);
        KEY.set(key);
        if let Some(value) = value {
            match self.templates.get(&value) {
                Some(template) => template.append(ctx, out),
                None => out.extend_from_slice(self.values.get(value)),
            }
        }
    }
}

/// `map SOURCE $variable { ... }`
pub fn map_block<C: Context>(
    cf: &mut Build,
    d: &Directive<'_>,
    vars: VariablesOf<C>,
    size: HashSize,
) -> Outcome {
    let source = Template::parse(d.arg(1), vars(cf))?;
    let name = variable_name(d.arg(2))?;
    // A name that may not be defined is refused before the entries are.
    vars(cf).define(name, Get::Slot, false)?;
    let mut map = Map::default();
    if let Some(items) = d.block() {
        entries(items, &mut |entry| map.entry(entry, vars(cf)))?;
    }
    map.check_sizes(size).map_err(Fault::Whole)?;
    map.close();
    let cached = !map.volatile;
    let get = Get::Computed(Box::new(move |ctx: &C, out: &mut Vec<u8>| {
        map.append(&source, ctx, out);
        true
    }));
    vars(cf).define(name, get, cached)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Ctx, builder, ctx, read};
    use super::*;

    fn map(text: &str) -> Result<(Map, Ctx), String> {
        let mut vars = builder();
        let mut map = Map::default();
        read(text, &mut |d| map.entry(d, &mut vars))?;
        map.check_sizes(HashSize::default())?;
        map.close();
        Ok((map, ctx(vars)))
    }

    fn get(text: &str, key: &str) -> String {
        let (map, ctx) = map(text).unwrap();
        let mut out = Vec::new();
        map.append(&Template::constant(key.as_bytes().to_vec()), &ctx, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn keys_are_caseless_and_escaped() {
        let text = "default d; Abc 1; \\default 2; '' 3; \\\\\\\\x 4; \\hostnames 5;";
        assert_eq!(
            ["aBC", "default", "", "\\x", "hostnames", "q"].map(|k| get(text, k)),
            ["1", "2", "3", "4", "5", "d"]
        );
        assert_eq!(get("a b;", "c"), "");
        assert_eq!(get("a.b c;", "a.b."), "");
    }

    #[test]
    fn wildcards_of_hostnames() {
        let text = "hostnames; default d; *.example.com 1; .example.org 2; www.* 3; www.example.* 4; *.a.example.com 5;
                    example.com 6;";
        let cases = [
            ("x.example.com", "1"),
            ("example.com.", "6"),
            ("EXAMPLE.org", "2"),
            ("a.b.example.org", "2"),
            ("www.example", "3"),
            ("www.example.net", "4"),
            ("q.a.example.com", "5"),
            ("a.example.com", "1"),
            (".example.com", "1"),
            ("other", "d"),
        ];
        for (key, value) in cases {
            assert_eq!(get(text, key), value, "{key}");
        }
    }

    #[test]
    fn regular_expressions_in_order_with_captures() {
        let text = "~^/(?<rest>a.*) <$rest>; ~*^/B(.) $1; ~b no; default $test;";
        assert_eq!(get(text, "/abc"), "<abc>");
        assert_eq!(get(text, "/bx"), "x");
        assert_eq!(get(text, "/Ab"), "no");
        assert_eq!(get(text, "/"), "test value");
    }

    #[test]
    fn a_map_of_itself_ends() {
        let mut vars = builder();
        let mut map = Map::default();
        read("default x$self;", &mut |d| map.entry(d, &mut vars)).unwrap();
        let source = Template::parse(b"$self", &mut vars).unwrap();
        let get = Get::Computed(Box::new(move |ctx: &Ctx, out: &mut Vec<u8>| {
            map.append(&source, ctx, out);
            true
        }));
        let id = vars.define(b"self", get, true).unwrap();
        let mut out = Vec::new();
        assert!(super::super::variable(&ctx(vars), id, &mut out));
        assert!(out.starts_with(b"x"));
    }

    #[test]
    fn nginx_words_for_faults() {
        let fault = |text: &str| map(text).err().unwrap();
        assert_eq!(fault("a 1; A 2;"), "conflicting parameter \"a\" in test:1");
        assert_eq!(fault("hostnames; .a 1;\n a 2;"), "conflicting parameter \"a\" in test:2");
        assert_eq!(fault("hostnames; a 2; .A 1;"), "conflicting parameter \".a\" in test:1");
        assert_eq!(fault("hostnames; *.a 2; .a 1;"), "conflicting parameter \".a\" in test:1");
        assert_eq!(fault("hostnames; a.*.B 2;"), "invalid hostname or wildcard \"a.*.B\" in test:1");
        assert_eq!(fault("hostnames; a..b 2;"), "invalid hostname or wildcard \"a..b\" in test:1");
        assert_eq!(fault("default 1; default 1;"), "duplicate default map parameter in test:1");
        assert_eq!(fault("a b c;"), "invalid number of the map parameters in test:1");
        assert_eq!(fault("a;"), "invalid number of the map parameters in test:1");
        assert_eq!(fault("a { }"), "unexpected \"{\" in test:1");
        assert_eq!(
            fault(&format!("{} 1;", "k".repeat(47))),
            "could not build map_hash, you should increase map_hash_bucket_size: 64"
        );
        assert!(map(&format!("{} 1;", "k".repeat(46))).is_ok());
    }
}
