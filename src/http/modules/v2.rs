//! `ngx_http_v2`: settings of HTTP/2, which [`crate::http::http2`] speaks.

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Fault, Outcome, set};
use crate::http::module::Module;
use crate::http::request::{Request, Version};
use crate::settings;
use crate::syntax::Directive;
use crate::value::Builtin;

/// The module.
pub struct V2;

settings! {
    /// For all connections.
    pub struct Main {
        /// Bytes of nginx's one buffer for reading; a connection here reads into a pool's.
        recv_buffer_size: usize = 256 << 10,
    }
}

settings! {
    /// For the connections of a server.
    pub struct Srv {
        enable: bool = false,
        pool_size: usize = 4096,
        max_concurrent_streams: usize = 128,
        /// Bytes of a request's body that a client may send before it is asked for.
        body_preread_size: usize = 65536,
        streams_index_size: usize = 32,
    }
}

settings! {
    /// For responses.
    pub struct LocConf {
        /// Most bytes of a frame of body.
        chunk_size: usize = 8192,
    }
}

impl Conf for Main {
    fn merge(&mut self, _: &Self, _: &mut Build) -> Outcome {
        Ok(())
    }
}

impl Conf for Srv {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

/// Bytes of a frame's payload at most, as nginx sends them (RFC 9113, section 4.2, allows a peer to ask for it).
const MAX_FRAME: usize = (1 << 24) - 1;
/// Bytes of the largest window (RFC 9113, section 6.9.1).
const MAX_WINDOW: usize = (1 << 31) - 1;
/// Bytes that nginx keeps of an unfinished frame's head.
const STATE_BUFFER: usize = 16;

impl Module for V2 {
    type Main = Main;
    type Srv = Srv;
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_v2",
        setters: &[
            ("http2", |cf, d| set::flag(&mut cf.http.srv().v2().enable, d)),
            ("http2_recv_buffer_size", |cf, d| {
                let to = &mut cf.http.main().v2().recv_buffer_size;
                set::size(to, d)?;
                if **to <= STATE_BUFFER {
                    return Err(Fault::directive("value is too small"));
                }
                Ok(())
            }),
            ("http2_pool_size", |cf, d| {
                let to = &mut cf.http.srv().v2().pool_size;
                set::size(to, d)?;
                match **to {
                    size if size < 112 => Err(Fault::here("the pool size must be no less than 112")),
                    size if size % 16 != 0 => Err(Fault::here("the pool size must be a multiple of 16")),
                    _ => Ok(()),
                }
            }),
            ("http2_max_concurrent_streams", |cf, d| {
                set::number(&mut cf.http.srv().v2().max_concurrent_streams, d)
            }),
            ("http2_max_concurrent_pushes", ignored),
            ("http2_max_requests", |cf, d| obsolete(cf, d, "keepalive_requests")),
            ("http2_max_field_size", |cf, d| obsolete(cf, d, "large_client_header_buffers")),
            ("http2_max_header_size", |cf, d| obsolete(cf, d, "large_client_header_buffers")),
            ("http2_body_preread_size", |cf, d| {
                let to = &mut cf.http.srv().v2().body_preread_size;
                set::size(to, d)?;
                if **to > MAX_WINDOW {
                    let text = format!("the maximum body preread buffer size is {MAX_WINDOW}");
                    return Err(Fault::here(text));
                }
                Ok(())
            }),
            ("http2_streams_index_size", |cf, d| {
                let to = &mut cf.http.srv().v2().streams_index_size;
                set::number(to, d)?;
                if !to.is_power_of_two() {
                    return Err(Fault::directive("must be a power of two"));
                }
                Ok(())
            }),
            ("http2_recv_timeout", |cf, d| obsolete(cf, d, "client_header_timeout")),
            ("http2_idle_timeout", |cf, d| obsolete(cf, d, "keepalive_timeout")),
            ("http2_chunk_size", |cf, d| {
                let to = &mut cf.http.loc().v2().chunk_size;
                set::size(to, d)?;
                if **to == 0 {
                    return Err(Fault::here("the http2 chunk size cannot be zero"));
                }
                let size = **to;
                to.put(size.min(MAX_FRAME));
                Ok(())
            }),
            ("http2_push_preload", ignored),
            ("http2_push", ignored),
        ],
    };
    const VARIABLES: &'static [Builtin<Request>] = &[Builtin::cached("http2", |req, out| {
        match req.version == Version::Http2 {
            true if req.conn.is_tls() => out.extend_from_slice(b"h2"),
            true => out.extend_from_slice(b"h2c"),
            false => {}
        }
        true
    })];
}

fn obsolete(cf: &mut Build, d: &Directive<'_>, instead: &str) -> Outcome {
    let name = String::from_utf8_lossy(d.name());
    let text = format!("the \"{name}\" directive is obsolete, use the \"{instead}\" directive instead");
    cf.warn(d.at(), text);
    Ok(())
}

fn ignored(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let name = String::from_utf8_lossy(d.name());
    cf.warn(d.at(), format!("the \"{name}\" directive is obsolete, ignored"));
    Ok(())
}
