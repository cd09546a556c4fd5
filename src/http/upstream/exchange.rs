//! One request's way over the peers: attempts, what ends them, and what is told about them.

use std::ops::Range;
use std::task::Poll;

use super::client::Watch;
use super::connect::{self, Link};
use super::send::Sending;
use super::settings::next;
use super::{Fault, Head, Protocol, ResponseFraming, Settings, Target, UpstreamUrl};
use crate::http::headers::{EXPECT, SET_COOKIE};
use crate::http::method::Method;
use crate::http::module::Verdict;
use crate::http::request::{BodyLength, Request, Version};
use crate::log::Level;
use crate::net::{Buffer, Deadline, clock};
use crate::process::memory::{in_place, rare};
use crate::upstream::{End, Pick, Source, UpstreamState};

/// Why an attempt brought no response.
#[derive(Debug)]
pub enum Fail {
    /// Another peer may be tried.
    Next(Fault),
    /// This is the answer.
    Status(u16),
    /// The client is gone.
    Gone,
    /// The request's body could not be read.
    Body(Verdict),
}

/// The state of a request's exchange.
pub struct Exchange<P> {
    pub(super) settings: &'static Settings,
    pub(super) protocol: P,
    pub(super) target: Target,
    pub(super) pick: Pick,
    pub(super) deadline: Deadline,
    pub(super) watch: Watch,
    pub(super) link: Option<Link>,
    /// The request's head and where the URI is in it.
    pub(super) request: Vec<u8>,
    uri: Range<usize>,
    pub(super) sending: Sending,
    /// What was received and not used yet.
    pub(super) input: Buffer,
    pub(super) head: Head,
    /// When the first attempt, and the present one, began.
    started: u64,
    attempt: u64,
    /// Bytes of early hints so far.
    pub(super) hints: usize,
    /// Responses are read ahead of the client.
    pub(super) buffering: bool,
    /// Where the cookie of `sticky cookie` stands in the response.
    cookie: Option<usize>,
}

/// Passes the request on and the response back. The request's body is read here, as the settings say.
pub async fn run<P: Protocol>(
    req: &mut Request,
    settings: &'static Settings,
    target: Target,
    protocol: P,
    unbuffered: bool,
) -> Verdict {
    match unbuffered {
        true => {
            if let Err(verdict) = rare(|| preread(req)).await {
                return verdict;
            }
        }
        false if req.body.complete || (req.body_length == BodyLength::None && !expects(req)) => {
            req.body.complete = true;
        }
        false => {
            if let Err(verdict) = rare(|| req.read_body()).await {
                return verdict;
            }
        }
    }
    let mut protocol = protocol;
    let request = match Written::new(req, &mut protocol) {
        Ok(request) => request,
        Err(status) => return Verdict::Status(status),
    };
    let mut exchange = in_place(|| Exchange::new(req, settings, target, protocol, request));
    exchange.run(req).await
}

/// Whether the client waits to be told to go on, even where it has nothing to send.
fn expects(req: &Request) -> bool {
    !req.expect_tested && req.header(EXPECT).is_some()
}

