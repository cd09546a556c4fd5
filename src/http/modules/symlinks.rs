//! `disable_symlinks` of `ngx_http_core`: paths that lead through symbolic links are refused.

use std::sync::Arc;

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Fault, Outcome};
use crate::http::module::Module;
use crate::http::request::Request;
use crate::http::walk::{Links, Walk};
use crate::settings;
use crate::syntax::Directive;
use crate::value::Template;

/// The module.
pub struct Symlinks;

/// One directive.
#[derive(Clone, Debug)]
pub struct Rule {
    links: Links,
    /// The beginning of the path that is not looked at.
    from: Option<Template>,
}

settings! {
    /// `disable_symlinks`
    pub struct LocConf {
        rule: Option<Arc<Rule>> = None,
    }
}

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

impl Module for Symlinks {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands =
        Commands { module: "ngx_http_core", setters: &[("disable_symlinks", directive)] };
}

/// `disable_symlinks off | on | if_not_owner [from=TEXT]`
fn directive(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    cf.http.loc().symlinks().rule.once()?;
    let (mut mode, mut from) = (None, None);
    for word in d.args() {
        match word {
            b"off" => mode = Some(None),
            b"on" => mode = Some(Some(Links::Refuse)),
            b"if_not_owner" => mode = Some(Some(Links::SameOwner)),
            _ => match word.strip_prefix(b"from=") {
                Some(text) => from = Some(cf.http.template(text)?),
                None => return Err(Fault::invalid_parameter(word)),
            },
        }
    }
    let shown = |i: usize| String::from_utf8_lossy(d.arg(i));
    let Some(mode) = mode else {
        return Err(Fault::here(format!(
            "\"{}\" must have \"off\", \"on\" or \"if_not_owner\" parameter",
            shown(0)
        )));
    };
    if d.len() == 3 && from.is_none() {
        return Err(Fault::here(format!("duplicate parameters \"{} {}\"", shown(1), shown(2))));
    }
    if from.is_some() && mode.is_none() {
        return Err(Fault::here("\"from=\" cannot be used with \"off\" parameter"));
    }
    cf.http.loc().symlinks().rule.set(mode.map(|links| Arc::new(Rule { links, from })))
}

/// How a request may come to the file of this path.
pub fn walk(req: &Request, path: &[u8]) -> Walk {
    let Some(rule) = &*req.conf.symlinks.rule else { return Walk::default() };
    let from = match &rule.from {
        Some(from) => from.eval(req),
        None => return Walk { links: rule.links, from: 0 },
    };
    if from.is_empty() || !path.starts_with(&from) {
        return Walk { links: rule.links, from: 0 };
    }
    match path.get(from.len()) {
        None => Walk::default(),
        Some(b'/') => Walk { links: rule.links, from: from.len() },
        Some(_) if from.ends_with(b"/") => Walk { links: rule.links, from: from.len() - 1 },
        Some(_) => Walk { links: rule.links, from: 0 },
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{Folder, Site, emerg, loads};

    #[test]
    fn forms() {
        assert!(loads("disable_symlinks on from=$document_root; server { disable_symlinks off; }"));
        for (text, says) in [
            ("disable_symlinks from=a;", "\"disable_symlinks\" must have \"off\", \"on\" or"),
            ("disable_symlinks off from=a;", "\"from=\" cannot be used with \"off\" parameter"),
            ("disable_symlinks on off;", "duplicate parameters \"on off\""),
            ("disable_symlinks x;", "invalid parameter \"x\""),
            ("disable_symlinks on; disable_symlinks off;", "\"disable_symlinks\" directive is duplicate"),
        ] {
            assert!(emerg(text).starts_with(says), "{text}: {}", emerg(text));
        }
    }

    #[test]
    fn links_are_refused_as_the_location_says() {
        let folder = Folder::new();
        folder.write("real/a.txt", "file");
        std::os::unix::fs::symlink("a.txt", folder.path().join("html/real/link.txt")).unwrap();
        std::os::unix::fs::symlink("real", folder.path().join("html/linked")).unwrap();
        let root = folder.path().join("html").display().to_string();
        let site = Site::new(&format!(
            "server {{ LISTEN root {root}; \
             location /on/ {{ disable_symlinks on; alias {root}/; \
               location /on/try/ {{ alias {root}/; try_files real/link.txt =418; }} }} \
             location /from/ {{ disable_symlinks on from={root}/linked/; alias {root}/; }} \
             location /owner/ {{ disable_symlinks if_not_owner; alias {root}/; }} \
             location /off/ {{ disable_symlinks off; alias {root}/; }} }}"
        ));
        for (path, status) in [
            ("/on/real/a.txt", 200),
            ("/on/real/link.txt", 403),
            ("/on/linked/a.txt", 404),
            ("/on/try/x", 418),
            ("/from/linked/a.txt", 200),
            ("/from/linked/link.txt", 403),
            ("/owner/linked/link.txt", 200),
            ("/off/linked/link.txt", 200),
            ("/on/real/none", 404),
        ] {
            let answer = site.get(path);
            assert_eq!(answer.status, status, "{path}: {} {}", answer.head, site.log());
        }
    }
}
