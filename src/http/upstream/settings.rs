//! What every module that passes requests on lets one set: time limits, buffers, retries, hidden fields.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::names::NameSet;
use crate::conf::url::{inet_addr, inet6_addr};
use crate::conf::{Build, Fault, Outcome, Setting, set, units};
use crate::settings;
use crate::syntax::Directive;
use crate::value::Template;

/// Conditions of `*_next_upstream`.
pub mod next {
    /// A connection could not be made, or broke.
    pub const ERROR: u32 = 1 << 0;
    /// The time was over.
    pub const TIMEOUT: u32 = 1 << 1;
    /// An empty or invalid response.
    pub const INVALID_HEADER: u32 = 1 << 2;
    /// Requests that may not be repeated are, too.
    pub const NON_IDEMPOTENT: u32 = 1 << 3;
    /// Statuses.
    pub const HTTP_500: u32 = 1 << 4;
    #[allow(missing_docs)]
    pub const HTTP_502: u32 = 1 << 5;
    #[allow(missing_docs)]
    pub const HTTP_503: u32 = 1 << 6;
    #[allow(missing_docs)]
    pub const HTTP_504: u32 = 1 << 7;
    #[allow(missing_docs)]
    pub const HTTP_403: u32 = 1 << 8;
    #[allow(missing_docs)]
    pub const HTTP_404: u32 = 1 << 9;
    #[allow(missing_docs)]
    pub const HTTP_429: u32 = 1 << 10;
    /// Of caches; no condition of a retry.
    pub const UPDATING: u32 = 1 << 11;
    /// Never.
    pub const OFF: u32 = 1 << 12;
    /// Nobody is left. Never asked for.
    pub const NO_LIVE: u32 = 1 << 13;

    /// As written.
    pub const WORDS: &[(&str, u32)] = &[
        ("error", ERROR),
        ("timeout", TIMEOUT),
        ("invalid_header", INVALID_HEADER),
        ("non_idempotent", NON_IDEMPOTENT),
        ("http_500", HTTP_500),
        ("http_502", HTTP_502),
        ("http_503", HTTP_503),
        ("http_504", HTTP_504),
        ("http_403", HTTP_403),
        ("http_404", HTTP_404),
        ("http_429", HTTP_429),
        ("updating", UPDATING),
        ("off", OFF),
    ];

    /// The same without what gateways answer, for modules that speak to applications.
    pub const CGI_WORDS: &[(&str, u32)] = &[
        ("error", ERROR),
        ("timeout", TIMEOUT),
        ("invalid_header", INVALID_HEADER),
        ("non_idempotent", NON_IDEMPOTENT),
        ("http_500", HTTP_500),
        ("http_503", HTTP_503),
        ("http_403", HTTP_403),
        ("http_404", HTTP_404),
        ("http_429", HTTP_429),
        ("updating", UPDATING),
        ("off", OFF),
    ];

    /// The condition a status is, 0 for none.
    pub fn of_status(status: u16) -> u32 {
        match status {
            500 => HTTP_500,
            502 => HTTP_502,
            503 => HTTP_503,
            504 => HTTP_504,
            403 => HTTP_403,
            404 => HTTP_404,
            429 => HTTP_429,
            _ => 0,
        }
    }
}

/// Fields of `*_ignore_headers`.
pub mod ignore {
    #[allow(missing_docs)]
    pub const REDIRECT: u32 = 1 << 0;
    #[allow(missing_docs)]
    pub const LIMIT_RATE: u32 = 1 << 2;
    #[allow(missing_docs)]
    pub const BUFFERING: u32 = 1 << 3;
    #[allow(missing_docs)]
    pub const CHARSET: u32 = 1 << 4;

    /// As written. Those without a name here matter to caches only.
    pub const WORDS: &[(&str, u32)] = &[
        ("X-Accel-Redirect", REDIRECT),
        ("X-Accel-Expires", 1 << 1),
        ("X-Accel-Limit-Rate", LIMIT_RATE),
        ("X-Accel-Buffering", BUFFERING),
        ("X-Accel-Charset", CHARSET),
        ("Expires", 1 << 5),
        ("Cache-Control", 1 << 6),
        ("Set-Cookie", 1 << 7),
        ("Vary", 1 << 8),
    ];
}

/// `*_bind`
#[derive(Clone, Debug)]
pub struct Local {
    /// Where it is constant, `Ok`; else it is read for each request.
    pub address: Result<SocketAddr, Template>,
    /// `transparent`
    pub transparent: bool,
}

/// `*_store`: where whole responses are kept.
#[derive(Clone, Debug)]
pub enum Store {
    /// Where a static file of the URI would be.
    Uri,
    /// At a path.
    Path(Template),
}

