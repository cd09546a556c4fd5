//! Variables of the response.

use super::{number, put};
use crate::http::headers::{LAST_MODIFIED, LOCATION};
use crate::http::request::{Request, Version};
use crate::net::clock;

/// `$status`: of an error page the status it stands for, three digits; `000` before there is one.
pub(super) fn status(req: &Request, out: &mut Vec<u8>) -> bool {
    let status = match (req.err_status, req.response.status) {
        (0, 0) if req.version == Version::Http09 => 9,
        (0, status) => status,
        (status, _) => status,
    };
    put(out, format!("{status:03}").as_bytes())
}

pub(super) fn content_length(req: &Request, out: &mut Vec<u8>) -> bool {
    req.response.content_length.is_some_and(|n| number(out, n, true))
}

pub(super) fn last_modified(req: &Request, out: &mut Vec<u8>) -> bool {
    match (req.response.headers.get(LAST_MODIFIED), req.response.last_modified) {
        (Some(text), _) => put(out, text),
        (None, Some(time)) => put(out, &clock::format_http_date(time)),
        (None, None) => false,
    }
}

pub(super) fn location(req: &Request, out: &mut Vec<u8>) -> bool {
    let location = req.response.location.as_deref().or_else(|| req.response.headers.get(LOCATION));
    location.is_some_and(|l| put(out, l))
}

pub(super) fn connection(req: &Request, out: &mut Vec<u8>) -> bool {
    let value: &[u8] = match req.response.status {
        101 => b"upgrade",
        _ if req.keepalive => b"keep-alive",
        _ => b"close",
    };
    put(out, value)
}

pub(super) fn keep_alive(req: &Request, out: &mut Vec<u8>) -> bool {
    let seconds = req.conf.core.keepalive_timeout.1;
    if !req.keepalive || seconds == 0 {
        return false;
    }
    out.extend_from_slice(b"timeout=");
    number(out, seconds, true)
}

pub(super) fn transfer_encoding(req: &Request, out: &mut Vec<u8>) -> bool {
    req.is_chunked() && put(out, b"chunked")
}
