//! Reading a request's body from its connection: by length or chunks, into memory or a file, or away.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use super::body::TempFile;
use super::body_splice;
use super::chunked::Step;
use super::headers::EXPECT;
use super::module::Verdict;
use super::modules::core::BodyInFile;
use super::request::{BodyLength, Request, Version};
use crate::log::Level;
use crate::net::{Buffer, turn};
use bytes::Bytes;

/// Bytes read at a time.
const PIECE: usize = 16 << 10;
/// The same, while as much is known to come.
const PIECE_LONG: usize = 64 << 10;

/// Reads all of the body; what does not fit `client_body_buffer_size` goes to a file.
pub async fn read_all(req: &mut Request) -> Result<(), Verdict> {
    if req.body.complete {
        return Ok(());
    }
    let limit = *req.conf.core.client_body_buffer_size;
    let mut memory: Vec<u8> = Vec::new();
    for part in req.body.memory.drain(..) {
        memory.extend_from_slice(&part);
    }
    let to_file = *req.conf.core.client_body_in_file_only != BodyInFile::Off;
    while let Some(piece) = next_piece(req).await? {
        if req.body.file.is_none() && !to_file && memory.len() + piece.len() <= limit {
            memory.extend_from_slice(&piece);
            continue;
        }
        if req.body.file.is_none() {
            open_file(req)?;
            write_file(req, &memory)?;
            memory = Vec::new();
        }
        write_file(req, &piece)?;
        let mut pipe = None;
        std::future::poll_fn(|cx| body_splice::poll_to_file(req, &mut pipe, cx)).await?;
    }
    if to_file && req.body.file.is_none() && !memory.is_empty() {
        open_file(req)?;
        write_file(req, &memory)?;
        memory = Vec::new();
    }
    if !memory.is_empty() {
        req.body.memory.push(memory.into());
    }
    Ok(())
}

/// The next piece of the body; none at its end.
pub async fn next_piece(req: &mut Request) -> Result<Option<Bytes>, Verdict> {
    std::future::poll_fn(|cx| poll_piece(req, cx)).await
}

