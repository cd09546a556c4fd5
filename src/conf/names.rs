//! `server_name`, and finding the server of a name: exact, then the longest wildcard, then regular expressions.

use std::collections::{HashMap, HashSet};

use super::{Build, Fault, Outcome};
use crate::syntax::Directive;
use crate::value::{Regex, Scope};

/// One name of a server.
#[derive(Debug)]
pub struct ServerName {
    /// As written, lower-case unless a regular expression.
    text: Vec<u8>,
    /// Without `~`.
    regex: Option<Regex>,
}

impl ServerName {
    /// The name of a server that has none.
    pub fn empty() -> ServerName {
        ServerName { text: Vec::new(), regex: None }
    }

    /// A name that needs no checks.
    #[cfg(test)]
    pub fn plain(text: &str) -> ServerName {
        ServerName { text: text.into(), regex: None }
    }

    /// Reads one word of `server_name`; `compile` makes a regular expression (pattern, caseless).
    pub fn parse(
        cf: &mut Build,
        d: &Directive<'_>,
        word: &[u8],
        compile: impl FnOnce(&mut Build, &[u8], bool) -> Outcome<Regex>,
    ) -> Outcome<ServerName> {
        let shown = || String::from_utf8_lossy(word);
        let valid = match word {
            [b'*', rest @ ..] => rest.len() >= 2 && rest[0] == b'.',
            word => word != b".",
        };
        if !valid {
            return Err(Fault::here(format!("server name \"{}\" is invalid", shown())));
        }
        if memchr::memchr(b'/', word).is_some() {
            cf.warn(d.at(), format!("server name \"{}\" has suspicious symbols", shown()));
        }
        if let Some(pattern) = word.strip_prefix(b"~") {
            if pattern.is_empty() {
                return Err(Fault::here(format!("empty regex in server name \"{}\"", shown())));
            }
            // Hosts are lower-case, which only matters to patterns that have upper-case letters.
            let caseless = pattern.iter().any(u8::is_ascii_uppercase);
            let regex = compile(cf, pattern, caseless)?;
            return Ok(ServerName { text: word.to_vec(), regex: Some(regex) });
        }
        let is_hostname = word.eq_ignore_ascii_case(b"$hostname");
        let text = if is_hostname { hostname() } else { word.to_ascii_lowercase() };
        Ok(ServerName { text, regex: None })
    }

    /// The regular expression it is, if it is one.
    pub fn regex(&self) -> Option<&Regex> {
        self.regex.as_ref()
    }

    /// Whether it is a regular expression.
    pub fn is_regex(&self) -> bool {
        self.regex.is_some()
    }

    /// Whether it is a regular expression with groups, which a request captures from its host.
    pub fn captures(&self) -> bool {
        self.regex.as_ref().is_some_and(|regex| regex.groups() > 0)
    }

    /// As `$server_name` and the log show it.
    pub fn shown(&self) -> &[u8] {
        match &self.regex {
            None => self.text.strip_prefix(b".").unwrap_or(&self.text),
            Some(_) => &self.text,
        }
    }

    /// As written.
    pub fn text(&self) -> &[u8] {
        &self.text
    }
}

fn hostname() -> Vec<u8> {
    let name = nix::unistd::gethostname().unwrap_or_default();
    name.to_string_lossy().to_ascii_lowercase().into_bytes()
}

/// Name to server (an index) for one listening address.
#[derive(Debug, Default)]
pub struct Names {
    exact: HashMap<Box<[u8]>, usize>,
    /// `*.example.com` as `.example.com`.
    heads: HashMap<Box<[u8]>, usize>,
    /// `www.example.*` as `www.example.`.
    tails: HashMap<Box<[u8]>, usize>,
    /// Server and index of the name in it.
    regexes: Vec<(usize, usize)>,
    /// Names that count as taken but lead nowhere: `example.com` of a `.example.com` that came second.
    taken: HashSet<Box<[u8]>>,
}

/// Why a name was not taken.
#[derive(Debug, PartialEq, Eq)]
pub enum NotAdded {
    /// The address has it already.
    Conflict,
    /// A wildcard in the middle, or alone, or an empty label.
    Invalid,
}

