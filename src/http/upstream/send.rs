//! Sending a request: its head, then its body from memory, from a file, or from the client as it comes.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use nix::sys::sendfile::sendfile;
use tokio::io::Interest;

use super::connect::Link;
use super::exchange::{Fail, is_idempotent};
use super::{Framing, Protocol, fastcgi};
use crate::http::body_splice;
use crate::http::module::Verdict;
use crate::http::request::Request;
use crate::net::splice::{self, Pipe};
use crate::net::{Buffer, turn};

/// Bytes of a file read at a time.
const PIECE: usize = 64 << 10;
/// The same, where they go to the socket without being read.
const LONG_PIECE: usize = 1 << 20;
/// Pieces sent before others get their turn, however small they are.
const TURN: usize = 32;

const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// How far a request was sent.
#[derive(Default)]
pub struct Sending {
    begun: bool,
    head_sent: usize,
    /// Whether a body follows.
    body: bool,
    /// The body comes from the client while it is sent: it cannot be sent again.
    pub streamed: bool,
    /// Repeating the request does no harm.
    pub idempotent: bool,
    framing: Framing,
    /// Parts of the memory that were taken.
    part: usize,
    file_sent: u64,
    /// What was taken off the source and not sent yet.
    pending: Bytes,
    buffer: Buffer,
    /// What a long body that comes from the client goes through.
    pipe: Option<Pipe>,
    /// What ends a framed body was taken.
    ended: bool,
    /// Waits for the client.
    pub starved: bool,
}

enum Source {
    Piece(Bytes),
    Wait,
    End,
}

impl Sending {
    /// A request of which nothing was sent.
    pub fn new(req: &Request, protocol: &impl Protocol) -> Sending {
        let (passes, framing) = (protocol.passes_body(), protocol.framing());
        let body = &req.body;
        let empty =
            body.complete && body.memory.is_empty() && body.file.is_none() && framing == Framing::None;
        Sending {
            body: passes && !empty,
            streamed: passes && !body.complete,
            idempotent: is_idempotent(req.method),
            framing,
            ..Sending::default()
        }
    }

    /// Whether anything was given to the socket.
    pub fn begun(&self) -> bool {
        self.begun
    }

