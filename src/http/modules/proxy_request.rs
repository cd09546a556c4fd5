//! The head of a proxied request: `proxy_set_header` compiled into a flat list, the URI, the client's fields.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::proxy::{HttpVersion, LocConf};
use super::proxy_url::Vars;
use crate::conf::{Build, Outcome};
use crate::http::head::decimal;
use crate::http::headers::hash;
use crate::http::request::Request;
use crate::http::upstream::NameSet;
use crate::http::uri::{Escape, escape};
use crate::log::Level;
use crate::value::Template;

/// One step of writing the head.
#[derive(Clone, Debug)]
enum Op {
    /// Whole lines.
    Text(Bytes),
    /// `Name: `, and the value; nothing at all where that is empty.
    Field(Bytes, Template),
    /// `Content-Length`, where there is one.
    Length,
    /// `Transfer-Encoding: chunked`, where the body is sent so.
    Chunked,
}

/// `proxy_set_header` and the defaults.
#[derive(Clone, Debug, Default)]
pub struct HeaderOps {
    host: Option<Template>,
    ops: Vec<Op>,
    /// The client's fields that are not passed on.
    replaced: NameSet,
}

/// Fields that are never the client's.
const DEFAULTS: [&str; 9] = [
    "Host",
    "Connection",
    "Proxy-Connection",
    "Content-Length",
    "Transfer-Encoding",
    "TE",
    "Keep-Alive",
    "Expect",
    "Upgrade",
];

impl HeaderOps {
    /// Compiles a list of `proxy_set_header`.
    pub fn new(list: &[(Bytes, Bytes)], cf: &mut Build) -> Outcome<Arc<HeaderOps>> {
        let mut this = HeaderOps::default();
        for (name, value) in list {
            let template = cf.http.template(value)?;
            if name.eq_ignore_ascii_case(b"host") {
                this.host = Some(template);
                continue;
            }
            this.replaced.add(name);
            match template.as_constant() {
                Some(b"") => {}
                Some(value) => this.text(&[&name[..], b": ", value, b"\r\n"].concat()),
                None => this.ops.push(Op::Field([name, &b": "[..]].concat().into(), template)),
            }
        }
        for name in DEFAULTS {
            if this.replaced.contains(hash(name.as_bytes()), name.as_bytes()) {
                continue;
            }
            this.replaced.add(name.as_bytes());
            match name {
                "Content-Length" => this.ops.push(Op::Length),
                "Transfer-Encoding" => this.ops.push(Op::Chunked),
                _ => {}
            }
        }
        Ok(Arc::new(this))
    }

    fn text(&mut self, line: &[u8]) {
        match self.ops.last_mut() {
            Some(Op::Text(text)) => *text = [&text[..], line].concat().into(),
            _ => self.ops.push(Op::Text(Bytes::copy_from_slice(line))),
        }
    }
}

/// What the head tells of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyFacts {
    /// Its length, where there is one to tell.
    pub length: Option<u64>,
    /// It is sent in chunks.
    pub chunked: bool,
}

/// Appends the head; returns where the URI is.
pub fn write(
    req: &Request,
    conf: &LocConf,
    vars: &Vars,
    body: BodyFacts,
    out: &mut Vec<u8>,
) -> Result<Range<usize>, u16> {
    let headers = &**conf.own.headers;
    match &*conf.own.method {
        Some(method) => method.append(req, out),
        None => out.extend_from_slice(req.method_name()),
    }
    out.push(b' ');
    let start = out.len();
    write_uri(req, vars, out);
    let uri = start..out.len();
    if uri.is_empty() {
        req.log(Level::Error, None, format_args!("zero length URI to proxy"));
        return Err(500);
    }
    let http11 = *conf.own.http_version == HttpVersion::Http11;
    out.extend_from_slice(if http11 { b" HTTP/1.1\r\n" } else { b" HTTP/1.0\r\n" });
    write_host(req, headers, vars, http11, out);
    for op in &headers.ops {
        match op {
            Op::Text(text) => out.extend_from_slice(text),
            Op::Field(name, value) => {
                let before = out.len();
                out.extend_from_slice(name);
                let from = out.len();
                value.append(req, out);
                if out.len() == from {
                    out.truncate(before);
                } else {
                    out.extend_from_slice(b"\r\n");
                }
            }
            Op::Length => {
                if let Some(length) = body.length {
                    out.extend_from_slice(b"Content-Length: ");
                    decimal(length, out);
                    out.extend_from_slice(b"\r\n");
                }
            }
            Op::Chunked => {
                if body.chunked {
                    out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
                }
            }
        }
    }
    if *conf.upstream.pass_request_headers {
        for (hash, name, value) in req.head.headers.iter_hashed() {
            if !headers.replaced.contains(hash, name) {
                out.extend_from_slice(name);
                out.extend_from_slice(b": ");
                out.extend_from_slice(value);
                out.extend_from_slice(b"\r\n");
            }
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(uri)
}

fn write_host(req: &Request, headers: &HeaderOps, vars: &Vars, http11: bool, out: &mut Vec<u8>) {
    let before = out.len();
    out.extend_from_slice(b"Host: ");
    let from = out.len();
    if let Some(host) = &headers.host {
        host.append(req, out);
    }
    // HTTP/1.1 asks for the field (RFC 9112, section 3.2); in HTTP/1.0 it may be taken out.
    if headers.host.is_none() || (out.len() == from && http11) {
        out.extend_from_slice(&vars.host_header);
    }
    if out.len() == from {
        out.truncate(before);
    } else {
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends the URI: as it came, or with the location's name replaced by the URI of `proxy_pass`.
fn write_uri(req: &Request, vars: &Vars, out: &mut Vec<u8>) {
    if vars.evaluated && !vars.uri.is_empty() {
        out.extend_from_slice(&vars.uri);
        return;
    }
    if vars.uri.is_empty() && req.valid_unparsed_uri {
        out.extend_from_slice(req.unparsed_uri());
        return;
    }
    let replaced = match req.valid_location && !vars.uri.is_empty() {
        true => vars.location.len().min(req.uri.len()),
        false => 0,
    };
    if req.valid_location {
        out.extend_from_slice(&vars.uri);
    }
    let rest = &req.uri[replaced..];
    if req.internal || is_quoted(req) {
        escape(rest, Escape::Uri, out);
    } else {
        out.extend_from_slice(rest);
    }
    if !req.args.is_empty() {
        out.push(b'?');
        out.extend_from_slice(&req.args);
    }
}

/// The path came with percent signs, which were decoded.
fn is_quoted(req: &Request) -> bool {
    if !req.complex_uri {
        return false;
    }
    let raw = req.unparsed_uri();
    let path = memchr::memchr(b'?', raw).map_or(raw, |at| &raw[..at]);
    memchr::memchr(b'%', path).is_some()
}
