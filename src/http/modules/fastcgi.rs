//! `ngx_http_fastcgi`: passes requests on to FastCGI servers. The exchange itself is in [`crate::http::upstream`], the
//! protocol in [`crate::http::upstream::fastcgi`].

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::LocBuild;
use super::cgi::{self, Cgi, Family};
use crate::conf::build::{Commands, Setter, both};
use crate::conf::{Build, Conf, Fault, Outcome, set};
use crate::http::conf::LocationBuild;
use crate::http::module::{Handlers, Module, Verdict, Wait};
use crate::http::request::Request;
use crate::http::upstream::fastcgi::{self, Response};
use crate::http::upstream::{Fault as Failure, Framing, Head, HeadStep, Protocol, Settings, next, run};
use crate::log::Level;
use crate::settings;
use crate::syntax::Directive;
use crate::upstream_setters;
use crate::value::{Builtin, Regex};

/// The module.
pub struct FastCgi;

settings! {
    /// What only this module has.
    pub struct Own {
        index: Bytes = Bytes::new(),
        split_path_info: Option<Arc<Regex>> = None,
        keep_conn: bool = false,
        catch_stderr: Vec<Bytes> = Vec::new(),
    }
}

/// Settings of a location.
#[derive(Clone, Debug, Default)]
pub struct LocConf {
    /// What all that pass requests on have.
    pub upstream: Settings,
    /// What it shares with uwsgi and SCGI.
    pub cgi: Cgi,
    /// The rest.
    pub own: Own,
}

impl Family for FastCgi {
    const NAME: &'static str = "fastcgi";
    const SCHEMES: [&'static str; 2] = ["fastcgi://"; 2];
    const REDIRECTS_ALWAYS: bool = true;

    fn cgi(loc: &mut LocBuild) -> &mut Cgi {
        &mut loc.fastcgi().cgi
    }
}

fn up(cf: &mut Build) -> &mut Settings {
    &mut cf.http.loc().fastcgi().upstream
}

fn own(cf: &mut Build) -> &mut Own {
    &mut cf.http.loc().fastcgi().own
}

const OWN: &[(&str, Setter)] = &[
    ("fastcgi_pass", cgi::set_pass::<FastCgi>),
    ("fastcgi_param", cgi::set_param::<FastCgi>),
    ("fastcgi_index", |cf, d| set::text(&mut own(cf).index, d)),
    ("fastcgi_split_path_info", split_path_info),
    ("fastcgi_keep_conn", |cf, d| set::flag(&mut own(cf).keep_conn, d)),
    ("fastcgi_catch_stderr", |cf, d| {
        own(cf).catch_stderr.edit().push(Bytes::copy_from_slice(d.arg(1)));
        Ok(())
    }),
    ("fastcgi_send_lowat", |cf, d| Settings::set_send_lowat(cf, d, up)),
];

const COMMON: &[(&str, Setter)] = upstream_setters!("fastcgi", up, next::CGI_WORDS);

/// `fastcgi_split_path_info REGEX`
fn split_path_info(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let regex = Regex::anonymous(d.arg(1), false).map_err(Fault::Here)?;
    if regex.groups() != 2 {
        let pattern = String::from_utf8_lossy(d.arg(1));
        return Err(Fault::here(format!("pattern \"{pattern}\" must have 2 captures")));
    }
    own(cf).split_path_info.put(Some(Arc::new(regex)));
    Ok(())
}

impl Conf for LocConf {
    fn check(&self, _: &mut Build) -> Outcome {
        self.upstream.check("fastcgi")
    }

    fn merge(&mut self, parent: &Self, cf: &mut Build) -> Outcome {
        self.upstream.merge(&parent.upstream, "fastcgi", &cgi::HIDE, cf)?;
        self.own.inherit(&parent.own);
        self.cgi.merge(&parent.cgi, cf)
    }
}

impl Module for FastCgi {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands =
        Commands { module: "ngx_http_fastcgi", setters: &both::<{ OWN.len() + COMMON.len() }>(OWN, COMMON) };

    const VARIABLES: &'static [Builtin<Request>] = &[
        Builtin::new("fastcgi_script_name", |req, out| {
            script_name(&req.conf.fastcgi.own, &req.uri, out);
            true
        }),
        Builtin::new("fastcgi_path_info", |req, out| {
            let (_, info) = split(&req.conf.fastcgi.own, &req.uri);
            out.extend_from_slice(&req.uri[info]);
            true
        }),
    ];

