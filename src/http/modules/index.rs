//! `ngx_http_index`: the file that stands for a directory.

use std::io;

use bytes::Bytes;

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Fault, Outcome};
use crate::http::conf::Loc;
use crate::http::file;
use crate::http::method::Method;
use crate::http::module::{Handlers, Module, Verdict, Wait};
use crate::http::modules::core::map_path;
use crate::http::request::Request;
use crate::log::Level;
use crate::settings;
use crate::syntax::Directive;
use crate::value::Template;

/// The module.
pub struct Index;

settings! {
    /// `index`
    pub struct LocConf {
        /// Names in order; one that begins with a slash is redirected to without a look.
        names: Vec<Template> = vec![Template::constant("index.html")],
    }
}

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

impl Module for Index {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands = Commands { module: "ngx_http_index", setters: &[("index", directive)] };

    fn handlers(_: &Loc, to: &mut Handlers) {
        to.content.push(|req| Box::pin(std::future::ready(handle(req))) as Wait<'_, Verdict>);
    }
}

fn directive(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    for (i, word) in d.args().enumerate() {
        if word.starts_with(b"/") && i + 2 != d.len() {
            cf.warn(d.at(), "only the last index in \"index\" directive should be absolute");
        }
        if word.is_empty() {
            return Err(Fault::here("index \"\" in \"index\" directive is invalid"));
        }
        let name = cf.http.template(word)?;
        let names = &mut cf.http.loc().index().names;
        if !names.is_set() {
            names.put(Vec::new());
        }
        names.edit().push(name);
    }
    Ok(())
}

fn handle(req: &mut Request) -> Verdict {
    if !req.uri.ends_with(b"/") || !matches!(req.method, Method::Get | Method::Head | Method::Post) {
        return Verdict::Next;
    }
    let conf = req.conf;
    let mut tested = false;
    let mut folder = Vec::new();
    for name in conf.index.names.iter() {
        let name = name.eval(req);
        if name.starts_with(b"/") {
            return redirect(req, name);
        }
        if folder.is_empty() {
            folder = map_path(req);
            if folder.is_empty() {
                return Verdict::Status(500);
            }
        }
        let path = [&folder[..], &name].concat();
        let (call, error) = match file::stat(req, &path) {
            Ok(_) => {
                let uri = [&req.uri[..], &name].concat();
                return redirect(req, uri.into());
            }
            Err(failed) => failed,
        };
        match error.raw_os_error() {
            Some(libc::EMLINK | libc::ELOOP) => return Verdict::Status(403),
            Some(libc::ENOTDIR | libc::ENAMETOOLONG | libc::EACCES) => return refuse(req, &path, &error),
            _ => {}
        }
        if !tested {
            if let Some(verdict) = test_folder(req, &folder, &path) {
                return verdict;
            }
            tested = true;
        }
        if error.raw_os_error() != Some(libc::ENOENT) {
            let shown = crate::log::bytes(&path);
            req.log(Level::Crit, Some(&error), format_args!("{call} \"{shown}\" failed"));
            return Verdict::Status(500);
        }
    }
    Verdict::Next
}

fn redirect(req: &mut Request, uri: Bytes) -> Verdict {
    let args = req.args.clone();
    req.redirect_to(uri, args);
    Verdict::Redirect
}

/// Looks whether the directory of `path` is there at all; a verdict where it is not.
fn test_folder(req: &Request, folder: &[u8], path: &[u8]) -> Option<Verdict> {
    // An alias may lack the slash; the root itself is nothing but one.
    let name = match folder.strip_suffix(b"/") {
        Some(b"") | None => folder,
        Some(name) => name,
    };
    match file::stat(req, name) {
        Ok(data) if data.is_dir() => None,
        Ok(_) => {
            let shown = crate::log::bytes(name);
            req.log(Level::Alert, None, format_args!("\"{shown}\" is not a directory"));
            Some(Verdict::Status(500))
        }
        Err((call, error)) => match error.raw_os_error() {
            Some(libc::EMLINK | libc::ELOOP) => Some(Verdict::Status(403)),
            Some(libc::ENOENT) => Some(refuse(req, path, &error)),
            Some(libc::EACCES) => None,
            _ => {
                let shown = crate::log::bytes(name);
                req.log(Level::Crit, Some(&error), format_args!("{call} \"{shown}\" failed"));
                Some(Verdict::Status(500))
            }
        },
    }
}

fn refuse(req: &Request, path: &[u8], error: &io::Error) -> Verdict {
    let shown = crate::log::bytes(path);
    if error.raw_os_error() == Some(libc::EACCES) {
        req.log(Level::Error, Some(error), format_args!("\"{shown}\" is forbidden"));
        return Verdict::Status(403);
    }
    if *req.conf.core.log_not_found {
        req.log(Level::Error, Some(error), format_args!("\"{shown}\" is not found"));
    }
    Verdict::Status(404)
}