settings! {
    /// One location's settings of the exchange.
    pub struct Settings {
        buffering: bool = true,
        request_buffering: bool = true,
        ignore_client_abort: bool = false,
        force_ranges: bool = false,
        local: Option<Arc<Local>> = None,
        socket_keepalive: bool = false,
        socket_rcvbuf: usize = 0,
        socket_sndbuf: usize = 0,
        /// No effect: Linux has no such thing.
        send_lowat: usize = 0,
        /// Milliseconds.
        connect_timeout: u64 = 60_000,
        /// Milliseconds.
        send_timeout: u64 = 60_000,
        /// Milliseconds.
        read_timeout: u64 = 60_000,
        /// Bits of [`next`].
        next_upstream: u32 = next::ERROR | next::TIMEOUT,
        next_upstream_tries: usize = 0,
        /// Milliseconds.
        next_upstream_timeout: u64 = 0,
        /// Bytes of a response's head at most.
        buffer_size: usize = page_size(),
        /// Number and bytes.
        buffers: (usize, usize) = (8, page_size()),
        /// For its check only: what may be on its way to the client is up to the socket.
        busy_buffers_size: usize = 0,
        /// Bytes, 0 for no file.
        max_temp_file_size: usize = 1 << 30,
        /// For its check only: pieces are written as they come.
        temp_file_write_size: usize = 0,
        temp_path: PathBuf = PathBuf::new(),
        store: Option<Arc<Store>> = None,
        /// Mode bits.
        store_access: u32 = 0o600,
        limit_rate: Option<Template> = None,
        pass_request_headers: bool = true,
        pass_request_body: bool = true,
        pass_trailers: bool = false,
        intercept_errors: bool = false,
        /// Bits of [`ignore`].
        ignore_headers: u32 = 0,
        hide_headers: Vec<Bytes> = Vec::new(),
        pass_headers: Vec<Bytes> = Vec::new(),
        /// Fields of responses that are not passed on; made of the two above.
        hidden: Arc<NameSet> = Arc::default(),
    }
}

/// Bytes of a page of memory, nginx's measure of buffers.
pub fn page_size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(|| {
        let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
        size.and_then(|size| usize::try_from(size).ok()).unwrap_or(4096)
    })
}

impl Settings {
    /// Completes a block's settings with its parent's. Directives are called `{name}_...`; `hide` are fields that
    /// are hidden unless passed by name.
    pub fn merge(&mut self, parent: &Settings, name: &str, hide: &[&str], cf: &mut Build) -> Outcome {
        let own_lists = self.hide_headers.is_set() || self.pass_headers.is_set();
        self.inherit(parent);
        if *self.next_upstream & next::OFF != 0 {
            self.next_upstream.put(next::OFF);
        }
        if !self.temp_path.is_set() {
            let path = cf.default_temp_path(name);
            self.temp_path.put(path);
        }
        if own_lists || !parent.hidden.is_set() {
            let mut list: Vec<&[u8]> = hide.iter().map(|name| name.as_bytes()).collect();
            list.extend(self.hide_headers.iter().map(|name| &name[..]));
            list.retain(|name| !self.pass_headers.iter().any(|pass| pass.eq_ignore_ascii_case(name)));
            let set: NameSet = list.into_iter().collect();
            self.hidden.put(Arc::new(set));
        }
        Ok(())
    }

    /// Checks the sizes of buffers against each other.
    pub fn check(&self, name: &str) -> Outcome {
        let fault = |text: String| Err(Fault::Here(text));
        let (number, each) = *self.buffers;
        if number < 2 {
            return fault(format!("there must be at least 2 \"{name}_buffers\""));
        }
        let size = each.max(*self.buffer_size);
        let maximum =
            format!("the maximum of the value of \"{name}_buffer_size\" and one of the \"{name}_buffers\"");
        let busy =
            if self.busy_buffers_size.is_set() { *self.busy_buffers_size } else { size.saturating_mul(2) };
        if busy < size {
            return fault(format!("\"{name}_busy_buffers_size\" must be equal to or greater than {maximum}"));
        }
        if busy > (number - 1).saturating_mul(each) {
            return fault(format!(
                "\"{name}_busy_buffers_size\" must be less than the size of all \"{name}_buffers\" minus one buffer"
            ));
        }
        if self.temp_file_write_size.is_set() && *self.temp_file_write_size < size {
            return fault(format!(
                "\"{name}_temp_file_write_size\" must be equal to or greater than {maximum}"
            ));
        }
        if *self.max_temp_file_size != 0 && *self.max_temp_file_size < size {
            return fault(format!(
                "\"{name}_max_temp_file_size\" must be equal to zero to disable temporary files usage or must be \
                 equal to or greater than {maximum}"
            ));
        }
        Ok(())
    }

