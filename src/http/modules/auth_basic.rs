//! `ngx_http_auth_basic`: user and password from a file (RFC 7617).

use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Outcome};
use crate::http::basic;
use crate::http::conf::Loc;
use crate::http::crypt;
use crate::http::headers::WWW_AUTHENTICATE;
use crate::http::module::{Handlers, Module, Step, Verdict};
use crate::http::modules::core::path_bytes;
use crate::http::request::Request;
use crate::log::{self, Level};
use crate::settings;
use crate::syntax::Directive;
use crate::value::Template;

/// The module.
pub struct AuthBasic;

settings! {
    /// What a location asks for.
    pub struct LocConf {
        realm: Option<Template> = None,
        /// The file, and where relative paths start.
        user_file: Option<(Template, PathBuf)> = None,
    }
}

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

impl Module for AuthBasic {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_auth_basic",
        setters: &[("auth_basic", realm), ("auth_basic_user_file", user_file)],
    };

    fn handlers(loc: &Loc, to: &mut Handlers) {
        let conf = &loc.auth_basic;
        let off = |realm: &Template| realm.as_constant() == Some(b"off");
        if conf.user_file.is_some() && conf.realm.as_ref().is_some_and(|realm| !off(realm)) {
            to.access.push(handler);
        }
    }
}

fn realm(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    cf.http.loc().auth_basic().realm.once()?;
    let realm = cf.http.template(d.arg(1))?;
    cf.http.loc().auth_basic().realm.set(Some(realm))
}

fn user_file(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    cf.http.loc().auth_basic().user_file.once()?;
    let full = match d.arg(1) {
        path @ [b'$', ..] => path.to_vec(),
        path => path_bytes(cf.conf_path(path)),
    };
    let file = (cf.http.template(&full)?, cf.conf_prefix.clone());
    cf.http.loc().auth_basic().user_file.set(Some(file))
}

fn handler(req: &mut Request) -> Step<'_> {
    check(req).into()
}

fn check(req: &mut Request) -> Verdict {
    let conf = &req.conf.auth_basic;
    let (Some(realm), Some((file, prefix))) = (&*conf.realm, &*conf.user_file) else { return Verdict::Next };
    let realm = realm.eval(req);
    if &*realm == b"off" {
        return Verdict::Next;
    }
    let Some((user, password)) = basic::credentials(req).filter(|(user, _)| !user.is_empty()) else {
        req.log(Level::Info, None, format_args!("no user/password was provided for basic authentication"));
        return challenge(req, &realm);
    };
    let path = prefix.join(std::ffi::OsString::from_vec(file.eval(req).to_vec()));
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) => {
            let (level, status) = match error.raw_os_error() {
                Some(libc::ENOENT) => (Level::Error, 403),
                _ => (Level::Crit, 500),
            };
            req.log(level, Some(&error), format_args!("open() \"{}\" failed", path.display()));
            return Verdict::Status(status);
        }
    };
    let shown = log::bytes(&user);
    let Some(entry) = entry_of(&text, &user) else {
        let path = path.display();
        req.log(Level::Error, None, format_args!("user \"{shown}\" was not found in \"{path}\""));
        return challenge(req, &realm);
    };
    match crypt::verify(&password, entry) {
        Ok(true) => Verdict::Allow,
        Ok(false) => {
            req.log(Level::Error, None, format_args!("user \"{shown}\": password mismatch"));
            challenge(req, &realm)
        }
        Err(crypt::Unsupported) => {
            let error = io::Error::from_raw_os_error(libc::EINVAL);
            req.log(Level::Crit, Some(&error), format_args!("crypt_r() failed"));
            Verdict::Status(500)
        }
    }
}

/// The password's part of the user's line: `user:password`, perhaps `:` and a comment.
fn entry_of<'t>(text: &'t [u8], user: &[u8]) -> Option<&'t [u8]> {
    let lines = text.split(|c| *c == b'\n').filter(|line| !matches!(line.first(), None | Some(b'#' | b'\r')));
    let mut entries = lines.filter_map(|line| line.strip_prefix(user)?.strip_prefix(b":"));
    let entry = entries.next()?;
    Some(entry.split(|c| matches!(c, b'\r' | b':')).next().unwrap_or_default())
}

fn challenge(req: &mut Request, realm: &[u8]) -> Verdict {
    let value = [b"Basic realm=\"", realm, b"\""].concat();
    req.response.headers.add(WWW_AUTHENTICATE, &value);
    Verdict::Status(401)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_the_user_counts() {
        let text = b"#user:no\n\nus:1\r\nuser:2:comment\nuser:3\nlast:4";
        let get =
            |user: &str| entry_of(text, user.as_bytes()).map(|e| String::from_utf8_lossy(e).into_owned());
        assert_eq!(get("user").as_deref(), Some("2"));
        assert_eq!(get("us").as_deref(), Some("1"));
        assert_eq!(get("last").as_deref(), Some("4"));
        assert_eq!(get("use"), None);
        assert_eq!(get("#user"), None);
    }
}
