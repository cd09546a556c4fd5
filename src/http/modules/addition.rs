//! `ngx_http_addition_filter`: bodies of subrequests in front of and behind a response's.

use bytes::Bytes;

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Outcome, set};
use crate::http::conf::Loc;
use crate::http::module::{Handlers, Module};
use crate::http::request::Request;
use crate::http::types::{self, TypeSet};
use crate::settings;

/// The module.
pub struct Addition;

settings! {
    /// `add_before_body`, `add_after_body`
    pub struct LocConf {
        before: Bytes = Bytes::new(),
        after: Bytes = Bytes::new(),
        types: TypeSet = TypeSet::html(),
    }
}

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

impl Module for Addition {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_addition",
        setters: &[
            ("add_before_body", |cf, d| set::text(&mut cf.http.loc().addition().before, d)),
            ("add_after_body", |cf, d| set::text(&mut cf.http.loc().addition().after, d)),
            ("addition_types", |cf, d| {
                types::directive(cf, d, |cf| &mut cf.http.loc().addition().types);
                Ok(())
            }),
        ],
    };

    fn handlers(loc: &Loc, to: &mut Handlers) {
        let loc = &loc.addition;
        if !loc.before.is_empty() || !loc.after.is_empty() {
            to.header_filters.push(header_filter);
        }
    }
}

fn header_filter(req: &mut Request) -> Option<u16> {
    let conf = req.conf;
    let conf = &conf.addition;
    if req.response.status != 200 || req.is_subrequest() || !conf.types.contains(req) {
        return None;
    }
    req.response.clear_content_length();
    req.response.clear_accept_ranges();
    req.response.weaken_etag();
    let some = |uri: &Bytes| (!uri.is_empty()).then(|| uri.clone());
    req.add_bodies(some(&conf.before), some(&conf.after));
    None
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{Folder, Site};
    use std::io::Read;

    #[test]
    fn bodies_stand_around_the_response() {
        let folder = Folder::new();
        for name in ["main", "before", "after"] {
            folder.write(&format!("{name}.html"), format!("<{name}>"));
        }
        let site = Site::with(
            folder,
            "gzip_http_version 1.0; gzip_min_length 0; server { LISTEN
               location / { add_before_body /before.html; add_after_body /after.html; }
               location /g/ { alias html/; gzip on; add_after_body /after.html; add_before_body /none; sub_filter a A; sub_filter_once off; }
               location /t/ { default_type text/plain; types {} alias html/; add_after_body /after.html; } }",
        );
        let answer = site.get("/main.html");
        assert_eq!(answer.text(), "<before><main><after>");
        assert_eq!((answer.field("content-length"), answer.field("accept-ranges")), (None, None));
        assert_eq!(site.ask("HEAD", "/main.html", "").text(), "");
        assert_eq!(site.get("/t/main.html").text(), "<main>");

        let zipped = site.ask("GET", "/g/main.html", "Accept-Encoding: gzip\r\n");
        let mut text = String::new();
        flate2::read::GzDecoder::new(&zipped.body[..]).read_to_string(&mut text).unwrap();
        assert!(text.starts_with("<html>\r\n<head><title>404 Not Found"), "{text}");
        assert!(text.ends_with("</html>\r\n<mAin><after>"), "{text}");
    }
}