    /// `*_store on | off | PATH`
    pub fn set_store(
        cf: &mut Build,
        d: &Directive<'_>,
        name: &'static str,
        to: fn(&mut Build) -> &mut Settings,
    ) -> Outcome {
        let on = crate::http::checked::store(cf, d, name)?;
        let store = match d.arg(1) {
            b"on" if on => Some(Arc::new(Store::Uri)),
            path if on => Some(Arc::new(Store::Path(cf.http.template(path)?))),
            _ => None,
        };
        to(cf).store.set(store)
    }

    /// `*_temp_path PATH [LEVEL ...]`
    pub fn set_temp_path(
        cf: &mut Build,
        d: &Directive<'_>,
        name: &'static str,
        to: fn(&mut Build) -> &mut Settings,
    ) -> Outcome {
        let path = crate::http::checked::temp_path(cf, d, name)?;
        to(cf).temp_path.set(path)
    }

    /// `*_limit_rate RATE`
    pub fn set_limit_rate(cf: &mut Build, d: &Directive<'_>, to: fn(&mut Build) -> &mut Settings) -> Outcome {
        to(cf).limit_rate.once()?;
        let rate = cf.http.template(d.arg(1))?;
        if rate.as_constant().is_some_and(|text| units::size(text).is_none()) {
            return Err(Fault::directive("invalid value"));
        }
        to(cf).limit_rate.set(Some(rate))
    }

    /// `*_send_lowat SIZE`
    pub fn set_send_lowat(cf: &mut Build, d: &Directive<'_>, to: fn(&mut Build) -> &mut Settings) -> Outcome {
        set::size(&mut to(cf).send_lowat, d)?;
        let name = String::from_utf8_lossy(d.name()).into_owned();
        cf.warn(d.at(), format_args!("\"{name}\" is not supported, ignored"));
        Ok(())
    }

    /// Words that are bits of a setting; those that mean nothing are warned of.
    pub fn set_bits(
        cf: &mut Build,
        d: &Directive<'_>,
        words: &[(&str, u32)],
        to: fn(&mut Build) -> &mut Setting<u32>,
    ) -> Outcome {
        let mut warnings = Vec::new();
        set::bits(to(cf), d, words, |warning| warnings.push(warning))?;
        warnings.into_iter().for_each(|warning| cf.warn(d.at(), warning));
        Ok(())
    }

    /// `*_bind ADDRESS [transparent]`, `*_bind off`
    pub fn set_local(cf: &mut Build, d: &Directive<'_>, to: fn(&mut Build) -> &mut Settings) -> Outcome {
        to(cf).local.once()?;
        if d.len() == 2 && d.arg(1) == b"off" {
            return to(cf).local.set(None);
        }
        let value = cf.http.template(d.arg(1))?;
        let address = match value.as_constant() {
            None => Err(value),
            Some(text) => Ok(local_address(text).ok_or_else(|| {
                Fault::here(format!("invalid address \"{}\"", String::from_utf8_lossy(text)))
            })?),
        };
        let transparent = match d.len() {
            3 if d.arg(2) == b"transparent" => true,
            3 => return Err(Fault::invalid_parameter(d.arg(2))),
            _ => false,
        };
        to(cf).local.set(Some(Arc::new(Local { address, transparent })))
    }
}

/// An address to connect from, with or without port (`ngx_parse_addr_port`).
pub fn local_address(text: &[u8]) -> Option<SocketAddr> {
    if let Some(rest) = text.strip_prefix(b"[") {
        let end = memchr::memchr(b']', rest)?;
        let ip = inet6_addr(&rest[..end])?;
        return match &rest[end + 1..] {
            [] => Some(SocketAddr::new(ip.into(), 0)),
            [b':', port @ ..] => Some(SocketAddr::new(ip.into(), port_number(port)?)),
            _ => None,
        };
    }
    if let Some(ip) = inet6_addr(text) {
        return Some(SocketAddr::new(ip.into(), 0));
    }
    match memchr::memchr(b':', text) {
        Some(at) => Some(SocketAddr::new(inet_addr(&text[..at])?.into(), port_number(&text[at + 1..])?)),
        None => Some(SocketAddr::new(inet_addr(text)?.into(), 0)),
    }
}

fn port_number(text: &[u8]) -> Option<u16> {
    units::number(text).and_then(|n| u16::try_from(n).ok()).filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses() {
        let read = |text: &str| local_address(text.as_bytes()).map(|a| a.to_string());
        assert_eq!(read("127.0.0.1").as_deref(), Some("127.0.0.1:0"));
        assert_eq!(read("127.0.0.1:81").as_deref(), Some("127.0.0.1:81"));
        assert_eq!(read("[::1]").as_deref(), Some("[::1]:0"));
        assert_eq!(read("[::1]:5").as_deref(), Some("[::1]:5"));
        for wrong in ["localhost", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "[::1", "unix:/x", ""] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
