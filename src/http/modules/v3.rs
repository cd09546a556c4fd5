//! `ngx_http_v3`: settings of HTTP/3. They only prepare: nothing listens with `quic`, so they are checked and that
//! is all.

use bytes::Bytes;

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Fault, Outcome, set};
use crate::http::module::Module;
use crate::http::request::Request;
use crate::settings;
use crate::syntax::Directive;
use crate::tls::keys;
use crate::value::Builtin;

/// The module.
pub struct V3;

settings! {
    /// What a server says about HTTP/3 and QUIC.
    pub struct Srv {
        enable: bool = true,
        enable_hq: bool = false,
        max_concurrent_streams: usize = 128,
        stream_buffer_size: usize = 65536,
        retry: bool = false,
        gso: bool = false,
        host_key: Bytes = Bytes::new(),
        active_connection_id_limit: usize = 2,
    }
}

impl Conf for Srv {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

fn own(cf: &mut Build) -> &mut Srv {
    cf.http.srv().v3()
}

impl Module for V3 {
    type Main = ();
    type Srv = Srv;
    type Loc = ();
    const COMMANDS: Commands = Commands {
        module: "ngx_http_v3",
        setters: &[
            ("http3", |cf, d| set::flag(&mut own(cf).enable, d)),
            ("http3_hq", |cf, d| set::flag(&mut own(cf).enable_hq, d)),
            ("http3_max_concurrent_streams", |cf, d| set::number(&mut own(cf).max_concurrent_streams, d)),
            ("http3_stream_buffer_size", |cf, d| set::size(&mut own(cf).stream_buffer_size, d)),
            ("quic_retry", |cf, d| set::flag(&mut own(cf).retry, d)),
            ("quic_gso", |cf, d| set::flag(&mut own(cf).gso, d)),
            ("quic_host_key", host_key),
            ("quic_active_connection_id_limit", |cf, d| {
                set::number(&mut own(cf).active_connection_id_limit, d)
            }),
        ],
    };
    const VARIABLES: &'static [Builtin<Request>] = &[Builtin::new("http3", |_, _| true)];
}

fn host_key(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    own(cf).host_key.once()?;
    let path = cf.conf_path(d.arg(1)).to_string_lossy().into_owned();
    let key = keys::secret(&path).map_err(Fault::here)?;
    if key.is_empty() {
        return Err(Fault::here(format!("\"{path}\" zero key size")));
    }
    own(cf).host_key.set(key.into())
}