/// Takes what of the body is there already, so that a short body has a length.
async fn preread(req: &mut Request) -> Result<(), Verdict> {
    let most = *req.conf.core.client_body_buffer_size;
    let mut have = 0;
    std::future::poll_fn(|cx| {
        while have < most {
            match req.poll_body_piece(cx) {
                Poll::Ready(Ok(Some(piece))) => {
                    have += piece.len();
                    req.body.memory.push(piece);
                }
                Poll::Ready(Ok(None)) => break,
                Poll::Ready(Err(verdict)) => return Poll::Ready(Err(verdict)),
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}

/// The head of the request as it is sent, and where the URI is in it.
struct Written(Vec<u8>, Range<usize>);

impl Written {
    fn new(req: &mut Request, protocol: &mut impl Protocol) -> Result<Written, u16> {
        let mut request = Vec::with_capacity(1024);
        let uri = protocol.create_request(req, &mut request)?;
        Ok(Written(request, uri))
    }
}

impl<P: Protocol> Exchange<P> {
    fn new(
        req: &mut Request,
        settings: &'static Settings,
        target: Target,
        protocol: P,
        Written(request, uri): Written,
    ) -> Exchange<P> {
        if !req.upstream_states.is_empty() {
            // Stands between the attempts before an internal redirect and those after it.
            req.upstream_states.push(UpstreamState::default());
        }
        let client = req.conn.client_ip();
        let mut pick = target.group.start(&Source { context: &*req, client });
        pick.limit_tries(u32::try_from(*settings.next_upstream_tries).unwrap_or(u32::MAX));
        // The connection's own deadline serves, unless reading the body, another stream or the request that this one
        // only copies uses it.
        let shared = req.body.complete && req.version < Version::Http2 && !req.is_background();
        let deadline = if shared { req.conn.deadline.clone() } else { Deadline::never() };
        let now = clock::now();
        Exchange {
            watch: Watch::new(
                req,
                *settings.ignore_client_abort || settings.store.is_some() || req.is_background(),
            ),
            sending: Sending::default(),
            buffering: *settings.buffering,
            head: Head::default(),
            input: Buffer::default(),
            link: None,
            hints: 0,
            cookie: None,
            started: now,
            attempt: now,
            settings,
            protocol,
            target,
            pick,
            deadline,
            request,
            uri,
        }
    }

    async fn run(&mut self, req: &mut Request) -> Verdict {
        loop {
            let fail = match self.attempt(req).await {
                Ok(()) => match self.next_by_status() {
                    Some(fault) => Fail::Next(fault),
                    None => return self.respond(req).await,
                },
                Err(fail) => fail,
            };
            let status = match fail {
                Fail::Next(fault) => match self.next(req, fault) {
                    Some(status) => status,
                    None => continue,
                },
                Fail::Status(status) => status,
                Fail::Gone => return self.gone(req),
                Fail::Body(verdict) => {
                    self.close(req);
                    return verdict;
                }
            };
            self.close(req);
            return Verdict::Status(status);
        }
    }

    /// Tries one peer, up to a complete head.
    async fn attempt(&mut self, req: &mut Request) -> Result<(), Fail> {
        req.action.set("connecting to upstream");
        let now = clock::now();
        if let Some(last) = req.upstream_states.last_mut()
            && last.peer.is_some()
            && last.response_time.is_none()
        {
            last.response_time = Some(now.saturating_sub(self.attempt));
        }
        self.attempt = now;
        let name = match self.pick.next(now) {
            Ok(peer) => peer.name.clone(),
            Err(nobody) => {
                self.show(req);
                req.upstream_states.push(UpstreamState::new(nobody.name));
                req.log(Level::Error, None, format_args!("no live upstreams"));
                return Err(Fail::Next(Fault::NoLive));
            }
        };
        self.show(req);
        self.sticky_cookie(req);
        req.upstream_states.reserve_exact(1);
        req.upstream_states.push(UpstreamState::new(name));
        if self.sending.begun() || !self.input.is_empty() {
            self.protocol.response_mut().reset();
            self.input.release();
            self.head.clear();
            self.hints = 0;
        }
        self.sending = Sending::new(req, &self.protocol);
        let opened =
            connect::open(req, self.settings, &self.target, &self.pick, &self.deadline, &mut self.watch);
        self.link = Some(opened.await?);
        if let Some(state) = req.upstream_states.last_mut() {
            let now = if self.link.as_ref().is_some_and(|l| l.cached) { now } else { clock::now() };
            state.connect_time = Some(now.saturating_sub(self.attempt));
        }
        self.converse(req).await
    }

    /// `sticky cookie`: the client is told which peer it belongs to, whatever comes of the attempt.
    fn sticky_cookie(&mut self, req: &mut Request) {
        let source = Source { context: &*req, client: None };
        if let Some(cookie) = self.pick.cookie(&source, clock::wall().sec) {
            self.cookie = Some(req.response.headers.put_at(self.cookie, SET_COOKIE, &cookie));
        }
    }

    fn show(&self, req: &mut Request) {
        let uri = &self.request[self.uri.clone()];
        req.upstream_url = Some(UpstreamUrl::new(req, self.target.schema, uri));
    }

    /// Milliseconds of the present attempt.
    pub(super) fn elapsed(&self) -> u64 {
        clock::now().saturating_sub(self.attempt)
    }

    /// The status is one that another peer might better.
    fn next_by_status(&self) -> Option<Fault> {
        let status = self.head.status;
        let mask = next::of_status(status);
        if status < 300 || mask == 0 || self.pick.tries() <= 1 {
            return None;
        }
        self.may_repeat(mask).then_some(Fault::Status(status))
    }

    /// Whether the settings let another peer be tried for that reason.
    fn may_repeat(&self, reason: u32) -> bool {
        let mut mask = reason;
        if self.sending.begun() && !self.sending.idempotent {
            mask |= next::NON_IDEMPOTENT;
        }
        let timeout = *self.settings.next_upstream_timeout;
        *self.settings.next_upstream & mask == mask
            && !(self.sending.begun() && self.sending.streamed)
            && !(timeout != 0 && clock::now().saturating_sub(self.started) >= timeout)
    }

    /// Ends an attempt that failed. The status is the answer; none where another attempt follows.
    #[cold]
    #[inline(never)]
    fn next(&mut self, req: &mut Request, fault: Fault) -> Option<u16> {
        let cached = self.link.as_ref().is_some_and(|link| link.cached);
        self.settle(req);
        let end = match fault {
            Fault::Status(403 | 404) => End::Next,
            _ => End::Failed,
        };
        if let Some(state) = req.upstream_states.last()
            && self.pick.peer().is_some()
            && self.pick.release(end, state, clock::now())
        {
            req.log(Level::Warn, None, format_args!("upstream server temporarily disabled"));
        }
        if fault == Fault::Timeout {
            let reason = std::io::Error::from_raw_os_error(libc::ETIMEDOUT);
            req.log(Level::Error, Some(&reason), format_args!("upstream timed out"));
        }
        if cached && fault == Fault::Error {
            self.pick.retry_kept();
        }
        let (status, reason) = match fault {
            Fault::Timeout => (504, next::TIMEOUT),
            Fault::Error => (502, next::ERROR),
            Fault::InvalidHeader => (502, next::INVALID_HEADER),
            Fault::NoLive => (502, next::NO_LIVE),
            Fault::Status(status) => (status, next::of_status(status)),
        };
        if let Some(state) = req.upstream_states.last_mut() {
            state.status = status;
        }
        self.link = None;
        if self.pick.tries() == 0 || !self.may_repeat(reason) {
            return Some(status);
        }
        None
    }

    /// Writes down what the present connection came to.
    fn settle(&mut self, req: &mut Request) {
        if let (Some(link), Some(state)) = (&self.link, req.upstream_states.last_mut()) {
            state.bytes_sent = link.sent;
        }
    }

    /// Ends the exchange with the upstream; its connection goes, unless it was given back before.
    pub(super) fn close(&mut self, req: &mut Request) {
        self.settle(req);
        self.deadline.clear();
        let elapsed = self.elapsed();
        if let Some(state) = req.upstream_states.last_mut()
            && state.response_time.is_none()
        {
            state.response_time = Some(elapsed);
        }
        self.link = None;
        self.learn(req, false);
        if let Some(state) = req.upstream_states.last() {
            self.pick.release(End::Done, state, clock::now());
        }
        req.action.set("sending to client");
    }

    /// `sticky learn`: whose session it is.
    pub(super) fn learn(&self, req: &Request, at_header: bool) {
        self.pick.learn(&Source { context: req, client: None }, at_header);
    }

    /// The response was read to its end, and nothing more: others may use the connection.
    pub(super) fn keep(&mut self, req: &mut Request) {
        self.settle(req);
        if let (Some(link), Some(peer)) = (self.link.take(), self.pick.peer()) {
            link.keep(self.pick.group(), peer);
        }
        self.close(req);
    }

    /// The client is gone: nobody gets an answer.
    #[cold]
    #[inline(never)]
    pub(super) fn gone(&mut self, req: &mut Request) -> Verdict {
        self.close(req);
        req.keepalive = false;
        if req.out.sent() == 0 {
            req.response.status = 499;
        }
        Verdict::Close
    }
}

/// Whether repeating the request does no harm, as nginx sees it.
pub(super) fn is_idempotent(method: Method) -> bool {
    !matches!(method, Method::Post | Method::Lock | Method::Patch)
}
