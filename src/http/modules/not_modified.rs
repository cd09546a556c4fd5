//! `ngx_http_not_modified_filter`: answers 304 and 412 to conditional requests (RFC 9110, section 13).

use crate::conf::build::Commands;
use crate::http::conf::Loc;
use crate::http::headers::{
    CONTENT_ENCODING, ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE,
};
use crate::http::module::{Handlers, Module};
use crate::http::modules::core::IfModifiedSince;
use crate::http::request::Request;

/// The module.
pub struct NotModified;

impl Module for NotModified {
    type Main = ();
    type Srv = ();
    type Loc = ();
    const COMMANDS: Commands = Commands { module: "ngx_http_not_modified_filter", setters: &[] };

    fn handlers(_: &Loc, to: &mut Handlers) {
        to.header_filters.push(header_filter);
    }
}

/// Seconds since 1970 of an HTTP date in any of its three forms.
pub fn parse_time(text: &[u8]) -> Option<i64> {
    let time = httpdate::parse_http_date(std::str::from_utf8(text).ok()?.trim()).ok()?;
    match time.duration_since(std::time::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).ok(),
        Err(before) => i64::try_from(before.duration().as_secs()).ok().map(|s| -s),
    }
}

fn header_filter(req: &mut Request) -> Option<u16> {
    if req.response.status != 200 || req.is_subrequest() || req.response.disable_not_modified {
        return None;
    }
    let etag = req.response.headers.get(ETAG);
    if req.header(IF_UNMODIFIED_SINCE).is_some_and(|since| !is_unmodified(req, since)) {
        return Some(412);
    }
    if req.header(IF_MATCH).is_some_and(|list| !matches(list, etag, false)) {
        return Some(412);
    }
    let (since, tags) = (req.header(IF_MODIFIED_SINCE), req.header(IF_NONE_MATCH));
    if since.is_none() && tags.is_none()
        || since.is_some_and(|since| is_modified(req, since))
        || tags.is_some_and(|list| !matches(list, etag, true))
    {
        return None;
    }
    let r = &mut req.response;
    r.status = 304;
    r.status_line = None;
    r.content_type = None;
    r.clear_content_length();
    r.clear_accept_ranges();
    r.headers.remove(CONTENT_ENCODING);
    None
}

fn is_unmodified(req: &Request, since: &[u8]) -> bool {
    req.response.last_modified.is_some_and(|changed| parse_time(since).unwrap_or(-1) >= changed)
}

fn is_modified(req: &Request, since: &[u8]) -> bool {
    let Some(changed) = req.response.last_modified else { return true };
    let since = parse_time(since).unwrap_or(-1);
    match *req.conf.core.if_modified_since {
        IfModifiedSince::Off => true,
        IfModifiedSince::Exact => since != changed,
        IfModifiedSince::Before => since < changed,
    }
}

fn without_weakness(tag: &[u8], weak: bool) -> &[u8] {
    match tag.strip_prefix(b"W/") {
        Some(rest) if weak && !rest.is_empty() => rest,
        _ => tag,
    }
}

/// Whether a list of entity tags has `etag`, or is `*`. `weak`: a weak tag is as good as a strong one.
fn matches(list: &[u8], etag: Option<&[u8]>, weak: bool) -> bool {
    if list == b"*" {
        return true;
    }
    let Some(etag) = etag else { return false };
    let etag = without_weakness(etag, weak);
    let blank = |c: &u8| matches!(c, b' ' | b'\t');
    let mut rest = list;
    while !rest.is_empty() {
        rest = without_weakness(rest, weak);
        if rest.len() < etag.len() {
            return false;
        }
        if let Some(after) = rest.strip_prefix(etag) {
            rest = &after[after.iter().take_while(|c| blank(c)).count()..];
            if matches!(rest.first(), None | Some(b',')) {
                return true;
            }
        }
        rest = &rest[rest.iter().take_while(|c| **c != b',').count()..];
        rest = &rest[rest.iter().take_while(|c| blank(c) || **c == b',').count()..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_tags() {
        let tag = Some(&b"\"a\""[..]);
        let weak_tag = Some(&b"W/\"a\""[..]);
        for list in ["*", "\"a\"", "\"b\", \"a\"", "\"b\" ,\t\"a\" , \"c\""] {
            assert!(matches(list.as_bytes(), tag, false), "{list}");
            assert!(matches(list.as_bytes(), weak_tag, true), "{list}");
        }
        assert!(matches(b"W/\"a\"", tag, true));
        assert!(!matches(b"W/\"a\"", tag, false));
        assert!(!matches(b"\"a\"", weak_tag, false));
        for list in ["", "\"b\"", "\"a\"x", "a"] {
            assert!(!matches(list.as_bytes(), tag, true), "{list}");
        }
        assert!(!matches(b"\"a\"", None, true));
    }

    #[test]
    fn dates() {
        for text in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(parse_time(text.as_bytes()), Some(784_111_777), "{text}");
        }
        assert_eq!(parse_time(b"yesterday"), None);
    }
}
