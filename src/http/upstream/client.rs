//! Watching the client while the upstream works: one that is gone needs no answer (499).

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::Interest;

use crate::http::request::{Request, Version};
use crate::log::Level;
use crate::net::Socket;

/// Looks out for the client's end.
pub struct Watch {
    on: bool,
}

impl Watch {
    /// Watches HTTP/1 clients, unless their end is to be ignored.
    pub fn new(req: &Request, ignore: bool) -> Watch {
        Watch { on: !ignore && req.version < Version::Http2 && !req.is_subrequest() }
    }

    /// Ready once the client is gone, which is logged.
    pub fn poll_gone(&mut self, req: &Request, cx: &mut Context<'_>, connected: bool) -> Poll<()> {
        let reason = ready!(self.poll_end(req, cx));
        let then = if connected { ", so upstream connection is closed too" } else { "" };
        req.log(
            Level::Info,
            reason.as_ref(),
            format_args!("epoll_wait() reported that client prematurely closed connection{then}"),
        );
        Poll::Ready(())
    }

    /// Ready once the client is gone, with what the system says of it; for who logs it otherwise.
    pub fn poll_end(&mut self, req: &Request, cx: &mut Context<'_>) -> Poll<Option<io::Error>> {
        if !self.on {
            return Poll::Pending;
        }
        match ready!(req.conn.io.with_socket(|socket| poll_end(socket, cx))) {
            End::Closed => Poll::Ready(None),
            End::Failed(e) => Poll::Ready(Some(e)),
            End::More => {
                // Another request waits: its bytes hide what comes after them.
                self.on = false;
                Poll::Pending
            }
        }
    }
}

enum End {
    Closed,
    Failed(io::Error),
    More,
}

fn poll_end(socket: &Socket, cx: &mut Context<'_>) -> Poll<End> {
    loop {
        if socket.poll_read_ready(cx).is_pending() {
            return Poll::Pending;
        }
        if is_read_closed(socket) {
            let reason = socket2::SockRef::from(socket).take_error();
            return Poll::Ready(match reason {
                Ok(Some(e)) => End::Failed(e),
                _ => End::Closed,
            });
        }
        match socket.peek_byte() {
            Ok(Some(_)) => return Poll::Ready(End::More),
            Ok(None) => return Poll::Ready(End::Closed),
            // The socket counts as not ready now: ask again, to be woken.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Poll::Ready(End::Failed(e)),
        }
    }
}

/// Whether the system said that the peer sends no more.
fn is_read_closed(socket: &Socket) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    let ready = match socket {
        Socket::Tcp(s) => pin!(s.ready(Interest::READABLE)).poll(&mut cx),
        Socket::Unix(s) => pin!(s.ready(Interest::READABLE)).poll(&mut cx),
    };
    matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed())
}
