//! A look at bytes of a socket that stay where they are, for whoever gets the connection.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::task::{Context, Poll};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::Interest;

use super::Socket;

/// What is known of a peer's next bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peeked {
    /// How many are there.
    pub len: usize,
    /// No more will come.
    pub end: bool,
}

impl Socket {
    /// The next byte to be read; none at the peer's end. `WouldBlock` where nothing is there:
    /// [`Socket::poll_read_ready`] then waits.
    pub fn peek_byte(&self) -> io::Result<Option<u8>> {
        let mut byte = [0u8];
        let n = self.try_io(Interest::READABLE, || peek(self, &mut byte))?;
        Ok((n > 0).then_some(byte[0]))
    }

    /// Ready when more than `seen` bytes can be peeked at, or when no more will come.
    pub fn poll_peek(&self, cx: &mut Context<'_>, room: &mut [u8], seen: usize) -> Poll<io::Result<Peeked>> {
        self.poll_io(Interest::READABLE, cx, || {
            let len = peek(self, room)?;
            // Nothing new: wait again, unless nothing new can come.
            match len == seen && len > 0 && !has_ended(self) {
                true => Err(io::ErrorKind::WouldBlock.into()),
                false => Ok(Peeked { len, end: len == seen }),
            }
        })
    }
}

fn peek(socket: &Socket, room: &mut [u8]) -> io::Result<usize> {
    Ok(recv(socket.as_fd().as_raw_fd(), room, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)?)
}

/// Whether the peer has said its last.
fn has_ended(socket: &Socket) -> bool {
    // nix has no name for this one.
    let hangup = PollFlags::from_bits_retain(libc::POLLRDHUP);
    let mut fds = [PollFd::new(socket.as_fd(), hangup)];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(n) if n > 0)
}

#[cfg(test)]
mod tests {
    use super::super::socket::tests::{pair, run};
    use super::*;
    use std::future::poll_fn;
    use std::io::Write;

    #[test]
    fn what_was_seen_is_not_seen_again() {
        run(async {
            let (socket, mut peer) = pair();
            let mut room = [0; 8];
            peer.write_all(b"ab").unwrap();
            let first = poll_fn(|cx| socket.poll_peek(cx, &mut room, 0)).await.unwrap();
            assert_eq!((first, &room[..2]), (Peeked { len: 2, end: false }, &b"ab"[..]));
            poll_fn(|cx| {
                assert!(socket.poll_peek(cx, &mut room, 2).is_pending());
                Poll::Ready(())
            })
            .await;
            peer.write_all(b"c").unwrap();
            let more = poll_fn(|cx| socket.poll_peek(cx, &mut room, 2)).await.unwrap();
            assert_eq!((more, &room[..3]), (Peeked { len: 3, end: false }, &b"abc"[..]));
            drop(peer);
            let end = poll_fn(|cx| socket.poll_peek(cx, &mut room, 3)).await.unwrap();
            assert_eq!(end, Peeked { len: 3, end: true });
            // All that was peeked at is still there to be read.
            let n = poll_fn(|cx| socket.poll_read(cx, &mut room)).await.unwrap();
            assert_eq!(&room[..n], b"abc");
        });
    }

    #[test]
    fn the_next_byte_stays() {
        run(async {
            let (socket, mut peer) = pair();
            assert_eq!(socket.peek_byte().unwrap_err().kind(), io::ErrorKind::WouldBlock);
            peer.write_all(b"x").unwrap();
            poll_fn(|cx| socket.poll_read_ready(cx)).await.unwrap();
            assert_eq!(socket.peek_byte().unwrap(), Some(b'x'));
            assert_eq!(socket.peek_byte().unwrap(), Some(b'x'));
            let mut room = [0; 8];
            assert_eq!(poll_fn(|cx| socket.poll_read(cx, &mut room)).await.unwrap(), 1);
            drop(peer);
            poll_fn(|cx| socket.poll_read_ready(cx)).await.unwrap();
            assert_eq!(socket.peek_byte().unwrap(), None);
        });
    }
}
