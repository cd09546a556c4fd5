//! `ngx_stream_core`: what every server has. The blocks themselves are in [`crate::stream::conf`].

use std::io::Write;
use std::sync::Arc;

use crate::conf::build::Commands;
use crate::conf::listen::Side;
use crate::conf::names::ServerName;
use crate::conf::{Build, Conf, Outcome, resolver, set};
use crate::log::{ErrorLog, ErrorLogBuilder};
use crate::net::resolver::Resolver;
use crate::net::{Address, clock};
use crate::settings;
use crate::stream::conf;
use crate::stream::module::Module;
use crate::stream::session::Session;
use crate::syntax::Directive;
use crate::value::{Builtin, Prefix};

/// The module.
pub struct Core;

settings! {
    /// Sizes nginx gives its hashes; nxr's grow by themselves.
    pub struct Main {
        variables_hash_max_size: usize = 1024,
        variables_hash_bucket_size: usize = 64,
        server_names_hash_max_size: usize = 512,
        server_names_hash_bucket_size: usize = 64,
    }
}

settings! {
    /// What a server has in the core. Times in milliseconds.
    pub struct Srv {
        proxy_protocol_timeout: u64 = 30_000,
        tcp_nodelay: bool = true,
        preread_buffer_size: usize = 16384,
        preread_timeout: u64 = 30_000,
        resolver: Option<Arc<Resolver>> = None,
        resolver_timeout: u64 = 30_000,
        error_log: ErrorLogBuilder = ErrorLogBuilder::default(),
        /// What `error_log` comes to; none where only the main context has it.
        log: Option<ErrorLog> = None,
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
        if self.error_log.is_set() {
            self.log.put(Some((*self.error_log).clone().build()));
        }
        Ok(())
    }
}

impl Module for Core {
    type Main = Main;
    type Srv = Srv;
    const COMMANDS: Commands = Commands {
        module: "ngx_stream_core",
        setters: &[
            ("variables_hash_max_size", |cf, d| {
                set::number(&mut cf.stream.main().core().variables_hash_max_size, d)
            }),
            ("variables_hash_bucket_size", |cf, d| {
                set::number(&mut cf.stream.main().core().variables_hash_bucket_size, d)
            }),
            ("server_names_hash_max_size", |cf, d| {
                set::number(&mut cf.stream.main().core().server_names_hash_max_size, d)
            }),
            ("server_names_hash_bucket_size", |cf, d| {
                set::number(&mut cf.stream.main().core().server_names_hash_bucket_size, d)
            }),
            ("server", conf::server_block),
            ("listen", listen),
            ("server_name", server_name),
            ("error_log", |cf, d| {
                let mut log = std::mem::take(cf.stream.srv().core().error_log.edit());
                let read = crate::conf::core::add_error_log(cf, d, &mut log);
                cf.stream.srv().core().error_log.put(log);
                read
            }),
            ("proxy_protocol_timeout", |cf, d| {
                set::msec(&mut cf.stream.srv().core().proxy_protocol_timeout, d)
            }),
            ("tcp_nodelay", |cf, d| set::flag(&mut cf.stream.srv().core().tcp_nodelay, d)),
            ("preread_buffer_size", |cf, d| set::size(&mut cf.stream.srv().core().preread_buffer_size, d)),
            ("resolver", |cf, d| resolver::set(&mut cf.stream.srv().core().resolver, d)),
            ("resolver_timeout", |cf, d| set::msec(&mut cf.stream.srv().core().resolver_timeout, d)),
            ("preread_timeout", |cf, d| set::msec(&mut cf.stream.srv().core().preread_timeout, d)),
        ],
    };
    const VARIABLES: &'static [Builtin<Session>] = VARIABLES;
    const PREFIXES: &'static [Prefix<Session>] =
        &[Prefix { prefix: "proxy_protocol_tlv_", get: proxy_protocol_tlv }];
}

fn listen(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let index = cf.stream.server_index();
    if let Some(server) = cf.stream.server() {
        server.listens = true;
    }
    cf.stream.listens.directive(d, Side::Stream, index, &mut cf.messages)
}

