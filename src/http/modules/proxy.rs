//! `ngx_http_proxy`: passes requests on to HTTP servers. The exchange itself is in [`crate::http::upstream`], the
//! request's head in [`super::proxy_request`], the URL in [`super::proxy_url`], rewriting of what comes back in [`super::proxy_rewrite`], TLS in
//! [`super::proxy_ssl`].

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::proxy_request::{self, BodyFacts, HeaderOps};
use super::proxy_rewrite::{self, CookieFlags, Rewrite};
use super::proxy_ssl;
use super::proxy_url::{Vars, VarsRef, parse, schema, target, vars_of};
use crate::conf::build::{Commands, Setter, both};
use crate::conf::upstream_tls::{UpstreamTls, Use};
use crate::conf::{Build, Conf, Fault, Outcome, set};
use crate::http::conf::LocationBuild;
use crate::http::headers::{CONTENT_LENGTH, X_FORWARDED_FOR};
use crate::http::location::Kind;
use crate::http::module::{Handlers, Module, Verdict, Wait};
use crate::http::request::{BodyLength, Request};
use crate::http::upstream::{
    Fault as Failure, Framing, Head, HeadStep, Protocol, Redirected, Settings, http1, next, run,
};
use crate::log::Level;
use crate::process::memory::boxed;
use crate::syntax::Directive;
use crate::upstream::GroupId;
use crate::value::{Builtin, Template};
use crate::{settings, upstream_setters};

/// The module.
pub struct Proxy;

/// `proxy_pass`
#[derive(Clone, Debug)]
pub enum Pass {
    /// To one group.
    Group {
        /// Whose peers.
        group: GroupId,
        /// `https`
        tls: bool,
        /// See there.
        vars: Vars,
        /// As written.
        url: Bytes,
    },
    /// To what the variables give.
    Dynamic(Template),
}

/// `proxy_http_version`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

settings! {
    /// What only this module has.
    pub struct Own {
        pass: Option<Arc<Pass>> = None,
        http_version: HttpVersion = HttpVersion::Http11,
        method: Option<Template> = None,
        /// As written; compiled once blocks are merged.
        body_text: Option<Bytes> = None,
        set_body: Option<Template> = None,
        set_headers: Vec<(Bytes, Bytes)> = Vec::new(),
        /// `set_headers` compiled.
        headers: Arc<HeaderOps> = Arc::default(),
        redirect: bool = true,
        redirects: Option<Vec<Rewrite>> = None,
        cookie_domains: Option<Vec<Rewrite>> = None,
        cookie_paths: Option<Vec<Rewrite>> = None,
        cookie_flags: Option<Vec<CookieFlags>> = None,
        headers_hash_max_size: usize = 512,
        headers_hash_bucket_size: usize = 64,
        /// A location in a proxied location: `proxy_pass` is not inherited.
        isolated: bool = false,
    }
}

/// Settings of a location.
#[derive(Clone, Debug, Default)]
pub struct LocConf {
    /// What all that pass requests on have.
    pub upstream: Settings,
    /// TLS.
    pub ssl: UpstreamTls,
    /// The rest.
    pub own: Own,
}

/// Fields of responses that are not passed on by default.
const HIDE: [&str; 8] = [
    "Date",
    "Server",
    "X-Pad",
    "X-Accel-Expires",
    "X-Accel-Redirect",
    "X-Accel-Limit-Rate",
    "X-Accel-Buffering",
    "X-Accel-Charset",
];

/// The settings of the block that is being read.
pub fn loc(cf: &mut Build) -> &mut LocConf {
    cf.http.loc().proxy()
}

fn up(cf: &mut Build) -> &mut Settings {
    &mut loc(cf).upstream
}

