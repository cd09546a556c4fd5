//! Addresses in the configuration: `host:port`, `[::1]:80`, `*:80`, `unix:/path`, a bare port (`ngx_parse_url`).
//!
//! ```text
//! url::parse(b"127.0.0.1:80", &Use { listen: true, default_port: 80, ..Use::default() })   // listen
//! url::parse(b"backend:8080", &Use { default_port: 80, ..Use::default() })                 // server of an upstream
//! url::parse(b"host:80/uri", &Use { default_port: 80, uri_part: true, no_resolve: true, ..Use::default() })
//! ```

use std::ffi::OsStr;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use memchr::memchr;

use super::units;
use crate::net::{Address, resolve};

/// Bytes of a unix socket's path, the zero at its end included (sun_path).
const MAX_PATH: usize = 108;

/// What an address is for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Use {
    /// For `listen`: a bare port, `*` and ranges of ports are allowed.
    pub listen: bool,
    /// Where none is given.
    pub default_port: u16,
    /// What follows from `/` or `?` on is a URI; without this it is refused.
    pub uri_part: bool,
    /// Names are left alone: `addrs` stays empty.
    pub no_resolve: bool,
}

/// An address and its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Url {
    /// With brackets where it is IPv6; the path of a unix socket; empty where only a port was given.
    pub host: Vec<u8>,
    /// The port, or range of ports, as written.
    pub port_text: Vec<u8>,
    /// Of a range the first; 0 for a unix socket.
    pub port: u16,
    /// No port was given.
    pub no_port: bool,
    /// From `/` or `?` on; behind the second `:` of a unix socket.
    pub uri: Vec<u8>,
    /// `*`, `0.0.0.0` or `[::]`.
    pub wildcard: bool,
    /// All addresses, in the resolver's order; of a range one for each port. Empty for a name that is not resolved.
    pub addrs: Vec<Address>,
}

/// What is wrong with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlError {
    NoPath,
    PathTooLong,
    InvalidHost,
    NoHost,
    InvalidPort,
    InvalidPortRange,
    InvalidIpv6,
    HostNotFound,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UrlError::NoPath => "no path in the unix domain socket",
            UrlError::PathTooLong => "too long path in the unix domain socket",
            UrlError::InvalidHost => "invalid host",
            UrlError::NoHost => "no host",
            UrlError::InvalidPort => "invalid port",
            UrlError::InvalidPortRange => "invalid port range",
            UrlError::InvalidIpv6 => "invalid IPv6 address",
            UrlError::HostNotFound => "host not found",
        })
    }
}

impl std::error::Error for UrlError {}

/// Reads an address; names are resolved by the system, which may take a while.
///
/// # Errors
/// The first thing wrong with it, in nginx's words.
pub fn parse(text: &[u8], to: &Use) -> Result<Url, UrlError> {
    if text.len() >= 5 && text[..5].eq_ignore_ascii_case(b"unix:") {
        return unix(&text[5..], to);
    }
    match text.strip_prefix(b"[") {
        Some(rest) => inet6(rest, to),
        None => inet(text, to),
    }
}

fn unix(mut path: &[u8], to: &Use) -> Result<Url, UrlError> {
    let mut url = Url::default();
    if to.uri_part
        && let Some(at) = memchr(b':', path)
    {
        url.uri = path[at + 1..].to_vec();
        path = &path[..at];
    }
    if path.is_empty() {
        return Err(UrlError::NoPath);
    }
    if path.len() >= MAX_PATH {
        return Err(UrlError::PathTooLong);
    }
    url.host = path.to_vec();
    url.addrs.push(Address::Unix(PathBuf::from(OsStr::from_bytes(path))));
    Ok(url)
}

fn inet(text: &[u8], to: &Use) -> Result<Url, UrlError> {
    let mut url = Url::default();
    let mut authority = text;
    let uri = memchr::memchr2(b'/', b'?', text);
    if let Some(at) = uri {
        if to.listen || !to.uri_part {
            return Err(UrlError::InvalidHost);
        }
        url.uri = text[at..].to_vec();
        authority = &text[..at];
    }
    let mut last_port = None;
    let host = match memchr(b':', authority) {
        Some(at) => {
            last_port = url.set_port(&authority[at + 1..], to)?;
            &authority[..at]
        }
        None => {
            if to.listen && uri.is_none() && is_port(authority) {
                let last = url.set_port(authority, to)?;
                url.wildcard = true;
                url.add(Ipv4Addr::UNSPECIFIED.into(), last);
                return Ok(url);
            }
            url.no_port = true;
            url.port = to.default_port;
            authority
        }
    };
    if host.is_empty() {
        return Err(UrlError::NoHost);
    }
    url.host = host.to_vec();
    let number = if to.listen && host == b"*" { Some(Ipv4Addr::UNSPECIFIED) } else { inet_addr(host) };
    if let Some(number) = number {
        url.wildcard = number.is_unspecified();
        url.add(number.into(), last_port);
        return Ok(url);
    }
    if to.no_resolve {
        return Ok(url);
    }
    for ip in resolve::system(host) {
        url.add(ip, last_port);
    }
    match url.addrs.first() {
        Some(Address::Inet(addr)) => url.wildcard = addr.ip().is_unspecified(),
        _ => return Err(UrlError::HostNotFound),
    }
    Ok(url)
}

