//! From a host that variables gave to peers: a group of that name, the address it is, or what the resolver says.

use std::task::Poll;

use super::client::Watch;
use crate::conf::url::Url;
use crate::http::module::Verdict;
use crate::http::request::Request;
use crate::log::Level;
use crate::net::Address;
use crate::upstream::{Group, GroupRef};

/// Why there are no peers. It was logged.
#[derive(Debug)]
pub enum NoPeers {
    /// What to answer.
    Status(u16),
    /// The client is gone.
    Gone,
}

impl NoPeers {
    /// What becomes of the request.
    pub fn verdict(self, req: &mut Request) -> Verdict {
        match self {
            NoPeers::Status(status) => Verdict::Status(status),
            NoPeers::Gone => {
                req.keepalive = false;
                req.response.status = 499;
                Verdict::Close
            }
        }
    }
}

/// The peers that `url` (read with `no_resolve`) means. A name is resolved, unless the client goes before that;
/// `ignore_abort` lets it go.
pub async fn peers(req: &Request, url: &Url, ignore_abort: bool) -> Result<GroupRef, NoPeers> {
    let http = req.http;
    if let Some(group) = http.upstreams.find(&url.host, url.port, url.no_port) {
        return Ok(GroupRef::Static(group));
    }
    let host = String::from_utf8_lossy(&url.host);
    let fail = |status, message: std::fmt::Arguments<'_>| {
        req.log(Level::Error, None, message);
        NoPeers::Status(status)
    };
    match url.addrs.first() {
        Some(address @ Address::Unix(_)) => {
            return Ok(GroupRef::Owned(Group::resolved(&host, [address.clone()])));
        }
        _ if url.port == 0 => return Err(fail(500, format_args!("no port in upstream \"{host}\""))),
        Some(address) => return Ok(GroupRef::Owned(Group::resolved(&host, [address.clone()]))),
        None => {}
    }
    let core = &req.conf.core;
    let Some(resolver) = &*core.resolver else {
        return Err(fail(502, format_args!("no resolver defined to resolve {host}")));
    };
    let mut watch = Watch::new(req, ignore_abort);
    let mut asked = Box::pin(resolver.addresses(&url.host, *core.resolver_timeout));
    let answer = std::future::poll_fn(|cx| match asked.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => watch.poll_gone(req, cx, true).map(|()| None),
    })
    .await;
    match answer {
        Some(Ok(answer)) => {
            let addresses = answer.addresses.into_iter().map(|ip| (ip, url.port).into());
            Ok(GroupRef::Owned(Group::resolved_inet(&host, addresses)))
        }
        Some(Err(failure)) => {
            let host = host.strip_suffix('.').unwrap_or(&host);
            Err(fail(502, format_args!("{host} could not be resolved ({failure})")))
        }
        None => Err(NoPeers::Gone),
    }
}
