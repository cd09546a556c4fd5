//! What `ngx_http_fastcgi`, `ngx_http_uwsgi` and `ngx_http_scgi` have in common: where requests go, and what is told
//! of them.

use std::sync::Arc;

use crate::conf::upstream_tls::UpstreamTls;
use crate::conf::url::{self, Use};
use crate::conf::{Build, Fault, Outcome};
use crate::http::conf::LocationBuild;
use crate::http::location::Kind;
use crate::http::modules::LocBuild;
use crate::http::request::Request;
use crate::http::upstream::params::{self, Params};
use crate::http::upstream::resolve::{self, NoPeers};
use crate::http::upstream::{Settings, Target, Tls};
use crate::log::{Level, bytes};
use crate::settings;
use crate::syntax::Directive;
use crate::upstream::{Group, GroupId, GroupRef};
use crate::value::Template;

/// `*_pass`
#[derive(Clone, Debug)]
pub enum Pass {
    /// To one group, over TLS or not.
    Group(GroupId, bool),
    /// To what the variables give.
    Dynamic(Template),
}

settings! {
    /// Settings of a location.
    pub struct Cgi {
        pass: Option<Arc<Pass>> = None,
        /// The directive stands in this very block.
        passes_here: bool = false,
        param_texts: Vec<params::Text> = Vec::new(),
        /// `param_texts` compiled.
        params: Arc<Params> = Arc::default(),
        /// A location in a location that passes requests on: where to is not inherited.
        isolated: bool = false,
    }
}

/// Fields of responses of FastCGI and SCGI that are not passed on by default.
pub const HIDE: [&str; 6] = [
    "Status",
    "X-Accel-Expires",
    "X-Accel-Redirect",
    "X-Accel-Limit-Rate",
    "X-Accel-Buffering",
    "X-Accel-Charset",
];

/// One of the modules.
pub trait Family {
    /// What its directives begin with.
    const NAME: &'static str;
    /// How a peer's URL begins in the log: plain, and with TLS.
    const SCHEMES: [&'static str; 2];
    /// Whether `*_pass` may begin with those, too.
    const HAS_SCHEME: bool = false;
    /// Whether a location with variables in `*_pass`, too, redirects those who leave its slash out.
    const REDIRECTS_ALWAYS: bool = false;

    /// The settings of a location that is being read.
    fn cgi(loc: &mut LocBuild) -> &mut Cgi;
}

/// `*_param NAME VALUE [if_not_empty]`
pub fn set_param<F: Family>(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let text = params::text(d)?;
    F::cgi(cf.http.loc()).param_texts.edit().push(text);
    Ok(())
}

/// Which scheme a URL begins with, and what follows it.
fn split<F: Family>(text: &[u8]) -> (Option<usize>, &[u8]) {
    let starts = |scheme: &str| {
        F::HAS_SCHEME
            && text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes()))
    };
    match F::SCHEMES.iter().position(|scheme| starts(scheme)) {
        Some(at) => (Some(at), &text[F::SCHEMES[at].len()..]),
        None => (None, text),
    }
}

/// `*_pass ADDRESS`
pub fn set_pass<F: Family>(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    if F::cgi(cf.http.loc()).pass.is_some() {
        return Err(Fault::directive("is duplicate"));
    }
    cf.checked.passes(F::NAME);
    let text = d.arg(1);
    let varies = memchr::memchr(b'$', text).is_some();
    let location = cf.http.location();
    if location.name.ends_with(b"/") && (F::REDIRECTS_ALWAYS || !varies) {
        location.auto_redirect = true;
    }
    let pass = if varies {
        Pass::Dynamic(cf.http.template(text)?)
    } else {
        let (scheme, rest) = split::<F>(text);
        let parsed = url::parse(rest, &Use { no_resolve: true, ..Use::default() })
            .map_err(|e| Fault::here(format!("{e} in upstream \"{}\"", String::from_utf8_lossy(rest))))?;
        Pass::Group(cf.http.upstreams.add_implicit(&parsed, d.at())?, scheme == Some(1))
    };
    let cgi = F::cgi(cf.http.loc());
    cgi.pass.put(Some(Arc::new(pass)));
    cgi.passes_here.put(true);
    Ok(())
}