const OWN: &[(&str, Setter)] = &[
    ("proxy_pass", pass),
    ("proxy_redirect", proxy_rewrite::set_redirect),
    ("proxy_cookie_domain", proxy_rewrite::set_cookie_domain),
    ("proxy_cookie_path", proxy_rewrite::set_cookie_path),
    ("proxy_cookie_flags", proxy_rewrite::set_cookie_flags),
    ("proxy_send_lowat", |cf, d| Settings::set_send_lowat(cf, d, up)),
    ("proxy_set_header", |cf, d| {
        let field = (Bytes::copy_from_slice(d.arg(1)), Bytes::copy_from_slice(d.arg(2)));
        loc(cf).own.set_headers.edit().push(field);
        Ok(())
    }),
    ("proxy_headers_hash_max_size", |cf, d| set::number(&mut loc(cf).own.headers_hash_max_size, d)),
    ("proxy_headers_hash_bucket_size", |cf, d| set::number(&mut loc(cf).own.headers_hash_bucket_size, d)),
    ("proxy_set_body", |cf, d| {
        loc(cf).own.body_text.once()?;
        loc(cf).own.body_text.set(Some(Bytes::copy_from_slice(d.arg(1))))
    }),
    ("proxy_method", |cf, d| {
        loc(cf).own.method.once()?;
        let method = cf.http.template(d.arg(1))?;
        loc(cf).own.method.set(Some(method))
    }),
    ("proxy_pass_trailers", |cf, d| set::flag(&mut up(cf).pass_trailers, d)),
    ("proxy_http_version", |cf, d| {
        if d.arg(1) == b"2" {
            cf.messages
                .push((Level::Notice, format!("\"proxy_http_version 2\" is not supported by nxr{}", d.at())));
        }
        let words = [("1.0", HttpVersion::Http10), ("1.1", HttpVersion::Http11)];
        set::choice(&mut loc(cf).own.http_version, d, &words)
    }),
];

const COMMON: &[(&str, Setter)] = upstream_setters!("proxy", up, next::WORDS);

const PLAIN: &[(&str, Setter)] = &both::<{ OWN.len() + COMMON.len() }>(OWN, COMMON);

const ALL: usize = PLAIN.len() + proxy_ssl::SETTERS.len();

impl Conf for LocConf {
    fn check(&self, _: &mut Build) -> Outcome {
        self.upstream.check("proxy")
    }

    fn merge(&mut self, parent: &Self, cf: &mut Build) -> Outcome {
        self.upstream.merge(&parent.upstream, "proxy", &HIDE, cf)?;
        let own_pass: Option<Arc<Pass>> = (*self.own.pass).clone();
        let isolated = *self.own.isolated;
        let own_headers = self.own.set_headers.is_set();
        let own_body = self.own.body_text.is_set();
        self.own.inherit(&parent.own);
        if isolated {
            self.own.pass.put(own_pass.clone());
        }
        self.own.isolated.put(false);
        let tls = match self.own.pass.as_deref() {
            Some(Pass::Group { tls, .. }) => *tls,
            Some(Pass::Dynamic(_)) => true,
            None => false,
        };
        let how = Use { prefix: "proxy", used: tls, differs: false, alpn: Vec::new() };
        self.ssl.merge(&parent.ssl, how, cf)?;
        let default = *self.own.redirect && self.own.redirects.is_none() && own_pass.is_some();
        if default && let Ok(rule) = self.own.default_redirect() {
            self.own.redirects.put(Some(vec![rule]));
        }
        if own_body && let Some(text) = &*self.own.body_text {
            let body = cf.http.template(text)?;
            self.own.set_body.put(Some(body));
        }
        if own_headers || !parent.own.headers.is_set() {
            let headers = HeaderOps::new(&self.own.set_headers, cf)?;
            self.own.headers.put(headers);
        }
        Ok(())
    }
}

