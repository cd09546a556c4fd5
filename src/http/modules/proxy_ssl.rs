//! The `proxy_ssl_*` directives of `ngx_http_proxy`: TLS to upstreams.

use super::proxy::loc;
use crate::conf::build::Setter;
use crate::conf::upstream_tls::{Place, UpstreamTls};
use crate::conf::{Build, Outcome};
use crate::upstream_tls_setters;
use crate::value::Template;

struct Proxy;

impl Place for Proxy {
    fn tls(cf: &mut Build) -> &mut UpstreamTls {
        &mut loc(cf).ssl
    }

    fn template(cf: &mut Build, text: &[u8]) -> Outcome<Template> {
        cf.http.template(text)
    }
}

/// Directives and setters.
pub const SETTERS: &[(&str, Setter)] = upstream_tls_setters!("proxy", Proxy);
