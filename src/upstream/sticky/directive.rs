//! `sticky` as the file has it.

use bytes::Bytes;

use super::{Cookie, Expires, Learn, Sticky, is_samesite};
use crate::conf::{Build, Fault, Outcome, units};
use crate::syntax::Directive;
use crate::upstream::directives::Place;
use crate::value::VarId;

/// Smallest zone: eight pages.
const MIN_ZONE: usize = 8 * 4096;
/// Milliseconds a session lasts where `timeout` says nothing.
const TIMEOUT: u64 = 600_000;
/// Name of the kind of zone.
const KIND: &str = "ngx_http_upstream_sticky";

fn shown(text: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(text)
}

/// `sticky cookie NAME ...`, `sticky route $variable ...`, `sticky learn ...`
pub fn sticky<P: Place>(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    if P::groups(cf).current().sticky.is_some() {
        return Err(Fault::directive("is duplicate"));
    }
    let read = match d.arg(1) {
        b"cookie" => cookie::<P>(cf, d)?,
        b"route" => Sticky { lookup: route::<P>(cf, d)?, cookie: None, learn: None },
        b"learn" => learn::<P>(cf, d)?,
        other => return Err(unknown(other)),
    };
    let group = P::groups(cf).current();
    group.sticky = Some(read);
    group.bind();
    Ok(())
}

fn unknown(word: &[u8]) -> Fault {
    Fault::here(format!("unknown parameter \"{}\"", shown(word)))
}

/// The variable of a name without its dollar.
fn variable<P: Place>(cf: &mut Build, name: &[u8]) -> Outcome<VarId> {
    match name.is_empty() {
        true => Err(Fault::here("invalid variable name \"$\"")),
        false => Ok(P::variable(cf, name)),
    }
}

fn route<P: Place>(cf: &mut Build, d: &Directive<'_>) -> Outcome<Vec<VarId>> {
    let mut lookup = Vec::new();
    for word in d.args().skip(1) {
        let name = word
            .strip_prefix(b"$")
            .ok_or_else(|| Fault::here(format!("invalid variable name \"{}\"", shown(word))))?;
        lookup.push(variable::<P>(cf, name)?);
    }
    Ok(lookup)
}

fn cookie<P: Place>(cf: &mut Build, d: &Directive<'_>) -> Outcome<Sticky> {
    let name = d.arg(2);
    if name.is_empty() {
        return Err(Fault::directive("empty cookie name"));
    }
    let mut cookie = Cookie { name: Bytes::copy_from_slice(name), ..Cookie::default() };
    for word in d.args().skip(2) {
        cookie_parameter::<P>(cf, &mut cookie, word)?;
    }
    let lookup = vec![P::variable(cf, &[b"cookie_", name].concat())];
    Ok(Sticky { lookup, cookie: Some(cookie), learn: None })
}

fn cookie_parameter<P: Place>(cf: &mut Build, cookie: &mut Cookie, word: &[u8]) -> Outcome {
    let once = |set: bool, name: &str| match set {
        true => Err(Fault::directive(format!("parameter \"{name}\" is duplicate"))),
        false => Ok(()),
    };
    let filled = |text: &[u8], name: &str| match text.is_empty() {
        true => Err(Fault::directive(format!("no value for \"{name}\""))),
        false => Ok(()),
    };
    if let Some(text) = word.strip_prefix(b"domain=") {
        once(cookie.domain.is_some(), "domain")?;
        filled(text, "domain")?;
        cookie.domain = Some(P::template(cf, text)?);
    } else if let Some(text) = word.strip_prefix(b"path=") {
        once(cookie.path.is_some(), "path")?;
        filled(text, "path")?;
        cookie.path = Some(Bytes::copy_from_slice(text));
    } else if let Some(text) = word.strip_prefix(b"expires=") {
        once(cookie.expires.is_some(), "expires")?;
        let time = || {
            let seconds = units::seconds(text).and_then(|s| i64::try_from(s).ok());
            seconds.map(Expires::After).ok_or(Fault::directive("invalid \"expires\" parameter value"))
        };
        cookie.expires = Some(if text == b"max" { Expires::Max } else { time()? });
    } else if word == b"httponly" {
        once(cookie.httponly, "httponly")?;
        cookie.httponly = true;
    } else if word == b"secure" {
        once(cookie.secure, "secure")?;
        cookie.secure = true;
    } else if let Some(text) = word.strip_prefix(b"samesite=") {
        once(cookie.samesite.is_some(), "samesite")?;
        let value = P::template(cf, text)?;
        if value.as_constant().is_some_and(|text| !is_samesite(text)) {
            return Err(Fault::directive("invalid \"samesite\" parameter value"));
        }
        cookie.samesite = Some(value);
    } else {
        return Err(unknown(word));
    }
    Ok(())
}

