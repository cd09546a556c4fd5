//! `upstream` blocks in http, and the variables that tell what became of each attempt.

use crate::conf::build::Commands;
use crate::conf::grammar::Context;
use crate::conf::{Build, Outcome};
use crate::http::module::Module;
use crate::http::request::Request;
use crate::upstream::directives::{self, Place};
use crate::upstream::state::{Field, http_list};
use crate::upstream::{Groups, RunTime};
use crate::value::{Builtin, Prefix, Template, VarId};

/// The http block as a place for `upstream` blocks.
pub struct Here;

impl Place for Here {
    const STREAM: bool = false;
    const CONTEXT: Context = Context::HTTP_UPSTREAM;

    fn groups(cf: &mut Build) -> &mut Groups {
        &mut cf.http.upstreams
    }

    fn template(cf: &mut Build, text: &[u8]) -> Outcome<Template> {
        cf.http.template(text)
    }

    fn variable(cf: &mut Build, name: &[u8]) -> VarId {
        cf.http.vars.index(name)
    }
}

/// `ngx_http_upstream`
pub struct Upstream;

impl Module for Upstream {
    type Main = ();
    type Srv = ();
    type Loc = ();

    const COMMANDS: Commands = Commands {
        module: "ngx_http_upstream",
        setters: &[
            ("upstream", directives::upstream::<Here>),
            ("server", directives::server::<Here>),
            ("resolver", directives::resolver::<Here>),
            ("resolver_timeout", directives::resolver_timeout::<Here>),
        ],
    };

    const VARIABLES: &'static [Builtin<Request>] = &[
        Builtin::new("upstream_addr", |r, out| http_list(&r.upstream_states, Field::Addr, out)),
        Builtin::new("upstream_status", |r, out| http_list(&r.upstream_states, Field::Status, out)),
        Builtin::new("upstream_connect_time", |r, out| {
            http_list(&r.upstream_states, Field::ConnectTime, out)
        }),
        Builtin::new("upstream_header_time", |r, out| http_list(&r.upstream_states, Field::HeaderTime, out)),
        Builtin::new("upstream_response_time", |r, out| {
            http_list(&r.upstream_states, Field::ResponseTime, out)
        }),
        Builtin::new("upstream_response_length", |r, out| {
            http_list(&r.upstream_states, Field::ResponseLength, out)
        }),
        // No cache ever has a say.
        Builtin::new("upstream_cache_status", |_, _| false),
        Builtin::new("upstream_cache_last_modified", |_, _| false),
        Builtin::new("upstream_cache_etag", |_, _| false),
        Builtin::new("upstream_bytes_sent", |r, out| http_list(&r.upstream_states, Field::BytesSent, out)),
        Builtin::new("upstream_bytes_received", |r, out| {
            http_list(&r.upstream_states, Field::BytesReceived, out)
        }),
    ];

    const PREFIXES: &'static [Prefix<Request>] = crate::http::upstream::PREFIXES;

    fn init(cf: &mut Build) -> Outcome {
        let core = cf.http.loc().core();
        let time =
            RunTime { stream: false, resolver: (*core.resolver).clone(), timeout: *core.resolver_timeout };
        cf.http.upstreams.finish(&time)
    }
}

/// Modules of directives inside `upstream` blocks; they have no settings of their own.
macro_rules! inside {
    ($($(#[$doc:meta])* $name:ident: $module:literal [$(($directive:literal, $set:ident)),*];)*) => {$(
        $(#[$doc])*
        pub struct $name;

        impl Module for $name {
            type Main = ();
            type Srv = ();
            type Loc = ();
            const COMMANDS: Commands = Commands {
                module: $module,
                setters: &[$(($directive, directives::$set::<Here>)),*],
            };
        }
    )*};
}

inside! {
    /// `hash`
    Hash: "ngx_http_upstream_hash" [("hash", hash)];
    /// `ip_hash`
    IpHash: "ngx_http_upstream_ip_hash" [("ip_hash", ip_hash)];
    /// `least_conn`
    LeastConn: "ngx_http_upstream_least_conn" [("least_conn", least_conn)];
    /// `least_time`
    LeastTime: "ngx_http_upstream_least_time" [("least_time", least_time)];
    /// `random`
    Random: "ngx_http_upstream_random" [("random", random)];
    /// `keepalive`
    Keepalive: "ngx_http_upstream_keepalive" [
        ("keepalive", keepalive),
        ("keepalive_requests", keepalive_requests),
        ("keepalive_time", keepalive_time),
        ("keepalive_timeout", keepalive_timeout)
    ];
    /// `zone`
    Zone: "ngx_http_upstream_zone" [("zone", zone)];
    /// `sticky`
    Sticky: "ngx_http_upstream_sticky" [("sticky", sticky)];
}
