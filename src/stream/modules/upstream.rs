//! `upstream` blocks in stream, and the variables that tell what became of each attempt.

use crate::conf::build::Commands;
use crate::conf::grammar::Context;
use crate::conf::{Build, Outcome};
use crate::stream::module::Module;
use crate::stream::session::Session;
use crate::upstream::directives::{self, Place};
use crate::upstream::state::{Field, stream_list};
use crate::upstream::{Groups, RunTime};
use crate::value::{Builtin, Template, VarId};

/// The stream block as a place for `upstream` blocks.
pub struct Here;

impl Place for Here {
    const STREAM: bool = true;
    const CONTEXT: Context = Context::STREAM_UPSTREAM;

    fn groups(cf: &mut Build) -> &mut Groups {
        &mut cf.stream.upstreams
    }

    fn template(cf: &mut Build, text: &[u8]) -> Outcome<Template> {
        cf.stream.template(text)
    }

    fn variable(cf: &mut Build, name: &[u8]) -> VarId {
        cf.stream.vars.index(name)
    }
}

/// `ngx_stream_upstream`
pub struct Upstream;

impl Module for Upstream {
    type Main = ();
    type Srv = ();
    const COMMANDS: Commands = Commands {
        module: "ngx_stream_upstream",
        setters: &[
            ("upstream", directives::upstream::<Here>),
            ("server", directives::server::<Here>),
            ("resolver", directives::resolver::<Here>),
            ("resolver_timeout", directives::resolver_timeout::<Here>),
        ],
    };
    const VARIABLES: &'static [Builtin<Session>] = &[
        Builtin::new("upstream_addr", |s, out| list(s, Field::Addr, out)),
        Builtin::new("upstream_bytes_sent", |s, out| list(s, Field::BytesSent, out)),
        Builtin::new("upstream_bytes_received", |s, out| list(s, Field::BytesReceived, out)),
        Builtin::new("upstream_connect_time", |s, out| list(s, Field::ConnectTime, out)),
        Builtin::new("upstream_first_byte_time", |s, out| list(s, Field::HeaderTime, out)),
        Builtin::new("upstream_session_time", |s, out| list(s, Field::ResponseTime, out)),
    ];

    fn init(cf: &mut Build) -> Outcome {
        let core = cf.stream.srv().core();
        let time =
            RunTime { stream: true, resolver: (*core.resolver).clone(), timeout: *core.resolver_timeout };
        cf.stream.upstreams.finish(&time)
    }
}

fn list(s: &Session, field: Field, out: &mut Vec<u8>) -> bool {
    stream_list(&s.upstream.attempts.borrow(), field, out)
}

/// Modules of directives inside `upstream` blocks; they have no settings of their own.
macro_rules! inside {
    ($($(#[$doc:meta])* $name:ident: $module:literal $directive:literal $set:ident;)*) => {$(
        $(#[$doc])*
        pub struct $name;

        impl Module for $name {
            type Main = ();
            type Srv = ();
            const COMMANDS: Commands =
                Commands { module: $module, setters: &[($directive, directives::$set::<Here>)] };
        }
    )*};
}

inside! {
    /// `hash`
    Hash: "ngx_stream_upstream_hash" "hash" hash;
    /// `least_conn`
    LeastConn: "ngx_stream_upstream_least_conn" "least_conn" least_conn;
    /// `least_time`
    LeastTime: "ngx_stream_upstream_least_time" "least_time" least_time;
    /// `random`
    Random: "ngx_stream_upstream_random" "random" random;
    /// `zone`
    Zone: "ngx_stream_upstream_zone" "zone" zone;
}
