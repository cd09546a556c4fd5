//! `map`: from one value to another, by exact key, hostname wildcard or regular expression. Used by http and stream.

use std::cell::Cell;
use std::collections::HashMap;

use super::entries::{entries, variable_name};
pub use super::keys::HashSize;
use super::keys::{Keys, NotAdded};
use super::texts::{Inserted, Texts};
use super::{Context, Get, Regex, Template, VariablesBuilder};
use crate::conf::{Build, Fault, Outcome};
use crate::syntax::Directive;

/// Where a [`Build`] keeps the variables of http or stream.
pub type VariablesOf<C> = fn(&mut Build) -> &mut VariablesBuilder<C>;

/// Number of a value.
type ValueId = u32;

/// A `map` block ready to be looked at.
#[derive(Debug, Default)]
pub struct Map {
    keys: Keys<ValueId>,
    regexes: Vec<(Regex, ValueId)>,
    values: Texts,
    /// Values that have variables in them.
    templates: HashMap<ValueId, Template>,
    default: Option<ValueId>,
    hostnames: bool,
    volatile: bool,
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
        self.keys.add(key, value, self.hostnames).map_err(|error| match error {
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

    /// Gives back spare memory, once all entries are read.
    fn close(&mut self) {
        self.keys.shrink();
        self.values.shrink();
    }

    /// The value of `key`: exact, the longest wildcard, then regular expressions in order, then the default.
    /// The captures of a regular expression are left in the context.
    fn find<C: Context>(&self, ctx: &C, key: &[u8]) -> Option<ValueId> {
        let by_regex = || {
            let mut regexes = self.regexes.iter().filter(|_| !key.is_empty());
            regexes.find(|(regex, _)| regex.exec(ctx.scope(), key)).map(|(_, value)| *value)
        };
        self.keys.find(key).or_else(by_regex).or(self.default)
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
    map.keys.check_sizes("map_hash", size).map_err(Fault::Whole)?;
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
        map.keys.check_sizes("map_hash", HashSize::default())?;
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
