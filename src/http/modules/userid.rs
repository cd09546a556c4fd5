//! `ngx_http_userid_filter`: cookies that tell clients apart.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Fault, Outcome, set, units};
use crate::http::basic;
use crate::http::conf::Loc;
use crate::http::headers::{COOKIE, SET_COOKIE};
use crate::http::module::{Handlers, Module};
use crate::http::request::Request;
use crate::log::Level;
use crate::net::{Address, clock};
use crate::settings;
use crate::syntax::Directive;
use crate::value::{Builtin, Template};

/// The module.
pub struct UserId;

/// `userid`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Enable {
    #[allow(missing_docs)]
    Off,
    /// Cookies are read only.
    Log,
    /// Cookies as an old Apache module made them.
    V1,
    #[allow(missing_docs)]
    On,
}

/// `userid_expires`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expires {
    /// With the browser's session.
    Off,
    /// 31 December 2037.
    Max,
    /// So many seconds from now.
    In(u64),
}

const OFF: u32 = 1;
const SECURE: u32 = 1 << 1;
const HTTPONLY: u32 = 1 << 2;
const STRICT: u32 = 1 << 3;
const LAX: u32 = 1 << 4;
const NONE: u32 = 1 << 5;
const FLAGS: &[(&str, u32)] = &[
    ("off", OFF),
    ("secure", SECURE),
    ("httponly", HTTPONLY),
    ("samesite=strict", STRICT),
    ("samesite=lax", LAX),
    ("samesite=none", NONE),
];

settings! {
    /// Values that are one for all.
    pub struct MainConf {
        /// `$uid_reset`
        reset: Option<Template> = None,
    }
}

impl Conf for MainConf {
    fn merge(&mut self, _: &Self, _: &mut Build) -> Outcome {
        Ok(())
    }
}

settings! {
    /// The cookie.
    pub struct LocConf {
        enable: Enable = Enable::Off,
        flags: u32 = OFF,
        name: Bytes = Bytes::from_static(b"uid"),
        domain: Bytes = Bytes::new(),
        path: Bytes = Bytes::from_static(b"; path=/"),
        p3p: Bytes = Bytes::new(),
        service: Option<u32> = None,
        expires: Expires = Expires::Off,
        mark: Option<u8> = None,
    }
}

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

impl Module for UserId {
    type Main = MainConf;
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_userid",
        setters: &[
            ("userid", |cf, d| {
                let words =
                    [("off", Enable::Off), ("log", Enable::Log), ("v1", Enable::V1), ("on", Enable::On)];
                set::choice(&mut cf.http.loc().userid().enable, d, &words)
            }),
            ("userid_service", |cf, d| {
                let to = &mut cf.http.loc().userid().service;
                to.once()?;
                let number = units::number(d.arg(1)).ok_or(Fault::directive("invalid number"))?;
                to.set(Some(number as u32))
            }),
            ("userid_name", |cf, d| set::text(&mut cf.http.loc().userid().name, d)),
            ("userid_domain", |cf, d| {
                let value = match d.arg(1) {
                    b"none" => Bytes::new(),
                    domain => [b"; domain=", domain].concat().into(),
                };
                cf.http.loc().userid().domain.set(value)
            }),
            ("userid_path", |cf, d| cf.http.loc().userid().path.set([b"; path=", d.arg(1)].concat().into())),
            ("userid_expires", expires),
            ("userid_flags", |cf, d| {
                let mut warnings = Vec::new();
                set::bits(&mut cf.http.loc().userid().flags, d, FLAGS, |w| warnings.push(w))?;
                warnings.into_iter().for_each(|w| cf.warn(d.at(), w));
                Ok(())
            }),
            ("userid_p3p", |cf, d| {
                let value = if d.arg(1) == b"none" { b"" } else { d.arg(1) };
                cf.http.loc().userid().p3p.set(Bytes::copy_from_slice(value))
            }),
            ("userid_mark", mark),
        ],
    };
    const VARIABLES: &'static [Builtin<Request>] = &[
        Builtin::new("uid_got", uid_got),
        Builtin::new("uid_set", uid_set),
        Builtin::changeable("uid_reset", |_, _| true),
    ];

    fn init(cf: &mut Build) -> Outcome {
        let reset = cf.http.template(b"$uid_reset")?;
        cf.http.main().userid().reset.put(Some(reset));
        Ok(())
    }

    fn handlers(loc: &Loc, to: &mut Handlers) {
        let loc = &loc.userid;
        if *loc.enable >= Enable::V1 {
            to.header_filters.push(header_filter);
        }
    }
}

fn expires(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let to = &mut cf.http.loc().userid().expires;
    to.once()?;
    to.set(match d.arg(1) {
        b"max" => Expires::Max,
        b"off" => Expires::Off,
        time => match units::seconds(time).ok_or(Fault::directive("invalid value"))? {
            0 => Expires::Off,
            seconds => Expires::In(seconds),
        },
    })
}

fn mark(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let to = &mut cf.http.loc().userid().mark;
    to.once()?;
    match d.arg(1) {
        b"off" => to.set(None),
        [c] if c.is_ascii_alphanumeric() || *c == b'=' => to.set(Some(*c)),
        _ => Err(Fault::directive("value must be \"off\" or a single letter, digit or \"=\"")),
    }
}

