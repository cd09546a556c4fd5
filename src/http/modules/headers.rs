//! `ngx_http_headers_filter`: `add_header`, `add_trailer`, `expires`.

use bytes::Bytes;

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Fault, Outcome, Setting, set, units};
use crate::http::conf::Loc;
use crate::http::headers::{CACHE_CONTROL, ETAG, EXPIRES, LAST_MODIFIED, Name};
use crate::http::module::{Handlers, Module};
use crate::http::request::Request;
use crate::net::clock;
use crate::settings;
use crate::syntax::Directive;
use crate::value::Template;

/// The module.
pub struct Headers;

/// A field to add.
#[derive(Clone, Debug)]
pub struct Field {
    name: Bytes,
    value: Template,
    /// Whatever the status.
    always: bool,
}

/// What becomes of the fields of the blocks around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inherit {
    /// They are forgotten.
    Off,
    /// They count where a block has none of its own.
    On,
    /// They come behind the block's own.
    Merge,
}

/// When a response expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Off,
    Epoch,
    Max,
    /// So many seconds from now.
    Access,
    /// So many seconds after the file's time.
    Modified,
    /// At a time of the day.
    Daily,
}

/// `expires`
#[derive(Clone, Debug)]
pub struct Expires {
    kind: Kind,
    seconds: i64,
    /// The rest, where variables occur in it.
    value: Option<Template>,
}

settings! {
    /// Fields to add.
    pub struct LocConf {
        expires: Expires = Expires { kind: Kind::Off, seconds: 0, value: None },
        headers: Vec<Field> = Vec::new(),
        trailers: Vec<Field> = Vec::new(),
        headers_inherit: Inherit = Inherit::On,
        trailers_inherit: Inherit = Inherit::On,
    }
}

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.expires.inherit(&parent.expires);
        self.headers_inherit.inherit(&parent.headers_inherit);
        self.trailers_inherit.inherit(&parent.trailers_inherit);
        merge_fields(&mut self.headers, &parent.headers, *self.headers_inherit);
        merge_fields(&mut self.trailers, &parent.trailers, *self.trailers_inherit);
        Ok(())
    }
}

fn merge_fields(own: &mut Setting<Vec<Field>>, parent: &Setting<Vec<Field>>, how: Inherit) {
    match how {
        Inherit::Off => {}
        Inherit::On => own.inherit(parent),
        Inherit::Merge => {
            let fields = parent.to_vec();
            if !fields.is_empty() {
                own.edit().extend(fields);
            }
        }
    }
}

impl Module for Headers {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_headers_filter",
        setters: &[
            ("expires", expires),
            ("add_header", |cf, d| add(cf, d, |loc| &mut loc.headers)),
            ("add_trailer", |cf, d| add(cf, d, |loc| &mut loc.trailers)),
            ("add_header_inherit", |cf, d| {
                set::choice(&mut cf.http.loc().headers().headers_inherit, d, INHERIT)
            }),
            ("add_trailer_inherit", |cf, d| {
                set::choice(&mut cf.http.loc().headers().trailers_inherit, d, INHERIT)
            }),
        ],
    };

    fn handlers(loc: &Loc, to: &mut Handlers) {
        let loc = &loc.headers;
        if loc.expires.kind != Kind::Off || !loc.headers.is_empty() || !loc.trailers.is_empty() {
            to.header_filters.push(header_filter);
        }
        if !loc.trailers.is_empty() {
            to.trailers = Some(add_trailers);
        }
    }
}

const INHERIT: &[(&str, Inherit)] = &[("off", Inherit::Off), ("on", Inherit::On), ("merge", Inherit::Merge)];

fn add(cf: &mut Build, d: &Directive<'_>, pick: fn(&mut LocConf) -> &mut Setting<Vec<Field>>) -> Outcome {
    let value = cf.http.template(d.arg(2))?;
    let always = d.len() == 4;
    if always && d.arg(3) != b"always" {
        return Err(Fault::invalid_parameter(d.arg(3)));
    }
    let field = Field { name: Bytes::copy_from_slice(d.arg(1)), value, always };
    pick(cf.http.loc().headers()).edit().push(field);
    Ok(())
}

