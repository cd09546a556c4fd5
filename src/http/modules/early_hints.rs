//! `early_hints` of `ngx_http_core`: an upstream's `103 Early Hints` (RFC 8297) are passed on.

use std::sync::Arc;
use std::task::{Context, Poll};

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Outcome};
use crate::http::module::Module;
use crate::http::output::{Gone, Kind};
use crate::http::request::{Request, Version};
use crate::settings;
use crate::value::Template;

/// The module.
pub struct EarlyHints;

settings! {
    /// `early_hints`
    pub struct LocConf {
        /// One that is neither empty nor `0` lets hints pass.
        conditions: Arc<Vec<Template>> = Arc::default(),
    }
}

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

impl Module for EarlyHints {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_core",
        setters: &[("early_hints", |cf, d| {
            for text in d.args() {
                let condition = cf.http.template(text)?;
                Arc::make_mut(cf.http.loc().early_hints().conditions.edit()).push(condition);
            }
            Ok(())
        })],
    };
}

/// Whether this request's client is to see hints.
pub fn wanted(req: &Request) -> bool {
    let holds = |condition: &Template| !matches!(&condition.eval(req)[..], b"" | b"0");
    req.version >= Version::Http11
        && !req.is_subrequest()
        && !req.post_action
        && req.conf.early_hints.conditions.iter().any(holds)
}

/// Sends hints with these fields. What the client does not take now goes out in front of what follows.
pub fn poll_send<'a>(
    req: &mut Request,
    cx: &mut Context<'_>,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Poll<Result<(), Gone>> {
    let mut fields = fields.peekable();
    if let Kind::Http2(writer) = &mut req.out.kind {
        if fields.peek().is_some() {
            writer.send_hints(fields);
        }
        return Poll::Ready(Ok(()));
    }
    let mut text = b"HTTP/1.1 103 Early Hints\r\n".to_vec();
    let empty = text.len();
    for (name, value) in fields {
        for part in [name, b": ", value, b"\r\n"] {
            text.extend_from_slice(part);
        }
    }
    if text.len() == empty {
        return Poll::Ready(Ok(()));
    }
    text.extend_from_slice(b"\r\n");
    if let Kind::Http1(writer) = &mut req.out.kind {
        writer.timeout = *req.conf.core.send_timeout;
        writer.push(&text);
    }
    req.poll_flush_out(cx)
}
