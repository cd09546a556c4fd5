//! `ngx_stream_return`: sends a text and closes.

use std::io;
use std::task::Poll;

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Outcome};
use crate::log::Level;
use crate::net::Deadline;
use crate::settings;
use crate::stream::module::{Content, INTERNAL_ERROR, Module, OK, Wait};
use crate::stream::session::Session;
use crate::syntax::Directive;
use crate::value::Template;

/// Milliseconds a client may take nothing.
const TIMEOUT: u64 = 5000;

/// The module.
pub struct Return;

settings! {
    /// What to send; of a server alone.
    pub struct Srv {
        text: Template = Template::default(),
    }
}

impl Conf for Srv {
    fn merge(&mut self, _: &Self, _: &mut Build) -> Outcome {
        Ok(())
    }
}

impl Module for Return {
    type Main = ();
    type Srv = Srv;
    const COMMANDS: Commands = Commands { module: "ngx_stream_return", setters: &[("return", directive)] };
}

fn directive(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    cf.stream.srv().return_().text.once()?;
    let text = cf.stream.template(d.arg(1))?;
    cf.stream.srv().return_().text.set(text)?;
    cf.stream.serve_by(content);
    Ok(())
}

fn content(s: &mut Session) -> Wait<'_, Content> {
    Box::pin(async move {
        s.action.set(Some("returning text"));
        let text = s.server.srv.return_.text.eval(s);
        Content::Served(match send(s, &text).await {
            Some(Ok(())) => OK,
            Some(Err(reason)) => {
                s.connection_error(Level::Info, &reason, "send() failed");
                INTERNAL_ERROR
            }
            None => {
                let reason = io::Error::from_raw_os_error(libc::ETIMEDOUT);
                s.connection_error(Level::Info, &reason, "connection timed out");
                OK
            }
        })
    })
}

async fn send(s: &Session, mut text: &[u8]) -> Option<io::Result<()>> {
    if let (Some(udp), false) = (&s.udp, text.is_empty()) {
        return Some(udp.send(text).map(|n| s.count_sent(n)));
    }
    let Some(io) = &s.io else { return Some(Ok(())) };
    let deadline = Deadline::never();
    deadline.set(TIMEOUT);
    let work = std::future::poll_fn(|cx| {
        while !text.is_empty() {
            match std::task::ready!(io.poll_write(cx, text))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => {
                    s.count_sent(n);
                    text = &text[n..];
                    deadline.set(TIMEOUT);
                }
            }
        }
        io.poll_flush(cx)
    });
    deadline.limit(work).await
}
