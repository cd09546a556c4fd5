//! From a complete head to the client: which fields pass, what they change, redirects inside, and the body.

use bytes::Bytes;

use super::exchange::Exchange;
use super::head::{Field, Known};
use super::settings::ignore;
use super::{Protocol, Redirected, ResponseFraming, own_status_line};
use crate::http::headers::{LOCATION, REFRESH, SET_COOKIE, UPGRADE};
use crate::http::method::Method;
use crate::http::module::Verdict;
use crate::http::request::{Request, Version};
use crate::http::{special, uri};
use crate::log::Level;
use crate::process::memory::rare;

impl<P: Protocol> Exchange<P> {
    /// Answers the client with the response whose head was read.
    pub(super) async fn respond(&mut self, req: &mut Request) -> Verdict {
        let status = self.head.status;
        let asked = |family| req.http.variables.has_family(family);
        if asked("upstream_http_") || asked("upstream_cookie_") {
            self.head.copy_to(self.input.bytes(), &mut req.upstream_headers);
        }
        if status >= 300 && self.intercepts(req, status) {
            self.protocol.response_mut().begin_body(&self.head);
            self.finish_unread(req);
            return Verdict::Status(status);
        }
        self.header_is_there(req);
        self.accelerate(req);
        self.protocol.response_mut().begin_body(&self.head);
        if let Some(target) = self.redirect(req) {
            self.finish_unread(req);
            return redirect_inside(req, &target);
        }
        self.copy_fields(req);
        let stored = self.stores().then(|| self.store_time());
        let upgrade = status == 101
            && self.protocol.upgrades()
            && req.header(UPGRADE).is_some()
            && req.version < Version::Http2;
        let size = self.head.size;
        self.input.consume(size);
        if self.head.headless {
            req.version = Version::Http09;
            req.response.status = 0;
        }
        if !self.buffering {
            req.limit_rate = Some(0);
        }
        req.action.set("sending to client");
        if req.send_head().await.is_err() {
            return self.lost(req);
        }
        if upgrade {
            return rare(|| self.tunnel(req)).await;
        }
        if req.response.header_only && stored.is_none() {
            self.finish_unread(req);
            return match req.finish().await {
                Ok(()) => Verdict::Done,
                Err(_) => self.lost(req),
            };
        }
        if !self.buffering && *req.conf.core.tcp_nodelay {
            req.conn.set_nodelay();
        }
        self.pump(req, stored).await
    }

    fn header_is_there(&mut self, req: &Request) {
        self.learn(req, true);
        if let Some(state) = req.upstream_states.last() {
            self.pick.first_byte(state, crate::net::clock::now());
        }
    }

    /// The client went away, or took too long, while it was being answered.
    #[cold]
    #[inline(never)]
    pub(super) fn lost(&mut self, req: &mut Request) -> Verdict {
        self.close(req);
        req.keepalive = false;
        Verdict::Close
    }

    /// No body is wanted: the connection is kept only where none comes.
    fn finish_unread(&mut self, req: &mut Request) {
        if self.protocol.response().keeps() && self.input.len() <= self.head.size && !self.head.close {
            self.keep(req);
        } else {
            self.close(req);
        }
    }

    /// Whether `error_page` takes the place of this response (`*_intercept_errors`).
    #[inline(never)]
    fn intercepts(&self, req: &mut Request, status: u16) -> bool {
        if !*self.settings.intercept_errors {
            return false;
        }
        if !req.conf.core.error_pages.iter().any(|page| page.status == status) {
            return false;
        }
        let buffer = self.input.bytes();
        if status == 401 {
            for field in self.head.fields.iter().filter(|f| f.known == Known::WwwAuthenticate) {
                req.response.headers.push_hashed(field.name(buffer), field.hash, field.value(buffer));
            }
        }
        true
    }

    /// What `X-Accel-*` fields switch.
    fn accelerate(&mut self, req: &mut Request) {
        if self.head.has_any(&[Known::AccelLimitRate, Known::AccelBuffering, Known::AccelCharset]) {
            self.switch(req);
        }
    }

    #[cold]
    #[inline(never)]
    fn switch(&mut self, req: &mut Request) {
        let ignored = *self.settings.ignore_headers;
        let buffer = self.input.bytes();
        for field in self.head.fields.iter().filter(|f| !f.ignored) {
            let value = field.value(buffer);
            match field.known {
                Known::AccelLimitRate if ignored & ignore::LIMIT_RATE == 0 => {
                    if let Some(rate) = crate::conf::units::number(value) {
                        req.limit_rate = Some(usize::try_from(rate).unwrap_or(usize::MAX));
                    }
                }
                Known::AccelBuffering if ignored & ignore::BUFFERING == 0 => {
                    if value.eq_ignore_ascii_case(b"no") {
                        self.buffering = false;
                    } else if value.eq_ignore_ascii_case(b"yes") {
                        self.buffering = true;
                    }
                }
                Known::AccelCharset if ignored & ignore::CHARSET == 0 => {
                    req.response.override_charset = Some(Bytes::copy_from_slice(value));
                }
                _ => {}
            }
        }
    }

