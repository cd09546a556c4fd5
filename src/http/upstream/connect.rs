//! A connection to the chosen peer: a kept one, or a new one with its TLS handshake.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::task::Poll;

use super::client::Watch;
use super::exchange::Fail;
use super::settings::{Local, local_address};
use super::{Fault, Settings, Target, Tls};
use crate::http::request::Request;
use crate::log::Level;
use crate::net::{Address, Deadline, Io, Socket, clock};
use crate::process::memory::rare;
use crate::tls;
use crate::upstream::connect::{Options, connect};
use crate::upstream::keepalive::{self, Kept, Tag};
use crate::upstream::{GroupRef, Peer, Pick};

/// A connection in use.
pub struct Link {
    /// The connection and its past.
    pub kept: Kept,
    /// It served others before.
    pub cached: bool,
    /// What requests it may serve.
    pub tag: Tag,
    /// Bytes sent for this request.
    pub sent: u64,
}

impl Link {
    /// The bytes.
    pub fn io(&self) -> &Io {
        &self.kept.io
    }

    /// Gives it back for other requests.
    pub fn keep(self, group: &GroupRef, peer: &Peer) {
        keepalive::put(group, peer, self.tag, self.kept, clock::now());
    }
}

/// Connects to the peer that `pick` chose.
pub async fn open(
    req: &Request,
    settings: &'static Settings,
    target: &Target,
    pick: &Pick,
    deadline: &Deadline,
    watch: &mut Watch,
) -> Result<Link, Fail> {
    let Some(peer) = pick.peer() else { return Err(Fail::Status(500)) };
    let local = match settings.local.as_deref() {
        Some(local) => local_of(req, local),
        None => None,
    };
    let tag = tag_of(target, local);
    let now = clock::now();
    if let Some(kept) = keepalive::take(pick.group(), peer, tag, now) {
        return Ok(Link { kept, cached: true, tag, sent: 0 });
    }
    // Boxed: a task should not carry the state of connecting while it does anything else.
    let io = rare(|| fresh(req, settings, target, &peer.address, local, deadline, watch)).await?;
    Ok(Link { kept: Kept::new(io, now), cached: false, tag, sent: 0 })
}

async fn fresh(
    req: &Request,
    settings: &'static Settings,
    target: &Target,
    address: &Address,
    local: Option<SocketAddr>,
    deadline: &Deadline,
    watch: &mut Watch,
) -> Result<Io, Fail> {
    let options = Options {
        local,
        transparent: settings.local.as_deref().is_some_and(|l| l.transparent),
        rcvbuf: *settings.socket_rcvbuf,
        sndbuf: *settings.socket_sndbuf,
        keepalive: *settings.socket_keepalive,
        nodelay: *req.conf.core.tcp_nodelay,
    };
    deadline.set(*settings.connect_timeout);
    let socket = match limited(req, connect(address, &options), deadline, watch).await? {
        Ok(socket) => socket,
        Err(e) => {
            req.log(e.level(), Some(&e.source), format_args!("{e}"));
            return Err(if e.try_next() { Fail::Next(Fault::Error) } else { Fail::Status(500) });
        }
    };
    match &target.tls {
        None => Ok(Io::Plain(socket)),
        Some(tls) => handshake(req, settings, tls, socket, deadline, watch).await,
    }
}

async fn handshake(
    req: &Request,
    settings: &'static Settings,
    tls: &Tls,
    socket: Socket,
    deadline: &Deadline,
    watch: &mut Watch,
) -> Result<Io, Fail> {
    let connector = tls.settings.for_connection(&tls.connector, tls.certificate.as_ref(), None);
    let connector = connector.map_err(|e| {
        req.log(Level::Error, None, format_args!("{e}"));
        Fail::Status(500)
    })?;
    req.action.set("SSL handshaking to upstream");
    deadline.set(*settings.connect_timeout);
    match limited(req, connector.connect(socket, &tls.name), deadline, watch).await? {
        Ok(stream) => Ok(Io::tls(stream)),
        Err(e) => {
            req.log(e.level(tls::Peer::Upstream).into(), None, format_args!("{e}"));
            Err(Fail::Next(Fault::Error))
        }
    }
}

/// Waits for `work`, as long as there is time and a client.
async fn limited<F: Future>(
    req: &Request,
    work: F,
    deadline: &Deadline,
    watch: &mut Watch,
) -> Result<F::Output, Fail> {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            deadline.clear();
            return Poll::Ready(Ok(done));
        }
        if watch.poll_gone(req, cx, true).is_ready() {
            return Poll::Ready(Err(Fail::Gone));
        }
        deadline.poll_expired(cx).map(|()| Err(Fail::Next(Fault::Timeout)))
    })
    .await
}

fn local_of(req: &Request, local: &Local) -> Option<SocketAddr> {
    match &local.address {
        Ok(address) => Some(*address),
        Err(template) => {
            let text = template.eval(req);
            let address = local_address(&text);
            if address.is_none() && !text.is_empty() {
                let shown = crate::log::bytes(&text);
                req.log(Level::Error, None, format_args!("invalid local address \"{shown}\""));
            }
            address
        }
    }
}

fn tag_of(target: &Target, local: Option<SocketAddr>) -> Tag {
    let hash = |of: &dyn Fn(&mut DefaultHasher)| {
        let mut hasher = DefaultHasher::new();
        of(&mut hasher);
        hasher.finish() | 1
    };
    let tls = match &target.tls {
        Some(tls) => hash(&|h| {
            (std::sync::Arc::as_ptr(&tls.connector) as usize).hash(h);
            tls.name.hash(h);
            tls.certificate.hash(h);
        }),
        None => 0,
    };
    let local_address = local.map_or(0, |local| hash(&|h| local.hash(h)));
    Tag { tls, location: target.location, local_address }
}
