//! Where a response goes: HTTP/1 bytes, an HTTP/2 stream, or nowhere.
//!
//! Handlers fill [`Request::response`], then call `send_head`, `send` for each piece and `finish`. All of it waits
//! while the client is slow; an error is [`Gone`].

use std::fs::File;
use std::task::{Context, Poll};

use super::module::BodyFilter;
use super::request::Request;

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

impl Request {
    /// Puts a filter behind those that are there. For header filters only.
    pub fn add_body_filter(&mut self, filter: Box<dyn BodyFilter>) {
        self.out.filters.push(filter);
    }

    /// Runs the header filters and writes the head. After that, where [`Response::header_only`] is set, no body is
    /// to be sent: `finish` alone follows. A filter's own status (304, 412, 416) is handled here too.
    ///
    /// [`Response::header_only`]: super::response::Response::header_only
    pub async fn send_head(&mut self) -> Result<(), Gone> {
        super::output_impl::send_head(self).await
    }

    /// Sends a piece of the body through the filters.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        super::output_impl::send(self, bytes).await
    }

    /// As [`Request::send`], taking what there is room for; for pumps that also read meanwhile. Only where
    /// [`Request::has_body_filters`] is false may less than all be taken.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Gone>> {
        super::output_impl::poll_send(self, cx, bytes)
    }

    /// Pushes what is buffered towards the client.
    pub fn poll_flush_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        super::output_impl::poll_flush(self, cx)
    }

    /// Pushes what is buffered towards the client, and waits until it is gone.
    pub async fn flush_out(&mut self) -> Result<(), Gone> {
        std::future::poll_fn(|cx| self.poll_flush_out(cx)).await
    }

    /// Sends a part of a file: by sendfile where nothing changes the bytes.
    pub async fn send_file(&mut self, file: &File, offset: u64, length: u64) -> Result<(), Gone> {
        super::output_impl::send_file(self, file, offset, length).await
    }

    /// Ends the body: last chunk, trailers, flush.
    pub async fn finish(&mut self) -> Result<(), Gone> {
        super::output_impl::finish(self).await
    }

    /// Whether a filter changes the body on its way.
    pub fn has_body_filters(&self) -> bool {
        !self.out.filters.is_empty()
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
