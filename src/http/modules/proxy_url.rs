//! The URL of `proxy_pass`: its parts, and where it leads a request.

use std::sync::Arc;

use bytes::Bytes;

use super::proxy::{LocConf, Pass};
use crate::conf::url::{self, Url, Use};
use crate::http::request::Request;
use crate::http::upstream::resolve::{self, NoPeers};
use crate::http::upstream::{Target, Tls};
use crate::log::{Level, bytes};
use crate::net::Address;
use crate::upstream::{Group, GroupRef};

/// Parts of a URL that requests are passed to.
#[derive(Clone, Debug, Default)]
pub struct Vars {
    /// `$proxy_host`
    pub host_header: Bytes,
    /// `$proxy_port`
    pub port: Bytes,
    /// The URI part; empty where there is none.
    pub uri: Bytes,
    /// What the URI part replaces: the location's name.
    pub location: Bytes,
    /// The URL had variables: its URI part is the whole URI.
    pub evaluated: bool,
}

/// Whether it is https, and what follows the scheme.
pub fn schema(url: &[u8]) -> Option<(bool, &[u8])> {
    for (word, tls) in [(&b"http://"[..], false), (b"https://", true)] {
        if url.len() >= word.len() && url[..word.len()].eq_ignore_ascii_case(word) {
            return Some((tls, &url[word.len()..]));
        }
    }
    None
}

/// Takes an address and its URI apart; names are not resolved.
pub fn parse(text: &[u8], tls: bool) -> Result<Url, url::UrlError> {
    let default_port = if tls { 443 } else { 80 };
    url::parse(text, &Use { default_port, uri_part: true, no_resolve: true, ..Use::default() })
}

/// What the variables say of a URL.
pub fn vars_of(url: &Url, tls: bool) -> Vars {
    let mut vars = Vars { uri: Bytes::copy_from_slice(&url.uri), ..Vars::default() };
    if matches!(url.addrs[..], [Address::Unix(_)]) {
        vars.host_header = Bytes::from_static(b"localhost");
        return vars;
    }
    let default = if tls { 443 } else { 80 };
    if url.no_port || url.port == default {
        vars.host_header = Bytes::copy_from_slice(&url.host);
        vars.port = Bytes::from_static(if tls { b"443" } else { b"80" });
    } else {
        vars.host_header = [&url.host[..], b":", &url.port_text].concat().into();
        vars.port = Bytes::copy_from_slice(&url.port_text);
    }
    vars
}

/// The parts of the configuration's URL, or of one that was put together for a request.
#[derive(Clone)]
pub enum VarsRef {
    /// Of the configuration.
    Static(&'static Vars),
    /// Of one request.
    Own(Arc<Vars>),
}

impl std::ops::Deref for VarsRef {
    type Target = Vars;
    fn deref(&self) -> &Vars {
        match self {
            VarsRef::Static(vars) => vars,
            VarsRef::Own(vars) => vars,
        }
    }
}

/// Where the request goes. The error is the status to answer with; it was logged.
pub async fn target(req: &Request, conf: &'static LocConf) -> Result<(Target, VarsRef), NoPeers> {
    let location = std::ptr::from_ref(conf) as u64;
    let http = req.http;
    match conf.own.pass.as_deref() {
        Some(Pass::Group { group, tls, vars, .. }) => {
            let group: &'static Group = http.upstreams.get(*group);
            let tls = tls_of(req, conf, *tls, group).map_err(NoPeers::Status)?;
            let schema = if tls.is_some() { "https://" } else { "http://" };
            let target = Target { group: GroupRef::Static(group), tls, schema, location };
            Ok((target, VarsRef::Static(vars)))
        }
        // Boxed: most requests have no use for the room this takes.
        Some(Pass::Dynamic(template)) => Box::pin(evaluated(req, conf, template.eval(req), location)).await,
        None => Err(NoPeers::Status(500)),
    }
}

async fn evaluated(
    req: &Request,
    conf: &'static LocConf,
    url: Bytes,
    location: u64,
) -> Result<(Target, VarsRef), NoPeers> {
    let Some((tls, rest)) = schema(&url).filter(|(_, rest)| !rest.is_empty()) else {
        req.log(Level::Error, None, format_args!("invalid URL prefix in \"{}\"", bytes(&url)));
        return Err(NoPeers::Status(500));
    };
    let parsed = parse(rest, tls).map_err(|e| {
        req.log(Level::Error, None, format_args!("{e} in upstream \"{}\"", bytes(rest)));
        NoPeers::Status(500)
    })?;
    let mut vars = vars_of(&parsed, tls);
    vars.evaluated = true;
    if vars.uri.starts_with(b"?") {
        vars.uri = [b"/", &vars.uri[..]].concat().into();
    }
    let group = resolve::peers(req, &parsed, *conf.upstream.ignore_client_abort).await?;
    let tls = tls_of(req, conf, tls, &group).map_err(NoPeers::Status)?;
    let schema = if tls.is_some() { "https://" } else { "http://" };
    Ok((Target { group, tls, schema, location }, VarsRef::Own(Arc::new(vars))))
}

fn tls_of(req: &Request, conf: &'static LocConf, tls: bool, group: &Group) -> Result<Option<Tls>, u16> {
    tls.then(|| Tls::of(req, &conf.ssl, group)).transpose()
}
