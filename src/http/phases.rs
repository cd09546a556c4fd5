//! The way of a request through the phases: post-read, server rewrite, find location, rewrite, preaccess, access,
//! precontent, content; redirects and error pages begin again in the middle.

use bytes::Bytes;

use super::location::{Found, Kind, Location};
use super::module::{ContentHandler, Handler, Step, Verdict};
use super::modules::core::{MSIE6, SAFARI, Satisfy};
use super::modules::early_body;
use super::request::{BodyLength, Request};
use super::response::Response;
use super::special;
use crate::log::Level;

/// Where to go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    PostRead,
    ServerRewrite,
    FindLocation,
    /// In the location that was set (a named one).
    Rewrite,
}

/// Runs a request until its response is sent, or the client is gone: then false.
pub async fn run(req: &mut Request) -> bool {
    if let Err(verdict) = early_body::read(req).await {
        return settle(req, verdict).await;
    }
    resume(req, From::PostRead).await
}

/// Runs a subrequest, which begins with the server's rewrites; false where nothing more can be sent.
pub async fn run_subrequest(req: &mut Request) -> bool {
    resume(req, From::ServerRewrite).await
}

/// `post_action`: goes on elsewhere once the response is sent, or cannot be; nothing of that is sent. What is logged
/// then is where the request came to.
pub async fn post_action(req: &mut Request) {
    while !req.conf.core.post_action.is_empty() && (req.uri_changes > 0 || !req.post_action) {
        req.post_action = true;
        let target = (*req.conf.core.post_action).clone();
        let from = if target.starts_with(b"/") {
            req.redirect_to(target, Bytes::new());
            Verdict::Redirect
        } else if req.go_to_named(&target) {
            Verdict::Named
        } else {
            return;
        };
        let out = std::mem::take(&mut req.out);
        let answered = std::mem::take(&mut req.response);
        settle(req, from).await;
        req.out = out;
        let status = if req.response.status == 0 { answered.status } else { req.response.status };
        req.response = Response { status, ..answered };
    }
}

/// Answers a request that was refused before it was complete.
pub async fn refuse(req: &mut Request, status: u16) -> bool {
    settle(req, Verdict::Status(status)).await
}

async fn resume(req: &mut Request, from: From) -> bool {
    let verdict = pass(req, from).await;
    settle(req, verdict).await
}

/// Does what a verdict asks for until the response is there.
async fn settle(req: &mut Request, mut verdict: Verdict) -> bool {
    loop {
        let from = match verdict {
            Verdict::Done | Verdict::Next | Verdict::Allow => return true,
            Verdict::Close => return false,
            // nginx closes the connection for these without a word.
            Verdict::Status(status @ (408 | 444 | 499)) => {
                if req.response.status == 0 || req.out.sent() == 0 {
                    req.response.status = status;
                }
                return false;
            }
            // Too late for another answer.
            Verdict::Status(_) if req.response.sent => return false,
            Verdict::Status(status) => {
                verdict = special::respond(req, status).await;
                continue;
            }
            Verdict::Redirect => From::ServerRewrite,
            Verdict::Named => From::Rewrite,
        };
        if req.uri_changes == 0 {
            let shown = String::from_utf8_lossy(&req.uri).into_owned();
            let text = match from {
                From::Rewrite => "rewrite or internal redirection cycle while redirect to named location",
                _ => "rewrite or internal redirection cycle while internally redirecting to",
            };
            req.log(Level::Error, None, format_args!("{text} \"{shown}\""));
            verdict = Verdict::Status(500);
            continue;
        }
        req.uri_changes -= 1;
        verdict = pass(req, from).await;
    }
}

