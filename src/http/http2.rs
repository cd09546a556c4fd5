//! HTTP/2 on the client's side: hyper speaks it, requests run as over HTTP/1.

use std::rc::Rc;
use std::task::{Context, Poll};

use super::Http;
use super::connection::Connection;
use super::headers::Headers;
use super::output::Gone;
use super::request::Request;

/// Writes a response to an HTTP/2 stream.
#[derive(Default)]
pub struct Writer {}

impl Writer {
    pub(super) fn sent(&self) -> u64 {
        0
    }
    pub(super) fn head_size(&self) -> u64 {
        0
    }
    pub(super) fn send_head(&mut self, _req: &Request) {}
    pub(super) fn poll_body(&mut self, _cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Gone>> {
        Poll::Ready(Ok(bytes.len()))
    }
    pub(super) fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }
    pub(super) fn finish(&mut self, _trailers: &Headers) {}
}

/// x
pub fn enabled(_conn: &Connection, _http: &'static Http) -> bool {
    false
}
/// x
pub async fn has_preface(_conn: &Connection) -> bool {
    false
}
/// x
pub async fn serve(_conn: Rc<Connection>, _http: &'static Http) {}