fn expires(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    cf.http.loc().headers().expires.once()?;
    let (kind, word) = match d.len() {
        2 => (Kind::Access, d.arg(1)),
        _ if d.arg(1) != b"modified" => return Err(Fault::directive("invalid value")),
        _ => (Kind::Modified, d.arg(2)),
    };
    let template = cf.http.template(word)?;
    let value = match template.as_constant() {
        Some(_) => {
            let (kind, seconds) = parse_expires(word, kind).map_err(Fault::directive)?;
            Expires { kind, seconds, value: None }
        }
        None => Expires { kind, seconds: 0, value: Some(template) },
    };
    cf.http.loc().headers().expires.set(value)
}

/// Reads what `expires` may say, given whether `modified` came before it.
fn parse_expires(text: &[u8], kind: Kind) -> Result<(Kind, i64), &'static str> {
    if kind != Kind::Modified {
        match text {
            b"epoch" => return Ok((Kind::Epoch, 0)),
            b"max" => return Ok((Kind::Max, 0)),
            b"off" => return Ok((Kind::Off, 0)),
            _ => {}
        }
    }
    let (kind, minus, time) = match text {
        [b'@', _rest @ ..] if kind == Kind::Modified => {
            return Err("daily time cannot be used with \"modified\" parameter");
        }
        [b'@', rest @ ..] => (Kind::Daily, false, rest),
        [b'+', rest @ ..] => (kind, false, rest),
        [b'-', rest @ ..] => (kind, true, rest),
        rest => (kind, false, rest),
    };
    let seconds = units::seconds(time).and_then(|s| i64::try_from(s).ok()).ok_or("invalid value")?;
    if kind == Kind::Daily && seconds > 24 * 60 * 60 {
        return Err("daily time value must be less than 24 hours");
    }
    Ok((kind, if minus { -seconds } else { seconds }))
}

/// Statuses that fields without `always` are added to.
fn is_safe(status: u16) -> bool {
    matches!(status, 200 | 201 | 204 | 206 | 301 | 302 | 303 | 304 | 307 | 308)
}

fn header_filter(req: &mut Request) -> Option<u16> {
    if req.is_subrequest() {
        return None;
    }
    let conf = &req.conf.headers;
    let safe = is_safe(req.response.status);
    if safe && conf.expires.kind != Kind::Off {
        set_expires(req, &conf.expires);
    }
    for field in conf.headers.iter().filter(|f| safe || f.always) {
        let value = field.value.eval(req);
        add_field(req, &field.name, &value);
    }
    if conf.trailers.iter().any(|f| safe || f.always) {
        req.response.expect_trailers = true;
    }
    None
}

fn add_field(req: &mut Request, name: &[u8], value: &[u8]) {
    let is = |known: Name| name.eq_ignore_ascii_case(known.text);
    let r = &mut req.response;
    if is(LAST_MODIFIED) || is(ETAG) {
        let known = if is(ETAG) { ETAG } else { LAST_MODIFIED };
        match value {
            b"" => {
                r.headers.remove(known);
            }
            _ => r.headers.set(known, value),
        }
        if is(LAST_MODIFIED) {
            r.last_modified = super::not_modified::parse_time(value);
        }
        return;
    }
    if !value.is_empty() {
        r.headers.push(name, value);
    }
}

fn add_trailers(req: &mut Request) {
    let conf = &req.conf.headers;
    let safe = is_safe(req.response.status);
    for field in conf.trailers.iter().filter(|f| safe || f.always) {
        let value = field.value.eval(req);
        if !value.is_empty() {
            req.response.trailers.push(&field.name, &value);
        }
    }
}

