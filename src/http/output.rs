//! Where a response goes: HTTP/1 bytes, an HTTP/2 stream, or nowhere.
//!
//! Handlers fill [`Request::response`], then call `send_head`, `send` for each piece and `finish`. All of it waits
//! while the client is slow; an error is [`Gone`].

use std::cell::Cell;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::head;
use super::module::BodyFilter;
use super::modules::range::Ranges;
use super::pace::Pace;
use super::request::{Request, Version};
use crate::net::Socket;

/// A head with more room than this is not kept for the next one.
const LARGE_HEAD: usize = 16 << 10;

thread_local! {
    /// Where heads are put together.
    static HEAD: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The client went away or took too long: nothing more can be sent. What was wrong is in the log already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// The way to the client.
#[derive(Default)]
pub struct Output {
    /// Protocol.
    pub(super) kind: Kind,
    /// The parts of the body that the client asked for.
    pub(super) ranges: Option<Box<Ranges>>,
    /// Filters that the header filters put in, first to last.
    pub(super) filters: Vec<Box<dyn BodyFilter>>,
    /// Filters behind the place where bodies of subrequests come in.
    late: Vec<Box<dyn BodyFilter>>,
    /// URIs of subrequests whose bodies stand in front of and behind the response's.
    additions: (Option<Bytes>, Option<Bytes>),
    /// What came out of the filters and was not sent yet.
    filtered: Vec<u8>,
}

/// Protocol of an [`Output`].
#[derive(Default)]
pub(super) enum Kind {
    /// HTTP/1 and below.
    Http1(super::http1::Writer),
    /// An HTTP/2 stream.
    Http2(super::http2::Writer),
    /// Discards everything: subrequests that only ask for a status.
    #[default]
    Nowhere,
    /// Keeps the body of a subrequest.
    Collect(Vec<u8>),
    /// Into the body of the request that this subrequest serves.
    Joined(Box<Output>),
}

impl Output {
    /// To an HTTP/1 client.
    pub(super) fn http1() -> Output {
        Output { kind: Kind::Http1(super::http1::Writer::default()), ..Output::default() }
    }

    /// To an HTTP/2 stream.
    pub(super) fn http2(writer: super::http2::Writer) -> Output {
        Output { kind: Kind::Http2(writer), ..Output::default() }
    }

    /// Into memory.
    pub(super) fn collect() -> Output {
        Output { kind: Kind::Collect(Vec::new()), ..Output::default() }
    }

    /// Into the body that `parent` sends.
    pub(super) fn joined(parent: Output) -> Output {
        Output { kind: Kind::Joined(Box::new(parent)), ..Output::default() }
    }

    /// Gives back what [`Output::joined`] took.
    pub(super) fn into_parent(self) -> Output {
        match self.kind {
            Kind::Joined(parent) => *parent,
            kind => Output { kind, ..self },
        }
    }

    /// The body that a collecting output has.
    pub fn collected(&self) -> &[u8] {
        match &self.kind {
            Kind::Collect(body) => body,
            _ => b"",
        }
    }

    /// Bytes sent for the request so far, head included.
    pub fn sent(&self) -> u64 {
        match &self.kind {
            Kind::Http1(w) => w.sent,
            Kind::Http2(w) => w.sent(),
            Kind::Joined(parent) => parent.sent(),
            Kind::Nowhere | Kind::Collect(_) => 0,
        }
    }

    /// `n` bytes went to the client before the head (`100 Continue`).
    pub(super) fn count(&mut self, n: usize) {
        if let Kind::Http1(writer) = &mut self.kind {
            writer.sent += n as u64;
        }
    }

    /// Bytes of the head.
    pub fn head_size(&self) -> u64 {
        match &self.kind {
            Kind::Http1(w) => w.head_size,
            Kind::Http2(w) => w.head_size(),
            Kind::Joined(parent) => parent.head_size(),
            Kind::Nowhere | Kind::Collect(_) => 0,
        }
    }

    /// Bytes of body sent so far.
    pub fn body_sent(&self) -> u64 {
        self.sent().saturating_sub(self.head_size())
    }

    fn forget_filters(&mut self) {
        self.filters.clear();
        self.late.clear();
        self.ranges = None;
        self.additions = (None, None);
    }

    /// Takes bytes that passed all filters.
    fn poll_kind(&mut self, req: &Request, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Gone>> {
        match &mut self.kind {
            Kind::Http1(writer) => writer.poll_body(&req.conn, cx, bytes),
            Kind::Http2(writer) => writer.poll_body(cx, bytes),
            Kind::Nowhere => Poll::Ready(Ok(bytes.len())),
            Kind::Collect(body) => {
                body.extend_from_slice(bytes);
                Poll::Ready(Ok(bytes.len()))
            }
            Kind::Joined(parent) => parent.poll_joined(req, cx, bytes),
        }
    }

    /// Takes body bytes of a subrequest.
    fn poll_joined(
        &mut self,
        req: &Request,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, Gone>> {
        if self.late.is_empty() && self.filtered.is_empty() {
            return self.poll_kind(req, cx, bytes);
        }
        ready!(self.poll_filtered(req, cx))?;
        run_filters(&mut self.late, req, bytes, false, &mut self.filtered)?;
        match self.poll_filtered(req, cx) {
            Poll::Ready(Err(gone)) => Poll::Ready(Err(gone)),
            _ => Poll::Ready(Ok(bytes.len())),
        }
    }

    /// Sends what came out of the filters.
    fn poll_filtered(&mut self, req: &Request, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if self.filtered.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut pending = std::mem::take(&mut self.filtered);
        let mut done = 0;
        let result = loop {
            if done == pending.len() {
                break Poll::Ready(Ok(()));
            }
            match self.poll_kind(req, cx, &pending[done..]) {
                Poll::Ready(Ok(n)) => done += n,
                Poll::Ready(Err(gone)) => break Poll::Ready(Err(gone)),
                Poll::Pending => break Poll::Pending,
            }
        };
        pending.drain(..done);
        self.filtered = pending;
        result
    }

    /// Runs bytes through all filters.
    fn run(&mut self, req: &Request, bytes: &[u8], last: bool) -> Result<(), Gone> {
        if self.filters.is_empty() {
            return run_filters(&mut self.late, req, bytes, last, &mut self.filtered);
        }
        let mut between = Vec::with_capacity(bytes.len());
        run_filters(&mut self.filters, req, bytes, last, &mut between)?;
        run_filters(&mut self.late, req, &between, last, &mut self.filtered)
    }

    fn poll_flush(&mut self, req: &Request, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        ready!(self.poll_filtered(req, cx))?;
        match &mut self.kind {
            Kind::Http1(writer) => writer.poll_flush(&req.conn, cx),
            Kind::Http2(writer) => writer.poll_flush(cx),
            Kind::Joined(parent) => parent.poll_flush(req, cx),
            Kind::Nowhere | Kind::Collect(_) => Poll::Ready(Ok(())),
        }
    }
}

/// Runs bytes through filters, one after the other, into `out`.
fn run_filters(
    filters: &mut [Box<dyn BodyFilter>],
    req: &Request,
    bytes: &[u8],
    last: bool,
    out: &mut Vec<u8>,
) -> Result<(), Gone> {
    match filters {
        [] => out.extend_from_slice(bytes),
        [only] => only.filter(req, bytes, last, out)?,
        [first, rest @ ..] => {
            let mut between = Vec::with_capacity(bytes.len());
            first.filter(req, bytes, last, &mut between)?;
            run_filters(rest, req, &between, last, out)?;
        }
    }
    Ok(())
}

/// Lets filters give what they hold back, each through those behind it.
fn flush_filters(filters: &mut [Box<dyn BodyFilter>], req: &Request, out: &mut Vec<u8>) -> Result<(), Gone> {
    for i in 0..filters.len() {
        let mut held = Vec::new();
        filters[i].flush(req, &mut held);
        if !held.is_empty() {
            run_filters(&mut filters[i + 1..], req, &held, false, out)?;
        }
    }
    Ok(())
}

impl Request {
    /// Puts a filter behind those that are there. For header filters only.
    pub fn add_body_filter(&mut self, filter: Box<dyn BodyFilter>) {
        self.out.filters.push(filter);
    }

    /// Puts a filter behind the place where bodies of subrequests come in. For header filters only.
    pub fn add_late_body_filter(&mut self, filter: Box<dyn BodyFilter>) {
        self.out.late.push(filter);
    }

    /// Puts the bodies of subrequests to these URIs in front of and behind the response's. For header filters only.
    pub fn add_bodies(&mut self, before: Option<Bytes>, after: Option<Bytes>) {
        self.out.additions = (before, after);
    }

    /// Runs the header filters and writes the head. After that, where [`Response::header_only`] is set, no body is
    /// to be sent: `finish` alone follows. A filter's own status (412, 416) replaces the response here; then
    /// `header_only` is set too, since nothing of the handler's body may follow.
    ///
    /// [`Response::header_only`]: super::response::Response::header_only
    pub async fn send_head(&mut self) -> Result<(), Gone> {
        if self.response.sent {
            return Ok(());
        }
        if self.err_status != 0 {
            // An error page is answered with the status it stands for, or the one it was told.
            self.response.status = self.err_status;
            self.response.status_line = None;
        }
        for filter in &self.conf.handlers.header_filters {
            if let Some(status) = filter(self) {
                self.out.forget_filters();
                return Box::pin(super::special::replace(self, status)).await;
            }
        }
        self.write_head();
        match self.out.additions.0.take() {
            Some(uri) => self.add_subrequest(uri).await,
            None => Ok(()),
        }
    }

    async fn add_subrequest(&mut self, uri: Bytes) -> Result<(), Gone> {
        let mut child = self.subrequest(uri, Bytes::new())?;
        self.run_subrequest(&mut child, super::subrequest::Body::Client).await
    }

    /// Writes the head without running filters.
    pub(super) fn write_head(&mut self) {
        self.response.sent = true;
        head::settle(self);
        if matches!(self.out.kind, Kind::Nowhere) {
            self.response.header_only = true;
        }
        if self.response.header_only {
            self.out.forget_filters();
        }
        let mut kind = std::mem::take(&mut self.out.kind);
        match &mut kind {
            Kind::Http1(writer) => {
                writer.timeout = *self.conf.core.send_timeout;
                writer.pace = self.pace();
                if self.version >= Version::Http10 {
                    let mut bytes = HEAD.take();
                    head::write_http1(self, writer.chunked, &mut bytes);
                    writer.head_size = bytes.len() as u64;
                    writer.push(&bytes);
                    bytes.clear();
                    if bytes.capacity() <= LARGE_HEAD {
                        HEAD.set(bytes);
                    }
                }
            }
            Kind::Http2(writer) => {
                writer.pace = self.pace();
                writer.send_head(self);
            }
            Kind::Nowhere | Kind::Collect(_) | Kind::Joined(_) => {}
        }
        self.out.kind = kind;
    }

    /// Sends a piece of the body through the filters.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        if self.response.header_only {
            return Ok(());
        }
        if self.has_body_filters() {
            self.filter(bytes)?;
            return self.send_filtered().await;
        }
        self.send_raw(bytes).await
    }

    async fn send_raw(&mut self, mut bytes: &[u8]) -> Result<(), Gone> {
        while !bytes.is_empty() {
            let n = std::future::poll_fn(|cx| self.poll_raw(cx, bytes)).await?;
            bytes = &bytes[n..];
        }
        Ok(())
    }

    /// As [`Request::send`], taking what there is room for; for pumps that also read meanwhile. With filters all of
    /// `bytes` is taken, once what came before is on its way.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Gone>> {
        if self.response.header_only {
            return Poll::Ready(Ok(bytes.len()));
        }
        if !self.has_body_filters() {
            return self.poll_raw(cx, bytes);
        }
        ready!(self.poll_filtered(cx))?;
        self.filter(bytes)?;
        // What the filters gave may wait for the next call: it is kept.
        if let Poll::Ready(Err(gone)) = self.poll_filtered(cx) {
            return Poll::Ready(Err(gone));
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_raw(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Gone>> {
        match &mut self.out.kind {
            Kind::Http1(writer) => writer.poll_body(&self.conn, cx, bytes),
            Kind::Http2(writer) => writer.poll_body(cx, bytes),
            _ => self.with_out(|out, req| out.poll_kind(req, cx, bytes)),
        }
    }

    /// Calls `f` with the output taken out of the request.
    fn with_out<R>(&mut self, f: impl FnOnce(&mut Output, &Request) -> R) -> R {
        let mut out = std::mem::take(&mut self.out);
        let result = f(&mut out, self);
        self.out = out;
        result
    }

    /// Runs `bytes` through ranges and filters into `filtered`.
    fn filter(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        self.with_out(|out, req| {
            let mut wanted = Vec::new();
            let bytes = match &mut out.ranges {
                Some(ranges) => {
                    ranges.filter(req, bytes, &mut wanted)?;
                    &wanted
                }
                None => bytes,
            };
            out.run(req, bytes, false)?;
            Ok(())
        })
    }

    fn poll_filtered(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if self.out.filtered.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.with_out(|out, req| out.poll_filtered(req, cx))
    }

    async fn send_filtered(&mut self) -> Result<(), Gone> {
        std::future::poll_fn(|cx| self.poll_filtered(cx)).await
    }

    /// Pushes what is buffered towards the client.
    pub fn poll_flush_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        match &mut self.out.kind {
            Kind::Http1(writer) if self.out.filtered.is_empty() => writer.poll_flush(&self.conn, cx),
            _ => self.with_out(|out, req| out.poll_flush(req, cx)),
        }
    }

    /// Lets the filters give what they hold back, so that the next flush sends it: for responses that are passed on
    /// as they come.
    pub fn flush_filters(&mut self) -> Result<(), Gone> {
        if !self.has_body_filters() {
            return Ok(());
        }
        self.with_out(|out, req| {
            let mut between = Vec::new();
            flush_filters(&mut out.filters, req, &mut between)?;
            if !between.is_empty() {
                run_filters(&mut out.late, req, &between, false, &mut out.filtered)?;
            }
            flush_filters(&mut out.late, req, &mut out.filtered)
        })
    }

    /// Pushes what is buffered towards the client, and waits until it is gone.
    pub async fn flush_out(&mut self) -> Result<(), Gone> {
        std::future::poll_fn(|cx| self.poll_flush_out(cx)).await
    }

    /// Ends the body: last chunk, trailers, flush.
    pub async fn finish(&mut self) -> Result<(), Gone> {
        if self.response.complete {
            return Ok(());
        }
        if !self.response.sent {
            return Err(Gone);
        }
        if self.has_body_filters() || self.out.additions.1.is_some() {
            self.finish_filters().await?;
        }
        if self.response.expect_trailers
            && !self.response.header_only
            && let Some(add) = self.conf.handlers.trailers
        {
            add(self);
        }
        let mut kind = std::mem::take(&mut self.out.kind);
        match &mut kind {
            Kind::Http1(writer) if writer.chunked && !self.response.header_only => {
                writer.push(b"0\r\n");
                let mut trailers = Vec::new();
                for (name, value) in self.response.trailers.iter() {
                    for part in [name, b": ", value, b"\r\n"] {
                        trailers.extend_from_slice(part);
                    }
                }
                trailers.extend_from_slice(b"\r\n");
                writer.push(&trailers);
            }
            Kind::Http2(writer) => writer.finish(&self.response.trailers),
            _ => {}
        }
        self.out.kind = kind;
        if !self.is_subrequest() {
            self.flush_out().await?;
        }
        self.response.complete = true;
        Ok(())
    }

    /// Bytes of head and body that wait to be written together with more.
    pub fn held(&self) -> usize {
        match &self.out.kind {
            Kind::Http1(w) => w.held(),
            _ => 0,
        }
    }

    async fn finish_filters(&mut self) -> Result<(), Gone> {
        let after = self.out.additions.1.take();
        self.with_out(|out, req| {
            let mut end = Vec::new();
            run_filters(&mut out.filters, req, b"", true, &mut end)?;
            run_filters(&mut out.late, req, &end, after.is_none(), &mut out.filtered)
        })?;
        if let Some(uri) = after {
            self.send_filtered().await?;
            // The filters in front are done: nothing of the subrequest's body is theirs.
            self.out.filters.clear();
            self.add_subrequest(uri).await?;
            self.with_out(|out, req| run_filters(&mut out.late, req, b"", true, &mut out.filtered))?;
        }
        self.send_filtered().await
    }

    /// Whether a filter changes the body on its way.
    pub fn has_body_filters(&self) -> bool {
        !self.out.filters.is_empty() || !self.out.late.is_empty() || self.out.ranges.is_some()
    }

    /// The client's socket, where body bytes may be put into it as they are: plain HTTP/1, not chunked, no filter,
    /// no limit, nothing held back. Tell [`Request::spliced`] what was.
    pub fn splice_target(&self) -> Option<&Socket> {
        match &self.out.kind {
            Kind::Http1(w)
                if !w.chunked && w.is_flushed() && !w.pace.limited() && !self.has_body_filters() =>
            {
                self.conn.io.plain()
            }
            _ => None,
        }
    }

    /// `n` body bytes were put into the client's socket directly.
    pub fn spliced(&mut self, n: usize) {
        if let Kind::Http1(writer) = &mut self.out.kind {
            writer.progress(n);
        }
    }

    /// The client's socket takes nothing now: waits with `send_timeout` as a write would.
    pub fn poll_send_timeout(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        match &mut self.out.kind {
            Kind::Http1(writer) => match writer.poll_timeout(&self.conn, cx) {
                Poll::Ready(_) => Poll::Ready(Gone),
                Poll::Pending => Poll::Pending,
            },
            _ => Poll::Pending,
        }
    }

    /// Whether the body goes in chunks.
    pub fn is_chunked(&self) -> bool {
        matches!(&self.out.kind, Kind::Http1(writer) if writer.chunked)
    }

    /// Whether `limit_rate` slows the response.
    pub fn is_paced(&self) -> bool {
        match &self.out.kind {
            Kind::Http1(writer) => writer.pace.limited(),
            Kind::Http2(writer) => writer.pace.limited(),
            _ => false,
        }
    }

    /// Whether the client speaks HTTP/1.
    pub fn is_http1(&self) -> bool {
        matches!(self.out.kind, Kind::Http1(_))
    }

    fn pace(&self) -> Pace {
        let core = &self.conf.core;
        let rate = self.limit_rate.unwrap_or_else(|| super::modules::core::rate_of(&core.limit_rate, self));
        let after = self
            .limit_rate_after
            .unwrap_or_else(|| super::modules::core::rate_of(&core.limit_rate_after, self));
        Pace::new(rate as u64, after as u64, self.start_ms)
    }

    /// Chunked framing, where the protocol needs it.
    pub(super) fn set_chunked(&mut self, on: bool) {
        if let Kind::Http1(writer) = &mut self.out.kind {
            writer.chunked = on;
        }
    }

    /// A whole response with a body in memory: sets length, sends head and body.
    pub async fn respond(&mut self, status: u16, content_type: &str, body: &[u8]) -> Result<(), Gone> {
        self.response.status = status;
        self.response.content_type = Some(bytes::Bytes::copy_from_slice(content_type.as_bytes()));
        self.response.content_length = Some(body.len() as u64);
        self.send_head().await?;
        if !self.response.header_only {
            self.send(body).await?;
        }
        self.finish().await
    }
}
