//! Where a response goes: HTTP/1 bytes, an HTTP/2 stream, or nowhere.
//!
//! Handlers fill [`Request::response`], then call `send_head`, `send` for each piece and `finish`. All of it waits
//! while the client is slow; an error is [`Gone`].

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::task::{Context, Poll, ready};

use super::head;
use super::module::BodyFilter;
use super::request::{Request, Version};
use crate::net::{Buffer, Socket};

/// The client went away or took too long: nothing more can be sent. What was wrong is in the log already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// The way to the client.
#[derive(Default)]
pub struct Output {
    /// Protocol.
    pub(super) kind: Kind,
    /// Filters that the header filters put in, first to last.
    pub(super) filters: Vec<Box<dyn BodyFilter>>,
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

    /// Bytes sent for the request so far, head included.
    pub fn sent(&self) -> u64 {
        match &self.kind {
            Kind::Http1(w) => w.sent,
            Kind::Http2(w) => w.sent(),
            Kind::Nowhere => 0,
        }
    }

    /// Bytes of the head.
    pub fn head_size(&self) -> u64 {
        match &self.kind {
            Kind::Http1(w) => w.head_size,
            Kind::Http2(w) => w.head_size(),
            Kind::Nowhere => 0,
        }
    }

    /// Bytes of body sent so far.
    pub fn body_sent(&self) -> u64 {
        self.sent().saturating_sub(self.head_size())
    }
}

impl Request {
    /// Puts a filter behind those that are there. For header filters only.
    pub fn add_body_filter(&mut self, filter: Box<dyn BodyFilter>) {
        self.out.filters.push(filter);
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
        for filter in &self.conf.handlers.header_filters {
            if let Some(status) = filter(self) {
                self.out.filters.clear();
                return Box::pin(super::special::replace(self, status)).await;
            }
        }
        self.write_head();
        Ok(())
    }

    /// Writes the head without running filters.
    pub(super) fn write_head(&mut self) {
        self.response.sent = true;
        head::settle(self);
        if self.response.header_only {
            self.out.filters.clear();
        }
        let mut kind = std::mem::take(&mut self.out.kind);
        match &mut kind {
            Kind::Http1(writer) => {
                writer.timeout = *self.conf.core.send_timeout;
                writer.limit = self.rate_limit();
                writer.start_ms = self.start_ms;
                if self.version >= Version::Http10 {
                    let mut bytes = Vec::with_capacity(1024);
                    head::write_http1(self, writer.chunked, &mut bytes);
                    writer.head_size = bytes.len() as u64;
                    writer.push(&bytes);
                }
            }
            Kind::Http2(writer) => {
                writer.limit = self.rate_limit();
                writer.send_head(self);
            }
            Kind::Nowhere => {}
        }
        self.out.kind = kind;
    }

    /// Sends a piece of the body through the filters.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        if self.response.header_only {
            return Ok(());
        }
        if self.has_body_filters() {
            self.filter(bytes, false);
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
        self.filter(bytes, false);
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
            Kind::Nowhere => Poll::Ready(Ok(bytes.len())),
        }
    }

    /// Runs `bytes` through the filters into `filtered`.
    fn filter(&mut self, bytes: &[u8], last: bool) {
        let mut filters = std::mem::take(&mut self.out.filters);
        let mut input = bytes.to_vec();
        for filter in &mut filters {
            let mut output = Vec::with_capacity(input.len());
            filter.filter(self, &input, last, &mut output);
            input = output;
        }
        self.out.filters = filters;
        self.out.filtered.extend_from_slice(&input);
    }

    fn poll_filtered(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let mut pending = std::mem::take(&mut self.out.filtered);
        let mut done = 0;
        let result = loop {
            if done == pending.len() {
                break Poll::Ready(Ok(()));
            }
            match self.poll_raw(cx, &pending[done..]) {
                Poll::Ready(Ok(n)) => done += n,
                Poll::Ready(Err(gone)) => break Poll::Ready(Err(gone)),
                Poll::Pending => break Poll::Pending,
            }
        };
        pending.drain(..done);
        self.out.filtered = pending;
        result
    }

    async fn send_filtered(&mut self) -> Result<(), Gone> {
        std::future::poll_fn(|cx| self.poll_filtered(cx)).await
    }

    /// Pushes what is buffered towards the client.
    pub fn poll_flush_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        ready!(self.poll_filtered(cx))?;
        match &mut self.out.kind {
            Kind::Http1(writer) => writer.poll_flush(&self.conn, cx),
            Kind::Http2(writer) => writer.poll_flush(cx),
            Kind::Nowhere => Poll::Ready(Ok(())),
        }
    }

    /// Pushes what is buffered towards the client, and waits until it is gone.
    pub async fn flush_out(&mut self) -> Result<(), Gone> {
        std::future::poll_fn(|cx| self.poll_flush_out(cx)).await
    }

    /// Sends a part of a file.
    pub async fn send_file(&mut self, file: &File, mut offset: u64, mut length: u64) -> Result<(), Gone> {
        let mut buffer = Buffer::with_capacity(64 << 10);
        while length > 0 {
            let want = buffer.capacity().min(usize::try_from(length).unwrap_or(usize::MAX));
            let n = match file.read_at(&mut buffer.spare()[..want], offset) {
                Ok(0) => {
                    self.log(
                        crate::log::Level::Alert,
                        None,
                        format_args!("file was truncated while sending response"),
                    );
                    return Err(Gone);
                }
                Ok(n) => n,
                Err(e) => {
                    self.log(crate::log::Level::Crit, Some(&e), format_args!("pread() failed"));
                    return Err(Gone);
                }
            };
            buffer.filled(n);
            self.send(buffer.bytes()).await?;
            buffer.consume(n);
            offset += n as u64;
            length -= n as u64;
        }
        Ok(())
    }

    /// Ends the body: last chunk, trailers, flush.
    pub async fn finish(&mut self) -> Result<(), Gone> {
        if self.response.complete {
            return Ok(());
        }
        if !self.response.sent {
            return Err(Gone);
        }
        if self.has_body_filters() {
            self.filter(b"", true);
            self.send_filtered().await?;
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
        self.flush_out().await?;
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

    /// Whether a filter changes the body on its way.
    pub fn has_body_filters(&self) -> bool {
        !self.out.filters.is_empty()
    }

    /// The client's socket, where body bytes may be put into it as they are: plain HTTP/1, not chunked, no filter,
    /// no limit, nothing held back. Tell [`Request::spliced`] what was.
    pub fn splice_target(&self) -> Option<&Socket> {
        match &self.out.kind {
            Kind::Http1(w) if !w.chunked && w.is_flushed() && w.limit.0 == 0 && !self.has_body_filters() => {
                self.conn.io.plain()
            }
            _ => None,
        }
    }

    /// `n` body bytes were put into the client's socket directly.
    pub fn spliced(&mut self, n: usize) {
        if let Kind::Http1(writer) = &mut self.out.kind {
            writer.progress(&self.conn, n);
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

    /// Whether the client speaks HTTP/1.
    pub fn is_http1(&self) -> bool {
        matches!(self.out.kind, Kind::Http1(_))
    }

    fn rate_limit(&self) -> (u64, u64) {
        let core = &self.conf.core;
        let rate = self.limit_rate.unwrap_or_else(|| super::modules::core::rate_of(&core.limit_rate, self));
        let after = self
            .limit_rate_after
            .unwrap_or_else(|| super::modules::core::rate_of(&core.limit_rate_after, self));
        (rate as u64, after as u64)
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