fn set_expires(req: &mut Request, conf: &Expires) {
    let (mut kind, mut seconds) = (conf.kind, conf.seconds);
    if let Some(value) = &conf.value {
        match parse_expires(&value.eval(req), kind) {
            Ok((Kind::Off, _)) | Err(_) => return,
            Ok(parsed) => (kind, seconds) = parsed,
        }
    }
    let now = clock::wall().sec;
    let r = &mut req.response;
    let (date, age) = match (kind, r.last_modified) {
        (Kind::Epoch, _) => (clock::format_http_date(1), None),
        (Kind::Max, _) => (*b"Thu, 31 Dec 2037 23:55:55 GMT", Some(315_360_000)),
        (Kind::Daily, _) => {
            let at = next_time(now, seconds);
            (clock::format_http_date(at), Some(at - now))
        }
        _ if seconds == 0 => (clock::http_date(), Some(0)),
        (Kind::Modified, Some(time)) => {
            let at = time.saturating_add(seconds);
            (clock::format_http_date(at), Some(at - now))
        }
        _ => (clock::format_http_date(now.saturating_add(seconds)), Some(seconds)),
    };
    r.headers.set(EXPIRES, &date);
    match age {
        // A negative time in the configuration means "never", whatever the file's time is.
        Some(age) if age >= 0 && conf.seconds >= 0 => {
            r.headers.set(CACHE_CONTROL, format!("max-age={age}").as_bytes());
        }
        _ => r.headers.set(CACHE_CONTROL, b"no-cache"),
    }
}

/// The next moment that is so many seconds past local midnight.
fn next_time(now: i64, seconds: i64) -> i64 {
    let local = clock::local(now);
    let midnight = now - i64::from(local.hour * 3600 + local.minute * 60 + local.second);
    let at = midnight + seconds;
    if at > now { at } else { at + 86400 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{Site, emerg, loads};

    #[test]
    fn forms_of_expires() {
        for (text, want) in [
            ("epoch", (Kind::Epoch, 0)),
            ("max", (Kind::Max, 0)),
            ("off", (Kind::Off, 0)),
            ("30d", (Kind::Access, 30 * 86400)),
            ("+1h30m", (Kind::Access, 5400)),
            ("-1", (Kind::Access, -1)),
            ("@15h30m", (Kind::Daily, 55800)),
        ] {
            assert_eq!(parse_expires(text.as_bytes(), Kind::Access), Ok(want), "{text}");
        }
        assert_eq!(parse_expires(b"max", Kind::Modified), Err("invalid value"));
        assert!(parse_expires(b"@25h", Kind::Access).is_err());
        assert!(parse_expires(b"@1h", Kind::Modified).is_err());
        assert_eq!(parse_expires(b"", Kind::Access), Err("invalid value"));
    }

    #[test]
    fn the_next_time_is_within_a_day() {
        for seconds in [0, 1, 43_200, 86_399] {
            let now = 1_795_318_969;
            let next = next_time(now, seconds);
            assert!(next > now && next <= now + 86_400);
            let local = clock::local(next);
            assert_eq!(i64::from(local.hour * 3600 + local.minute * 60 + local.second), seconds);
        }
    }

    #[test]
    fn words_of_faults() {
        assert!(emerg("add_header a b never;").starts_with("invalid parameter \"never\" in "));
        assert!(emerg("expires 1x;").starts_with("\"expires\" directive invalid value in "));
        assert!(loads("expires $arg_e; add_header_inherit merge; server { expires modified +1d; }"));
    }

    #[test]
    fn fields_are_replaced_merged_or_forgotten() {
        let site = Site::new(
            "add_header a 1; server { LISTEN
             location /on { return 200 x; }
             location /own { add_header b 2; return 200 x; }
             location /merge { add_header b 2; add_header_inherit merge; return 200 x; }
             location /off { add_header_inherit off; return 200 x; }
             location /e { add_header c 3 always; add_header d 4; expires epoch; return 500 x; } }",
        );
        let names = |path: &str| -> Vec<&str> {
            let answer = site.get(path);
            ["a", "b", "c", "d", "expires"].into_iter().filter(|n| answer.field(n).is_some()).collect()
        };
        assert_eq!(names("/on"), ["a"]);
        assert_eq!(names("/own"), ["b"]);
        assert_eq!(names("/merge"), ["a", "b"]);
        assert!(names("/off").is_empty());
        assert_eq!(names("/e"), ["c"]);
    }

    #[test]
    fn trailers_need_chunks() {
        let site = Site::new("server { LISTEN add_trailer X-T $status; return 200 body; }");
        let answer = site.raw("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert!(answer.ends_with("\r\n4\r\nbody\r\n0\r\nX-T: 200\r\n\r\n"), "{answer}");
    }
}
