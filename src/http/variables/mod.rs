//! The core's variables: of the request, the connection, the response, and the clock.

mod client;
mod response;
mod time;

use super::headers::{COOKIE, HOST};
use super::request::Request;
use super::{head, modules::core};
use crate::value::{Builtin, Prefix};

/// Single variables.
pub static VARIABLES: &[Builtin<Request>] = &[
    Builtin::new("request_method", |r, out| filled(out, r.method_name())),
    Builtin::new("request_uri", |r, out| filled(out, r.unparsed_uri())),
    Builtin::new("uri", uri_path),
    Builtin::new("document_uri", uri_path),
    Builtin::new("request", |r, out| filled(out, &r.head.line)),
    Builtin::new("server_protocol", |r, out| filled(out, r.protocol())),
    Builtin::writable("args", |r, out| filled(out, &r.args), set_args),
    Builtin::new("query_string", |r, out| filled(out, &r.args)),
    Builtin::new("is_args", |r, out| put(out, if r.args.is_empty() { b"" } else { b"?" })),
    Builtin::new("scheme", |r, out| put(out, if r.conn.is_tls() { b"https" } else { b"http" })),
    Builtin::new("https", |r, out| put(out, if r.conn.is_tls() { b"on" } else { b"" })),
    Builtin::new("host", host),
    Builtin::new("request_port", |r, out| {
        number(out, r.host_port.map_or(0, u64::from), r.host_port.is_some())
    }),
    Builtin::new("is_request_port", |r, out| put(out, if r.host_port.is_some() { b":" } else { b"" })),
    Builtin::new("http_host", |r, out| optional(out, r.header(HOST))),
    Builtin::new("http_user_agent", |r, out| r.head.headers.join_variable(b"user_agent", b", ", out)),
    Builtin::new("http_referer", |r, out| r.head.headers.join_variable(b"referer", b", ", out)),
    Builtin::new("http_via", |r, out| r.head.headers.join_variable(b"via", b", ", out)),
    Builtin::new("http_x_forwarded_for", |r, out| {
        r.head.headers.join_variable(b"x_forwarded_for", b", ", out)
    }),
    Builtin::new("http_cookie", |r, out| r.head.headers.join(b"cookie", b"; ", out)),
    Builtin::new("content_length", content_length),
    Builtin::new("content_type", |r, out| r.head.headers.join(b"content-type", b", ", out)),
    Builtin::new("server_name", |r, out| put(out, &r.server.name)),
    Builtin::new("document_root", |r, out| put(out, &core::document_root(r))),
    Builtin::new("realpath_root", realpath_root),
    Builtin::new("request_filename", |r, out| put(out, &core::map_path(r))),
    Builtin::new("remote_user", remote_user),
    Builtin::new("request_body", request_body),
    Builtin::new("request_body_file", request_body_file),
    Builtin::new("request_id", request_id),
    Builtin::writable("limit_rate", limit_rate, set_limit_rate),
    Builtin::new("date_gmt", time::long_gmt),
    Builtin::new("date_local", time::long_local),
    Builtin::new("nginx_version", |_, out| put(out, crate::cli::NGINX_VERSION.as_bytes())),
    Builtin::new("hostname", |_, out| crate::net::host::name().is_ok_and(|name| put(out, name.as_bytes()))),
    Builtin::new("pid", |_, out| number(out, std::process::id().into(), true)),
    Builtin::new("remote_addr", client::remote_addr),
    Builtin::new("binary_remote_addr", client::binary_remote_addr),
    Builtin::new("remote_port", client::remote_port),
    Builtin::new("server_addr", client::server_addr),
    Builtin::new("server_port", client::server_port),
    Builtin::new("proxy_protocol_addr", client::proxy_protocol_addr),
    Builtin::new("proxy_protocol_port", client::proxy_protocol_port),
    Builtin::new("proxy_protocol_server_addr", client::proxy_protocol_server_addr),
    Builtin::new("proxy_protocol_server_port", client::proxy_protocol_server_port),
    Builtin::new("connection", |r, out| number(out, r.conn.number, true)),
    Builtin::new("connection_requests", |r, out| number(out, r.conn.requests.get().into(), true)),
    Builtin::new("connection_time", client::connection_time),
    Builtin::new("tcpinfo_rtt", |r, out| client::tcpinfo(r, out, |i| i.rtt)),
    Builtin::new("tcpinfo_rttvar", |r, out| client::tcpinfo(r, out, |i| i.rttvar)),
    Builtin::new("tcpinfo_snd_cwnd", |r, out| client::tcpinfo(r, out, |i| i.snd_cwnd)),
    Builtin::new("tcpinfo_rcv_space", |r, out| client::tcpinfo(r, out, |i| i.rcv_space)),
    Builtin::new("status", response::status),
    Builtin::new("bytes_sent", |r, out| number(out, r.out.sent(), true)),
    Builtin::new("body_bytes_sent", |r, out| number(out, r.out.body_sent(), true)),
    Builtin::new("request_completion", |r, out| put(out, if r.response.complete { b"OK" } else { b"" })),
    Builtin::new("request_length", |r, out| number(out, r.head.size + r.body.wire, true)),
    Builtin::new("pipe", |r, out| put(out, if r.pipelined { b"p" } else { b"." })),
    Builtin::new("sent_http_content_type", head::content_type),
    Builtin::new("sent_http_content_length", response::content_length),
    Builtin::new("sent_http_last_modified", response::last_modified),
    Builtin::new("sent_http_location", response::location),
    Builtin::new("sent_http_connection", response::connection),
    Builtin::new("sent_http_keep_alive", response::keep_alive),
    Builtin::new("sent_http_transfer_encoding", response::transfer_encoding),
    Builtin::new("sent_http_cache_control", |r, out| {
        r.response.headers.join_variable(b"cache_control", b", ", out)
    }),
    Builtin::new("sent_http_link", |r, out| r.response.headers.join_variable(b"link", b", ", out)),
    Builtin::new("request_time", time::request_time),
    Builtin::new("msec", time::msec),
    Builtin::new("time_local", time::local),
    Builtin::new("time_iso8601", time::iso8601),
];