impl Cgi {
    /// Completes a block's settings with its parent's.
    pub fn merge(&mut self, parent: &Cgi, cf: &mut Build) -> Outcome {
        let (own_pass, isolated) = ((*self.pass).clone(), *self.isolated);
        let (here, own_params) = (*self.passes_here, self.param_texts.is_set());
        self.inherit(parent);
        if isolated {
            self.pass.put(own_pass);
        }
        self.isolated.put(false);
        self.passes_here.put(here);
        if own_params || !parent.params.is_set() {
            let params = Params::new(&self.param_texts, cf)?;
            self.params.put(params);
        }
        Ok(())
    }

    /// Whether TLS may be spoken to peers.
    pub fn may_use_tls(&self) -> bool {
        matches!(self.pass.as_deref(), Some(Pass::Group(_, true) | Pass::Dynamic(_)))
    }
}

/// Where a location is closed: what is nested in it does not inherit where requests go, but its conditions do.
pub fn close<F: Family>(location: &mut LocationBuild, cf: &mut Build) -> Outcome {
    let outer = cf.http.location();
    let nested =
        !matches!(outer.kind, Kind::Server) && !matches!(location.kind, Kind::If | Kind::LimitExcept(_));
    if nested && F::cgi(&mut outer.conf).pass.is_some() {
        F::cgi(&mut location.conf).isolated.put(true);
    }
    Ok(())
}

/// Where the request goes; `ssl` where the module may speak TLS. The error was logged.
pub async fn target<F: Family>(
    req: &Request,
    cgi: &'static Cgi,
    upstream: &'static Settings,
    ssl: Option<&'static UpstreamTls>,
) -> Result<Target, NoPeers> {
    let location = std::ptr::from_ref(cgi) as u64;
    let http = req.http;
    let (group, tls) = match cgi.pass.as_deref() {
        Some(Pass::Group(group, tls)) => (GroupRef::Static(http.upstreams.get(*group)), *tls),
        // Boxed: most requests have no use for the room this takes.
        Some(Pass::Dynamic(template)) => Box::pin(evaluated::<F>(req, upstream, template)).await?,
        None => return Err(NoPeers::Status(500)),
    };
    let schema = F::SCHEMES[usize::from(tls)];
    let tls = match (tls, ssl) {
        (true, Some(ssl)) => Some(Tls::of(req, ssl, &group).map_err(NoPeers::Status)?),
        _ => None,
    };
    Ok(Target { group, tls, schema, location })
}

async fn evaluated<F: Family>(
    req: &Request,
    upstream: &'static Settings,
    template: &Template,
) -> Result<(GroupRef, bool), NoPeers> {
    let address = template.eval(req);
    let (scheme, rest) = match split::<F>(&address) {
        // A scheme alone is none.
        (Some(_), []) => (None, &address[..]),
        split => split,
    };
    let parsed = url::parse(rest, &Use { no_resolve: true, ..Use::default() }).map_err(|e| {
        req.log(Level::Error, None, format_args!("{e} in upstream \"{}\"", bytes(rest)));
        NoPeers::Status(500)
    })?;
    let group = resolve::peers(req, &parsed, *upstream.ignore_client_abort).await?;
    Ok((group, scheme == Some(1)))
}

impl Tls {
    /// TLS to the peers of a group, as `ssl` says; the error is the status to answer with.
    pub fn of(req: &Request, ssl: &'static UpstreamTls, group: &Group) -> Result<Tls, u16> {
        let connector = ssl.connector.as_ref().ok_or(500u16)?.clone();
        let (name, certificate) = (ssl.name_of(req, &group.name), ssl.names_of(req));
        Ok(Tls { connector, name, certificate, settings: ssl })
    }
}
