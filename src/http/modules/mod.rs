//! The http modules, one file each. To add one: its file, its line below, its rows in `grammar/`.

pub mod access;
pub mod addition;
pub mod auth_basic;
pub mod auth_request;
pub mod autoindex;
pub mod browser;
pub mod cgi;
pub mod charset;
pub mod copy;
pub mod core;
pub mod early_body;
pub mod early_hints;
pub mod empty_gif;
pub mod fastcgi;
pub mod geo;
pub mod gunzip;
pub mod gzip;
pub mod gzip_core;
pub mod gzip_static;
pub mod headers;
pub mod index;
pub mod limit_conn;
pub mod limit_req;
pub mod log;
pub mod map;
pub mod mirror;
pub mod not_modified;
pub mod proxy;
pub mod proxy_request;
pub mod proxy_rewrite;
pub mod proxy_ssl;
pub mod proxy_url;
pub mod random_index;
pub mod range;
pub mod realip;
pub mod referer;
pub mod rewrite;
pub mod scgi;
pub mod secure_link;
pub mod split_clients;
pub mod ssl;
pub mod static_;
pub mod stub_status;
pub mod sub;
pub mod symlinks;
pub mod try_files;
pub mod tuning;
pub mod upstream;
pub mod userid;
pub mod uwsgi;
pub mod v2;
pub mod v3;

use std::sync::Arc;

use super::conf::LocationBuild;
use super::module::{Handlers, Module, merged};
use super::request::Request;
use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Outcome};
use crate::value::{Builtin, Prefix};

crate::http_modules! {
    core: core::Core,
    early_body: early_body::EarlyBody,
    early_hints: early_hints::EarlyHints,
    ssl: ssl::Ssl,
    v2: v2::V2,
    v3: v3::V3,
    tuning: tuning::Tuning,
    symlinks: symlinks::Symlinks,
    copy: copy::Copy,
    map: map::Map,
    geo: geo::Geo,
    split_clients: split_clients::SplitClients,
    realip: realip::RealIp,
    rewrite: rewrite::Rewrite,
    upstream: upstream::Upstream,
    upstream_hash: upstream::Hash,
    upstream_ip_hash: upstream::IpHash,
    upstream_least_conn: upstream::LeastConn,
    upstream_least_time: upstream::LeastTime,
    upstream_random: upstream::Random,
    upstream_keepalive: upstream::Keepalive,
    upstream_zone: upstream::Zone,
    upstream_sticky: upstream::Sticky,
    proxy: proxy::Proxy,
    fastcgi: fastcgi::FastCgi,
    uwsgi: uwsgi::Uwsgi,
    scgi: scgi::Scgi,
    referer: referer::Referer,
    secure_link: secure_link::SecureLink,
    limit_req: limit_req::LimitReq,
    limit_conn: limit_conn::LimitConn,
    access: access::Access,
    auth_basic: auth_basic::AuthBasic,
    auth_request: auth_request::AuthRequest,
    stub_status: stub_status::StubStatus,
    browser: browser::Browser,
    gzip_core: gzip_core::GzipCore,
    try_files: try_files::TryFiles,
    mirror: mirror::Mirror,
    empty_gif: empty_gif::EmptyGif,
    random_index: random_index::RandomIndex,
    index: index::Index,
    autoindex: autoindex::Autoindex,
    gzip_static: gzip_static::GzipStatic,
    static_: static_::Static,
    not_modified: not_modified::NotModified,
    headers: headers::Headers,
    userid: userid::UserId,
    gunzip: gunzip::Gunzip,
    addition: addition::Addition,
    sub: sub::Sub,
    charset: charset::Charset,
    gzip: gzip::Gzip,
    range: range::Range,
    log: log::Log,
    checked: super::checked::Checked,
}