    /// Where `X-Accel-Redirect` leads. Some fields of the response go with it.
    fn redirect(&self, req: &mut Request) -> Option<Bytes> {
        if *self.settings.ignore_headers & ignore::REDIRECT != 0 {
            return None;
        }
        if !self.head.has_any(&[Known::AccelRedirect]) {
            return None;
        }
        self.redirect_target(req)
    }

    #[cold]
    #[inline(never)]
    fn redirect_target(&self, req: &mut Request) -> Option<Bytes> {
        let buffer = self.input.bytes();
        let target = Bytes::copy_from_slice(self.head.get(Known::AccelRedirect, buffer)?);
        for field in self.head.fields.iter().filter(|f| !f.ignored) {
            let goes = matches!(
                field.known,
                Known::ContentType
                    | Known::SetCookie
                    | Known::ContentDisposition
                    | Known::CacheControl
                    | Known::Expires
                    | Known::AcceptRanges
            );
            if goes {
                self.copy(req, field, buffer);
            }
        }
        Some(target)
    }

    fn copy_fields(&self, req: &mut Request) {
        let buffer = self.input.bytes();
        let hidden = &**self.settings.hidden;
        let (mut server, mut date) = (false, false);
        for field in &self.head.fields {
            server |= field.known == Known::Server;
            date |= field.known == Known::Date;
            if !field.ignored && !hidden.has(field, buffer) {
                self.copy(req, field, buffer);
            }
        }
        let r = &mut req.response;
        if self.protocol.is_http() && (!server || !date) {
            let passes = |name: &[u8]| !hidden.contains(crate::http::headers::hash(name), name);
            r.no_server = !server && passes(b"Server");
            r.no_date = !date && passes(b"Date");
        }
        r.status = self.head.status;
        r.status_line = match self.head.line.is_empty() {
            true => None,
            false => own_status_line(self.head.status, &buffer[self.head.line.clone()]),
        };
        r.content_length = self.head.length;
        r.disable_not_modified = true;
        if *self.settings.force_ranges {
            r.allow_ranges = true;
            r.single_range = true;
        }
    }

    /// Puts one field into the response.
    fn copy(&self, req: &mut Request, field: &Field, buffer: &[u8]) {
        let (name, value) = (field.name(buffer), field.value(buffer));
        match field.known {
            Known::ContentLength | Known::Connection | Known::KeepAlive | Known::TransferEncoding => {}
            Known::ContentType => content_type(req, value),
            Known::AcceptRanges if *self.settings.force_ranges => {}
            Known::Upgrade if req.version >= Version::Http2 => {}
            Known::LastModified => {
                req.response.last_modified = parse_date(value);
                req.response.headers.push_hashed(name, field.hash, value);
            }
            Known::Location => match self.protocol.rewrite_redirect(req, value, 0) {
                Redirected::To(to) => req.response.headers.add(LOCATION, &to),
                _ => {
                    req.response.keep_location = true;
                    req.response.headers.push_hashed(name, field.hash, value);
                }
            },
            Known::Refresh => match refresh_prefix(value) {
                Some(prefix) => match self.protocol.rewrite_redirect(req, value, prefix) {
                    Redirected::To(to) => req.response.headers.add(REFRESH, &to),
                    _ => req.response.headers.push_hashed(name, field.hash, value),
                },
                None => req.response.headers.push_hashed(name, field.hash, value),
            },
            Known::SetCookie => match self.protocol.rewrite_cookie(req, value) {
                Some(to) => req.response.headers.add(SET_COOKIE, &to),
                None => req.response.headers.push_hashed(name, field.hash, value),
            },
            _ => req.response.headers.push_hashed(name, field.hash, value),
        }
    }
}

/// Where in `Refresh` the URL begins.
#[inline(never)]
fn refresh_prefix(value: &[u8]) -> Option<usize> {
    value.windows(4).position(|w| w.eq_ignore_ascii_case(b"url=")).map(|at| at + 4)
}

/// Type and charset of a `Content-Type`.
fn content_type(req: &mut Request, value: &[u8]) {
    let (kind, charset) = split_charset(value);
    req.response.content_type = Some(Bytes::copy_from_slice(kind));
    req.response.charset = charset.map(Bytes::copy_from_slice);
}

