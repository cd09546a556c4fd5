//! Making a request wait (`auth_delay`, `limit_req`) while watching whether its client stays.

use std::task::Poll;

use super::output::Gone;
use super::request::Request;
use super::upstream::client::Watch;
use crate::log::Level;
use crate::net::Deadline;

impl Request {
    /// Waits that many milliseconds. The client may leave meanwhile, which is logged: then nobody waits for the
    /// answer (499).
    pub async fn pause(&mut self, ms: u64) -> Result<(), Gone> {
        let mut watch = Watch::new(self, false);
        let deadline = Deadline::never();
        deadline.set(ms);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(reason) = watch.poll_end(self, cx) {
                let text = format_args!("client prematurely closed connection");
                self.log(Level::Info, reason.as_ref(), text);
                return Poll::Ready(Err(Gone));
            }
            deadline.poll_expired(cx).map(Ok)
        })
        .await
    }
}
