//! Whether the peer is still there, found without reading what it sent.

use std::io;
use std::task::{Context, Poll};

use super::Socket;

/// What can be said of a peer that sent something or left.
pub enum End {
    /// It sends no more.
    Closed,
    /// The connection broke.
    Failed(io::Error),
    /// There are bytes to read, which hide what comes after them.
    More,
}

impl Socket {
    /// Ready when the peer has left, or has sent something.
    pub fn poll_end(&self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            if self.poll_read_ready(cx).is_pending() {
                return Poll::Pending;
            }
            if self.is_read_closed() {
                let reason = socket2::SockRef::from(self).take_error();
                return Poll::Ready(match reason {
                    Ok(Some(e)) => End::Failed(e),
                    _ => End::Closed,
                });
            }
            match self.peek_byte() {
                Ok(Some(_)) => return Poll::Ready(End::More),
                Ok(None) => return Poll::Ready(End::Closed),
                // The socket counts as not ready now: ask again, to be woken.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(End::Failed(e)),
            }
        }
    }

    /// Whether the system said that the peer sends no more.
    fn is_read_closed(&self) -> bool {
        matches!(self.readiness(), Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }
}