/// What `sticky learn` says so far.
#[derive(Default)]
struct Learning<'w> {
    zone: Option<(&'w [u8], usize)>,
    timeout: Option<u64>,
    create: Vec<VarId>,
    lookup: Vec<VarId>,
    at_header: bool,
}

fn learn<P: Place>(cf: &mut Build, d: &Directive<'_>) -> Outcome<Sticky> {
    let mut read = Learning::default();
    for word in d.args().skip(1) {
        learn_parameter::<P>(cf, &mut read, word)?;
    }
    let missing = |name: &str| Fault::directive(format!("\"{name}\" parameter is not specified"));
    if read.lookup.is_empty() {
        return Err(missing("lookup"));
    }
    if read.create.is_empty() {
        return Err(missing("create"));
    }
    let (zone, size) = read.zone.ok_or_else(|| missing("zone"))?;
    cf.zones.add(zone, size, KIND)?;
    P::groups(cf).add_sessions(zone)?;
    let learn = Learn {
        zone: shown(zone).into(),
        size,
        timeout: read.timeout.unwrap_or(TIMEOUT),
        create: read.create,
        at_header: read.at_header,
        sessions: None,
    };
    Ok(Sticky { lookup: read.lookup, cookie: None, learn: Some(learn) })
}

fn learn_parameter<'w, P: Place>(cf: &mut Build, read: &mut Learning<'w>, word: &'w [u8]) -> Outcome {
    let named = |value: &'w [u8], of: &str| {
        let missing = || Fault::directive(format!("missing variable in the \"{of}\" parameter"));
        value.strip_prefix(b"$").ok_or_else(missing)
    };
    if let Some(value) = word.strip_prefix(b"zone=") {
        if read.zone.is_some() {
            return Err(Fault::directive("duplicate zone"));
        }
        read.zone = Some(zone(value)?);
    } else if let Some(value) = word.strip_prefix(b"timeout=") {
        if read.timeout.is_some() {
            return Err(Fault::directive("duplicate timeout"));
        }
        let time = units::milliseconds(value).filter(|time| *time > 0);
        read.timeout = Some(time.ok_or(Fault::directive("invalid timeout"))?);
    } else if let Some(value) = word.strip_prefix(b"create=") {
        read.create.push(variable::<P>(cf, named(value, "create")?)?);
    } else if let Some(value) = word.strip_prefix(b"lookup=") {
        read.lookup.push(variable::<P>(cf, named(value, "lookup")?)?);
    } else if word == b"header" {
        read.at_header = true;
    } else {
        return Err(unknown(word));
    }
    Ok(())
}

/// The `name:size` of a zone.
fn zone(value: &[u8]) -> Outcome<(&[u8], usize)> {
    let fault = |sentence: &str| Fault::directive(sentence);
    let colon = memchr::memchr(b':', value).ok_or_else(|| fault("zone size is not specified"))?;
    let (name, size) = (&value[..colon], &value[colon + 1..]);
    if name.is_empty() {
        return Err(fault("zone name is not specified"));
    }
    match units::size(size) {
        None => Err(fault("invalid zone size")),
        Some(size) if size < MIN_ZONE => Err(fault("zone is too small")),
        Some(size) => Ok((name, size)),
    }
}
