//! `ngx_stream_ssl_preread`: what a ClientHello asks for, without answering it.

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Outcome, set};
use crate::settings;
use crate::stream::conf;
use crate::stream::module::{Handlers, Module, Verdict};
use crate::stream::session::Session;
use crate::tls::preread::{Parser, Preread, Progress};
use crate::value::Builtin;

/// The module.
pub struct SslPreread;

settings! {
    /// `ssl_preread`
    pub struct Srv {
        enabled: bool = false,
    }
}

impl Conf for Srv {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

impl Module for SslPreread {
    type Main = ();
    type Srv = Srv;
    const COMMANDS: Commands = Commands {
        module: "ngx_stream_ssl_preread",
        setters: &[("ssl_preread", |cf, d| set::flag(&mut cf.stream.srv().ssl_preread().enabled, d))],
    };
    const VARIABLES: &'static [Builtin<Session>] = &[
        Builtin::new("ssl_preread_protocol", |s, out| show(s, out, |p| p.protocol.as_bytes())),
        Builtin::new("ssl_preread_server_name", |s, out| {
            show(s, out, |p| p.server_name.as_deref().unwrap_or_default())
        }),
        Builtin::new("ssl_preread_alpn_protocols", |s, out| show(s, out, |p| &p.alpn)),
    ];

    fn handlers(srv: &conf::Srv, to: &mut Handlers) {
        if *srv.ssl_preread.enabled {
            to.preread.push(handler);
        }
    }
}

fn show(s: &Session, out: &mut Vec<u8>, part: impl FnOnce(&Preread) -> &[u8]) -> bool {
    if let Some(preread) = &s.preread {
        out.extend_from_slice(part(preread));
    }
    // Once bytes of TLS came, what they do not say is empty, not missing.
    s.preread_begun
}

fn handler(s: &mut Session, bytes: &[u8]) -> Verdict {
    if s.udp.is_some() {
        return Verdict::Next;
    }
    if bytes.is_empty() {
        return Verdict::More;
    }
    s.preread_begun = true;
    match s.preread_parser.get_or_insert_with(|| Box::new(Parser::new())).feed(bytes) {
        Progress::NeedMore => Verdict::More,
        Progress::NotTls(_) => {
            s.preread_begun = false;
            s.preread_parser = None;
            Verdict::Next
        }
        Progress::Done(found) => {
            s.preread_parser = None;
            let name = found.server_name.clone().unwrap_or_default();
            s.preread = Some(Box::new(found));
            s.choose_server(&name);
            Verdict::Done
        }
    }
}
