//! Where the bytes of a response go: an HTTP/1 connection, an HTTP/2 stream, memory, another response, or nowhere.

use std::task::{Context, Poll, ready};

use super::filters::Filters;
use super::modules::range::Ranges;
use super::request::Request;

/// The client went away or took too long: nothing more can be sent. What was wrong is in the log already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// The way to the client.
#[derive(Default)]
pub struct Output {
    /// Protocol.
    pub(super) kind: Kind,
    /// What the header filters put in the body's way; most bodies go straight.
    pub(super) filters: Option<Box<Filters>>,
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

    /// The filters, for one to be put in.
    pub(super) fn filters(&mut self) -> &mut Filters {
        self.filters.get_or_insert_default()
    }

    /// Takes the parts of the body that the client asked for: it is sent in parts.
    pub(super) fn take_ranges(&mut self) -> Option<Box<Ranges>> {
        self.filters.as_mut()?.ranges.take()
    }

    /// What came out of the filters waits to be sent.
    pub(super) fn waits(&self) -> bool {
        self.filters.as_ref().is_some_and(|filters| !filters.out.is_empty())
    }

    /// Takes bytes that passed all filters.
    pub(super) fn poll_kind(
        &mut self,
        req: &Request,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, Gone>> {
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
        if !self.filters.as_ref().is_some_and(|filters| filters.any_late()) {
            return self.poll_kind(req, cx, bytes);
        }
        ready!(self.poll_filtered(req, cx))?;
        self.filters().run_late(req, bytes, false)?;
        match self.poll_filtered(req, cx) {
            Poll::Ready(Err(gone)) => Poll::Ready(Err(gone)),
            _ => Poll::Ready(Ok(bytes.len())),
        }
    }

    /// Sends what came out of the filters.
    pub(super) fn poll_filtered(&mut self, req: &Request, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if !self.waits() {
            return Poll::Ready(Ok(()));
        }
        let mut pending = std::mem::take(&mut self.filters().out);
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
        self.filters().out = pending;
        result
    }

    pub(super) fn poll_flush(&mut self, req: &Request, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        ready!(self.poll_filtered(req, cx))?;
        match &mut self.kind {
            Kind::Http1(writer) => writer.poll_flush(&req.conn, cx),
            Kind::Http2(writer) => writer.poll_flush(cx),
            Kind::Joined(parent) => parent.poll_flush(req, cx),
            Kind::Nowhere | Kind::Collect(_) => Poll::Ready(Ok(())),
        }
    }
}