    /// Sends what can be sent; ready once all of the request is on its way.
    pub fn poll(
        &mut self,
        req: &mut Request,
        link: &mut Link,
        head: &[u8],
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Fail>> {
        self.begun = true;
        self.starved = false;
        let end = link.sent + turn::BYTES as u64;
        for _ in 0..TURN {
            if link.sent >= end {
                break;
            }
            if self.pending.is_empty() && self.buffer.is_empty() {
                match self.poll_long(req, link, head, cx) {
                    Poll::Ready(Ok(true)) => continue,
                    Poll::Ready(Ok(false)) => {}
                    Poll::Ready(Err(fail)) => return Poll::Ready(Err(fail)),
                    Poll::Pending => return Poll::Pending,
                }
                match self.next(req, cx) {
                    Ok(Source::Piece(piece)) => self.pending = piece,
                    Ok(Source::Wait) if self.head_sent < head.len() => {}
                    Ok(Source::Wait) => {
                        self.starved = true;
                        return match link.io().poll_flush(cx) {
                            Poll::Ready(Err(e)) => Poll::Ready(Err(failed(req, &e))),
                            _ => Poll::Pending,
                        };
                    }
                    Ok(Source::End) if self.head_sent == head.len() => {
                        return link.io().poll_flush(cx).map_err(|e| failed(req, &e));
                    }
                    Ok(Source::End) => {}
                    Err(fail) => return Poll::Ready(Err(fail)),
                }
            }
            if let Err(e) = ready!(self.write(link, head, cx)) {
                return Poll::Ready(Err(failed(req, &e)));
            }
        }
        turn::over(cx);
        Poll::Pending
    }

    /// Moves a part of a long body inside the kernel; false where that cannot be done.
    fn poll_long(
        &mut self,
        req: &mut Request,
        link: &mut Link,
        head: &[u8],
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, Fail>> {
        if !self.body
            || self.framing != Framing::None
            || self.head_sent < head.len()
            || self.part < req.body.memory.len()
        {
            return Poll::Ready(Ok(false));
        }
        self.poll_move(req, link, cx)
    }

    #[inline(never)]
    fn poll_move(
        &mut self,
        req: &mut Request,
        link: &mut Link,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, Fail>> {
        let Some(to) = link.io().plain() else { return Poll::Ready(Ok(false)) };
        let moved = if let Some(pipe) = self.pipe.as_mut().filter(|pipe| !pipe.is_empty()) {
            ready!(to.poll_io(Interest::WRITABLE, cx, || pipe.drain(to.as_fd())))
        } else if self.streamed && !req.body.complete {
            let most = splice::portion(to);
            let Some(filled) = body_splice::poll_fill(req, &mut self.pipe, most, cx) else {
                return Poll::Ready(Ok(false));
            };
            self.starved = filled.is_pending();
            return Poll::Ready(ready!(filled).map(|_| true).map_err(Fail::Body));
        } else if let Some(temp) = req.body.file.as_ref().filter(|_| self.file_sent < req.body.length) {
            let mut at = self.file_sent as i64;
            let send = || Ok(sendfile(to, &temp.file, Some(&mut at), LONG_PIECE)?);
            let sent = ready!(to.poll_io(Interest::WRITABLE, cx, send));
            if matches!(sent, Ok(0)) || matches!(&sent, Err(e) if e.raw_os_error() == Some(libc::EINVAL)) {
                // Reading the file tells what is wrong with it.
                return Poll::Ready(Ok(false));
            }
            self.file_sent = at as u64;
            sent
        } else {
            return Poll::Ready(Ok(false));
        };
        match moved {
            Ok(n) => {
                link.sent += n as u64;
                Poll::Ready(Ok(true))
            }
            Err(e) => Poll::Ready(Err(failed(req, &e))),
        }
    }

    /// Writes head and what is pending in one call.
    fn write(&mut self, link: &mut Link, head: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let rest = &head[self.head_sent..];
        let body: &[u8] = if self.pending.is_empty() { self.buffer.bytes() } else { &self.pending };
        let n = match (rest.is_empty(), body.is_empty()) {
            (_, true) => ready!(link.io().poll_write(cx, rest))?,
            (true, false) => ready!(link.io().poll_write(cx, body))?,
            (false, false) => {
                ready!(link.io().poll_write_vectored(cx, &[IoSlice::new(rest), IoSlice::new(body)]))?
            }
        };
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        link.sent += n as u64;
        let of_head = n.min(rest.len());
        self.head_sent += of_head;
        let of_body = n - of_head;
        if self.pending.is_empty() {
            self.buffer.consume(of_body);
        } else {
            let _ = self.pending.split_to(of_body);
        }
        Poll::Ready(Ok(()))
    }

    /// The next piece of body, framed.
    fn next(&mut self, req: &mut Request, cx: &mut Context<'_>) -> Result<Source, Fail> {
        if self.body { self.next_of_body(req, cx) } else { Ok(Source::End) }
    }

    #[inline(never)]
    fn next_of_body(&mut self, req: &mut Request, cx: &mut Context<'_>) -> Result<Source, Fail> {
        let next = match self.framing {
            Framing::None => self.piece(req, cx)?,
            _ => self.framed(req, cx)?,
        };
        if !matches!(next, Source::End) {
            return Ok(next);
        }
        if let Some(file) = &req.body.file {
            if self.buffer.capacity() == 0 {
                self.buffer = Buffer::with_capacity(PIECE);
            }
            match file.file.read_at(self.buffer.spare(), self.file_sent) {
                Ok(0) => {}
                Ok(n) => {
                    self.buffer.filled(n);
                    self.file_sent += n as u64;
                    return Ok(Source::Piece(self.frame_buffer()));
                }
                Err(e) => {
                    let path = file.path.display();
                    req.log(crate::log::Level::Crit, Some(&e), format_args!("pread() \"{path}\" failed"));
                    return Err(Fail::Body(Verdict::Status(500)));
                }
            }
        }
        if let Some(end) = self.end_of_frames() {
            return Ok(Source::Piece(Bytes::from_static(end)));
        }
        self.buffer.release();
        Ok(Source::End)
    }

    /// What was read from the file: framed, or empty where it stays in the buffer as it is.
    fn frame_buffer(&mut self) -> Bytes {
        if self.framing == Framing::None {
            return Bytes::new();
        }
        let len = self.buffer.len();
        let mut framed = Vec::with_capacity(len + 64);
        self.frame(&[self.buffer.bytes()], len, &mut framed);
        self.buffer.consume(len);
        framed.into()
    }

    /// Appends pieces, whose bytes are `size` in all, with framing around them.
    fn frame(&self, pieces: &[impl AsRef<[u8]>], size: usize, out: &mut Vec<u8>) {
        match self.framing {
            Framing::Records => pieces.iter().for_each(|piece| fastcgi::stdin(piece.as_ref(), out)),
            Framing::Chunks => {
                out.extend_from_slice(format!("{size:x}\r\n").as_bytes());
                pieces.iter().for_each(|piece| out.extend_from_slice(piece.as_ref()));
                out.extend_from_slice(b"\r\n");
            }
            Framing::None => pieces.iter().for_each(|piece| out.extend_from_slice(piece.as_ref())),
        }
    }

    /// What ends a framed body, once.
    fn end_of_frames(&mut self) -> Option<&'static [u8]> {
        let end: &[u8] = match self.framing {
            Framing::None => return None,
            Framing::Chunks => LAST_CHUNK,
            Framing::Records => &fastcgi::END_OF_STDIN,
        };
        (!std::mem::replace(&mut self.ended, true)).then_some(end)
    }

    /// The next piece of what is in memory, or comes from the client.
    fn piece(&mut self, req: &mut Request, cx: &mut Context<'_>) -> Result<Source, Fail> {
        while let Some(part) = req.body.memory.get(self.part) {
            self.part += 1;
            if !part.is_empty() {
                return Ok(Source::Piece(part.clone()));
            }
        }
        if !self.streamed || req.body.complete {
            return Ok(Source::End);
        }
        match req.poll_body_piece(cx) {
            Poll::Pending => Ok(Source::Wait),
            Poll::Ready(Ok(Some(piece))) => Ok(Source::Piece(piece)),
            Poll::Ready(Ok(None)) => Ok(Source::End),
            Poll::Ready(Err(verdict)) => Err(Fail::Body(verdict)),
        }
    }

    /// All of that which is there, up to a limit, framed; the body's end with it, where that is all.
    fn framed(&mut self, req: &mut Request, cx: &mut Context<'_>) -> Result<Source, Fail> {
        let (mut pieces, mut size, mut last) = (Vec::new(), 0, false);
        while size < PIECE {
            match self.piece(req, cx)? {
                Source::Piece(piece) => {
                    size += piece.len();
                    pieces.push(piece);
                }
                source if pieces.is_empty() => return Ok(source),
                source => {
                    last = matches!(source, Source::End) && req.body.file.is_none();
                    break;
                }
            }
        }
        let mut framed = Vec::with_capacity(size + 64);
        self.frame(&pieces, size, &mut framed);
        if last && let Some(end) = self.end_of_frames() {
            framed.extend_from_slice(end);
        }
        Ok(Source::Piece(framed.into()))
    }
}

fn failed(req: &Request, e: &io::Error) -> Fail {
    super::converse::log_io(req, e, "writev()", "SSL_write()");
    Fail::Next(super::Fault::Error)
}
