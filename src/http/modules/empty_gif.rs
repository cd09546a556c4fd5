//! `ngx_http_empty_gif`: a transparent picture of one pixel.

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Outcome};
use crate::http::conf::Loc;
use crate::http::method::Method;
use crate::http::module::{Handlers, Module, Verdict, Wait};
use crate::http::output::Gone;
use crate::http::request::Request;
use crate::settings;

/// The module.
pub struct EmptyGif;

settings! {
    /// `empty_gif`, which no block inherits.
    pub struct LocConf {
        enable: bool = false,
    }
}

impl Conf for LocConf {
    fn merge(&mut self, _: &Self, _: &mut Build) -> Outcome {
        Ok(())
    }
}

impl Module for EmptyGif {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_empty_gif",
        setters: &[("empty_gif", |cf, _| {
            cf.http.loc().empty_gif().enable.put(true);
            Ok(())
        })],
    };

    fn handlers(loc: &Loc, to: &mut Handlers) {
        let loc = &loc.empty_gif;
        if *loc.enable {
            to.handler = Some(|req| Box::pin(handle(req)) as Wait<'_, Verdict>);
        }
    }
}

/// GIF89a: header, two colours, the first of them transparent, one pixel, trailer.
const GIF: &[u8] = b"GIF89a\x01\0\x01\0\x80\x01\0\0\0\0\xff\xff\xff!\xf9\x04\x01\0\0\x01\0,\0\0\0\0\x01\0\x01\0\0\x02\x02L\x01\0;";
/// Its `Last-Modified`: 28 Sep 1970 06:00:00 GMT.
const TIME: i64 = 23_349_600;

async fn handle(req: &mut Request) -> Verdict {
    if !matches!(req.method, Method::Get | Method::Head) {
        return Verdict::Status(405);
    }
    if let Err(verdict) = req.discard_body().await {
        return verdict;
    }
    req.response.last_modified = Some(TIME);
    match req.respond(200, "image/gif", GIF).await {
        Ok(()) => Verdict::Done,
        Err(Gone) => Verdict::Close,
    }
}