fn server_name(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    for word in d.args() {
        let compile = |cf: &mut Build, pattern: &[u8], caseless| cf.stream.regex(pattern, caseless);
        let name = ServerName::parse(cf, d, word, compile)?;
        if let Some(server) = cf.stream.server() {
            server.names.push(name);
        }
    }
    Ok(())
}

// === variables ===

const VARIABLES: &[Builtin<Session>] = &[
    Builtin::cached("binary_remote_addr", |s, out| {
        match &s.client {
            Address::Inet(addr) => match addr.ip() {
                std::net::IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
                std::net::IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
            },
            Address::Unix(_) => out.extend_from_slice(b"unix:"),
        }
        true
    }),
    Builtin::cached("remote_addr", |s, out| text(out, &s.client.host())),
    Builtin::cached("remote_port", |s, out| port(out, s.client.port())),
    Builtin::new("proxy_protocol_addr", |s, out| {
        s.proxy_protocol.as_ref().is_some_and(|header| bytes(out, &header.source))
    }),
    Builtin::new("proxy_protocol_port", |s, out| {
        s.proxy_protocol.as_ref().is_some_and(|header| port(out, Some(header.source_port)))
    }),
    Builtin::new("proxy_protocol_server_addr", |s, out| {
        s.proxy_protocol.as_ref().is_some_and(|header| bytes(out, &header.destination))
    }),
    Builtin::new("proxy_protocol_server_port", |s, out| {
        s.proxy_protocol.as_ref().is_some_and(|header| port(out, Some(header.destination_port)))
    }),
    Builtin::new("server_addr", |s, out| text(out, &s.local().host())),
    Builtin::new("server_port", |s, out| port(out, s.local().port())),
    Builtin::cached("server_name", |s, out| bytes(out, &s.server.name)),
    Builtin::cached("bytes_sent", |s, out| text(out, &s.sent.get().to_string())),
    Builtin::cached("bytes_received", |s, out| text(out, &s.received.get().to_string())),
    Builtin::new("session_time", |s, out| {
        let (now, start) = (clock::wall(), s.start);
        let ms = (now.sec - start.sec) * 1000 + i64::from(now.msec) - i64::from(start.msec);
        let ms = ms.max(0);
        write!(out, "{}.{:03}", ms / 1000, ms % 1000).is_ok()
    }),
    Builtin::new("status", |s, out| write!(out, "{:03}", s.status).is_ok()),
    Builtin::new("connection", |s, out| text(out, &s.number.to_string())),
    Builtin::new("nginx_version", |_, out| text(out, "1.31.5")),
    Builtin::new("hostname", |_, out| {
        let name = crate::net::host::name().unwrap_or_default();
        text(out, &name.to_ascii_lowercase())
    }),
    Builtin::new("pid", |_, out| text(out, &std::process::id().to_string())),
    Builtin::new("msec", |_, out| {
        let now = clock::wall();
        write!(out, "{}.{:03}", now.sec, now.msec).is_ok()
    }),
    Builtin::new("time_iso8601", |_, out| clock::with_texts(|texts| bytes(out, &texts.time_iso8601))),
    Builtin::new("time_local", |_, out| clock::with_texts(|texts| bytes(out, &texts.time_local))),
    Builtin::new("protocol", |s, out| text(out, if s.udp.is_some() { "UDP" } else { "TCP" })),
];

fn proxy_protocol_tlv(s: &Session, name: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(header) = &s.proxy_protocol else { return false };
    match header.tlv(name) {
        Ok(value) => bytes(out, &value),
        Err(reason) => {
            if let Some(message) = reason.message(name) {
                s.error(crate::log::Level::Error, format_args!("{message}"));
            }
            false
        }
    }
}

fn bytes(out: &mut Vec<u8>, value: &[u8]) -> bool {
    out.extend_from_slice(value);
    true
}

fn text(out: &mut Vec<u8>, value: &str) -> bool {
    bytes(out, value.as_bytes())
}

/// Port 0 and no port are empty.
fn port(out: &mut Vec<u8>, value: Option<u16>) -> bool {
    match value {
        None | Some(0) => true,
        Some(port) => text(out, &port.to_string()),
    }
}
