//! `ngx_http_referer`: `$invalid_referer`.

use std::sync::Arc;

use crate::conf::build::Commands;
use crate::conf::names::ServerName;
use crate::conf::{Build, Conf, Fault, Outcome, Setting, set};
use crate::http::headers::REFERER;
use crate::http::module::Module;
use crate::http::request::Request;
use crate::syntax::Directive;
use crate::value::keys::{HashSize, Keys, NotAdded};
use crate::value::{Builtin, Regex};

/// The module.
pub struct Referer;

/// What a location takes for valid.
#[derive(Clone, Debug)]
pub struct LocConf {
    /// Hosts with the index of the path that must follow, if any; none where the block has no `valid_referers`.
    hosts: Option<Arc<Keys<Option<u32>>>>,
    paths: Vec<Box<[u8]>>,
    none: bool,
    blocked: bool,
    server_names: bool,
    regexes: Setting<Vec<Arc<Regex>>>,
    max_size: Setting<usize>,
    bucket_size: Setting<usize>,
}

impl Default for LocConf {
    fn default() -> Self {
        LocConf {
            hosts: None,
            paths: Vec::new(),
            none: false,
            blocked: false,
            server_names: false,
            regexes: Setting::unset(Vec::new()),
            max_size: Setting::unset(2048),
            bucket_size: Setting::unset(64),
        }
    }
}

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.regexes.inherit(&parent.regexes);
        self.max_size.inherit(&parent.max_size);
        self.bucket_size.inherit(&parent.bucket_size);
        let Some(hosts) = &self.hosts else {
            self.hosts.clone_from(&parent.hosts);
            self.paths.clone_from(&parent.paths);
            (self.none, self.blocked) = (parent.none, parent.blocked);
            self.server_names = parent.server_names;
            return Ok(());
        };
        if (self.none || self.blocked) && hosts.is_empty() && !self.server_names {
            return Err(Fault::whole(
                "the \"none\" or \"blocked\" referers are specified in the \"valid_referers\" directive without \
                 any valid referer",
            ));
        }
        let size = HashSize { max: *self.max_size, bucket: *self.bucket_size };
        hosts.check_sizes("referer_hash", size).map_err(Fault::Whole)
    }
}

impl Module for Referer {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_referer",
        setters: &[
            ("valid_referers", valid_referers),
            ("referer_hash_max_size", |cf, d| set::number(&mut cf.http.loc().referer().max_size, d)),
            ("referer_hash_bucket_size", |cf, d| set::number(&mut cf.http.loc().referer().bucket_size, d)),
        ],
    };
    const VARIABLES: &'static [Builtin<Request>] = &[Builtin::changeable("invalid_referer", |req, out| {
        if !is_valid(req) {
            out.push(b'1');
        }
        true
    })];
}

fn valid_referers(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let conf = cf.http.loc().referer();
    let mut hosts = conf.hosts.take().map(Arc::unwrap_or_clone).unwrap_or_default();
    for word in d.args() {
        let shown = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        match word {
            b"" => return Err(Fault::here("invalid referer \"\"")),
            b"none" => conf.none = true,
            b"blocked" => conf.blocked = true,
            b"server_names" => conf.server_names = true,
            b"~" => return Err(Fault::here("empty regex in \"~\"")),
            [b'~', pattern @ ..] => {
                let regex = Regex::anonymous(pattern, true).map_err(Fault::Here)?;
                conf.regexes.edit().push(Arc::new(regex));
            }
            word => {
                let slash = memchr::memchr(b'/', word).unwrap_or(word.len());
                let (host, path) = word.split_at(slash);
                let path = (!path.is_empty()).then(|| {
                    conf.paths.push(path.into());
                    (conf.paths.len() - 1) as u32
                });
                hosts.add(host, path, true).map_err(|error| match error {
                    NotAdded::Conflict => {
                        let host = shown(&host.to_ascii_lowercase());
                        Fault::here(format!("conflicting parameter \"{host}\""))
                    }
                    _ => Fault::here(format!("invalid hostname or wildcard \"{}\"", shown(host))),
                })?;
            }
        }
    }
    conf.hosts = Some(Arc::new(hosts));
    Ok(())
}