impl Names {
    /// Adds name number `index` of `server`.
    pub fn add(&mut self, name: &ServerName, server: usize, index: usize) -> Result<(), NotAdded> {
        if name.regex.is_some() {
            self.regexes.push((server, index));
            return Ok(());
        }
        let text = &name.text[..];
        let stars = text.iter().filter(|byte| **byte == b'*').count();
        if stars > 1 || text.contains(&0) || memchr::memmem::find(text, b"..").is_some() {
            return Err(NotAdded::Invalid);
        }
        match text {
            [b'.', rest @ ..] if !rest.is_empty() => {
                if self.has_exact(rest) {
                    return Err(NotAdded::Conflict);
                }
                if put(&mut self.heads, text, server).is_err() {
                    self.taken.insert(rest.into());
                    return Err(NotAdded::Conflict);
                }
                put(&mut self.exact, rest, server)
            }
            [b'*', b'.', _, ..] => put(&mut self.heads, &text[1..], server),
            [_, .., b'.', b'*'] => put(&mut self.tails, &text[..text.len() - 1], server),
            _ if stars > 0 => Err(NotAdded::Invalid),
            _ if self.has_exact(text) => Err(NotAdded::Conflict),
            _ => put(&mut self.exact, text, server),
        }
    }

    fn has_exact(&self, name: &[u8]) -> bool {
        self.exact.contains_key(name) || self.taken.contains(name)
    }

    /// Whether any name needs looking up at all.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.heads.is_empty() && self.tails.is_empty() && self.regexes.is_empty()
    }

    /// Whether regular expressions must be tried, which set captures of each request.
    pub fn has_regexes(&self) -> bool {
        !self.regexes.is_empty()
    }

    /// The server of `host` (lower-case, without port); `name` gives a server's names for the regular expressions,
    /// whose captures stay in `scope`.
    pub fn find<'a>(
        &self,
        host: &[u8],
        scope: &Scope,
        names: impl Fn(usize) -> &'a [ServerName],
    ) -> Option<usize> {
        if let Some(server) = self.exact.get(host) {
            return Some(*server);
        }
        if !self.heads.is_empty() {
            // The longest suffix wins: begin with the leftmost dot.
            for (at, _) in host.iter().enumerate().filter(|(at, c)| **c == b'.' && *at > 0) {
                if let Some(server) = self.heads.get(&host[at..]) {
                    return Some(*server);
                }
            }
        }
        if !self.tails.is_empty() {
            for (at, _) in host.iter().enumerate().rev().filter(|(_, c)| **c == b'.') {
                if at + 1 < host.len()
                    && let Some(server) = self.tails.get(&host[..=at])
                {
                    return Some(*server);
                }
            }
        }
        self.regexes.iter().find_map(|&(server, index)| {
            let regex = names(server).get(index)?.regex.as_ref()?;
            regex.exec(scope, host).then_some(server)
        })
    }
}

fn put(map: &mut HashMap<Box<[u8]>, usize>, name: &[u8], server: usize) -> Result<(), NotAdded> {
    match map.entry(name.into()) {
        std::collections::hash_map::Entry::Occupied(_) => Err(NotAdded::Conflict),
        std::collections::hash_map::Entry::Vacant(free) => {
            free.insert(server);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ServerName {
        ServerName { text: text.into(), regex: None }
    }

    #[test]
    fn exact_then_longest_wildcard() {
        let mut n = Names::default();
        for (i, t) in ["*.example.com", "www.example.com", "*.a.example.com", "www.example.*", ".org.test"]
            .into_iter()
            .enumerate()
        {
            n.add(&name(t), i, 0).unwrap();
        }
        let find = |n: &Names, host: &str| n.find(host.as_bytes(), &Scope::default(), |_| &[]);
        assert_eq!(find(&n, "www.example.com"), Some(1));
        assert_eq!(find(&n, "x.example.com"), Some(0));
        assert_eq!(find(&n, "x.a.example.com"), Some(2));
        assert_eq!(find(&n, "www.example.net"), Some(3));
        assert_eq!(find(&n, "org.test"), Some(4));
        assert_eq!(find(&n, "a.b.org.test"), Some(4));
        assert_eq!(find(&n, "example.com"), None);
        assert_eq!(n.add(&name("www.example.com"), 9, 0), Err(NotAdded::Conflict));
        for invalid in ["www.*.com", "a..b", "*.a.*", "a*"] {
            assert_eq!(n.add(&name(invalid), 9, 0), Err(NotAdded::Invalid), "{invalid}");
        }
        assert_eq!(n.add(&name(".example.com"), 9, 0), Err(NotAdded::Conflict));
        assert_eq!(find(&n, "example.com"), None);
        assert_eq!(n.add(&name("example.com"), 9, 0), Err(NotAdded::Conflict));
    }
}
