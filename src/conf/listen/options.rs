//! The parameters of `listen`.

use std::time::Duration;

use super::Side;
use crate::conf::units;
use crate::conf::{Fault, Outcome};
use crate::log::Level;
use crate::net::listen::{BACKLOG, Keepalive, Kind};
use crate::syntax::Directive;

/// What one `listen` says besides its address.
#[derive(Clone, Debug)]
pub struct Options {
    /// Some option of the socket is set, which only one `listen` of an address may do.
    pub set: bool,
    /// The address gets a socket of its own even where a wildcard address has its port.
    pub bind: bool,
    pub default_server: bool,
    pub ssl: bool,
    pub http2: bool,
    pub proxy_protocol: bool,
    /// `udp`
    pub kind: Kind,
    pub backlog: i32,
    /// Bytes.
    pub rcvbuf: Option<usize>,
    /// Bytes.
    pub sndbuf: Option<usize>,
    pub keepalive: Keepalive,
    pub deferred: bool,
    pub ipv6only: bool,
    pub reuseport: bool,
    pub multipath: bool,
    /// Length of the queue.
    pub fastopen: Option<i32>,
    backlog_set: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            set: false,
            bind: false,
            default_server: false,
            ssl: false,
            http2: false,
            proxy_protocol: false,
            kind: Kind::Stream,
            backlog: BACKLOG,
            rcvbuf: None,
            sndbuf: None,
            keepalive: Keepalive::default(),
            deferred: false,
            ipv6only: true,
            reuseport: false,
            multipath: false,
            fastopen: None,
            backlog_set: false,
        }
    }
}

fn shown(text: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(text)
}

fn count(text: &[u8]) -> Option<i32> {
    units::number(text).map(|number| i32::try_from(number).unwrap_or(i32::MAX))
}

impl Options {
    /// Reads the words behind the address. What is not worth a refusal goes to `messages`.
    pub fn parse(d: &Directive<'_>, side: Side, messages: &mut Vec<(Level, String)>) -> Outcome<Options> {
        let mut options = Options::default();
        for word in d.args().skip(1) {
            if !(options.flag(word, side, d, messages)? || options.valued(word, d, messages)?) {
                return Err(Fault::invalid_parameter(word));
            }
        }
        options.check_udp()?;
        Ok(options)
    }

