//! The PROXY protocol's header that `proxy_protocol` sends to upstreams.

use std::io;

use super::proxy::{Failed, Version};
use crate::log::Level;
use crate::net::{Socket, proxy_protocol};
use crate::stream::module::{INTERNAL_ERROR, OK};
use crate::stream::session::Session;
use crate::tls::TlsInfo;

/// The PROXY protocol's header; empty where none is wanted.
pub fn header(s: &Session) -> Vec<u8> {
    match *s.server.srv.proxy.protocol {
        Version::Off => Vec::new(),
        Version::V1 => proxy_protocol::write_v1(&s.client, s.local()),
        Version::V2 => {
            let Some(tls) = &s.tls else { return proxy_protocol::write_v2(&s.client, s.local(), &[], None) };
            let mut tlvs: Vec<(u8, &[u8])> = Vec::new();
            tlvs.extend(tls.server_name.as_deref().map(|name| (2, name.as_bytes())));
            tlvs.extend(tls.alpn.as_deref().filter(|alpn| !alpn.is_empty()).map(|alpn| (1, alpn)));
            proxy_protocol::write_v2(&s.client, s.local(), &tlvs, Some(&ssl_facts(tls)))
        }
    }
}

/// What a version 2 header says of the client's TLS.
fn ssl_facts(tls: &TlsInfo) -> proxy_protocol::Ssl {
    let mut facts = proxy_protocol::Ssl { client: 1, verify: 1, parts: Vec::new() };
    facts.parts.push((0x21, tls.protocol().into()));
    if tls.certificate().is_some() {
        facts.client |= if tls.reused { 4 } else { 6 };
        facts.verify = match tls.verdict {
            Some(Err(error)) => error.0,
            _ => 0,
        };
    }
    facts.parts.push((0x23, tls.cipher().into()));
    facts
}

/// Sends the header in front of TLS. A receiver must get it in one piece.
pub fn send_at_once(s: &Session, socket: &Socket) -> Result<(), Failed> {
    let header = header(s);
    if header.is_empty() {
        return Ok(());
    }
    let sent = nix::unistd::write(socket, &header).map_err(io::Error::from);
    if let Ok(n) = sent {
        s.upstream.sent.set(s.upstream.sent.get() + n as u64);
    }
    match sent {
        Ok(n) if n == header.len() => Ok(()),
        Err(reason) if reason.kind() != io::ErrorKind::WouldBlock => {
            s.connection_error(Level::Error, &reason, "send() failed");
            Err(Failed::End(OK))
        }
        _ => {
            s.error(Level::Error, format_args!("could not send PROXY protocol header at once"));
            Err(Failed::End(INTERNAL_ERROR))
        }
    }
}
