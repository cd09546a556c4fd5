//! `ngx_http_mirror`: copies of requests in the background.

use bytes::Bytes;

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Fault, Outcome, set};
use crate::http::conf::Loc;
use crate::http::module::{Handlers, Module, Step, Verdict};
use crate::http::request::Request;
use crate::settings;
use crate::syntax::Directive;

/// The module.
pub struct Mirror;

settings! {
    /// `mirror`
    pub struct LocConf {
        /// URIs of the copies; none at all with `off`.
        uris: Vec<Bytes> = Vec::new(),
        request_body: bool = true,
    }
}

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

impl Module for Mirror {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_mirror",
        setters: &[
            ("mirror", directive),
            ("mirror_request_body", |cf, d| set::flag(&mut cf.http.loc().mirror().request_body, d)),
        ],
    };

    fn handlers(loc: &Loc, to: &mut Handlers) {
        let loc = &loc.mirror;
        if !loc.uris.is_empty() {
            to.precontent.push(|req| Step::Later(Box::pin(handle(req))));
        }
    }
}

fn directive(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let uris = &mut cf.http.loc().mirror().uris;
    if d.arg(1) == b"off" {
        return uris.set(Vec::new());
    }
    if uris.is_set() && uris.is_empty() {
        return Err(Fault::directive("is duplicate"));
    }
    uris.edit().push(Bytes::copy_from_slice(d.arg(1)));
    Ok(())
}

async fn handle(req: &mut Request) -> Verdict {
    if req.is_subrequest() {
        return Verdict::Next;
    }
    let conf = req.conf;
    if *conf.mirror.request_body
        && let Err(verdict) = req.read_body().await
    {
        return verdict;
    }
    for uri in conf.mirror.uris.iter() {
        let Ok(mut child) = req.subrequest(uri.clone(), req.args.clone()) else {
            return Verdict::Status(500);
        };
        child.method = req.method;
        child.method_override = req.method_override;
        Request::run_in_background(child);
    }
    Verdict::Next
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{Site, emerg, loads};

    #[test]
    fn uris_and_off() {
        assert!(loads("server { mirror /a; mirror /b; location / { mirror off; } }"));
        assert!(emerg("server { mirror off; mirror /a; }").contains("\"mirror\" directive is duplicate"));
        assert!(emerg("server { mirror /a; mirror off; }").contains("\"mirror\" directive is duplicate"));
    }

    #[test]
    fn copies_are_made_with_method_and_arguments() {
        let site = Site::new(
            "log_format m '$request_method $uri?$args'; server { LISTEN log_subrequest on; access_log m.log m;
               location / { mirror /copy; return 200 main; }
               location /m/ { mirror /copy; alias html/; }
               location /copy { internal; return 204; } }",
        );
        site.folder.write("f", "file");
        let log = || std::fs::read_to_string(site.folder.path().join("m.log")).unwrap_or_default();
        assert_eq!(site.ask("GET", "/m/f?a=b", "").text(), "file");
        let start = std::time::Instant::now();
        while !log().contains("GET /copy?a=b\n") {
            assert!(start.elapsed().as_secs() < 10, "{}", log());
            std::thread::yield_now();
        }
    }
}