/// The rest of a text that begins with `[`.
fn inet6(rest: &[u8], to: &Use) -> Result<Url, UrlError> {
    let mut url = Url::default();
    let end = memchr(b']', rest).ok_or(UrlError::InvalidHost)?;
    let (host, mut after) = (&rest[..end], &rest[end + 1..]);
    if let Some(at) = memchr(b'/', after) {
        if to.listen || !to.uri_part {
            return Err(UrlError::InvalidHost);
        }
        url.uri = after[at..].to_vec();
        after = &after[..at];
    }
    let mut last_port = None;
    match after {
        [] => {
            url.no_port = true;
            url.port = to.default_port;
        }
        [b':', port @ ..] => last_port = url.set_port(port, to)?,
        _ => return Err(UrlError::InvalidHost),
    }
    if host.is_empty() {
        return Err(UrlError::NoHost);
    }
    url.host = [b"[", host, b"]"].concat();
    let number = inet6_addr(host).ok_or(UrlError::InvalidIpv6)?;
    url.wildcard = number.is_unspecified();
    url.add(number.into(), last_port);
    Ok(url)
}

/// Whether a `listen` without `:` is a port, or a range, rather than a host.
fn is_port(text: &[u8]) -> bool {
    let first = match memchr(b'-', text) {
        Some(at) if units::number(&text[at + 1..]).is_none() => return false,
        Some(at) => &text[..at],
        None => text,
    };
    units::number(first).is_some()
}

fn port(text: &[u8]) -> Result<u16, UrlError> {
    let number = units::number(text).and_then(|number| u16::try_from(number).ok());
    number.filter(|port| *port != 0).ok_or(UrlError::InvalidPort)
}

impl Url {
    /// Takes `80`, or for `listen` also `80-90`; the second is the last of a range.
    fn set_port(&mut self, text: &[u8], to: &Use) -> Result<Option<u16>, UrlError> {
        let dash = if to.listen { memchr(b'-', text) } else { None };
        let last = dash.map(|at| port(&text[at + 1..])).transpose()?;
        self.port = port(&text[..dash.unwrap_or(text.len())])?;
        if last.is_some_and(|last| self.port > last) {
            return Err(UrlError::InvalidPortRange);
        }
        self.port_text = text.to_vec();
        Ok(last)
    }

    fn add(&mut self, ip: IpAddr, last_port: Option<u16>) {
        let ports = self.port..=last_port.unwrap_or(self.port);
        self.addrs.extend(ports.map(|port| Address::Inet(SocketAddr::new(ip, port))));
    }
}

/// Four decimal numbers with dots between; numbers may be missing, which is zero (`ngx_inet_addr`).
/// 255.255.255.255 is none.
pub fn inet_addr(text: &[u8]) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut parts = text.split(|byte| *byte == b'.');
    for octet in &mut octets {
        for digit in parts.next()? {
            let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
            *octet = octet.checked_mul(10)?.checked_add(digit)?;
        }
    }
    let addr = Ipv4Addr::from(octets);
    (parts.next().is_none() && !addr.is_broadcast()).then_some(addr)
}

/// IPv6 without brackets (`ngx_inet6_addr`, which takes some that RFC 4291 does not).
pub fn inet6_addr(text: &[u8]) -> Option<Ipv6Addr> {
    let mut groups: Vec<u16> = Vec::with_capacity(8);
    // How many groups stand before `::`.
    let mut gap = None;
    let (mut word, mut nibbles) = (0u16, 0);
    let mut digits = None;
    let mut rest = text.strip_prefix(b":").unwrap_or(text);
    if text.is_empty() {
        return None;
    }
    while let Some((byte, after)) = rest.split_first() {
        match *byte {
            b':' => {
                if nibbles != 0 {
                    groups.push(word);
                    (word, nibbles) = (0, 0);
                    if groups.len() == 8 {
                        return None;
                    }
                } else if gap.replace(groups.len()).is_some() {
                    return None;
                }
                digits = Some(after);
            }
            b'.' if nibbles != 0 => {
                if groups.len() > 6 {
                    return None;
                }
                let [a, b, c, d] = inet_addr(digits?)?.octets();
                groups.push(u16::from_be_bytes([a, b]));
                word = u16::from_be_bytes([c, d]);
                break;
            }
            byte => {
                nibbles += 1;
                let digit = char::from(byte).to_digit(16).filter(|_| nibbles <= 4)?;
                word = word << 4 | digit as u16;
            }
        }
        rest = after;
    }
    if nibbles == 0 && gap.is_none() {
        return None;
    }
    groups.push(word);
    let missing = 8usize.checked_sub(groups.len())?;
    let mut all = [0u16; 8];
    match gap {
        None if missing == 0 => all.copy_from_slice(&groups),
        Some(gap) if missing > 0 => {
            all[..gap].copy_from_slice(&groups[..gap]);
            all[gap + missing..].copy_from_slice(&groups[gap..]);
        }
        _ => return None,
    }
    Some(Ipv6Addr::from(all))
}