/// Families.
pub static PREFIXES: &[Prefix<Request>] = &[
    Prefix { prefix: "http_", get: |r, name, out| r.head.headers.join_variable(name, b", ", out) },
    Prefix { prefix: "sent_http_", get: |r, name, out| r.response.headers.join_variable(name, b", ", out) },
    Prefix {
        prefix: "sent_trailer_",
        get: |r, name, out| r.response.trailers.join_variable(name, b", ", out),
    },
    Prefix { prefix: "cookie_", get: cookie },
    Prefix { prefix: "arg_", get: argument },
    Prefix { prefix: "proxy_protocol_tlv_", get: client::tlv },
];

fn put(out: &mut Vec<u8>, value: &[u8]) -> bool {
    out.extend_from_slice(value);
    true
}

/// A part of the request that has no value where it is empty.
fn filled(out: &mut Vec<u8>, value: &[u8]) -> bool {
    !value.is_empty() && put(out, value)
}

fn optional(out: &mut Vec<u8>, value: Option<&[u8]>) -> bool {
    value.is_some_and(|v| put(out, v))
}

fn number(out: &mut Vec<u8>, value: u64, there: bool) -> bool {
    if there {
        head::decimal(value, out);
    }
    true
}

fn set_args(req: &mut Request, value: bytes::Bytes) {
    req.args = value;
    req.valid_unparsed_uri = false;
}

/// The path: empty where it could not be normalised, none where no URI was read.
fn uri_path(req: &Request, out: &mut Vec<u8>) -> bool {
    put(out, &req.uri) && !(req.uri.is_empty() && req.unparsed_uri().is_empty())
}

fn host(req: &Request, out: &mut Vec<u8>) -> bool {
    put(out, if req.host.is_empty() { &req.server.name } else { &req.host })
}

fn content_length(req: &Request, out: &mut Vec<u8>) -> bool {
    match req.header(super::headers::CONTENT_LENGTH) {
        Some(value) => put(out, value),
        None if req.body.complete && req.body.started => number(out, req.body.length, true),
        None => false,
    }
}