/// The 16 bytes of a cookie.
type Uid = [u8; 16];

/// Characters of a cookie's value that count: 16 bytes in base64 without padding.
const LENGTH: usize = 22;

/// What a request has of all this; kept with the request.
#[derive(Default)]
pub struct State {
    made: Cell<Option<Made>>,
    /// What is wrong with the client's cookie is in the log.
    complained: Cell<bool>,
}

/// A cookie to be set.
#[derive(Clone, Copy)]
struct Made {
    uid: Uid,
    /// It takes the place of one that came.
    reset: bool,
}

/// Whether a cookie says anything: nginx takes one whose last part is 0 for none.
fn is_uid(uid: &Uid) -> bool {
    uid[12..] != [0; 4]
}

/// The cookie that the client sent, and its bytes where they are right.
fn got(req: &Request) -> (Option<&[u8]>, Option<Uid>) {
    let name = &req.conf.userid.name;
    let found = req.head.headers.all(COOKIE).find_map(|line| cookie(line, name).map(|value| (line, value)));
    let Some((line, value)) = found else { return (None, None) };
    let complain = |what: &str| {
        if req.userid.complained.replace(true) {
            return;
        }
        let shown = crate::log::bytes(line);
        req.log(Level::Error, None, format_args!("client sent {what} userid cookie \"{shown}\""));
    };
    if value.len() < LENGTH {
        complain("too short");
        return (Some(value), None);
    }
    match basic::decode(&value[..LENGTH]).and_then(|bytes| bytes.try_into().ok()) {
        Some(uid) => (Some(value), Some(uid).filter(is_uid)),
        None => {
            complain("invalid");
            (Some(value), None)
        }
    }
}

/// The value of a cookie in one `Cookie` line.
fn cookie<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    line.split(|c| *c == b';').find_map(|part| {
        let (found, rest) = part.trim_ascii_start().split_at_checked(name.len())?;
        let value = rest.trim_ascii_start().strip_prefix(b"=")?;
        found.eq_ignore_ascii_case(name).then(|| value.trim_ascii_start())
    })
}

/// The cookie to set, made once for a request; none where the client's own will do.
fn make(req: &Request) -> Option<Made> {
    if let Some(made) = req.userid.made.get() {
        return Some(made);
    }
    let conf = &req.conf.userid;
    let (value, uid) = got(req);
    let mut reset = false;
    if let Some(uid) = uid {
        let wish = req.http.main.userid.reset.as_ref().map(|t| t.eval(req)).unwrap_or_default();
        if wish.is_empty() || &wish[..] == b"0" {
            let marked = |mark: u8| value.is_some_and(|v| v.len() > 23 && v[22] == mark && v[23] == b'=');
            if conf.mark.is_none_or(marked) {
                return None;
            }
            let made = Made { uid, reset };
            req.userid.made.set(Some(made));
            return Some(made);
        }
        reset = true;
        if &wish[..] == b"log" {
            let shown = shown(&conf.name, &uid);
            req.log(Level::Notice, None, format_args!("userid cookie \"{shown}\" was reset"));
        }
    }
    let made = Made { uid: new_uid(req), reset: reset || uid.is_none() };
    req.userid.made.set(Some(made));
    Some(made)
}

fn new_uid(req: &Request) -> Uid {
    static V1: AtomicU32 = AtomicU32::new(1);
    static V2: AtomicU32 = AtomicU32::new(0x0303_0302);
    static START: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    let wall = clock::wall();
    let start = *START.get_or_init(|| (u32::from(wall.msec) * 50) << 16 | std::process::id());
    let conf = &req.conf.userid;
    let time = wall.sec as u32;
    let parts = if *conf.enable == Enable::V1 {
        let sequence = V1.fetch_add(0x100, Ordering::Relaxed);
        [conf.service.unwrap_or(0), time, start, sequence].map(u32::to_ne_bytes)
    } else {
        let next = |old: u32| Some(old.wrapping_add(0x100).max(0x0303_0302));
        let sequence = V2.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_default();
        let service = match *conf.service {
            Some(service) => service.to_be_bytes(),
            None => address(req.conn.local()),
        };
        [service, time.to_be_bytes(), start.to_be_bytes(), sequence.to_be_bytes()]
    };
    let mut uid = [0; 16];
    for (to, from) in uid.chunks_exact_mut(4).zip(parts) {
        to.copy_from_slice(&from);
    }
    uid
}

/// Four bytes of the server's address.
fn address(local: &Address) -> [u8; 4] {
    match local {
        Address::Inet(std::net::SocketAddr::V4(a)) => a.ip().octets(),
        Address::Inet(std::net::SocketAddr::V6(a)) => {
            let octets = a.ip().octets();
            [octets[12], octets[13], octets[14], octets[15]]
        }
        Address::Unix(_) => [0; 4],
    }
}