/// Goes through the phases once.
async fn pass(req: &mut Request, mut from: From) -> Verdict {
    if from == From::PostRead {
        let root: &'static Location = &req.server.root;
        if !root.handlers.post_read.is_empty()
            && let Some(verdict) = each(req, &root.handlers.post_read).await
        {
            return verdict;
        }
        from = From::ServerRewrite;
    }
    if from == From::ServerRewrite {
        let root: &'static Location = &req.server.root;
        if !root.handlers.server_rewrite.is_empty()
            && let Some(verdict) = each(req, &root.handlers.server_rewrite).await
        {
            return verdict;
        }
        from = From::FindLocation;
    }
    loop {
        if from == From::FindLocation
            && let Some(verdict) = find_location(req)
        {
            return verdict;
        }
        req.uri_changed = false;
        let location = req.location;
        if !location.handlers.rewrite.is_empty()
            && let Some(verdict) = each(req, &location.handlers.rewrite).await
        {
            return verdict;
        }
        if !req.uri_changed {
            break;
        }
        if req.uri_changes == 0 {
            let shown = String::from_utf8_lossy(&req.uri).into_owned();
            req.log(
                Level::Error,
                None,
                format_args!("rewrite or internal redirection cycle while processing \"{shown}\""),
            );
            return Verdict::Status(500);
        }
        req.uri_changes -= 1;
        req.leave();
        from = From::FindLocation;
    }
    if !req.conf.handlers.preaccess.is_empty()
        && let Some(verdict) = each(req, &req.conf.handlers.preaccess).await
    {
        return verdict;
    }
    if !req.conf.handlers.access.is_empty()
        && !req.is_subrequest()
        && let Some(verdict) = access(req).await
    {
        return verdict;
    }
    if !req.conf.handlers.precontent.is_empty()
        && let Some(verdict) = each(req, &req.conf.handlers.precontent).await
    {
        return verdict;
    }
    content(req).await
}

/// Runs the handlers of a phase; `None`: go on with the next phase. Most phases have none, and most handlers nothing to
/// wait for.
async fn each(req: &mut Request, handlers: &'static [Handler]) -> Option<Verdict> {
    for handler in handlers {
        let verdict = match handler(req) {
            Step::Now(verdict) => verdict,
            Step::Later(wait) => wait.await,
        };
        match verdict {
            Verdict::Next | Verdict::Allow => {}
            verdict => return Some(verdict),
        }
    }
    None
}

async fn call(req: &mut Request, handler: Handler) -> Verdict {
    match handler(req) {
        Step::Now(verdict) => verdict,
        Step::Later(wait) => wait.await,
    }
}

/// The access checks; `auth_delay` slows down those who guess passwords.
async fn access(req: &mut Request) -> Option<Verdict> {
    let verdict = check_access(req).await?;
    let delay = *req.conf.core.auth_delay;
    if delay > 0 && matches!(verdict, Verdict::Status(401 | 407)) {
        req.log(Level::Info, None, format_args!("delaying unauthorized request"));
        if req.pause(delay).await.is_err() {
            return Some(Verdict::Status(499));
        }
    }
    Some(verdict)
}

async fn check_access(req: &mut Request) -> Option<Verdict> {
    let any = *req.conf.core.satisfy == Satisfy::Any;
    let mut refused = None;
    for handler in &req.conf.handlers.access {
        match call(req, *handler).await {
            Verdict::Next => {}
            Verdict::Allow if any => {
                req.response.headers.remove(super::headers::WWW_AUTHENTICATE);
                return None;
            }
            Verdict::Allow => {}
            Verdict::Status(status @ (401 | 403 | 407)) if any => {
                // A 401 asks the client for what would let it in: it outweighs a 403.
                if !matches!(refused, Some(401 | 407)) {
                    refused = Some(status);
                }
            }
            verdict => return Some(verdict),
        }
    }
    let status = refused?;
    if status == 403 {
        req.log(Level::Error, None, format_args!("access forbidden by rule"));
    }
    Some(Verdict::Status(status))
}

/// Chooses the location of the URI and checks what must be checked first.
fn find_location(req: &mut Request) -> Option<Verdict> {
    let server = req.server;
    let location = match server.root.children.find(&req.uri, &req.scope) {
        Found::Nothing => &server.root,
        Found::Location(location) => location,
        Found::Slash(location) => {
            req.enter(location);
            return Some(redirect_to_slash(req, location));
        }
    };
    if !req.internal && *location.core.internal {
        return Some(Verdict::Status(404));
    }
    enter(req, location);
    body_is_too_large(req).then_some(Verdict::Status(413))
}

/// Whether the body that the client announces is larger than `client_max_body_size`, which is logged.
pub fn body_is_too_large(req: &mut Request) -> bool {
    let BodyLength::Known(length) = req.body_length else { return false };
    let most = *req.conf.core.client_max_body_size;
    if req.body.discard || most == 0 || length <= most {
        return false;
    }
    req.log(Level::Error, None, format_args!("client intended to send too large body: {length} bytes"));
    req.expect_tested = true;
    true
}

