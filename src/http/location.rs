//! Locations, and how a URI finds its own: nginx's order of choice.

use std::cmp::Ordering;
use std::ops::Deref;

use super::conf::Loc;
use super::method::Method;
use super::module::Handlers;
use crate::log::ErrorLog;
use crate::value::{Regex, Scope};

/// What a location's name means.
#[derive(Debug)]
pub enum Kind {
    /// The server itself, outside of every location.
    Server,
    /// `= /uri`
    Exact,
    /// `/prefix`; `^~` forbids regular expressions after it.
    Prefix {
        /// `^~`
        noregex: bool,
    },
    /// `~` or `~*`
    Regex(Regex),
    /// `@name`
    Named,
    /// `if (...)` in a server or location.
    If,
    /// `limit_except`, with the methods it lets pass.
    LimitExcept(Vec<Method>),
}

/// A location with merged settings and all that is nested in it.
pub struct Location {
    /// As written, without modifier.
    pub name: Box<[u8]>,
    /// How it is chosen.
    pub kind: Kind,
    /// A URI that lacks the name's last slash is redirected to it.
    pub auto_redirect: bool,
    /// Settings; also reached through `Deref`.
    pub conf: Loc,
    /// Its error log: its own, or the one around it.
    pub error_log: ErrorLog,
    /// What runs for its requests.
    pub handlers: Handlers,
    /// Nested locations.
    pub children: Locations,
    /// The bodies of its `if` directives, in order.
    pub ifs: Vec<Location>,
    /// Its `limit_except` block.
    pub limit_except: Option<Box<Location>>,
}

impl Location {
    /// The error log of this location.
    pub fn error_log(&self) -> &ErrorLog {
        &self.error_log
    }
}

impl Deref for Location {
    type Target = Loc;
    fn deref(&self) -> &Loc {
        &self.conf
    }
}

struct Prefixed {
    location: Location,
    /// Index of the longest other prefix that this one begins with.
    parent: Option<usize>,
}

/// The locations of one block, ready to be searched.
#[derive(Default)]
pub struct Locations {
    exact: Vec<Location>,
    prefixes: Vec<Prefixed>,
    regexes: Vec<Location>,
    named: Vec<Location>,
    /// Whether any location redirects a URI that lacks its last slash.
    redirects: bool,
}

/// What [`Locations::find`] came to.
#[derive(Clone, Copy)]
pub enum Found<'a> {
    /// This location.
    Location(&'a Location),
    /// The URI lacks the slash that ends this location's name, which is proxied: redirect to it.
    Slash(&'a Location),
    /// No location: the server's own settings.
    Nothing,
}

/// How far a search in one block got.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Search {
    /// An exact match, a regular expression, or a redirect: final.
    Final,
    /// A prefix, which a regular expression further out may outdo.
    Prefix,
    /// Nothing here.
    Nothing,
}

impl Locations {
    /// Sorts locations as they were read.
    pub fn new(all: Vec<Location>) -> Locations {
        let mut this = Locations::default();
        let mut prefixes = Vec::new();
        for location in all {
            match location.kind {
                Kind::Exact => this.exact.push(location),
                Kind::Prefix { .. } => prefixes.push(location),
                Kind::Regex(_) => this.regexes.push(location),
                Kind::Named => this.named.push(location),
                _ => {}
            }
        }
        this.exact.sort_by(|a, b| a.name.cmp(&b.name));
        this.named.sort_by(|a, b| a.name.cmp(&b.name));
        prefixes.sort_by(|a, b| a.name.cmp(&b.name));
        this.redirects = this.exact.iter().chain(&prefixes).any(|l| l.auto_redirect);
        for location in prefixes {
            let mut parent = this.prefixes.len().checked_sub(1);
            while let Some(i) = parent {
                if location.name.starts_with(&this.prefixes[i].location.name) {
                    break;
                }
                parent = this.prefixes[i].parent;
            }
            this.prefixes.push(Prefixed { location, parent });
        }
        this
    }

    /// The location of a normalised URI. A regular expression that matches leaves its captures in `scope`.
    pub fn find(&self, uri: &[u8], scope: &Scope) -> Found<'_> {
        let mut found = Found::Nothing;
        self.search(uri, scope, &mut found);
        found
    }

    fn search<'a>(&'a self, uri: &[u8], scope: &Scope, found: &mut Found<'a>) -> Search {
        let (mut result, mut noregex) = (Search::Nothing, false);
        match self.find_static(uri) {
            Found::Location(l) => {
                *found = Found::Location(l);
                match l.kind {
                    Kind::Prefix { noregex: last } => {
                        noregex = last;
                        result = match l.children.search(uri, scope, found) {
                            Search::Nothing => Search::Prefix,
                            nested => nested,
                        };
                    }
                    _ => return Search::Final,
                }
            }
            Found::Slash(l) => {
                *found = Found::Slash(l);
                return Search::Final;
            }
            Found::Nothing => {}
        }
        if result == Search::Final || noregex {
            return result;
        }
        for location in &self.regexes {
            if let Kind::Regex(regex) = &location.kind
                && regex.exec(scope, uri)
            {
                *found = Found::Location(location);
                location.children.search(uri, scope, found);
                return Search::Final;
            }
        }
        result
    }

    fn find_static(&self, uri: &[u8]) -> Found<'_> {
        if let Ok(i) = self.exact.binary_search_by(|l| (*l.name).cmp(uri)) {
            return Found::Location(&self.exact[i]);
        }
        let after = self.prefixes.partition_point(|p| (*p.location.name).cmp(uri) != Ordering::Greater);
        let mut at = after.checked_sub(1);
        let mut best = Found::Nothing;
        while let Some(i) = at {
            let candidate = &self.prefixes[i];
            if uri.starts_with(&candidate.location.name) {
                best = Found::Location(&candidate.location);
                break;
            }
            at = candidate.parent;
        }
        if self.redirects
            && !matches!(best, Found::Location(l) if l.name.len() == uri.len())
            && let Some(location) = self.with_slash(uri)
        {
            return Found::Slash(location);
        }
        best
    }

    /// The proxied location whose name is `uri` and a slash.
    fn with_slash(&self, uri: &[u8]) -> Option<&Location> {
        let name_is = |name: &[u8]| name.iter().cmp(uri.iter().chain(b"/"));
        let exact = self.exact.binary_search_by(|l| name_is(&l.name)).ok().map(|i| &self.exact[i]);
        let prefix = self
            .prefixes
            .binary_search_by(|p| name_is(&p.location.name))
            .ok()
            .map(|i| &self.prefixes[i].location);
        let auto = exact.into_iter().chain(prefix).any(|l| l.auto_redirect);
        auto.then_some(exact.or(prefix)).flatten()
    }

    /// The location `@name`.
    pub fn named(&self, name: &[u8]) -> Option<&Location> {
        self.named.binary_search_by(|l| (*l.name).cmp(name)).ok().map(|i| &self.named[i])
    }

    /// Every location, nested ones not.
    pub fn iter(&self) -> impl Iterator<Item = &Location> {
        let prefixes = self.prefixes.iter().map(|p| &p.location);
        self.exact.iter().chain(prefixes).chain(&self.regexes).chain(&self.named)
    }
}