fn realpath_root(req: &Request, out: &mut Vec<u8>) -> bool {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let root = std::ffi::OsString::from_vec(core::document_root(req));
    match std::fs::canonicalize(&root) {
        Ok(path) => put(out, path.as_os_str().as_bytes()),
        Err(e) => {
            let shown = root.to_string_lossy();
            req.log(crate::log::Level::Crit, Some(&e), format_args!("realpath() \"{shown}\" failed"));
            false
        }
    }
}

fn remote_user(req: &Request, out: &mut Vec<u8>) -> bool {
    match super::basic::credentials(req) {
        Some((user, _)) => put(out, &user),
        None => false,
    }
}

fn request_body(req: &Request, out: &mut Vec<u8>) -> bool {
    if req.body.file.is_some() || req.body.memory.is_empty() {
        return false;
    }
    req.body.memory.iter().for_each(|part| out.extend_from_slice(part));
    true
}

fn request_body_file(req: &Request, out: &mut Vec<u8>) -> bool {
    use std::os::unix::ffi::OsStrExt;
    req.body.file.as_ref().is_some_and(|f| put(out, f.path.as_os_str().as_bytes()))
}

fn request_id(req: &Request, out: &mut Vec<u8>) -> bool {
    let id = req.request_id.get().unwrap_or_else(|| {
        let mut id = [0u8; 16];
        // Without randomness there is no service at all; zeros are still an answer.
        let _ = aws_lc_rs::rand::fill(&mut id);
        req.request_id.set(Some(id));
        id
    });
    id.iter().for_each(|b| out.extend_from_slice(format!("{b:02x}").as_bytes()));
    true
}

fn limit_rate(req: &Request, out: &mut Vec<u8>) -> bool {
    let rate = req.limit_rate.unwrap_or_else(|| core::rate_of(&req.conf.core.limit_rate, req));
    number(out, rate as u64, true)
}

fn set_limit_rate(req: &mut Request, value: bytes::Bytes) {
    if let Some(rate) = crate::conf::units::size(&value) {
        req.limit_rate = Some(rate);
    }
}

/// The value of one cookie, by name in any case.
fn cookie(req: &Request, name: &[u8], out: &mut Vec<u8>) -> bool {
    let mut lines = req.head.headers.all(COOKIE);
    lines.find_map(|line| cookie_in(line, name)).is_some_and(|value| put(out, value))
}

/// The value that a name has among `name=value` pairs with semicolons between them. As in nginx, a pair behind a
/// lone name is not looked at.
fn cookie_in<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let spaces = |text: &'l [u8]| &text[text.iter().take_while(|c| **c == b' ').count()..];
    let mut rest = line;
    while !rest.is_empty() {
        if let Some((begin, after)) = rest.split_at_checked(name.len())
            && begin.eq_ignore_ascii_case(name)
        {
            match spaces(after) {
                [b'=', value @ ..] => {
                    let value = spaces(value);
                    return Some(&value[..memchr::memchr(b';', value).unwrap_or(value.len())]);
                }
                [_, after @ ..] => rest = after,
                [] => return None,
            }
        }
        rest = spaces(memchr::memchr(b';', rest).map_or(&[][..], |at| &rest[at + 1..]));
    }
    None
}

/// The value of one argument, by name in any case, as it was written.
fn argument(req: &Request, name: &[u8], out: &mut Vec<u8>) -> bool {
    req.args
        .split(|c| *c == b'&')
        .find_map(|pair| match memchr::memchr(b'=', pair) {
            Some(at) if pair[..at].eq_ignore_ascii_case(name) => Some(&pair[at + 1..]),
            _ => None,
        })
        .is_some_and(|value| put(out, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_end_at_semicolons() {
        let get = |line: &str, name: &str| {
            cookie_in(line.as_bytes(), name.as_bytes()).map(|v| String::from_utf8_lossy(v).into_owned())
        };
        let line = "foo=1, qux=0; Bar = 2 ;baz=;  last=a=b";
        for (name, want) in [
            ("foo", Some("1, qux=0")),
            ("qux", None),
            ("bar", Some("2 ")),
            ("baz", Some("")),
            ("last", Some("a=b")),
        ] {
            assert_eq!(get(line, name).as_deref(), want, "{name}");
        }
        assert_eq!(get("a; a=1", "a"), None);
        assert_eq!(get("ab=1; a=2", "a").as_deref(), Some("2"));
    }
}