fn header_filter(req: &mut Request) -> Option<u16> {
    if req.is_subrequest() {
        return None;
    }
    let Made { uid, reset } = make(req)?;
    let conf = req.conf;
    let conf = &conf.userid;
    let mut value = conf.name.to_vec();
    value.push(b'=');
    if reset {
        encode(&uid, &mut value);
        if let Some(mark) = *conf.mark {
            let at = value.len() - 2;
            value[at] = mark;
        }
    } else {
        let cookie = got(req).0.and_then(|v| v.get(..LENGTH)).unwrap_or_default().to_vec();
        value.extend(cookie);
        value.extend([conf.mark.unwrap_or(b'='), b'=']);
    }
    match *conf.expires {
        Expires::Off => {}
        Expires::Max => value.extend_from_slice(b"; expires=Thu, 31-Dec-37 23:55:55 GMT"),
        Expires::In(seconds) => {
            let at = clock::wall().sec.saturating_add_unsigned(seconds);
            value.extend(format!("; expires={}", clock::format_cookie_date(at)).into_bytes());
        }
    }
    value.extend_from_slice(&conf.domain);
    value.extend_from_slice(&conf.path);
    for (word, bit) in FLAGS.iter().filter(|(_, bit)| *bit != OFF) {
        if *conf.flags & bit != 0 {
            value.extend_from_slice(b"; ");
            value.extend_from_slice(word.as_bytes());
        }
    }
    req.response.headers.add(SET_COOKIE, &value);
    if !conf.p3p.is_empty() {
        req.response.headers.push(b"P3P", &conf.p3p);
    }
    None
}

/// Appends base64 with padding (RFC 4648, section 4).
fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for group in bytes.chunks(3) {
        let mut bits = 0;
        for i in 0..3 {
            bits = bits << 8 | u32::from(group.get(i).copied().unwrap_or(0));
        }
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= group.len() { digit } else { b'=' });
        }
    }
}

/// Name and bytes as the variables have them: four numbers of the machine, in hexadecimal.
fn shown(name: &[u8], uid: &Uid) -> String {
    let mut text = format!("{}=", String::from_utf8_lossy(name));
    for part in uid.chunks_exact(4) {
        text += &format!("{:08X}", u32::from_ne_bytes([part[0], part[1], part[2], part[3]]));
    }
    text
}

fn uid_got(req: &Request, out: &mut Vec<u8>) -> bool {
    let conf = &req.conf.userid;
    if *conf.enable == Enable::Off {
        return false;
    }
    match got(req).1 {
        Some(uid) => {
            out.extend(shown(&conf.name, &uid).into_bytes());
            true
        }
        None => false,
    }
}

fn uid_set(req: &Request, out: &mut Vec<u8>) -> bool {
    let conf = &req.conf.userid;
    if *conf.enable < Enable::V1 {
        return false;
    }
    match make(req) {
        Some(made) => {
            out.extend(shown(&conf.name, &made.uid).into_bytes());
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{Site, emerg};

    #[test]
    fn a_cookie_is_set_once() {
        let site = Site::new(
            "server { LISTEN userid on; userid_service 1; userid_expires max; userid_flags secure samesite=lax;
               add_header X $uid_got/$uid_set;
               location /mark { userid_mark z; return 204; }
               location /reset { set $uid_reset log; return 204; }
               location / { return 204; } }",
        );
        let first = site.get("/");
        let cookie = first.field("set-cookie").unwrap().to_owned();
        assert!(cookie.starts_with("uid=AAAAA"), "{cookie}");
        assert!(cookie.ends_with("==; expires=Thu, 31-Dec-37 23:55:55 GMT; path=/; secure; samesite=lax"));
        assert!(first.field("x").unwrap().starts_with("/uid=01000000"), "{}", first.head);
        let value = cookie.split(';').next().unwrap().to_owned();
        let again = site.ask("GET", "/", &format!("Cookie: a=b; {value}\r\n"));
        assert_eq!(again.field("set-cookie"), None);
        assert_eq!(again.field("x").unwrap(), format!("{}/", &first.field("x").unwrap()[1..]));
        let marked = site.ask("GET", "/mark", &format!("Cookie: {value}\r\n"));
        assert!(
            marked.field("set-cookie").unwrap().starts_with(&format!("{}z=; ", &value[..value.len() - 2]))
        );
        let reset = site.ask("GET", "/reset", &format!("Cookie: {value}\r\n"));
        assert!(reset.field("set-cookie").is_some_and(|c| !c.starts_with(&value)));
        assert!(site.log().contains(" was reset, client: 127.0.0.1"));
        site.ask("GET", "/", "Cookie: uid=short\r\n");
        assert!(site.log().contains("client sent too short userid cookie \"uid=short\""));
    }

    #[test]
    fn base64() {
        for (bytes, want) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            let mut out = Vec::new();
            encode(bytes.as_bytes(), &mut out);
            assert_eq!(out, want.as_bytes());
        }
    }

    #[test]
    fn words_of_faults() {
        assert!(
            emerg("userid_mark ab;")
                .starts_with("\"userid_mark\" directive value must be \"off\" or a single")
        );
        assert!(emerg("userid_expires x;").starts_with("\"userid_expires\" directive invalid value in "));
    }
}
