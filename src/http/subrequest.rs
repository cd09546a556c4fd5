//! Subrequests: requests that nxr makes to itself in the course of another.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;

use super::body::{RequestBody, TempFile};
use super::method::Method;
use super::output::{Gone, Output};
use super::phases;
use super::request::{BodyLength, Parent, Request};
use crate::log::Level;

/// How deep subrequests may be nested.
const DEPTH: u8 = 50;

/// What becomes of a subrequest's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing: only its head counts.
    Discard,
    /// It is kept in memory; see [`Output::collected`].
    Collect,
    /// It becomes a part of the response to the client, whose head must have been sent.
    Client,
}

impl Request {
    /// A GET subrequest to `uri` that shares head, body and variables with this request. The caller may change it
    /// before it is run. The error is in the log.
    pub fn subrequest(&self, uri: Bytes, args: Bytes) -> Result<Box<Request>, Gone> {
        let depth = self.parent.as_ref().map_or(DEPTH, |p| p.depth);
        if depth == 0 {
            let shown = crate::log::bytes(&uri);
            self.log(Level::Error, None, format_args!("subrequests cycle while processing \"{shown}\""));
            return Err(Gone);
        }
        let mut child = Box::new(Request::new(self.conn.clone(), self.http));
        child.server = self.server;
        child.leave();
        child.head = self.head.clone();
        child.version = self.version;
        child.method = Method::Get;
        child.method_override = Some(b"GET");
        child.host = self.host.clone();
        child.host_port = self.host_port;
        child.uri = uri;
        child.args = args;
        child.internal = true;
        child.expect_tested = true;
        child.scope = self.scope.fork();
        child.scope.set_captures(Bytes::new(), Vec::new());
        child.out = Output::default();
        child.request_id = self.request_id.clone();
        child.share_body(self);
        let (main, charset) = match &self.parent {
            Some(parent) => (parent.uri.clone(), parent.charset.clone()),
            None => (self.uri.clone(), self.response.charset.clone()),
        };
        child.parent = Some(Rc::new(Parent { uri: main, charset, depth: depth - 1, background: false }));
        Ok(child)
    }

    /// Gives a subrequest the body that was read, or none.
    fn share_body(&mut self, parent: &Request) {
        let body = &parent.body;
        let mut shared = RequestBody { complete: true, started: true, ..RequestBody::default() };
        if body.complete && !body.discard {
            shared.memory = body.memory.clone();
            shared.length = body.length;
            // A second handle of the same file; the name stays its owner's to remove.
            shared.file = body.file.as_ref().and_then(|f| {
                let file = f.file.try_clone().ok()?;
                Some(TempFile { file, path: f.path.clone(), named: f.named, stays: true })
            });
        }
        self.body_length = match shared.length {
            0 => BodyLength::None,
            length => BodyLength::Known(length),
        };
        self.body = shared;
    }

    /// Takes the body away from a subrequest.
    pub fn without_body(&mut self) {
        self.body = RequestBody { complete: true, started: true, ..RequestBody::default() };
        self.body_length = BodyLength::None;
    }

    /// Runs a subrequest of this request to its end. Its response, its upstream's head and its variables can be read
    /// from `child` then; set variables are this request's, too.
    pub async fn run_subrequest(&mut self, child: &mut Request, to: Body) -> Result<(), Gone> {
        child.out = match to {
            Body::Discard => Output::default(),
            Body::Collect => Output::collect(),
            Body::Client => Output::joined(std::mem::take(&mut self.out)),
        };
        let run: Pin<Box<dyn Future<Output = bool> + '_>> = Box::pin(phases::run_subrequest(child));
        let sent = run.await;
        if to == Body::Client {
            self.out = std::mem::take(&mut child.out).into_parent();
        }
        self.scope.adopt(&child.scope);
        // The connection has one log: what is done last is what it tells.
        self.action.set(child.action.get());
        child.end_subrequest();
        if sent { Ok(()) } else { Err(Gone) }
    }

    /// Runs a subrequest that nobody waits for; its response is discarded.
    pub fn run_in_background(mut child: Box<Request>) {
        if let Some(parent) = &child.parent {
            let parent = Parent {
                uri: parent.uri.clone(),
                charset: parent.charset.clone(),
                depth: parent.depth,
                background: true,
            };
            child.parent = Some(Rc::new(parent));
        }
        child.out = Output::default();
        tokio::task::spawn_local(async move {
            phases::run_subrequest(&mut child).await;
            child.end_subrequest();
        });
    }

    fn end_subrequest(&mut self) {
        if *self.conf.core.log_subrequest {
            self.end();
        }
    }
}