/// An address of either kind, without port (`ngx_parse_addr`).
pub fn parse_addr(text: &[u8]) -> Option<IpAddr> {
    inet_addr(text).map(IpAddr::V4).or_else(|| inet6_addr(text).map(IpAddr::V6))
}

/// An address with or without port, which is then 0 (`ngx_parse_addr_port`): `127.0.0.1`, `::1`, `[::1]:53`.
pub fn parse_addr_port(text: &[u8]) -> Option<SocketAddr> {
    if let Some(ip) = parse_addr(text) {
        return Some(SocketAddr::new(ip, 0));
    }
    let (host, after) = match text.strip_prefix(b"[") {
        Some(rest) => {
            let end = memchr(b']', rest)?;
            if end + 1 == rest.len() {
                return Some(SocketAddr::new(parse_addr(&rest[..end])?, 0));
            }
            (&rest[..end], rest[end + 1..].strip_prefix(b":")?)
        }
        None => {
            let at = memchr(b':', text)?;
            (&text[..at], &text[at + 1..])
        }
    };
    let port = port(after).ok()?;
    Some(SocketAddr::new(parse_addr(host)?, port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LISTEN: Use = Use { listen: true, default_port: 80, uri_part: false, no_resolve: false };
    const SERVER: Use = Use { listen: false, default_port: 80, uri_part: false, no_resolve: false };
    const PASS: Use = Use { listen: false, default_port: 80, uri_part: true, no_resolve: true };

    fn addrs(text: &str, to: Use) -> Vec<String> {
        parse(text.as_bytes(), &to).unwrap().addrs.iter().map(Address::to_string).collect()
    }

    fn error(text: &str, to: Use) -> String {
        parse(text.as_bytes(), &to).unwrap_err().to_string()
    }

    #[test]
    fn listen_takes_ports_hosts_and_ranges() {
        assert_eq!(addrs("8080", LISTEN), ["0.0.0.0:8080"]);
        assert_eq!(addrs("*:81", LISTEN), ["0.0.0.0:81"]);
        assert_eq!(addrs("*", LISTEN), ["0.0.0.0:80"]);
        assert_eq!(addrs("127.0.0.1", LISTEN), ["127.0.0.1:80"]);
        assert_eq!(addrs("127.1:81", LISTEN), ["127.0.0.1:81"]);
        assert_eq!(addrs("[::1]:81", LISTEN), ["[::1]:81"]);
        assert_eq!(addrs("[::]", LISTEN), ["[::]:80"]);
        assert_eq!(addrs("81-83", LISTEN), ["0.0.0.0:81", "0.0.0.0:82", "0.0.0.0:83"]);
        assert_eq!(addrs("127.0.0.1:81-82", LISTEN), ["127.0.0.1:81", "127.0.0.1:82"]);
        assert_eq!(addrs("[::1]:81-82", LISTEN), ["[::1]:81", "[::1]:82"]);
        assert_eq!(addrs("unix:/run/a.sock", LISTEN), ["unix:/run/a.sock"]);
        assert_eq!(addrs("UNIX:/run/a:b", LISTEN), ["unix:/run/a:b"]);
        for wildcard in ["80", "*:80", "0.0.0.0:80", "[::]:80"] {
            assert!(parse(wildcard.as_bytes(), &LISTEN).unwrap().wildcard);
        }
        assert!(!parse(b"127.0.0.1:80", &LISTEN).unwrap().wildcard);
    }

    #[test]
    fn listen_refuses_in_nginx_words() {
        for (text, words) in [
            ("0", "invalid port"),
            ("65536", "invalid port"),
            ("127.0.0.1:", "invalid port"),
            ("127.0.0.1:a", "invalid port"),
            ("127.0.0.1:80-", "invalid port"),
            ("83-81", "invalid port range"),
            ("80-65536", "invalid port"),
            ("80-0", "invalid port"),
            ("*:90-80", "invalid port range"),
            (":80", "no host"),
            ("", "no host"),
            ("[]:80", "no host"),
            ("[::1", "invalid host"),
            ("[::1]80", "invalid host"),
            ("127.0.0.1/a", "invalid host"),
            ("a?b", "invalid host"),
            ("[::1]:80/a", "invalid host"),
            ("[::g]:80", "invalid IPv6 address"),
            ("unix:", "no path in the unix domain socket"),
            ("no such host", "host not found"),
            ("80-a", "host not found"),
            ("-1", "host not found"),
        ] {
            assert_eq!(error(text, LISTEN), words, "{text}");
        }
        let long = format!("unix:/{}", "a".repeat(107));
        assert_eq!(error(&long, LISTEN), "too long path in the unix domain socket");
        assert_eq!(addrs(&long[..112], LISTEN), [&long[..112]]);
    }

    #[test]
    fn a_server_needs_a_host() {
        assert_eq!(addrs("127.0.0.1:81", SERVER), ["127.0.0.1:81"]);
        assert_eq!(addrs("127.0.0.1", SERVER), ["127.0.0.1:80"]);
        assert!(parse(b"127.0.0.1", &SERVER).unwrap().no_port);
        assert!(addrs("localhost:81", SERVER).iter().any(|a| a == "127.0.0.1:81" || a == "[::1]:81"));
        assert_eq!(error("127.0.0.1:81-82", SERVER), "invalid port");
        assert_eq!(error("*:81", SERVER), "host not found");
        // A bare number is a host, and as such an address.
        assert_eq!(addrs("8080", SERVER), ["0.0.31.144:80"]);
    }

    #[test]
    fn a_uri_may_follow() {
        let url = parse(b"name:81/a?b", &PASS).unwrap();
        assert_eq!((&url.host[..], url.port, &url.uri[..]), (&b"name"[..], 81, &b"/a?b"[..]));
        assert_eq!((&url.port_text[..], url.no_port), (&b"81"[..], false));
        assert!(url.addrs.is_empty());
        let url = parse(b"name?a/b:1", &PASS).unwrap();
        assert_eq!((&url.host[..], url.port, &url.uri[..]), (&b"name"[..], 80, &b"?a/b:1"[..]));
        let url = parse(b"unix:/a:/b", &PASS).unwrap();
        assert_eq!((&url.host[..], &url.uri[..]), (&b"/a"[..], &b"/b"[..]));
        let url = parse(b"[::1]/b", &PASS).unwrap();
        assert_eq!((&url.host[..], &url.uri[..], url.no_port), (&b"[::1]"[..], &b"/b"[..], true));
        assert_eq!(parse(b"/a", &PASS), Err(UrlError::NoHost));
    }

    #[test]
    fn addresses_nginx_takes() {
        assert_eq!(inet_addr(b"1.2.3.4"), Some([1, 2, 3, 4].into()));
        assert_eq!(inet_addr(b"001.2..4"), Some([1, 2, 0, 4].into()));
        for none in ["", "1.2.3", "1.2.3.4.5", "256.1.1.1", "a.b.c.d", "255.255.255.255"] {
            assert_eq!(inet_addr(none.as_bytes()), None, "{none}");
        }
        for text in ["::", "::1", "1::", "1:2:3:4:5:6:7:8", "::ffff:1.2.3.4", "1:2::7:8", "A::b"] {
            assert_eq!(inet6_addr(text.as_bytes()), text.parse().ok(), "{text}");
        }
        for none in ["", ":", "1", "1:2:3:4:5:6:7:8:9", "1::2::3", "12345::", "::g", "1.2.3.4"] {
            assert_eq!(inet6_addr(none.as_bytes()), None, "{none}");
        }
        assert_eq!(parse_addr_port(b"::1"), "[::1]:0".parse().ok());
        assert_eq!(parse_addr_port(b"[::1]:53"), "[::1]:53".parse().ok());
        assert_eq!(parse_addr_port(b"[::1]"), "[::1]:0".parse().ok());
        assert_eq!(parse_addr_port(b"1.2.3.4:53"), "1.2.3.4:53".parse().ok());
        assert_eq!(parse_addr_port(b"1.2.3.4:0"), None);
    }

    proptest! {
        #[test]
        fn what_std_reads_is_read_alike(ip in any::<[u16; 8]>()) {
            let ip = Ipv6Addr::from(ip);
            prop_assert_eq!(inet6_addr(ip.to_string().as_bytes()), Some(ip));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a-f:.\\[\\]*/?-]{0,20}") {
            let _ = parse(text.as_bytes(), &Use { no_resolve: true, ..LISTEN });
            let _ = parse(text.as_bytes(), &PASS);
            let _ = parse_addr_port(text.as_bytes());
        }
    }
}
