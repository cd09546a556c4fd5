//! `ngx_http_random_index`: one of a directory's files, by chance.

use std::hash::{BuildHasher, RandomState};
use std::os::unix::ffi::OsStrExt;

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Outcome, set};
use crate::http::conf::Loc;
use crate::http::file;
use crate::http::method::Method;
use crate::http::module::{Handlers, Module, Verdict, Wait};
use crate::http::modules::core::map_path;
use crate::http::request::Request;
use crate::log::Level;
use crate::settings;

/// The module.
pub struct RandomIndex;

settings! {
    /// `random_index`
    pub struct LocConf {
        enable: bool = false,
    }
}

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

impl Module for RandomIndex {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_random_index",
        setters: &[("random_index", |cf, d| set::flag(&mut cf.http.loc().random_index().enable, d))],
    };

    fn handlers(loc: &Loc, to: &mut Handlers) {
        let loc = &loc.random_index;
        if *loc.enable {
            to.content.push(|req| Box::pin(std::future::ready(handle(req))) as Wait<'_, Verdict>);
        }
    }
}

fn handle(req: &mut Request) -> Verdict {
    if !req.uri.ends_with(b"/") || !matches!(req.method, Method::Get | Method::Head | Method::Post) {
        return Verdict::Next;
    }
    let folder = map_path(req);
    let Some(folder) = folder.strip_suffix(b"/") else { return Verdict::Status(500) };
    let shown = crate::log::bytes(folder);
    let entries = match std::fs::read_dir(file::path(if folder.is_empty() { b"/" } else { folder })) {
        Ok(entries) => entries,
        Err(e) => {
            let (status, level) = file::status_of(&e);
            req.log(level, Some(&e), format_args!("opendir() \"{shown}\" failed"));
            return Verdict::Status(status);
        }
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(e) => {
                req.log(Level::Crit, Some(&e), format_args!("readdir() \"{shown}\" failed"));
                return Verdict::Status(500);
            }
        };
        let name = entry.file_name();
        // A link counts as what it leads to.
        if !name.as_bytes().starts_with(b".") && std::fs::metadata(entry.path()).is_ok_and(|m| m.is_file()) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Verdict::Next;
    }
    let at = RandomState::new().hash_one(0u8) % names.len() as u64;
    let uri = [&req.uri[..], names[at as usize].as_bytes()].concat();
    let args = req.args.clone();
    req.redirect_to(uri.into(), args);
    Verdict::Redirect
}