/// Splits the charset off a type; parameters before it stay with the type.
fn split_charset(value: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut from = 0;
    // Types are short: looking at each byte is over before a search of many at a time has begun.
    while let Some(at) = value[from..].iter().position(|c| *c == b';') {
        let semicolon = from + at;
        let rest = &value[semicolon + 1..];
        let spaces = rest.iter().take_while(|c| **c == b' ').count();
        let rest = &rest[spaces..];
        if rest.is_empty() {
            break;
        }
        if rest.len() >= 8 && rest[..8].eq_ignore_ascii_case(b"charset=") {
            let charset = &rest[8..];
            let charset = charset.strip_prefix(b"\"").unwrap_or(charset);
            let charset = charset.strip_suffix(b"\"").unwrap_or(charset);
            return (&value[..semicolon], Some(charset));
        }
        from = semicolon + 1;
    }
    (value, None)
}

/// Seconds since 1970 of a date in any of HTTP's forms (RFC 9110, section 5.6.7).
#[inline(never)]
fn parse_date(value: &[u8]) -> Option<i64> {
    let time = httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()?;
    i64::try_from(time.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs()).ok()
}

/// Follows `X-Accel-Redirect`.
#[cold]
#[inline(never)]
fn redirect_inside(req: &mut Request, target: &Bytes) -> Verdict {
    if target.first() == Some(&b'@') {
        if req.go_to_named(target) {
            return Verdict::Named;
        }
        let shown = String::from_utf8_lossy(target).into_owned();
        req.log(Level::Error, None, format_args!("could not find named location \"{shown}\""));
        return Verdict::Status(500);
    }
    let Some((path, args)) = safe_uri(target) else {
        let shown = String::from_utf8_lossy(target).into_owned();
        req.log(Level::Error, None, format_args!("unsafe URI \"{shown}\" was detected"));
        return Verdict::Status(404);
    };
    if req.method != Method::Head {
        req.method = Method::Get;
        req.method_override = Some(b"GET");
    }
    req.redirect_to(path, args);
    Verdict::Redirect
}

/// Path, decoded, and arguments of a URI that an upstream names; none where it would leave the root.
fn safe_uri(target: &Bytes) -> Option<(Bytes, Bytes)> {
    let (path, args) = special::split_args(target.clone());
    let path = match memchr::memchr(b'%', &path) {
        Some(_) => Bytes::from(uri::unescape(&path)),
        None => path,
    };
    if path.is_empty() || path.first() == Some(&b'?') || memchr::memchr(0, &path).is_some() {
        return None;
    }
    let leaves = path.split(|c| *c == b'/').any(|segment| segment == b"..");
    (!leaves).then_some((path, args))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charsets_are_taken_off_types() {
        let split = |text: &'static str| {
            let (kind, charset) = split_charset(text.as_bytes());
            (std::str::from_utf8(kind).unwrap(), charset.map(|c| std::str::from_utf8(c).unwrap()))
        };
        assert_eq!(split("text/html"), ("text/html", None));
        assert_eq!(split("text/html; charset=utf-8"), ("text/html", Some("utf-8")));
        assert_eq!(split("text/html;Charset=\"utf-8\""), ("text/html", Some("utf-8")));
        assert_eq!(split("a/b; x=y; charset=z"), ("a/b; x=y", Some("z")));
        assert_eq!(split("a/b; x=y"), ("a/b; x=y", None));
        assert_eq!(split("a/b; "), ("a/b; ", None));
    }

    #[test]
    fn redirects_stay_inside() {
        let safe = |text: &'static str| {
            let (path, args) = safe_uri(&Bytes::from_static(text.as_bytes()))?;
            Some((String::from_utf8_lossy(&path).into_owned(), String::from_utf8_lossy(&args).into_owned()))
        };
        assert_eq!(safe("/a%20b?c=%20"), Some(("/a b".into(), "c=%20".into())));
        assert_eq!(safe("/..a/b.."), Some(("/..a/b..".into(), String::new())));
        for wrong in ["/../x", "..", "/a/%2e%2e/b", "/a/..", "", "?x", "/%00"] {
            assert_eq!(safe(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn dates_and_refresh() {
        assert_eq!(parse_date(b"Thu, 01 Jan 1970 00:00:10 GMT"), Some(10));
        assert_eq!(parse_date(b"yesterday"), None);
        assert_eq!(refresh_prefix(b"5; URL=http://x"), Some(7));
        assert_eq!(refresh_prefix(b"5"), None);
    }
}
