//! `ngx_http_scgi`: passes requests on to SCGI servers. The exchange itself is in [`crate::http::upstream`], how
//! responses are read in [`crate::http::upstream::cgi`].

use super::LocBuild;
use super::cgi::{self, Cgi, Family};
use crate::conf::build::{Commands, Setter, both};
use crate::conf::{Build, Conf, Outcome};
use crate::http::conf::LocationBuild;
use crate::http::head::decimal;
use crate::http::module::{Handlers, Module, Verdict, Wait};
use crate::http::request::{BodyLength, Request};
use crate::http::upstream::cgi::{Packet, Plain};
use crate::http::upstream::{Settings, next, run};
use crate::upstream_setters;

/// The module.
pub struct Scgi;

/// Settings of a location.
#[derive(Clone, Debug, Default)]
pub struct LocConf {
    /// What all that pass requests on have.
    pub upstream: Settings,
    /// What it shares with FastCGI and uwsgi.
    pub cgi: Cgi,
}

impl Family for Scgi {
    const NAME: &'static str = "scgi";
    const SCHEMES: [&'static str; 2] = ["scgi://"; 2];

    fn cgi(loc: &mut LocBuild) -> &mut Cgi {
        &mut loc.scgi().cgi
    }
}

fn up(cf: &mut Build) -> &mut Settings {
    &mut cf.http.loc().scgi().upstream
}

const OWN: &[(&str, Setter)] =
    &[("scgi_pass", cgi::set_pass::<Scgi>), ("scgi_param", cgi::set_param::<Scgi>)];

const COMMON: &[(&str, Setter)] = upstream_setters!("scgi", up, next::CGI_WORDS);

impl Conf for LocConf {
    fn check(&self, _: &mut Build) -> Outcome {
        self.upstream.check("scgi")
    }

    fn merge(&mut self, parent: &Self, cf: &mut Build) -> Outcome {
        self.upstream.merge(&parent.upstream, "scgi", &cgi::HIDE, cf)?;
        self.cgi.merge(&parent.cgi, cf)
    }
}

impl Module for Scgi {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands =
        Commands { module: "ngx_http_scgi", setters: &both::<{ OWN.len() + COMMON.len() }>(OWN, COMMON) };

    fn handlers(loc: &crate::http::conf::Loc, to: &mut Handlers) {
        if *loc.scgi.cgi.passes_here {
            to.handler = Some(handler);
        }
    }

    fn close(location: &mut LocationBuild, cf: &mut Build) -> Outcome {
        cgi::close::<Scgi>(location, cf)
    }
}

fn handler(req: &mut Request) -> Wait<'_, Verdict> {
    Box::pin(pass(req))
}

async fn pass(req: &mut Request) -> Verdict {
    let location = req.conf;
    let conf: &'static LocConf = &location.scgi;
    let target = match cgi::target::<Scgi>(req, &conf.cgi, &conf.upstream, None).await {
        Ok(target) => target,
        Err(none) => return none.verdict(req),
    };
    let unbuffered = !*conf.upstream.request_buffering
        && *conf.upstream.pass_request_body
        && req.body_length != BodyLength::Chunked;
    let protocol = Plain::new(Netstring(conf), req);
    run(req, &conf.upstream, target, protocol, unbuffered).await
}

/// Parameters as SCGI has them: `LENGTH:NAME<0>VALUE<0>...,`, the body's length first.
struct Netstring(&'static LocConf);

impl Packet for Netstring {
    fn write(&self, req: &Request, out: &mut Vec<u8>) -> Result<(), u16> {
        let mut text = b"CONTENT_LENGTH\0".to_vec();
        let length = match req.body_length {
            BodyLength::Known(length) => length,
            BodyLength::Chunked => req.body.length,
            BodyLength::None => 0,
        };
        decimal(length, &mut text);
        text.push(0);
        self.0.cgi.params.each(req, *self.0.upstream.pass_request_headers, |name, value| {
            for part in [name, value] {
                text.extend_from_slice(part);
                text.push(0);
            }
        });
        decimal(text.len() as u64, out);
        out.push(b':');
        out.extend_from_slice(&text);
        out.push(b',');
        Ok(())
    }

    fn passes_body(&self) -> bool {
        *self.0.upstream.pass_request_body
    }
}
