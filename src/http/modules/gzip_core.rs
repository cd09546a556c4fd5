//! What nginx's core knows of gzip: which clients take it. For `gzip`, `gunzip` and `gzip_static`.

use std::sync::Arc;

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Fault, Outcome, set};
use crate::http::headers::{
    ACCEPT_ENCODING, AUTHORIZATION, CACHE_CONTROL, DATE, ETAG, EXPIRES, LAST_MODIFIED, USER_AGENT, VIA,
};
use crate::http::module::Module;
use crate::http::request::{Request, Version};
use crate::net::clock;
use crate::settings;
use crate::syntax::Directive;
use crate::value::Regex;

/// The module.
pub struct GzipCore;

const OFF: u32 = 1;
const EXPIRED: u32 = 1 << 1;
const NO_CACHE: u32 = 1 << 2;
const NO_STORE: u32 = 1 << 3;
const PRIVATE: u32 = 1 << 4;
const NO_LAST_MODIFIED: u32 = 1 << 5;
const NO_ETAG: u32 = 1 << 6;
const AUTH: u32 = 1 << 7;
const ANY: u32 = 1 << 8;

const PROXIED: &[(&str, u32)] = &[
    ("off", OFF),
    ("expired", EXPIRED),
    ("no-cache", NO_CACHE),
    ("no-store", NO_STORE),
    ("private", PRIVATE),
    ("no_last_modified", NO_LAST_MODIFIED),
    ("no_etag", NO_ETAG),
    ("auth", AUTH),
    ("any", ANY),
];

settings! {
    /// Who gets compressed answers.
    pub struct LocConf {
        vary: bool = false,
        http_version: Version = Version::Http11,
        proxied: u32 = OFF,
        disable: Vec<Arc<Regex>> = Vec::new(),
        disable_msie6: bool = false,
    }
}

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

impl Module for GzipCore {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_core",
        setters: &[
            ("gzip_vary", |cf, d| set::flag(&mut cf.http.loc().gzip_core().vary, d)),
            ("gzip_http_version", |cf, d| {
                let words = [("1.0", Version::Http10), ("1.1", Version::Http11)];
                set::choice(&mut cf.http.loc().gzip_core().http_version, d, &words)
            }),
            ("gzip_proxied", |cf, d| {
                let mut warnings = Vec::new();
                set::bits(&mut cf.http.loc().gzip_core().proxied, d, PROXIED, |w| warnings.push(w))?;
                warnings.into_iter().for_each(|w| cf.warn(d.at(), w));
                Ok(())
            }),
            ("gzip_disable", disable),
        ],
    };
}

fn disable(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    cf.http.loc().gzip_core().disable.edit();
    for word in d.args() {
        if word == b"msie6" {
            cf.http.loc().gzip_core().disable_msie6.put(true);
            continue;
        }
        let regex = Regex::anonymous(word, true).map_err(Fault::Here)?;
        cf.http.loc().gzip_core().disable.edit().push(Arc::new(regex));
    }
    Ok(())
}

/// Notes that the answer depends on `Accept-Encoding`, where `gzip_vary` asks for that.
pub fn vary(req: &mut Request) {
    if *req.conf.gzip_core.vary {
        req.response.gzip_vary = true;
    }
}

/// Whether the client takes a gzipped answer.
pub fn is_taken(req: &Request) -> bool {
    let conf = &req.conf.gzip_core;
    if req.is_subrequest() || !req.header(ACCEPT_ENCODING).is_some_and(accepts) {
        return false;
    }
    let agent = req.header(USER_AGENT);
    if *conf.disable_msie6 && super::super::user_agent::Browser::of(agent.unwrap_or_default()).msie6
        || req.version < *conf.http_version
    {
        return false;
    }
    if req.header(VIA).is_some() && !proxied_is_taken(req, *conf.proxied) {
        return false;
    }
    !agent.is_some_and(|agent| conf.disable.iter().any(|r| r.is_match(agent)))
}

