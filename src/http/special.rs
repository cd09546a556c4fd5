//! Responses made of a status alone: error pages, their replacements by `error_page`, redirects.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::error_page::ErrorPage;
use super::headers::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, ETAG, LAST_MODIFIED, LOCATION};
use super::method::Method;
use super::module::Verdict;
use super::output::Gone;
use super::request::{Request, Version};
use super::user_agent::Browser;
use super::{head, status, uri};

/// Statuses after which the connection cannot stay: what follows may not be a request.
fn ends_keepalive(status: u16) -> bool {
    matches!(status, 400 | 413 | 414 | 495..=497 | 500 | 501)
}

/// Answers with `status`: by `error_page`, which may lead elsewhere, or by nginx's own page.
pub async fn respond(req: &mut Request, status: u16) -> Verdict {
    req.err_status = status;
    if ends_keepalive(status) {
        req.keepalive = false;
    }
    if matches!(status, 400 | 495..=497) {
        req.lingering_close = false;
    }
    req.response.content_type = None;
    if let Some(page) = error_page(req, status) {
        return send_error_page(req, &page).await;
    }
    forget_body(req).await;
    let refresh = matches!(status, 301 | 302) && *req.conf.core.msie_refresh && req.browser().msie;
    let page = match refresh {
        true => send_refresh(req).await,
        false => own_page(req, status).await,
    };
    let sent = match page {
        Ok(()) => req.finish().await,
        gone => gone,
    };
    if sent.is_ok() { Verdict::Done } else { Verdict::Close }
}

fn error_page(req: &mut Request, status: u16) -> Option<Arc<ErrorPage>> {
    let core = &req.conf.core;
    if req.error_page || core.error_pages.is_empty() || req.uri_changes == 0 {
        return None;
    }
    if !*core.recursive_error_pages {
        req.error_page = true;
    }
    core.error_pages.iter().find(|p| p.status == status).cloned()
}

/// Sends nginx's page for `status` (and finishes), or only the head where it has none.
async fn own_page(req: &mut Request, code: u16) -> Result<(), Gone> {
    if matches!(code, 494..=497) {
        req.err_status = 400;
    }
    send_page(req, code).await
}

/// Nobody wants the body any more; a client that waits to be told so is not told to go on.
async fn forget_body(req: &mut Request) {
    req.expect_tested = true;
    if req.discard_body().await.is_err() {
        req.keepalive = false;
    }
}

/// `msie_refresh`: a page that leads on, in place of a redirect.
async fn send_refresh(req: &mut Request) -> Result<(), Gone> {
    let mut body = b"<html><head><meta http-equiv=\"Refresh\" content=\"0; URL=".to_vec();
    let location = req.response.location.take();
    let listed = req.response.headers.get(LOCATION).map(Bytes::copy_from_slice);
    uri::escape(&location.or(listed).unwrap_or_default(), uri::Escape::Refresh, &mut body);
    body.extend_from_slice(b"\"></head><body></body></html>\r\n");
    req.response.headers.remove(LOCATION);
    req.err_status = 200;
    send_body(req, &body).await
}

async fn send_page(req: &mut Request, page: u16) -> Result<(), Gone> {
    let body = page_body(req, page);
    send_body(req, body).await
}

/// Sends a page in place of whatever was to be answered.
async fn send_body(req: &mut Request, body: &[u8]) -> Result<(), Gone> {
    let r = &mut req.response;
    r.status = req.err_status;
    r.status_line = None;
    r.content_length = Some(body.len() as u64);
    if !body.is_empty() {
        r.content_type = Some(Bytes::from_static(b"text/html"));
    }
    r.allow_ranges = false;
    r.headers.remove(ACCEPT_RANGES);
    r.headers.remove(CONTENT_LENGTH);
    r.headers.remove(ETAG);
    r.headers.remove(LAST_MODIFIED);
    r.last_modified = None;
    req.send_head().await?;
    if !req.response.header_only && !req.response.complete {
        req.send(body).await?;
    }
    Ok(())
}

