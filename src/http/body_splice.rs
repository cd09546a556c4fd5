//! Long request bodies that never leave the kernel: from the client's socket through a pipe to a temporary file or
//! to the upstream, and from such a file to the upstream. Where that cannot be done, bytes are copied as ever.

use std::io;
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};

use tokio::io::Interest;

use super::body_reader::{deadline, gone, poll_timeout, write_failed};
use super::module::Verdict;
use super::request::{BodyLength, Request};
use crate::log::Level;
use crate::net::splice::Pipe;
use crate::net::turn;

/// Bytes still to come that are worth a pipe.
const LONG: u64 = 64 << 10;
/// Pipes filled before others get their turn.
const TURN: usize = 4;

/// Whether what comes of the body next can be taken by a pipe: plain HTTP/1, no chunks, and nothing read already.
fn can_splice(req: &Request) -> bool {
    matches!(req.body_length, BodyLength::Known(_))
        && req.body.started
        && req.body.frames.is_none()
        && req.conn.io.plain().is_some()
        && req.conn.buffer.borrow().is_empty()
}

/// Fills an empty pipe with bytes of the body, at most `most`, making it first where much is to come; the number of
/// them. None: they have to be read.
pub fn poll_fill(
    req: &mut Request,
    pipe: &mut Option<Pipe>,
    most: usize,
    cx: &mut Context<'_>,
) -> Option<Poll<Result<usize, Verdict>>> {
    let rest = req.body.rest;
    if rest == 0 || !can_splice(req) || pipe.is_none() && rest < LONG {
        return None;
    }
    if pipe.is_none() {
        req.conn.buffer.borrow_mut().release();
        *pipe = Pipe::take();
    }
    let (socket, pipe) = (req.conn.io.plain()?, pipe.as_mut()?);
    let most = usize::try_from(rest).unwrap_or(usize::MAX).min(most);
    let filled = socket.poll_io(Interest::READABLE, cx, || pipe.fill(socket.as_fd(), most));
    Some(match filled {
        Poll::Pending => poll_timeout(req, cx).map(|late| late.map(|_| 0)),
        Poll::Ready(Ok(0)) => {
            req.log(Level::Info, None, format_args!("client prematurely closed connection"));
            Poll::Ready(Err(gone(req)))
        }
        Poll::Ready(Ok(n)) => {
            taken(req, n);
            Poll::Ready(Ok(n))
        }
        // A socket that cannot be spliced from, which reading does not mind.
        Poll::Ready(Err(e)) if e.raw_os_error() == Some(libc::EINVAL) => return None,
        Poll::Ready(Err(e)) => {
            req.log(Level::Info, Some(&e), format_args!("recv() failed"));
            Poll::Ready(Err(gone(req)))
        }
    })
}

/// Counts bytes that came.
fn taken(req: &mut Request, n: usize) {
    deadline(req).clear();
    let body = &mut req.body;
    body.waiting = false;
    body.unsettled = 0;
    body.count(n);
    body.length += n as u64;
    body.rest -= (n as u64).min(body.rest);
    body.complete = body.rest == 0;
}

/// Moves what can be moved of the body to the end of its temporary file. Ready once nothing more can be: what is left
/// has to be read.
pub fn poll_to_file(
    req: &mut Request,
    pipe: &mut Option<Pipe>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Verdict>> {
    for _ in 0..TURN {
        let Some(filled) = poll_fill(req, pipe, usize::MAX, cx) else { return Poll::Ready(Ok(())) };
        ready!(filled)?;
        let (Some(pipe), Some(temp)) = (pipe.as_mut(), &req.body.file) else { return Poll::Ready(Ok(())) };
        while !pipe.is_empty() {
            match pipe.drain(temp.file.as_fd()) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Poll::Ready(Err(write_failed(req, &e))),
                Ok(0) => return Poll::Ready(Err(write_failed(req, &io::ErrorKind::WriteZero.into()))),
                Ok(_) => {}
            }
        }
    }
    turn::over(cx);
    Poll::Pending
}
