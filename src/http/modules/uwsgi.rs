//! `ngx_http_uwsgi`: passes requests on to uwsgi servers, over TLS if need be. The exchange itself is in
//! [`crate::http::upstream`], how responses are read in [`crate::http::upstream::cgi`].

use bytes::Bytes;

use super::LocBuild;
use super::cgi::{self, Cgi, Family};
use crate::conf::build::{Commands, Setter, both};
use crate::conf::upstream_tls::{Place, UpstreamTls, Use};
use crate::conf::{Build, Conf, Fault, Outcome, Setting, set};
use crate::http::conf::LocationBuild;
use crate::http::module::{Handlers, Module, Verdict, Wait};
use crate::http::request::{BodyLength, Request};
use crate::http::upstream::cgi::{Packet, Plain};
use crate::http::upstream::{Settings, next, run};
use crate::log::Level;
use crate::syntax::Directive;
use crate::value::Template;
use crate::{settings, upstream_setters, upstream_tls_setters};

/// The module.
pub struct Uwsgi;

settings! {
    /// What only this module has.
    pub struct Own {
        modifier1: usize = 0,
        modifier2: usize = 0,
        string: Bytes = Bytes::new(),
    }
}

/// Settings of a location.
#[derive(Clone, Debug, Default)]
pub struct LocConf {
    /// What all that pass requests on have.
    pub upstream: Settings,
    /// What it shares with FastCGI and SCGI.
    pub cgi: Cgi,
    /// TLS.
    pub ssl: UpstreamTls,
    /// The rest.
    pub own: Own,
}

/// Fields of responses that are not passed on by default.
const HIDE: [&str; 5] =
    ["X-Accel-Expires", "X-Accel-Redirect", "X-Accel-Limit-Rate", "X-Accel-Buffering", "X-Accel-Charset"];

/// Bytes of a packet at most.
const MAX: usize = 65_535;

impl Family for Uwsgi {
    const NAME: &'static str = "uwsgi";
    const SCHEMES: [&'static str; 2] = ["uwsgi://", "suwsgi://"];
    const HAS_SCHEME: bool = true;

    fn cgi(loc: &mut LocBuild) -> &mut Cgi {
        &mut loc.uwsgi().cgi
    }
}

impl Place for Uwsgi {
    fn tls(cf: &mut Build) -> &mut UpstreamTls {
        &mut cf.http.loc().uwsgi().ssl
    }

    fn template(cf: &mut Build, text: &[u8]) -> Outcome<Template> {
        cf.http.template(text)
    }
}

fn up(cf: &mut Build) -> &mut Settings {
    &mut cf.http.loc().uwsgi().upstream
}

fn own(cf: &mut Build) -> &mut Own {
    &mut cf.http.loc().uwsgi().own
}

const OWN: &[(&str, Setter)] = &[
    ("uwsgi_pass", cgi::set_pass::<Uwsgi>),
    ("uwsgi_param", cgi::set_param::<Uwsgi>),
    ("uwsgi_modifier1", |cf, d| byte(&mut own(cf).modifier1, d)),
    ("uwsgi_modifier2", |cf, d| byte(&mut own(cf).modifier2, d)),
    ("uwsgi_string", |cf, d| set::text(&mut own(cf).string, d)),
];

const COMMON: &[(&str, Setter)] = upstream_setters!("uwsgi", up, next::CGI_WORDS);

const SSL: &[(&str, Setter)] = upstream_tls_setters!("uwsgi", Uwsgi);

const PLAIN: &[(&str, Setter)] = &both::<{ OWN.len() + COMMON.len() }>(OWN, COMMON);

fn byte(to: &mut Setting<usize>, d: &Directive<'_>) -> Outcome {
    set::number(to, d)?;
    match **to {
        0..=255 => Ok(()),
        _ => Err(Fault::here("value must be between 0 and 255")),
    }
}

impl Conf for LocConf {
    fn check(&self, _: &mut Build) -> Outcome {
        self.upstream.check("uwsgi")
    }

    fn merge(&mut self, parent: &Self, cf: &mut Build) -> Outcome {
        self.upstream.merge(&parent.upstream, "uwsgi", &HIDE, cf)?;
        self.own.inherit(&parent.own);
        self.cgi.merge(&parent.cgi, cf)?;
        let used = self.cgi.may_use_tls();
        let how = Use { prefix: "uwsgi", used, differs: false, alpn: Vec::new() };
        self.ssl.merge(&parent.ssl, how, cf)
    }
}

impl Module for Uwsgi {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands =
        Commands { module: "ngx_http_uwsgi", setters: &both::<{ PLAIN.len() + SSL.len() }>(PLAIN, SSL) };

    fn handlers(loc: &crate::http::conf::Loc, to: &mut Handlers) {
        if *loc.uwsgi.cgi.passes_here {
            to.handler = Some(handler);
        }
    }

    fn close(location: &mut LocationBuild, cf: &mut Build) -> Outcome {
        cgi::close::<Uwsgi>(location, cf)
    }
}

fn handler(req: &mut Request) -> Wait<'_, Verdict> {
    Box::pin(pass(req))
}

async fn pass(req: &mut Request) -> Verdict {
    let location = req.conf;
    let conf: &'static LocConf = &location.uwsgi;
    let target = match cgi::target::<Uwsgi>(req, &conf.cgi, &conf.upstream, Some(&conf.ssl)).await {
        Ok(target) => target,
        Err(none) => return none.verdict(req),
    };
    let unbuffered = !*conf.upstream.request_buffering
        && *conf.upstream.pass_request_body
        && req.body_length != BodyLength::Chunked;
    let protocol = Plain::new(Variables(conf), req);
    run(req, &conf.upstream, target, protocol, unbuffered).await
}

/// Parameters as uwsgi has them: modifiers around the length of all, then names and values behind their lengths.
struct Variables(&'static LocConf);

impl Packet for Variables {
    fn write(&self, req: &Request, out: &mut Vec<u8>) -> Result<(), u16> {
        let own = &self.0.own;
        let start = out.len();
        out.extend_from_slice(&[*own.modifier1 as u8, 0, 0, *own.modifier2 as u8]);
        let from = out.len();
        self.0.cgi.params.each(req, *self.0.upstream.pass_request_headers, |name, value| {
            for part in [name, value] {
                out.extend_from_slice(&(part.len() as u16).to_le_bytes());
                out.extend_from_slice(part);
            }
        });
        out.extend_from_slice(&own.string);
        let length = out.len() - from;
        if length > MAX {
            req.log(Level::Alert, None, format_args!("uwsgi request is too big: {length}"));
            return Err(500);
        }
        out[start + 1..start + 3].copy_from_slice(&(length as u16).to_le_bytes());
        Ok(())
    }

    fn passes_body(&self) -> bool {
        *self.0.upstream.pass_request_body
    }
}
