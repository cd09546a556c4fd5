//! `ngx_http_static`: files as they are.

use bytes::Bytes;

use crate::conf::build::Commands;
use crate::http::conf::Loc;
use crate::http::file::{self, Found};
use crate::http::headers::LOCATION;
use crate::http::method::Method;
use crate::http::module::{Handlers, Module, Verdict, Wait};
use crate::http::modules::core::map_path;
use crate::http::request::Request;
use crate::http::uri::{Escape, escape};
use crate::log::Level;

/// The module.
pub struct Static;

impl Module for Static {
    type Main = ();
    type Srv = ();
    type Loc = ();
    const COMMANDS: Commands = Commands { module: "ngx_http_static", setters: &[] };

    fn handlers(_: &Loc, to: &mut Handlers) {
        to.content.push(|req| Box::pin(handle(req)) as Wait<'_, Verdict>);
    }
}

async fn handle(req: &mut Request) -> Verdict {
    if !matches!(req.method, Method::Get | Method::Head | Method::Post) {
        return Verdict::Status(405);
    }
    if req.uri.ends_with(b"/") {
        return Verdict::Next;
    }
    let path = map_path(req);
    if path.is_empty() {
        return Verdict::Status(500);
    }
    match file::open(req, &path) {
        Err((call, error)) => {
            let (status, level) = file::status_of(&error);
            if status != 404 || *req.conf.core.log_not_found {
                let shown = crate::log::bytes(&path);
                req.log(level, Some(&error), format_args!("{call} \"{shown}\" failed"));
            }
            Verdict::Status(status)
        }
        Ok(Found::Directory) => add_slash(req),
        Ok(Found::Other) => {
            let shown = crate::log::bytes(&path);
            req.log(Level::Crit, None, format_args!("\"{shown}\" is not a regular file"));
            Verdict::Status(404)
        }
        Ok(Found::File(..)) if req.method == Method::Post => Verdict::Status(405),
        Ok(Found::File(file, data)) => req.respond_file(&file, &data).await,
    }
}

/// A directory's name lacks its last slash.
fn add_slash(req: &mut Request) -> Verdict {
    let mut target = Vec::with_capacity(req.uri.len() + req.args.len() + 2);
    escape(&req.uri, Escape::Uri, &mut target);
    target.push(b'/');
    if !req.args.is_empty() {
        target.push(b'?');
        target.extend_from_slice(&req.args);
    }
    req.response.headers.remove(LOCATION);
    req.response.location = Some(Bytes::from(target));
    Verdict::Status(301)
}