/// As [`next_piece`], for pumps that also do something else.
pub fn poll_piece(req: &mut Request, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Verdict>> {
    if req.body.complete {
        return Poll::Ready(Ok(None));
    }
    ready!(poll_start(req, cx))?;
    if req.body_length == BodyLength::None {
        req.body.complete = true;
        return Poll::Ready(Ok(None));
    }
    let piece =
        if req.body.frames.is_some() { ready!(poll_frame(req, cx)) } else { ready!(poll_http1(req, cx)) };
    if let Ok(Some(piece)) = &piece {
        check_size(req, piece.len() as u64)?;
        req.body.length += piece.len() as u64;
    }
    Poll::Ready(piece)
}

/// Refuses a chunk that would make the body larger than it may be, as soon as its size is known.
fn check_size(req: &Request, piece: u64) -> Result<(), Verdict> {
    let most = *req.conf.core.client_max_body_size;
    let chunk = piece + req.body.chunked.wanted();
    let sum = req.body.length.saturating_add(chunk);
    if most > 0 && sum > most && !req.body.discard && req.body_length == BodyLength::Chunked {
        req.log(
            Level::Error,
            None,
            format_args!("client intended to send too large chunked body: {}+{chunk} bytes", req.body.length),
        );
        return Err(Verdict::Status(413));
    }
    Ok(())
}

/// Sends `100 Continue` where the client waits for it, and sets up reading.
fn poll_start(req: &mut Request, cx: &mut Context<'_>) -> Poll<Result<(), Verdict>> {
    if req.body.started {
        return Poll::Ready(Ok(()));
    }
    if !req.expect_tested {
        req.expect_tested = true;
        let wanted = req.header(EXPECT).is_some_and(|v| v.eq_ignore_ascii_case(b"100-continue"));
        if wanted && req.version == Version::Http11 {
            req.body.continue_left = CONTINUE;
        }
    }
    while !req.body.continue_left.is_empty() {
        match ready!(req.conn.io.poll_write(cx, req.body.continue_left)) {
            Ok(n) if n > 0 => {
                req.body.continue_left = &req.body.continue_left[n..];
                req.out.count(n);
            }
            _ => return Poll::Ready(Err(Verdict::Close)),
        }
    }
    // Over HTTP/2 the bytes are the connection's task's business.
    if req.body.frames.is_none() && ready!(req.conn.io.poll_flush(cx)).is_err() {
        return Poll::Ready(Err(Verdict::Close));
    }
    if let BodyLength::Known(length) = req.body_length {
        req.body.rest = length;
    }
    req.body.started = true;
    Poll::Ready(Ok(()))
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

fn poll_frame(req: &mut Request, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Verdict>> {
    loop {
        let Some(frames) = &mut req.body.frames else { return Poll::Ready(Ok(None)) };
        match frames.poll_data(cx) {
            Poll::Ready(None) => {
                req.body.complete = true;
                return Poll::Ready(Ok(None));
            }
            Poll::Ready(Some(Ok(data))) => {
                // The client may send as much again; it fails where the stream is over.
                let _ = frames.flow_control().release_capacity(data.len());
                if !data.is_empty() {
                    deadline(req).clear();
                    req.body.waiting = false;
                    return Poll::Ready(Ok(Some(data)));
                }
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(cut_off(req, &error))),
            Poll::Pending => return poll_timeout(req, cx),
        }
    }
}

/// A stream that its client reset, or ended before all of the body was there.
fn cut_off(req: &Request, error: &h2::Error) -> Verdict {
    match req.body_length {
        // A body of another length than was said: then it is h2 that ends the stream.
        BodyLength::Known(length) if error.is_reset() && error.is_library() => {
            let seen = req.body.length;
            let text = "client prematurely closed stream: only";
            req.log(
                Level::Info,
                None,
                format_args!("{text} {seen} out of {length} bytes of request body received"),
            );
            Verdict::Status(400)
        }
        _ => Verdict::Status(499),
    }
}

fn poll_http1(req: &mut Request, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Verdict>> {
    loop {
        match decode(req)? {
            Decoded::Piece(piece) => return Poll::Ready(Ok(Some(piece))),
            Decoded::End => {
                req.body.complete = true;
                return Poll::Ready(Ok(None));
            }
            Decoded::More => {}
        }
        let n = match poll_fill(req, cx) {
            Poll::Pending => return poll_timeout(req, cx),
            Poll::Ready(Ok(n)) => n,
            Poll::Ready(Err(e)) => {
                req.log(Level::Info, Some(&e), format_args!("recv() failed"));
                return Poll::Ready(Err(gone(req)));
            }
        };
        if n == 0 && req.body.discard {
            return Poll::Ready(Err(Verdict::Close));
        }
        if n == 0 {
            req.log(Level::Info, None, format_args!("client prematurely closed connection"));
            return Poll::Ready(Err(gone(req)));
        }
        deadline(req).clear();
        req.body.waiting = false;
    }
}

/// The client is gone in the middle of its body: no answer, but a 400 in the access log.
pub(super) fn gone(req: &mut Request) -> Verdict {
    if req.response.status == 0 {
        req.response.status = 400;
    }
    Verdict::Close
}

enum Decoded {
    Piece(Bytes),
    More,
    End,
}

/// Takes body bytes out of what was read.
fn decode(req: &mut Request) -> Result<Decoded, Verdict> {
    let mut buffer = req.conn.buffer.borrow_mut();
    if req.body_length != BodyLength::Chunked {
        if req.body.rest == 0 {
            return Ok(Decoded::End);
        }
        let n = buffer.len().min(usize::try_from(req.body.rest).unwrap_or(usize::MAX));
        if n == 0 {
            return Ok(Decoded::More);
        }
        let piece = if n == buffer.len() && n >= PIECE_LONG / 2 {
            Bytes::from_owner(std::mem::take(&mut *buffer))
        } else {
            // What is little shall not keep much memory.
            let piece = Bytes::copy_from_slice(&buffer.bytes()[..n]);
            buffer.consume(n);
            piece
        };
        req.body.rest -= n as u64;
        req.body.count(n);
        return Ok(Decoded::Piece(piece));
    }
    match req.body.chunked.step(buffer.bytes(), 0) {
        Ok(Step::Data { from, len }) => {
            let piece = Bytes::copy_from_slice(&buffer.bytes()[from..from + len]);
            buffer.consume(from + len);
            req.body.count(from + len);
            Ok(Decoded::Piece(piece))
        }
        Ok(Step::More) => {
            req.body.count(buffer.len());
            let all = buffer.len();
            buffer.consume(all);
            Ok(Decoded::More)
        }
        Ok(Step::End(used)) => {
            req.body.count(used);
            buffer.consume(used);
            Ok(Decoded::End)
        }
        Err(_) => {
            drop(buffer);
            req.body.wire -= std::mem::take(&mut req.body.unsettled);
            if !std::mem::replace(&mut req.body.malformed, true) {
                req.log(Level::Error, None, format_args!("client sent invalid chunked body"));
            }
            Err(Verdict::Status(400))
        }
    }
}

fn poll_fill(req: &mut Request, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    if req.body.moved >= turn::BYTES {
        req.body.moved = 0;
        turn::over(cx);
        return Poll::Pending;
    }
    let mut buffer = req.conn.buffer.borrow_mut();
    let size = if req.body.rest >= PIECE_LONG as u64 { PIECE_LONG } else { PIECE };
    if buffer.is_empty() && buffer.capacity() < size {
        *buffer = Buffer::with_capacity(size);
    } else if buffer.spare().is_empty() {
        buffer.compact();
    }
    let read = req.conn.io.poll_read(cx, buffer.spare());
    if read.is_pending() && buffer.is_empty() {
        buffer.release();
    }
    let n = ready!(read)?;
    buffer.filled(n);
    drop(buffer);
    req.body.unsettled = 0;
    req.body.moved += n;
    Poll::Ready(Ok(n))
}

pub(super) fn deadline(req: &Request) -> &crate::net::Deadline {
    req.body.deadline.as_ref().unwrap_or(&req.conn.deadline)
}

pub(super) fn poll_timeout(req: &mut Request, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Verdict>> {
    if !req.body.waiting {
        req.body.waiting = true;
        deadline(req).set(*req.conf.core.client_body_timeout);
    }
    ready!(deadline(req).poll_expired(cx));
    deadline(req).clear();
    Poll::Ready(Err(Verdict::Status(408)))
}

fn open_file(req: &mut Request) -> Result<(), Verdict> {
    let keep = *req.conf.core.client_body_in_file_only;
    match create_temp(&req.conf.core.client_body_temp_path, keep != BodyInFile::Off) {
        Ok(mut file) => {
            req.log(
                if keep == BodyInFile::Off { Level::Warn } else { Level::Notice },
                None,
                format_args!("a client request body is buffered to a temporary file {}", file.path.display()),
            );
            file.stays = keep == BodyInFile::On;
            req.body.file = Some(file);
            Ok(())
        }
        Err((path, e)) => {
            req.log(Level::Crit, Some(&e), format_args!("open() \"{}\" failed", path.display()));
            Err(Verdict::Status(500))
        }
    }
}

fn write_file(req: &mut Request, bytes: &[u8]) -> Result<(), Verdict> {
    let Some(temp) = &mut req.body.file else { return Ok(()) };
    match temp.file.write_all(bytes) {
        Ok(()) => Ok(()),
        Err(e) => Err(write_failed(req, &e)),
    }
}

/// Tells why the temporary file takes no more.
pub(super) fn write_failed(req: &Request, e: &io::Error) -> Verdict {
    let path = req.body.file.as_ref().map(|temp| temp.path.display().to_string()).unwrap_or_default();
    req.log(Level::Crit, Some(e), format_args!("pwrite() \"{path}\" failed"));
    Verdict::Status(500)
}

/// Makes a new temporary file in `folder`, numbered as nginx numbers them; unless `named`, its name is removed at
/// once and only its bytes stay, until it is closed.
pub fn create_temp(folder: &Path, named: bool) -> Result<TempFile, (PathBuf, io::Error)> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    loop {
        let path = folder.join(format!("{:010}", NUMBER.fetch_add(1, Ordering::Relaxed) + 1));
        match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => {
                if !named {
                    let _ = fs::remove_file(&path);
                }
                return Ok(TempFile { file, path, named, stays: false });
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(e) => return Err((path, e)),
        }
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if self.named && !self.stays {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Begins to throw the body away: the part of it that is there. The rest is left to [`drain`].
pub async fn discard(req: &mut Request) -> Result<(), Verdict> {
    if req.is_subrequest() || req.version >= Version::Http2 || req.body.discard || req.body.started {
        return Ok(());
    }
    std::future::poll_fn(|cx| poll_start(req, cx)).await?;
    if req.body_length == BodyLength::None {
        return Ok(());
    }
    req.body.discard = true;
    let thrown = std::future::poll_fn(|cx| {
        loop {
            match poll_piece(req, cx) {
                Poll::Ready(Ok(Some(_))) => {}
                Poll::Ready(Ok(None)) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(verdict)) => return Poll::Ready(Err(verdict)),
                Poll::Pending => return Poll::Ready(Ok(())),
            }
        }
    });
    match thrown.await {
        Err(verdict @ Verdict::Status(400)) => Err(verdict),
        // A connection that broke is noticed when the answer is written.
        _ => {
            // The clock of reading does not run while the answer is sent.
            deadline(req).clear();
            req.body.waiting = false;
            Ok(())
        }
    }
}

/// Reads and forgets what is left of the body, as long as `lingering_time` allows; false where the connection cannot
/// be used any more.
pub async fn drain(req: &mut Request) -> bool {
    if req.body.complete || req.body_length == BodyLength::None {
        return true;
    }
    // A client that was never told to go on is not told now.
    req.expect_tested = true;
    req.body.discard = true;
    let total = crate::net::Deadline::never();
    total.set(*req.conf.core.lingering_time);
    let step = crate::net::Deadline::never();
    let all = async {
        loop {
            step.set(*req.conf.core.lingering_timeout);
            match step.limit(next_piece(req)).await {
                Some(Ok(Some(_))) => {}
                Some(Ok(None)) => return true,
                _ => return false,
            }
        }
    };
    total.limit(all).await.unwrap_or(false)
}
