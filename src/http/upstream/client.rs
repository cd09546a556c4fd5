//! Watching the client while the upstream works: one that is gone needs no answer (499).

use std::io;
use std::task::{Context, Poll, ready};

use crate::http::request::{Request, Version};
use crate::log::Level;
use crate::net::End;

/// Looks out for the client's end.
pub struct Watch {
    on: bool,
}

impl Watch {
    /// Watches HTTP/1 clients, unless their end is to be ignored.
    pub fn new(req: &Request, ignore: bool) -> Watch {
        Watch { on: !ignore && !req.post_action && req.version < Version::Http2 && !req.is_subrequest() }
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
        match ready!(req.conn.io.with_socket(|socket| socket.poll_end(cx))) {
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