fn is_valid(req: &Request) -> bool {
    let conf = &req.conf.referer;
    let names: &[ServerName] = if conf.server_names { &req.server.names } else { &[] };
    conf.is_valid(req.header(REFERER), names)
}

/// Longest host that is looked at.
const LONGEST_HOST: usize = 256;

impl LocConf {
    fn is_valid(&self, referer: Option<&[u8]>, names: &[ServerName]) -> bool {
        let Some(hosts) = &self.hosts else { return true };
        if hosts.is_empty() && self.regexes.is_empty() && names.is_empty() {
            return true;
        }
        let Some(referer) = referer else { return self.none };
        let after = |scheme: &[u8]| {
            let start = referer.get(..scheme.len())?;
            let long = referer.len() >= "http://i.ru".len();
            (long && start.eq_ignore_ascii_case(scheme)).then(|| &referer[scheme.len()..])
        };
        let Some(rest) = after(b"http://").or_else(|| after(b"https://")) else { return self.blocked };
        let end = rest.iter().position(|c| matches!(c, b'/' | b':')).unwrap_or(rest.len());
        let (host, tail) = rest.split_at(end);
        if host.len() > LONGEST_HOST {
            return false;
        }
        if let Some(path) = hosts.find(host) {
            let wanted = path.and_then(|path| self.paths.get(path as usize)).map_or(&b""[..], |path| path);
            let path = &tail[memchr::memchr(b'/', tail).unwrap_or(tail.len())..];
            return path.starts_with(wanted);
        }
        let host = host.to_ascii_lowercase();
        names.iter().any(|name| name_matches(name, &host))
            || self.regexes.iter().any(|regex| regex.is_match(rest))
    }
}

/// Whether a lower-case host is the server's, by this name.
fn name_matches(name: &ServerName, host: &[u8]) -> bool {
    if let Some(regex) = name.regex() {
        return regex.is_match(host);
    }
    match name.text() {
        [b'*', suffix @ ..] => host.ends_with(suffix),
        suffix @ [b'.', name @ ..] => host.ends_with(suffix) || host == name,
        [prefix @ .., b'*'] if prefix.ends_with(b".") => host.starts_with(prefix),
        text => host == text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf() -> LocConf {
        let mut hosts = Keys::default();
        hosts.add(b"*.example.com", None, true).unwrap();
        hosts.add(b"example.org", Some(0), true).unwrap();
        let regex = Arc::new(Regex::anonymous(br"\.google\.", true).unwrap());
        LocConf {
            hosts: Some(Arc::new(hosts)),
            paths: vec![(*b"/galleries/").into()],
            regexes: {
                let mut set = Setting::unset(Vec::new());
                set.put(vec![regex]);
                set
            },
            ..LocConf::default()
        }
    }

    #[test]
    fn hosts_paths_and_patterns() {
        let names = [ServerName::plain("www.example.net"), ServerName::plain(".site.test")];
        let valid = |referer: &str| conf().is_valid(Some(referer.as_bytes()), &names);
        for referer in [
            "http://www.EXAMPLE.com/x",
            "https://example.org/galleries/1",
            "http://example.org:8080/galleries/",
            "http://www.google.com/",
            "http://www.example.net",
            "http://a.site.test/",
        ] {
            assert!(valid(referer), "{referer}");
        }
        for referer in ["http://example.com/", "https://example.org/other", "ftp://www.example.com/", "x"] {
            assert!(!valid(referer), "{referer}");
        }
    }

    #[test]
    fn missing_and_blocked() {
        assert!(!conf().is_valid(None, &[]));
        assert!(LocConf { none: true, ..conf() }.is_valid(None, &[]));
        assert!(LocConf { blocked: true, ..conf() }.is_valid(Some(b"XXXX"), &[]));
        assert!(LocConf::default().is_valid(None, &[]));
    }
}
