//! `ngx_http_gzip_static`: files that are compressed already, beside the plain ones.

use super::gzip_core;
use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Outcome, set};
use crate::http::conf::Loc;
use crate::http::file::{self, Found};
use crate::http::headers::CONTENT_ENCODING;
use crate::http::method::Method;
use crate::http::module::{Handlers, Module, Verdict, Wait};
use crate::http::modules::core::map_path;
use crate::http::request::Request;
use crate::log::Level;
use crate::settings;

/// The module.
pub struct GzipStatic;

/// `gzip_static`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enable {
    #[allow(missing_docs)]
    Off,
    /// For clients that take gzip.
    On,
    /// For all.
    Always,
}

settings! {
    /// `gzip_static`
    pub struct LocConf {
        enable: Enable = Enable::Off,
    }
}

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

impl Module for GzipStatic {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_gzip_static",
        setters: &[("gzip_static", |cf, d| {
            let words = [("off", Enable::Off), ("on", Enable::On), ("always", Enable::Always)];
            set::choice(&mut cf.http.loc().gzip_static().enable, d, &words)
        })],
    };

    fn handlers(loc: &Loc, to: &mut Handlers) {
        let loc = &loc.gzip_static;
        if *loc.enable != Enable::Off {
            to.content.push(|req| Box::pin(handle(req)) as Wait<'_, Verdict>);
        }
    }
}

async fn handle(req: &mut Request) -> Verdict {
    if !matches!(req.method, Method::Get | Method::Head) || req.uri.ends_with(b"/") {
        return Verdict::Next;
    }
    let on = *req.conf.gzip_static.enable == Enable::On;
    let taken = !on || gzip_core::is_taken(req);
    if !taken && !*req.conf.gzip_core.vary {
        return Verdict::Next;
    }
    let mut path = map_path(req);
    if path.is_empty() {
        return Verdict::Status(500);
    }
    path.extend_from_slice(b".gz");
    let found = match file::open(req, &path) {
        Ok(found) => found,
        Err((call, error)) => {
            let (status, level) = file::status_of(&error);
            if status != 404 {
                let shown = crate::log::bytes(&path);
                req.log(level, Some(&error), format_args!("{call} \"{shown}\" failed"));
            }
            return Verdict::Next;
        }
    };
    if on {
        gzip_core::vary(req);
        if !taken {
            return Verdict::Next;
        }
    }
    match found {
        Found::Directory => Verdict::Next,
        Found::Other => {
            let shown = crate::log::bytes(&path);
            req.log(Level::Crit, None, format_args!("\"{shown}\" is not a regular file"));
            Verdict::Status(404)
        }
        Found::File(file, data) => {
            // Behind the entity tag in nginx's list, which is written the same way round here.
            req.respond_file_with(&file, &data, Some((CONTENT_ENCODING, b"gzip"))).await
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{Folder, Site};

    #[test]
    fn the_compressed_file_goes_to_those_who_take_it() {
        let folder = Folder::new();
        folder.write("a.html", "plain");
        folder.write("a.html.gz", "zipped");
        folder.write("b.html", "b");
        let site =
            Site::with(folder, "gzip_static on; gzip_vary on; gzip_http_version 1.0; server { LISTEN }");
        let zipped = site.ask("GET", "/a.html", "Accept-Encoding: gzip\r\n");
        assert_eq!((zipped.text().as_str(), zipped.field("content-encoding")), ("zipped", Some("gzip")));
        assert_eq!(zipped.field("content-type"), Some("text/html"));
        assert_eq!(zipped.field("vary"), Some("Accept-Encoding"));
        let plain = site.get("/a.html");
        assert_eq!((plain.text().as_str(), plain.field("content-encoding")), ("plain", None));
        assert_eq!(plain.field("vary"), Some("Accept-Encoding"));
        let other = site.ask("GET", "/b.html", "Accept-Encoding: gzip\r\n");
        assert_eq!((other.text().as_str(), other.field("vary")), ("b", None));
    }
}
