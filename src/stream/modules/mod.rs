//! The stream modules, one file each. To add one: its file, its line below, its rows in `grammar/`.

pub mod access;
pub mod core;
pub mod geo;
pub mod limit_conn;
pub mod log;
pub mod map;
pub mod pass;
pub mod proxy;
pub mod proxy_header;
pub mod proxy_ssl;
pub mod proxy_udp;
pub mod realip;
#[path = "return.rs"]
pub mod return_;
pub mod set;
pub mod split_clients;
pub mod ssl;
mod ssl_handshake;
pub mod ssl_preread;
mod ssl_variables;
pub mod upstream;

use std::sync::Arc;

use super::module::{Handlers, Module};
use super::session::Session;
use crate::conf::build::Commands;
use crate::conf::{Build, Conf};
use crate::value::{Builtin, Prefix};

crate::stream_modules! {
    core: core::Core,
    log: log::Log,
    proxy: proxy::Proxy,
    proxy_ssl: proxy_ssl::ProxySsl,
    upstream: upstream::Upstream,
    upstream_hash: upstream::Hash,
    upstream_least_conn: upstream::LeastConn,
    upstream_least_time: upstream::LeastTime,
    upstream_random: upstream::Random,
    upstream_zone: upstream::Zone,
    ssl: ssl::Ssl,
    realip: realip::Realip,
    set: set::Set,
    limit_conn: limit_conn::LimitConn,
    access: access::Access,
    geo: geo::Geo,
    map: map::Map,
    split_clients: split_clients::SplitClients,
    return_: return_::Return,
    pass: pass::Pass,
    ssl_preread: ssl_preread::SslPreread,
}
