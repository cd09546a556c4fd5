//! Which directives are only checked, and how.

use crate::conf::grammar::Row;
use crate::conf::tls_settings::PROTOCOLS;
use crate::http::upstream::settings::{ignore, next};
use crate::syntax::Directive;

/// Words of a setting, as bits.
pub type Words = &'static [(&'static str, u32)];

/// How a directive's arguments are checked.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Flag,
    Size,
    Milliseconds,
    Number,
    Offset,
    Buffers,
    /// Text, once in a block.
    Text,
    /// Anything, as often as one likes.
    List,
    /// A name and a value with variables, compiled when blocks are merged.
    Pair,
    Bits(Words),
    /// Text with variables.
    Template,
    /// A size, or text with variables.
    TemplateSize,
    /// Texts with variables, as often as one likes.
    Conditions,
    Access,
    Bind,
    Cache,
    CachePath,
    CacheValid,
    /// An address, behind one of these schemes or none.
    Pass(&'static [&'static str]),
    MemcachedPass,
    TunnelPass,
    Types,
    PasswordFile,
    CertificateCache,
    Variable,
}

const NEXT_GRPC: Words = &[
    ("error", 1),
    ("timeout", 2),
    ("invalid_header", 4),
    ("non_idempotent", 8),
    ("http_500", 16),
    ("http_502", 32),
    ("http_503", 64),
    ("http_504", 128),
    ("http_403", 256),
    ("http_404", 512),
    ("http_429", 1024),
    ("off", 4096),
];
const NEXT_MEMCACHED: Words =
    &[("error", 1), ("timeout", 2), ("invalid_response", 4), ("not_found", 512), ("off", 4096)];
const NEXT_TUNNEL: Words = &[("error", 1), ("timeout", 2), ("off", 4096)];
const METHODS: Words = &[("GET", 1), ("HEAD", 2), ("POST", 4)];
const DAV_METHODS: Words = &[("off", 1), ("put", 2), ("delete", 4), ("mkcol", 8), ("copy", 16), ("move", 32)];

/// How the directive of a row is checked; none where that is a setter's business.
pub fn kind(row: &Row) -> Option<Kind> {
    let family = row.module.strip_prefix("ngx_http_")?;
    if let Some(rest) = row.name.strip_prefix(family).and_then(|rest| rest.strip_prefix('_'))
        && let Some(kind) = of_upstream(family, rest)
    {
        return Some(kind);
    }
    Some(match row.name {
        "ssi" | "ssi_silent_errors" | "ssi_ignore_recycled_buffers" | "ssi_last_modified" => Kind::Flag,
        "ssi_min_file_chunk" | "ssi_value_length" | "slice" => Kind::Size,
        "ssi_types" => Kind::Types,
        "dav_methods" => Kind::Bits(DAV_METHODS),
        "dav_access" => Kind::Access,
        "create_full_put_path" => Kind::Flag,
        "min_delete_depth" => Kind::Number,
        "output_buffers" => Kind::Buffers,
        "auth_request" => Kind::Text,
        "auth_request_set" => Kind::Variable,
        _ => return None,
    })
}

/// The directive `{family}_{rest}`, one of those that modules share that pass requests on.
fn of_upstream(family: &str, rest: &str) -> Option<Kind> {
    Some(match rest {
        "buffering"
        | "request_buffering"
        | "ignore_client_abort"
        | "socket_keepalive"
        | "pass_request_headers"
        | "pass_request_body"
        | "intercept_errors"
        | "force_ranges"
        | "keep_conn"
        | "cache_lock"
        | "cache_revalidate"
        | "cache_background_update"
        | "cache_convert_head"
        | "ssl_session_reuse"
        | "ssl_server_name"
        | "ssl_verify" => Kind::Flag,
        "socket_rcvbuf"
        | "socket_sndbuf"
        | "send_lowat"
        | "buffer_size"
        | "busy_buffers_size"
        | "max_temp_file_size"
        | "temp_file_write_size" => Kind::Size,
        "connect_timeout"
        | "send_timeout"
        | "read_timeout"
        | "next_upstream_timeout"
        | "cache_lock_timeout"
        | "cache_lock_age" => Kind::Milliseconds,
        "next_upstream_tries" | "cache_min_uses" | "ssl_verify_depth" | "gzip_flag" => Kind::Number,
        "cache_max_range_offset" => Kind::Offset,
        "buffers" => Kind::Buffers,
        "index" | "string" | "ssl_ciphers" | "ssl_trusted_certificate" | "ssl_crl" => Kind::Text,
        "pass_header" | "hide_header" | "catch_stderr" | "ssl_conf_command" => Kind::List,
        "set_header" => Kind::Pair,
        "next_upstream" | "cache_use_stale" => Kind::Bits(match family {
            "proxy" => next::WORDS,
            "grpc" => NEXT_GRPC,
            "memcached" => NEXT_MEMCACHED,
            "tunnel" => NEXT_TUNNEL,
            _ => next::CGI_WORDS,
        }),
        "ignore_headers" => Kind::Bits(ignore::WORDS),
        "cache_methods" => Kind::Bits(METHODS),
        "ssl_protocols" => Kind::Bits(PROTOCOLS),
        "ssl_name" | "ssl_certificate" | "ssl_certificate_key" | "cache_key" => Kind::Template,
        "ssl_certificate_cache" => Kind::CertificateCache,
        "ssl_password_file" => Kind::PasswordFile,
        "limit_rate" => Kind::TemplateSize,
        "cache_bypass" | "no_cache" => Kind::Conditions,
        "bind" => Kind::Bind,
        "cache" => Kind::Cache,
        "cache_path" => Kind::CachePath,
        "cache_valid" => Kind::CacheValid,
        "pass" => match family {
            "grpc" => Kind::Pass(&["grpc://", "grpcs://"]),
            "memcached" => Kind::MemcachedPass,
            "tunnel" => Kind::TunnelPass,
            _ => Kind::Pass(&[]),
        },
        _ => return None,
    })
}

/// What a directive that is right comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: what would use it is refused, or not there.
    Prepares,
    /// Clients would notice that its module is not there.
    SwitchesOn,
    /// The same, where requests are passed on by the `*_pass` of that module.
    WherePassed(&'static str),
}

/// What the directive comes to with these arguments.
pub fn effect(name: &str, d: &Directive<'_>) -> Effect {
    let is_off = d.len() == 2 && d.arg(1).eq_ignore_ascii_case(b"off");
    match name {
        "proxy_cache" if !is_off => Effect::WherePassed("proxy"),
        "fastcgi_cache" if !is_off => Effect::WherePassed("fastcgi"),
        "uwsgi_cache" if !is_off => Effect::WherePassed("uwsgi"),
        "scgi_cache" if !is_off => Effect::WherePassed("scgi"),
        "slice" if d.arg(1).iter().any(|byte| matches!(byte, b'1'..=b'9')) => Effect::SwitchesOn,
        "ssi" | "dav_methods" | "auth_request" if !is_off => Effect::SwitchesOn,
        name if name.ends_with("_pass") => Effect::SwitchesOn,
        _ => Effect::Prepares,
    }
}