/// A header filter found another status: what the handler made is replaced by that status' answer, which goes
/// through `error_page` and the filters like any other. A 416 keeps the fields that were made, as in nginx.
pub async fn replace(req: &mut Request, status: u16) -> Result<(), Gone> {
    if status == 0 {
        return Err(Gone);
    }
    match req.unsatisfiable_range.take() {
        Some(range) => {
            req.response.headers.remove(CONTENT_RANGE);
            req.response.headers.add(CONTENT_RANGE, range.as_bytes());
            req.response.clear_content_length();
        }
        None => {
            req.response.reset();
            req.filter_finalized = true;
        }
    }
    // Boxed as a trait object: this runs handlers from within a handler.
    let answer: Pin<Box<dyn Future<Output = bool> + '_>> = Box::pin(super::phases::refuse(req, status));
    if !answer.await {
        return Err(Gone);
    }
    req.response.header_only = true;
    Ok(())
}

const PADDING: &str = "<!-- a padding to disable MSIE and Chrome friendly error page -->\r\n";

/// nginx's page for a status, empty where it has none.
fn page_body(req: &Request, code: u16) -> &'static [u8] {
    /// By status from [`FIRST`] on, name of the server, and padding; made when first asked for.
    static PAGES: [[OnceLock<Vec<u8>>; 4]; 300] = [const { [const { OnceLock::new() }; 4] }; 300];
    const FIRST: usize = 300;

    let pages = usize::from(code).checked_sub(FIRST).and_then(|at| PAGES.get(at));
    let (Some(pages), Some(title)) = (pages, status::page_title(code)) else { return b"" };
    let server = head::server(*req.conf.core.server_tokens);
    let padded = code >= 400
        && *req.conf.core.msie_padding
        && req.version >= Version::Http10
        && is_friendly(req.browser());
    let which = usize::from(server == head::SERVER_FULL) * 2 + usize::from(padded);
    pages[which].get_or_init(|| make_page(code, title, server, padded))
}

fn make_page(code: u16, title: &str, server: &str, padded: bool) -> Vec<u8> {
    let mut page = format!("<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n");
    match code {
        494..=497 => {
            let words = title.trim_start_matches("400 ");
            page += &format!("<center><h1>400 Bad Request</h1></center>\r\n<center>{words}</center>\r\n");
        }
        _ => page += &format!("<center><h1>{title}</h1></center>\r\n"),
    }
    page += &format!("<hr><center>{server}</center>\r\n</body>\r\n</html>\r\n");
    if padded {
        page += &PADDING.repeat(6);
    }
    page.into_bytes()
}

/// Browsers that show pages of their own in place of short ones.
fn is_friendly(browser: Browser) -> bool {
    browser.msie || browser.chrome
}

async fn send_error_page(req: &mut Request, page: &ErrorPage) -> Verdict {
    let overwrite = page.overwrite;
    if overwrite.is_some_and(|o| o != 0 && o != 200) {
        req.expect_tested = true;
    }
    if let Some(code) = overwrite {
        req.err_status = code;
    }
    let target = page.target.eval(req);
    match target.first() {
        Some(b'/') => {
            let (uri, args) = match page.target.as_constant() {
                Some(_) => (target, Bytes::copy_from_slice(&page.args)),
                None => split_args(target),
            };
            if req.method != Method::Head {
                req.method = Method::Get;
                req.method_override = Some(b"GET");
            }
            req.redirect_to(uri, args);
            return Verdict::Redirect;
        }
        Some(b'@') => {
            if req.go_to_named(&target) {
                return Verdict::Named;
            }
            let shown = String::from_utf8_lossy(&target).into_owned();
            req.log(
                crate::log::Level::Error,
                None,
                format_args!("could not find named location \"{shown}\""),
            );
            return Verdict::Status(500);
        }
        _ => {}
    }
    forget_body(req).await;
    if !overwrite.is_some_and(|o| matches!(o, 301 | 302 | 303 | 307 | 308)) {
        req.err_status = 302;
    }
    req.response.headers.remove(LOCATION);
    req.response.location = Some(target);
    let code = req.err_status;
    let sent = match send_page(req, code).await {
        Ok(()) => req.finish().await,
        gone => gone,
    };
    if sent.is_ok() { Verdict::Done } else { Verdict::Close }
}

/// Splits arguments off a URI.
pub fn split_args(uri: Bytes) -> (Bytes, Bytes) {
    match memchr::memchr(b'?', &uri) {
        Some(at) => (uri.slice(..at), uri.slice(at + 1..)),
        None => (uri, Bytes::new()),
    }
}