impl Own {
    /// What `proxy_redirect default` means here.
    pub fn default_redirect(&self) -> Outcome<Rewrite> {
        match self.pass.as_deref() {
            Some(Pass::Dynamic(_)) => Err(Fault::here(
                "\"proxy_redirect default\" cannot be used with \"proxy_pass\" directive with variables",
            )),
            None => Err(Fault::here(
                "\"proxy_redirect default\" should be placed after the \"proxy_pass\" directive",
            )),
            Some(Pass::Group { vars, url, .. }) if vars.uri.is_empty() => {
                Ok(Rewrite::prefix([url, &b"/"[..]].concat().into(), Bytes::from_static(b"/")))
            }
            Some(Pass::Group { vars, url, .. }) => Ok(Rewrite::prefix(url.clone(), vars.location.clone())),
        }
    }
}

impl Module for Proxy {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands =
        Commands { module: "ngx_http_proxy", setters: &both::<ALL>(PLAIN, proxy_ssl::SETTERS) };

    const VARIABLES: &'static [Builtin<Request>] = &[
        Builtin::changeable("proxy_host", |r, out| {
            with_vars(r, |vars| out.extend_from_slice(&vars.host_header))
        }),
        Builtin::changeable("proxy_port", |r, out| with_vars(r, |vars| out.extend_from_slice(&vars.port))),
        Builtin::new("proxy_add_x_forwarded_for", add_x_forwarded_for),
        // As in nginx, a name without a value.
        Builtin::new("proxy_add_via", |_, _| false),
        Builtin::new("proxy_internal_body_length", |r, out| {
            let length = r.proxied.body.and_then(|body| body.length);
            length.map(|length| crate::http::head::decimal(length, out)).is_some()
        }),
        Builtin::new("proxy_internal_chunked", |r, out| {
            let chunked = r.proxied.body.is_some_and(|body| body.chunked);
            if chunked {
                out.extend_from_slice(b"chunked");
            }
            chunked
        }),
    ];

    fn handlers(loc: &crate::http::conf::Loc, to: &mut Handlers) {
        if loc.proxy.own.pass.is_some() {
            to.handler = Some(handler);
        }
    }

    fn close(location: &mut LocationBuild, cf: &mut Build) -> Outcome {
        let outer = cf.http.location();
        let nested =
            !matches!(outer.kind, Kind::Server) && !matches!(location.kind, Kind::If | Kind::LimitExcept(_));
        if nested && outer.conf.proxy().own.pass.is_some() {
            location.conf.proxy().own.isolated.put(true);
        }
        Ok(())
    }
}

/// `proxy_pass URL`
fn pass(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    if loc(cf).own.pass.is_some() {
        return Err(Fault::directive("is duplicate"));
    }
    cf.checked.passes("proxy");
    let location = cf.http.location();
    let name = Bytes::copy_from_slice(&location.name);
    let prefixed = matches!(location.kind, Kind::Exact | Kind::Prefix { .. });
    if name.ends_with(b"/") {
        cf.http.location().auto_redirect = true;
    }
    let text = d.arg(1);
    if memchr::memchr(b'$', text).is_some() {
        let url = cf.http.template(text)?;
        loc(cf).own.pass.put(Some(Arc::new(Pass::Dynamic(url))));
        return Ok(());
    }
    let Some((tls, rest)) = schema(text) else { return Err(Fault::here("invalid URL prefix")) };
    let parsed = parse(rest, tls)
        .map_err(|e| Fault::here(format!("{e} in upstream \"{}\"", String::from_utf8_lossy(rest))))?;
    let group = cf.http.upstreams.add_implicit(&parsed, d.at())?;
    let mut vars = vars_of(&parsed, tls);
    if prefixed {
        vars.location = name;
    } else if !vars.uri.is_empty() {
        return Err(Fault::here(
            "\"proxy_pass\" cannot have URI part in location given by regular expression, or inside named \
             location, or inside \"if\" statement, or inside \"limit_except\" block",
        ));
    }
    let url = Bytes::copy_from_slice(text);
    loc(cf).own.pass.put(Some(Arc::new(Pass::Group { group, tls, vars, url })));
    Ok(())
}