    /// Takes a word without value; false where it is none.
    fn flag(
        &mut self,
        word: &[u8],
        side: Side,
        d: &Directive<'_>,
        messages: &mut Vec<(Level, String)>,
    ) -> Outcome<bool> {
        match (word, side) {
            (b"default_server", _) | (b"default", Side::Http) => self.default_server = true,
            (b"ssl", _) => self.ssl = true,
            (b"proxy_protocol", _) => self.proxy_protocol = true,
            (b"udp", Side::Stream) => self.kind = Kind::Datagram,
            (b"http2", Side::Http) => {
                let at = d.at();
                let sentence = format!(
                    "the \"listen ... http2\" directive is deprecated, use the \"http2\" directive instead{at}"
                );
                messages.push((Level::Warn, sentence));
                self.http2 = true;
            }
            (b"quic", Side::Http) => {
                return Err(Fault::here("the \"quic\" parameter requires ngx_http_v3_module"));
            }
            (b"bind", _) => self.socket(),
            (b"deferred", _) => {
                self.deferred = true;
                self.socket();
            }
            (b"reuseport", _) => {
                self.reuseport = true;
                self.socket();
            }
            (b"multipath", _) => {
                self.multipath = true;
                self.socket();
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Takes `name=value`; false where it is none that is known.
    fn valued(
        &mut self,
        word: &[u8],
        d: &Directive<'_>,
        messages: &mut Vec<(Level, String)>,
    ) -> Outcome<bool> {
        if word.starts_with(b"accept_filter=") {
            let sentence = format!(
                "accept filters \"{}\" are not supported on this platform, ignored{}",
                shown(word),
                d.at()
            );
            messages.push((Level::Emerg, sentence));
            return Ok(true);
        }
        let Some(equals) = memchr::memchr(b'=', word) else { return Ok(false) };
        let (name, value) = (&word[..equals], &word[equals + 1..]);
        let invalid = |name: &str| Fault::here(format!("invalid {name} \"{}\"", shown(word)));
        match name {
            b"fastopen" => self.fastopen = Some(count(value).ok_or_else(|| invalid("fastopen"))?),
            b"backlog" => {
                self.backlog = count(value).filter(|n| *n != 0).ok_or_else(|| invalid("backlog"))?;
                self.backlog_set = true;
            }
            b"rcvbuf" => self.rcvbuf = Some(units::size(value).ok_or_else(|| invalid("rcvbuf"))?),
            b"sndbuf" => self.sndbuf = Some(units::size(value).ok_or_else(|| invalid("sndbuf"))?),
            b"ipv6only" if value.starts_with(b"o") => {
                self.ipv6only = match value {
                    b"on" => true,
                    b"off" => false,
                    _ => return Err(Fault::here(format!("invalid ipv6only flags \"{}\"", shown(value)))),
                };
            }
            b"so_keepalive" => {
                self.keepalive = keepalive(value).ok_or_else(|| {
                    Fault::here(format!("invalid so_keepalive value: \"{}\"", shown(value)))
                })?;
            }
            _ => return Ok(false),
        }
        self.socket();
        Ok(true)
    }

    /// An option of the socket was given.
    fn socket(&mut self) {
        self.set = true;
        self.bind = true;
    }

    fn check_udp(&self) -> Outcome {
        if self.kind == Kind::Stream {
            return Ok(());
        }
        let wrong = [
            (self.fastopen.is_some(), "fastopen"),
            (self.backlog_set, "backlog"),
            (self.deferred, "deferred"),
            (self.multipath, "multipath"),
            (self.ssl, "ssl"),
            (self.keepalive.on.is_some(), "so_keepalive"),
            (self.proxy_protocol, "proxy_protocol"),
        ];
        match wrong.iter().find(|(given, _)| *given) {
            Some((_, name)) => {
                Err(Fault::directive(format!("\"{name}\" parameter is incompatible with \"udp\"")))
            }
            None => Ok(()),
        }
    }
}

/// `on`, `off` or `idle:interval:count`, of which parts may be missing but not all.
fn keepalive(text: &[u8]) -> Option<Keepalive> {
    let mut keepalive = Keepalive::default();
    match text {
        b"on" => keepalive.on = Some(true),
        b"off" => keepalive.on = Some(false),
        _ => {
            let mut parts =
                text.splitn(3, |byte| *byte == b':').map(|part| (!part.is_empty()).then_some(part));
            let [idle, interval, count] = [(); 3].map(|()| parts.next().flatten());
            let seconds = |part: Option<&[u8]>| part.map_or(Some(0), units::seconds);
            let (idle, interval) = (seconds(idle)?, seconds(interval)?);
            let count = count.map_or(Some(0), units::number)?;
            if (idle, interval, count) == (0, 0, 0) {
                return None;
            }
            keepalive.on = Some(true);
            keepalive.idle = (idle != 0).then(|| Duration::from_secs(idle));
            keepalive.interval = (interval != 0).then(|| Duration::from_secs(interval));
            keepalive.count = u32::try_from(count).ok().filter(|count| *count != 0);
        }
    }
    Some(keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::{Item, LoadOptions, parse_text};

    fn parsed(text: &str, side: Side) -> Result<Options, String> {
        let tree = parse_text(b"conf", format!("listen {text};").as_bytes(), &LoadOptions::default());
        let Some(Item::Directive(d)) = tree.items().next() else { panic!("no directive") };
        Options::parse(&d, side, &mut Vec::new()).map_err(|fault| fault.text(d.name(), ""))
    }

    #[test]
    fn options_of_the_socket_bind() {
        let options =
            parsed("80 backlog=10 rcvbuf=4k so_keepalive=30m::10 ipv6only=off", Side::Http).unwrap();
        assert!(options.set && options.bind && !options.ipv6only);
        assert_eq!((options.backlog, options.rcvbuf), (10, Some(4096)));
        assert_eq!(options.keepalive.idle, Some(Duration::from_secs(1800)));
        assert_eq!((options.keepalive.interval, options.keepalive.count), (None, Some(10)));
        let options = parsed("80 ssl proxy_protocol default_server", Side::Http).unwrap();
        assert!(!options.set && !options.bind && options.ssl && options.default_server);
    }

    #[test]
    fn wrong_parameters_are_refused_in_nginx_words() {
        for (text, words) in [
            ("80 x", "invalid parameter \"x\""),
            ("80 udp", "invalid parameter \"udp\""),
            ("80 setfib=1", "invalid parameter \"setfib=1\""),
            ("80 ipv6only=yes", "invalid parameter \"ipv6only=yes\""),
            ("80 ipv6only=o", "invalid ipv6only flags \"o\""),
            ("80 backlog=0", "invalid backlog \"backlog=0\""),
            ("80 sndbuf=x", "invalid sndbuf \"sndbuf=x\""),
            ("80 fastopen=-1", "invalid fastopen \"fastopen=-1\""),
            ("80 so_keepalive=::", "invalid so_keepalive value: \"::\""),
            ("80 so_keepalive=1:2:3:4", "invalid so_keepalive value: \"1:2:3:4\""),
            ("80 quic", "the \"quic\" parameter requires ngx_http_v3_module"),
        ] {
            assert_eq!(parsed(text, Side::Http).unwrap_err(), words);
        }
        assert_eq!(
            parsed("53 udp ssl backlog=1", Side::Stream).unwrap_err(),
            "\"listen\" directive \"backlog\" parameter is incompatible with \"udp\""
        );
        assert!(parsed("53 udp reuseport", Side::Stream).is_ok());
        assert_eq!(parsed("53 http2", Side::Stream).unwrap_err(), "invalid parameter \"http2\"");
    }
}
