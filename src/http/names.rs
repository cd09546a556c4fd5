//! `server_name`, and finding the server of a name: exact, then the longest wildcard, then regular expressions.

use std::collections::HashMap;

use crate::conf::{Build, Fault, Outcome};
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

    /// Reads one word of `server_name`.
    pub fn parse(cf: &mut Build, d: &Directive<'_>, word: &[u8]) -> Outcome<ServerName> {
        let shown = || String::from_utf8_lossy(word);
        if word.first() == Some(&b'~') {
            if word.len() == 1 {
                return Err(Fault::here(format!("empty regex in server name \"{}\"", shown())));
            }
            let regex = cf.http.regex(&word[1..], true)?;
            return Ok(ServerName { text: word.to_vec(), regex: Some(regex) });
        }
        let invalid = || Fault::here(format!("server name \"{}\" is invalid", shown()));
        if word.starts_with(b".") && word.len() < 2 {
            return Err(invalid());
        }
        if memchr::memchr(b'/', word).is_some() {
            cf.warn(d.at(), format!("server name \"{}\" has suspicious symbols", shown()));
        }
        let text = if word == b"$hostname" { hostname() } else { word.to_ascii_lowercase() };
        Ok(ServerName { text, regex: None })
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
}

/// Why a name was not taken.
#[derive(Debug, PartialEq, Eq)]
pub enum NotAdded {
    /// The address has it already.
    Conflict,
    /// A wildcard in the middle, or alone.
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
        if let Some(rest) = text.strip_prefix(b"*") {
            return match rest {
                [b'.', tail @ ..] if !tail.is_empty() && !tail.contains(&b'*') => {
                    put(&mut self.heads, rest, server)
                }
                _ => Err(NotAdded::Invalid),
            };
        }
        if text.starts_with(b".") {
            if text.contains(&b'*') {
                return Err(NotAdded::Invalid);
            }
            // ".example.com" is the name itself and everything below it.
            let below = put(&mut self.heads, text, server);
            return put(&mut self.exact, &text[1..], server).and(below);
        }
        if let Some(rest) = text.strip_suffix(b"*") {
            return match rest {
                [head @ .., b'.'] if !head.is_empty() && !head.contains(&b'*') => {
                    put(&mut self.tails, rest, server)
                }
                _ => Err(NotAdded::Invalid),
            };
        }
        if text.contains(&b'*') {
            return Err(NotAdded::Invalid);
        }
        put(&mut self.exact, text, server)
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
        let find = |host: &str| n.find(host.as_bytes(), &Scope::default(), |_| &[]);
        assert_eq!(find("www.example.com"), Some(1));
        assert_eq!(find("x.example.com"), Some(0));
        assert_eq!(find("x.a.example.com"), Some(2));
        assert_eq!(find("www.example.net"), Some(3));
        assert_eq!(find("org.test"), Some(4));
        assert_eq!(find("a.b.org.test"), Some(4));
        assert_eq!(find("example.com"), None);
        assert_eq!(n.add(&name("www.example.com"), 9, 0), Err(NotAdded::Conflict));
        assert_eq!(n.add(&name("www.*.com"), 9, 0), Err(NotAdded::Invalid));
    }
}