/// What a request that is passed on knows of it.
#[derive(Default)]
pub struct Proxied {
    vars: Option<VarsRef>,
    body: Option<BodyFacts>,
}

fn with_vars(req: &Request, each: impl FnOnce(&Vars)) -> bool {
    req.proxied.vars.as_ref().map(|vars| each(vars)).is_some()
}

/// The client's address behind those the request came with.
fn add_x_forwarded_for(req: &Request, out: &mut Vec<u8>) -> bool {
    for value in req.head.headers.all(X_FORWARDED_FOR) {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(req.conn.client_text().as_bytes());
    true
}

fn handler(req: &mut Request) -> Wait<'_, Verdict> {
    boxed(|| proxy(req))
}

async fn proxy(req: &mut Request) -> Verdict {
    let location = req.conf;
    let conf: &'static LocConf = &location.proxy;
    let (target, vars) = match target(req, conf).await {
        Ok(found) => found,
        Err(none) => return none.verdict(req),
    };
    req.proxied.vars = Some(vars.clone());
    let unbuffered = !*conf.upstream.request_buffering
        && conf.own.set_body.is_none()
        && *conf.upstream.pass_request_body
        && (req.body_length != BodyLength::Chunked || *conf.own.http_version == HttpVersion::Http11);
    let response = http1::Response::new(*conf.upstream.pass_trailers);
    let protocol = Http { conf, vars, response, chunks: false };
    run(req, &conf.upstream, target, protocol, unbuffered).await
}

/// HTTP/1 as `proxy_*` has it.
struct Http {
    conf: &'static LocConf,
    vars: VarsRef,
    response: http1::Response,
    chunks: bool,
}

impl Http {
    /// What is known of the body that will be sent.
    fn body(&self, req: &Request, own: Option<&Bytes>) -> BodyFacts {
        if let Some(own) = own {
            return BodyFacts { length: Some(own.len() as u64), chunked: false };
        }
        match req.body_length {
            BodyLength::Known(length) => BodyFacts { length: Some(length), chunked: false },
            BodyLength::None => {
                let told = req.head.headers.contains(CONTENT_LENGTH);
                BodyFacts { length: told.then_some(0), chunked: false }
            }
            BodyLength::Chunked if req.body.complete => {
                BodyFacts { length: Some(req.body.length), chunked: false }
            }
            BodyLength::Chunked => BodyFacts { length: None, chunked: true },
        }
    }
}

impl Protocol for Http {
    type Response = http1::Response;

    fn create_request(&mut self, req: &mut Request, out: &mut Vec<u8>) -> Result<Range<usize>, u16> {
        let own = self.conf.own.set_body.as_ref().map(|template| template.eval(req));
        let body = self.body(req, own.as_ref());
        self.chunks = body.chunked;
        req.proxied.body = Some(body);
        let uri = proxy_request::write(req, self.conf, &self.vars, body, out)?;
        self.response.head_request =
            out.len() > 4 && out[..4].eq_ignore_ascii_case(b"HEAD") && out[4] == b' ';
        if let Some(own) = own {
            out.extend_from_slice(&own);
        }
        Ok(uri)
    }

    fn passes_body(&self) -> bool {
        self.conf.own.set_body.is_none() && *self.conf.upstream.pass_request_body
    }

    fn framing(&self) -> Framing {
        if self.chunks { Framing::Chunks } else { Framing::None }
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

    #[inline(never)]
    fn rewrite_redirect(&self, req: &Request, value: &[u8], prefix: usize) -> Redirected {
        proxy_rewrite::redirect(&self.conf.own, req, value, prefix)
    }

    #[inline(never)]
    fn rewrite_cookie(&self, req: &Request, value: &[u8]) -> Option<Vec<u8>> {
        proxy_rewrite::cookie(&self.conf.own, req, value)
    }
}