    fn handlers(loc: &crate::http::conf::Loc, to: &mut Handlers) {
        if *loc.fastcgi.cgi.passes_here {
            to.handler = Some(handler);
        }
    }

    fn close(location: &mut LocationBuild, cf: &mut Build) -> Outcome {
        cgi::close::<FastCgi>(location, cf)
    }
}

/// The parts of a URI that are the script's name and what follows it.
fn split(conf: &Own, uri: &[u8]) -> (Range<usize>, Range<usize>) {
    let Some(groups) = conf.split_path_info.as_ref().and_then(|regex| regex.find_groups(uri)) else {
        return (0..uri.len(), 0..0);
    };
    let group = |number: usize| groups.get(number).copied().flatten().map_or(0..0, |(from, to)| from..to);
    (group(1), group(2))
}

fn script_name(conf: &Own, uri: &[u8], out: &mut Vec<u8>) {
    let (script, _) = split(conf, uri);
    let script = &uri[script];
    out.extend_from_slice(script);
    if script.ends_with(b"/") {
        out.extend_from_slice(&conf.index);
    }
}

fn handler(req: &mut Request) -> Wait<'_, Verdict> {
    Box::pin(pass(req))
}

async fn pass(req: &mut Request) -> Verdict {
    let location = req.conf;
    let conf: &'static LocConf = &location.fastcgi;
    let target = match cgi::target::<FastCgi>(req, &conf.cgi, &conf.upstream, None).await {
        Ok(target) => target,
        Err(none) => return none.verdict(req),
    };
    let unbuffered = !*conf.upstream.request_buffering && *conf.upstream.pass_request_body;
    let response = Response::new(*conf.own.keep_conn, &conf.own.catch_stderr);
    run(req, &conf.upstream, target, Exchange { conf, response, body: false }, unbuffered).await
}

/// One request.
struct Exchange {
    conf: &'static LocConf,
    response: Response,
    /// The client's body follows.
    body: bool,
}

impl Protocol for Exchange {
    type Response = Response;

    fn create_request(&mut self, req: &mut Request, out: &mut Vec<u8>) -> Result<Range<usize>, u16> {
        let conf = self.conf;
        let start = fastcgi::begin(*conf.own.keep_conn, out);
        conf.cgi.params.each(req, *conf.upstream.pass_request_headers, |name, value| {
            fastcgi::pair(name, value, out);
        });
        fastcgi::end_params(start, out).map_err(|length| {
            req.log(Level::Alert, None, format_args!("fastcgi request record is too big: {length}"));
            500u16
        })?;
        self.body = *conf.upstream.pass_request_body && !(req.body.complete && req.body.length == 0);
        if !self.body {
            out.extend_from_slice(&fastcgi::END_OF_STDIN);
        }
        Ok(0..0)
    }

    fn passes_body(&self) -> bool {
        self.body
    }

    fn framing(&self) -> Framing {
        Framing::Records
    }

    fn parse_head(&mut self, req: &Request, buffer: &mut [u8], head: &mut Head) -> Result<HeadStep, Failure> {
        self.response.parse(&|level, what| req.log(level, None, what), buffer, head)
    }

    fn response(&self) -> &Self::Response {
        &self.response
    }

    fn response_mut(&mut self) -> &mut Self::Response {
        &mut self.response
    }

    fn is_http(&self) -> bool {
        false
    }

    fn upgrades(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(conf: &Own, uri: &str) -> String {
        let mut out = Vec::new();
        script_name(conf, uri.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn scripts_and_what_follows_them() {
        let mut conf = Own::default();
        assert_eq!(name(&conf, "/a/"), "/a/");
        conf.index.put("index.php".into());
        assert_eq!((name(&conf, "/a/"), name(&conf, "/a")), ("/a/index.php".into(), "/a".into()));
        let regex = Regex::anonymous(b"^(.+\\.php)(.*)$", false).unwrap();
        conf.split_path_info.put(Some(Arc::new(regex)));
        assert_eq!(name(&conf, "/x.php/more"), "/x.php");
        assert_eq!(split(&conf, b"/x.php/more").1, 6..11);
        assert_eq!(name(&conf, "/b/"), "/b/index.php");
    }
}
