//! A request's body: read whole into memory or a temporary file, passed on as it comes, or discarded.

use std::fs::File;
use std::path::PathBuf;

use bytes::Bytes;

use super::module::Verdict;
use super::request::Request;

/// Where the bytes of a body are.
#[derive(Default)]
pub struct RequestBody {
    /// The parts that are in memory, in order.
    pub memory: Vec<Bytes>,
    /// The file that holds all of it, once it did not fit in memory.
    pub file: Option<TempFile>,
    /// Bytes of body read so far, chunk framing not counted.
    pub length: u64,
    /// Whether the end was read.
    pub complete: bool,
    /// Whether reading has begun (and `100 Continue` was sent where it was asked for).
    pub started: bool,
    /// Whether what still comes is thrown away.
    pub discard: bool,
    /// Bytes of the message's body still to come, where its length is known.
    pub rest: u64,
    /// State of chunked decoding.
    pub chunked: super::chunked::Decoder,
    /// What is left to send of `100 Continue`.
    pub continue_left: &'static [u8],
    /// Bytes of body read so far, framing counted.
    pub wire: u64,
    /// Of those, bytes of the last read: a malformed chunk among them makes none of them count.
    pub unsettled: u64,
    /// Bytes read since others had their turn.
    pub moved: usize,
    /// Its chunks make no sense, which the log was told.
    pub malformed: bool,
    /// The clock runs for the next piece.
    pub waiting: bool,
    /// HTTP/2: where its frames come from.
    pub frames: Option<h2::RecvStream>,
    /// HTTP/2: when the next of them must come. Over HTTP/1 the connection's own deadline is used.
    pub deadline: Option<crate::net::Deadline>,
}

/// A temporary file and its name, which is removed with it unless it shall stay.
#[derive(Debug)]
pub struct TempFile {
    /// Open for reading and writing.
    pub file: File,
    /// Its path.
    pub path: PathBuf,
    /// Whether it has a name that others can open.
    pub named: bool,
    /// Whether that name stays when the request is over.
    pub stays: bool,
}

impl RequestBody {
    /// Counts bytes of the wire for `$request_length`; what is thrown away does not count.
    pub(super) fn count(&mut self, bytes: usize) {
        if !self.discard {
            self.wire += bytes as u64;
            self.unsettled += bytes as u64;
        }
    }
}

impl Request {
    /// Reads the whole body into [`Request::body`]: memory, past `client_body_buffer_size` a file. The error is
    /// what to answer (413, 400, 408), or [`Verdict::Close`].
    pub async fn read_body(&mut self) -> Result<(), Verdict> {
        super::body_reader::read_all(self).await
    }

    /// The body is not wanted: what came of it is thrown away, and so is what comes until the request is over. The
    /// error is what to answer to a malformed one (400).
    pub async fn discard_body(&mut self) -> Result<(), Verdict> {
        super::body_reader::discard(self).await
    }

    /// As [`Request::next_body_piece`], for pumps that also do something else.
    pub fn poll_body_piece(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<Option<Bytes>, Verdict>> {
        super::body_reader::poll_piece(self, cx)
    }

    /// The next piece of a body that is passed on as it comes; none at its end.
    pub async fn next_body_piece(&mut self) -> Result<Option<Bytes>, Verdict> {
        super::body_reader::next_piece(self).await
    }
}