/// Whether an answer to a proxy (a request with `Via`) may be compressed.
fn proxied_is_taken(req: &Request, proxied: u32) -> bool {
    let has = |bit: u32| proxied & bit != 0;
    if has(OFF) {
        return false;
    }
    if has(ANY) || has(AUTH) && req.header(AUTHORIZATION).is_some() {
        return true;
    }
    let r = &req.response;
    if let Some(expires) = r.headers.get(EXPIRES) {
        let time = super::not_modified::parse_time;
        let date = match r.headers.get(DATE) {
            Some(date) => time(date),
            None => Some(clock::wall().sec),
        };
        return has(EXPIRED) && matches!((time(expires), date), (Some(e), Some(d)) if e < d);
    }
    if r.headers.contains(CACHE_CONTROL) {
        let says = |word: &[u8]| r.headers.all(CACHE_CONTROL).any(|line| has_word(line, word));
        return has(NO_CACHE) && says(b"no-cache")
            || has(NO_STORE) && says(b"no-store")
            || has(PRIVATE) && says(b"private");
    }
    let dated = r.last_modified.is_some() || r.headers.contains(LAST_MODIFIED);
    !(has(NO_LAST_MODIFIED) && dated || has(NO_ETAG) && r.headers.contains(ETAG))
}

/// Whether a word stands alone between the commas of a list.
fn has_word(line: &[u8], word: &[u8]) -> bool {
    line.split(|c| *c == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(word))
}

/// Whether `Accept-Encoding` has gzip, and not with a quality of 0.
fn accepts(value: &[u8]) -> bool {
    let mut start = 0;
    let found = loop {
        let Some(at) = value[start..].windows(4).position(|w| w.eq_ignore_ascii_case(b"gzip")) else {
            return false;
        };
        let at = start + at;
        if at == start || matches!(value[at - 1], b',' | b' ') {
            break at;
        }
        start = at + 4;
    };
    let rest = value[found + 4..].trim_ascii_start();
    let rest = match rest.split_first() {
        None | Some((b',', _)) => return true,
        Some((b';', rest)) => rest.trim_ascii_start(),
        Some(_) => return false,
    };
    match rest.split_first() {
        None => true,
        Some((b'q' | b'Q', rest)) => match rest.split_first() {
            Some((b'=', value)) if !value.is_empty() => quality(value) > 0,
            _ => false,
        },
        Some(_) => false,
    }
}

/// A quality value times 100 or so (RFC 9110, section 12.4.2): 0 where it is 0, or wrong.
fn quality(text: &[u8]) -> u32 {
    let end = text.iter().position(|c| matches!(c, b',' | b' ')).unwrap_or(text.len());
    let Some((first @ (b'0' | b'1'), rest)) = text[..end].split_first() else { return 0 };
    let whole = u32::from(first - b'0') * 100;
    let Some((b'.', digits)) = rest.split_first() else { return if rest.is_empty() { whole } else { 0 } };
    if digits.len() > 3 || !digits.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    let sum = whole + digits.iter().map(|c| u32::from(c - b'0')).sum::<u32>();
    if sum > 100 { 0 } else { sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_encoding() {
        for yes in [
            "gzip",
            "gzip,deflate",
            "deflate, gzip",
            "deflate,GZIP;q=0.5",
            "gzip ; q=1.000",
            "x-gzip, gzip",
            "gzip;q=0.001",
            "gzip;",
        ] {
            assert!(accepts(yes.as_bytes()), "{yes}");
        }
        for no in [
            "",
            "deflate",
            "x-gzip",
            "gzip;q=0",
            "gzip;q=0.000",
            "gzipped",
            "gzip;q=2",
            "gzip;q=1.1",
            "gzip;q",
        ] {
            assert!(!accepts(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn words_of_a_list() {
        assert!(has_word(b"max-age=1, no-cache", b"no-cache"));
        assert!(!has_word(b"no-cache=x", b"no-cache"));
    }
}
