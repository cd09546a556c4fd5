//! `ngx_http_try_files`: the first of several files that is there, else somewhere else.

use std::sync::Arc;

use bytes::Bytes;

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Fault, Outcome, units};
use crate::http::conf::Loc;
use crate::http::file;
use crate::http::module::{Handlers, Module, Step, Verdict};
use crate::http::modules::core::{Alias, document_root};
use crate::http::request::Request;
use crate::http::special::split_args;
use crate::log::Level;
use crate::settings;
use crate::syntax::Directive;
use crate::value::Template;

/// The module.
pub struct TryFiles;

/// A name to try.
#[derive(Clone, Debug)]
struct Name {
    text: Template,
    /// It ended in a slash: a directory is wanted.
    directory: bool,
}

/// Where to go when none is there.
#[derive(Clone, Debug)]
enum Fallback {
    Status(u16),
    /// A URI, or `@name`.
    Uri(Template),
}

/// One directive.
#[derive(Clone, Debug)]
pub struct Try {
    names: Vec<Name>,
    fallback: Fallback,
}

settings! {
    /// `try_files`, which no block inherits.
    pub struct LocConf {
        files: Option<Arc<Try>> = None,
    }
}

impl Conf for LocConf {
    fn merge(&mut self, _: &Self, _: &mut Build) -> Outcome {
        Ok(())
    }
}

impl Module for TryFiles {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands =
        Commands { module: "ngx_http_try_files", setters: &[("try_files", directive)] };

    fn handlers(loc: &Loc, to: &mut Handlers) {
        let loc = &loc.try_files;
        if loc.files.is_some() {
            to.precontent.push(|req| Step::Now(handle(req)));
        }
    }
}

fn directive(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    cf.http.loc().try_files().files.once()?;
    let last = d.len() - 1;
    let mut names = Vec::with_capacity(last);
    for word in (1..last).map(|i| d.arg(i)) {
        let (word, directory) = match word.strip_suffix(b"/") {
            Some(rest) => (rest, true),
            None => (word, false),
        };
        names.push(Name { text: cf.http.template(word)?, directory });
    }
    let word = d.arg(last);
    let text = cf.http.template(word)?;
    let fallback = match word.strip_prefix(b"=") {
        Some(code) => match units::number(code).filter(|n| *n <= 999) {
            Some(code) => Fallback::Status(code as u16),
            None => {
                let shown = String::from_utf8_lossy(word);
                return Err(Fault::here(format!("invalid code \"{shown}\"")));
            }
        },
        None => Fallback::Uri(text),
    };
    cf.http.loc().try_files().files.set(Some(Arc::new(Try { names, fallback })))
}

/// How a name becomes a path.
enum Base {
    Root,
    /// `alias` of a location by prefix, of this length.
    Prefix(usize),
    /// `alias` of a location by regular expression.
    Regex,
}

impl Base {
    fn of(req: &Request) -> Base {
        match &req.conf.core.root.alias {
            None => Base::Root,
            Some(Alias::Whole) => Base::Regex,
            Some(Alias::Prefix(name)) => Base::Prefix(name.len()),
        }
    }

    /// A name's text. Variables tend to bring the URI with the location's name, which an alias stands for.
    fn name(&self, req: &Request, text: &Template) -> Bytes {
        let name = text.eval(req);
        match self {
            Base::Prefix(len)
                if text.as_constant().is_none()
                    && *len > 0
                    && req.uri.get(..*len).is_some_and(|prefix| name.starts_with(prefix)) =>
            {
                name.slice(*len..)
            }
            _ => name,
        }
    }
}

fn handle(req: &mut Request) -> Verdict {
    let Some(wanted) = (*req.conf.try_files.files).clone() else { return Verdict::Next };
    let base = Base::of(req);
    let root = document_root(req);
    if let Some(alias) = &req.conf.core.root.alias
        && (!req.valid_location || !alias.fits(&req.uri))
    {
        // Says what is wrong.
        super::core::map_path(req);
        return Verdict::Status(500);
    }
    for candidate in &wanted.names {
        let name = base.name(req, &candidate.text);
        let path = [&root[..], &name].concat();
        match file::stat(req, &path) {
            Ok(data) if data.is_dir() == candidate.directory => {
                found(req, &base, &name, candidate.directory);
                return Verdict::Next;
            }
            Ok(_) => {}
            Err((_, e)) if file::is_missing(&e) => {}
            Err((call, e)) => {
                let shown = crate::log::bytes(&path);
                req.log(Level::Crit, Some(&e), format_args!("{call} \"{shown}\" failed"));
            }
        }
    }
    match &wanted.fallback {
        Fallback::Status(code) => Verdict::Status(*code),
        Fallback::Uri(text) => {
            let target = base.name(req, text);
            fall_back(req, target)
        }
    }
}

fn found(req: &mut Request, base: &Base, name: &Bytes, directory: bool) {
    match base {
        Base::Root => req.uri = name.clone(),
        Base::Regex if directory => {}
        Base::Regex => {
            req.uri = name.clone();
            req.add_uri_to_alias = true;
        }
        Base::Prefix(len) => {
            let prefix = req.uri.get(..*len).unwrap_or_default();
            req.uri = [prefix, name].concat().into();
        }
    }
}

fn fall_back(req: &mut Request, target: Bytes) -> Verdict {
    if target.starts_with(b"@") {
        if req.go_to_named(&target) {
            return Verdict::Named;
        }
        let shown = crate::log::bytes(&target);
        req.log(Level::Error, None, format_args!("could not find named location \"{shown}\""));
        return Verdict::Status(500);
    }
    let (uri, args) = split_args(target);
    req.redirect_to(uri, args);
    Verdict::Redirect
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{emerg, loads};

    #[test]
    fn codes() {
        assert!(loads("server { location / { try_files $uri $uri/ /index.html?$args; } }"));
        assert!(loads("server { try_files /a/ =404; }"));
        for wrong in ["=1000", "=x", "="] {
            let text = format!("server {{ location / {{ try_files /a {wrong}; }} }}");
            assert!(emerg(&text).starts_with(&format!("invalid code \"{wrong}\" in ")));
        }
        assert!(
            emerg("server { try_files /a =404; try_files /a =404; }")
                .contains("\"try_files\" directive is duplicate")
        );
    }
}
