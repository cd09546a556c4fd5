//! Sending a response: its head through the header filters, its body through theirs.
//!
//! Handlers fill [`Request::response`], then call `send_head`, `send` for each piece and `finish`. All of it waits
//! while the client is slow; an error is [`Gone`].

use std::cell::Cell;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::filters::Filters;
use super::head;
use super::module::BodyFilter;
use super::pace::Pace;
use super::request::{Request, Version};
pub(super) use super::sink::Kind;
pub use super::sink::{Gone, Output};
use crate::net::Socket;
use crate::process::memory::rare;

/// A head with more room than this is not kept for the next one.
const LARGE_HEAD: usize = 16 << 10;

thread_local! {
    /// Where heads are put together.
    static HEAD: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Request {
    /// Puts a filter behind those that are there. For header filters only.
    pub fn add_body_filter(&mut self, filter: Box<dyn BodyFilter>) {
        self.out.filters().push(filter);
    }

    /// Puts a filter behind the place where bodies of subrequests come in. For header filters only.
    pub fn add_late_body_filter(&mut self, filter: Box<dyn BodyFilter>) {
        self.out.filters().push_late(filter);
    }

    /// Puts the bodies of subrequests to these URIs in front of and behind the response's. For header filters only.
    pub fn add_bodies(&mut self, before: Option<Bytes>, after: Option<Bytes>) {
        self.out.filters().additions = (before, after);
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
                self.out.filters = None;
                return rare(|| super::special::replace(self, status)).await;
            }
        }
        self.write_head();
        match self.out.filters.as_mut().and_then(|filters| filters.additions.0.take()) {
            Some(uri) => rare(|| self.add_subrequest(uri)).await,
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
            self.out.filters = None;
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
            return rare(|| self.send_through_filters(bytes)).await;
        }
        self.send_raw(bytes).await
    }

    async fn send_through_filters(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        self.filter(bytes)?;
        self.send_filtered().await
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

    /// Runs `bytes` through the filters.
    fn filter(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        self.with_filters(|filters, req| filters.run(req, bytes))
    }

    /// Calls `f` with the filters taken out of the request.
    fn with_filters(
        &mut self,
        f: impl FnOnce(&mut Filters, &Request) -> Result<(), Gone>,
    ) -> Result<(), Gone> {
        let Some(mut filters) = self.out.filters.take() else { return Ok(()) };
        let result = f(&mut filters, self);
        self.out.filters = Some(filters);
        result
    }

    fn poll_filtered(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if !self.out.waits() {
            return Poll::Ready(Ok(()));
        }
        self.with_out(|out, req| out.poll_filtered(req, cx))
    }

    async fn send_filtered(&mut self) -> Result<(), Gone> {
        std::future::poll_fn(|cx| self.poll_filtered(cx)).await
    }

    /// Pushes what is buffered towards the client.
    pub fn poll_flush_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let waits = self.out.waits();
        match &mut self.out.kind {
            Kind::Http1(writer) if !waits => writer.poll_flush(&self.conn, cx),
            _ => self.with_out(|out, req| out.poll_flush(req, cx)),
        }
    }

    /// Lets the filters give what they hold back, so that the next flush sends it: for responses that are passed on
    /// as they come.
    pub fn flush_filters(&mut self) -> Result<(), Gone> {
        self.with_filters(|filters, req| filters.flush(req))
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
        if self.out.filters.is_some() {
            rare(|| self.finish_filters()).await?;
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
        let after = self.out.filters().additions.1.take();
        self.with_filters(|filters, req| filters.end(req, after.is_none()))?;
        if let Some(uri) = after {
            self.send_filtered().await?;
            self.add_subrequest(uri).await?;
            self.with_filters(|filters, req| filters.run_late(req, b"", true))?;
        }
        self.send_filtered().await
    }

    /// Whether a filter changes the body on its way.
    pub fn has_body_filters(&self) -> bool {
        self.out.filters.as_ref().is_some_and(|filters| filters.any())
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