fn redirect_to_slash(req: &mut Request, location: &'static Location) -> Verdict {
    let mut target = Vec::with_capacity(location.name.len() + req.args.len() + 1);
    super::uri::escape(&location.name, super::uri::Escape::Uri, &mut target);
    if !req.args.is_empty() {
        target.push(b'?');
        target.extend_from_slice(&req.args);
    }
    req.response.location = Some(Bytes::from(target));
    Verdict::Status(301)
}

/// Enters a location, and the part of it that the method chooses; looks whether the connection may stay.
fn enter(req: &mut Request, location: &'static Location) {
    req.enter(location);
    if let Some(block) = &location.limit_except
        && let Kind::LimitExcept(allowed) = &block.kind
    {
        let get = super::method::Method::Get;
        let head = req.method == super::method::Method::Head && allowed.contains(&get);
        if !allowed.contains(&req.method) && !head {
            req.content_handler = None;
            req.enter_block(block);
        }
    }
    let core = &req.conf.core;
    if req.keepalive {
        let elapsed = crate::net::clock::now().saturating_sub(req.conn.start_ms);
        if core.keepalive_timeout.0 == 0
            || req.conn.requests.get() as usize >= *core.keepalive_requests
            || elapsed > *core.keepalive_time
            || is_disabled(req)
        {
            req.keepalive = false;
        }
    }
}

/// `keepalive_disable`
fn is_disabled(req: &Request) -> bool {
    let disabled = *req.conf.core.keepalive_disable;
    let post = req.method == super::method::Method::Post;
    (disabled & MSIE6 != 0 && post && req.browser().msie6) || (disabled & SAFARI != 0 && req.browser().safari)
}

async fn content(req: &mut Request) -> Verdict {
    if let Some(handler) = req.content_handler {
        return handler(req).await;
    }
    let handlers: &'static [ContentHandler] = &req.conf.handlers.content;
    for handler in handlers {
        match handler(req).await {
            Verdict::Next => {}
            verdict => return verdict,
        }
    }
    if req.uri.ends_with(b"/") {
        let shown = super::modules::core::map_path(req);
        let shown = String::from_utf8_lossy(&shown).into_owned();
        req.log(Level::Error, None, format_args!("directory index of \"{shown}\" is forbidden"));
        return Verdict::Status(403);
    }
    Verdict::Status(404)
}

#[cfg(test)]
mod tests {
    use crate::http::testing::Site;

    #[test]
    fn a_post_action_sends_nothing_and_is_what_the_log_tells() {
        let site = Site::new(
            "log_format p '$request_uri $uri $status $body_bytes_sent'; server { LISTEN access_log p.log p;
               location / { post_action /post; }
               location /named { post_action @post; }
               location = /post { return 202 hidden; }
               location @post { return 203 hidden; } }",
        );
        site.folder.write("f", "file");
        site.folder.write("named", "other");
        assert_eq!(site.get("/f?a").text(), "file");
        assert_eq!(site.get("/named").text(), "other");
        let log = std::fs::read_to_string(site.folder.path().join("p.log")).unwrap();
        assert_eq!(log, "/f?a /post 202 4\n/named /named 203 5\n");
    }

    #[test]
    fn some_statuses_end_without_a_word() {
        let site = Site::new(
            "log_format s $status; server { LISTEN access_log s.log s; error_page 408 = /page;
               location / { return 408; } location /page { return 200 page; } }",
        );
        assert_eq!(site.raw("GET / HTTP/1.0\r\n\r\n"), "");
        assert_eq!(std::fs::read_to_string(site.folder.path().join("s.log")).unwrap(), "408\n");
    }

    #[test]
    fn refused_passwords_take_their_time() {
        let site =
            Site::new("server { LISTEN auth_basic x; auth_basic_user_file /dev/null; auth_delay 50ms; }");
        let start = std::time::Instant::now();
        assert_eq!(site.get("/").status, 401);
        assert!(start.elapsed().as_millis() >= 50);
        assert!(site.log().contains("delaying unauthorized request"));
    }
}
