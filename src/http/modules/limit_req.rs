//! `ngx_http_limit_req`: so many requests of a key in a time.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;

use super::limit_conn::{LEVELS, status};
use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Fault, Outcome, set, units, zones};
use crate::http::conf::Loc;
use crate::http::module::{Handlers, Module, Step, Verdict};
use crate::http::request::Request;
use crate::log::{self, Level};
use crate::net::clock;
use crate::settings;
use crate::syntax::Directive;
use crate::value::limit_req::{Answer, Buckets};
use crate::value::{Builtin, Template};

/// The module.
pub struct LimitReq;

const KIND: &str = "limit_req";

/// A zone that was declared, or is used before it is.
#[derive(Debug)]
struct Zone {
    name: Box<[u8]>,
    declared: OnceLock<Declared>,
}

#[derive(Debug)]
struct Declared {
    key: Template,
    key_text: Box<[u8]>,
    buckets: Mutex<Buckets>,
}

/// The zones by name.
#[derive(Clone, Debug, Default)]
pub struct MainConf {
    zones: Vec<Arc<Zone>>,
}

impl Conf for MainConf {
    fn merge(&mut self, _: &Self, _: &mut Build) -> Outcome {
        Ok(())
    }
}

/// One `limit_req`; both in thousandths of a request.
#[derive(Clone, Debug)]
pub struct Limit {
    zone: Arc<Zone>,
    burst: i64,
    /// Up to this excess nothing is delayed.
    delay: i64,
}

settings! {
    /// The limits of a location.
    pub struct LocConf {
        limits: Vec<Limit> = Vec::new(),
        log_level: Level = Level::Error,
        status: usize = 503,
        dry_run: bool = false,
    }
}

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

impl Module for LimitReq {
    type Main = MainConf;
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_limit_req",
        setters: &[
            ("limit_req_zone", limit_req_zone),
            ("limit_req", limit_req),
            ("limit_req_log_level", |cf, d| set::choice(&mut cf.http.loc().limit_req().log_level, d, LEVELS)),
            ("limit_req_status", |cf, d| status(&mut cf.http.loc().limit_req().status, d)),
            ("limit_req_dry_run", |cf, d| set::flag(&mut cf.http.loc().limit_req().dry_run, d)),
        ],
    };
    const VARIABLES: &'static [Builtin<Request>] = &[Builtin::new("limit_req_status", |req, out| {
        let status = req.limit_status.req;
        status.is_some_and(|status| {
            out.extend_from_slice(status.as_bytes());
            true
        })
    })];

    fn handlers(loc: &Loc, to: &mut Handlers) {
        if !loc.limit_req.limits.is_empty() {
            to.preaccess.push(handler);
        }
    }
}

fn shown(text: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(text)
}

fn zone(cf: &mut Build, name: &[u8]) -> Arc<Zone> {
    let zones = &mut cf.http.main().limit_req().zones;
    if let Some(known) = zones.iter().find(|zone| *zone.name == *name) {
        return known.clone();
    }
    let zone = Arc::new(Zone { name: name.into(), declared: OnceLock::new() });
    zones.push(zone.clone());
    zone
}

fn limit_req_zone(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let key = cf.http.template(d.arg(1))?;
    let (mut found, mut rate, mut scale) = (None, 1, 1);
    for word in d.args().skip(1) {
        if let Some(value) = word.strip_prefix(b"zone=") {
            found = Some(zones::name_and_size(word, value)?);
        } else if let Some(value) = word.strip_prefix(b"rate=") {
            let (number, unit) = match value {
                [number @ .., b'r', b'/', b's'] => (number, 1),
                [number @ .., b'r', b'/', b'm'] => (number, 60),
                number => (number, scale),
            };
            scale = unit;
            rate = units::number(number)
                .and_then(|rate| i64::try_from(rate).ok())
                .filter(|rate| *rate > 0)
                .ok_or_else(|| Fault::here(format!("invalid rate \"{}\"", shown(word))))?;
        } else {
            return Err(Fault::invalid_parameter(word));
        }
    }
    let (name, size) = found.filter(|(name, _)| !name.is_empty()).ok_or_else(|| zones::missing(d))?;
    cf.zones.add(name, size, KIND)?;
    let buckets = Mutex::new(Buckets::new(rate.saturating_mul(1000) / scale, size));
    let zone = zone(cf, name);
    if zone.declared.set(Declared { key, key_text: d.arg(1).into(), buckets }).is_err() {
        let bound = zone.declared.get().map_or(&b""[..], |declared| &declared.key_text);
        let (directive, name, bound) = (shown(d.name()), shown(name), shown(bound));
        return Err(Fault::here(format!("{directive} \"{name}\" is already bound to key \"{bound}\"")));
    }
    Ok(())
}

fn limit_req(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let (mut found, mut burst, mut delay) = (None, 0, 0);
    for word in d.args() {
        let positive = |value: &[u8], what: &str| {
            units::number(value)
                .and_then(|n| i64::try_from(n).ok())
                .filter(|n| *n > 0)
                .ok_or_else(|| Fault::here(format!("invalid {what} value \"{}\"", shown(word))))
        };
        if let Some(name) = word.strip_prefix(b"zone=") {
            cf.zones.add(name, 0, KIND)?;
            found = Some(zone(cf, name));
        } else if let Some(value) = word.strip_prefix(b"burst=") {
            burst = positive(value, "burst")?;
        } else if let Some(value) = word.strip_prefix(b"delay=") {
            delay = positive(value, "delay")?;
        } else if word == b"nodelay" {
            delay = i64::MAX / 1000;
        } else {
            return Err(Fault::invalid_parameter(word));
        }
    }
    let zone = found.ok_or_else(|| zones::missing(d))?;
    let limits = &mut cf.http.loc().limit_req().limits;
    if limits.iter().any(|limit| Arc::ptr_eq(&limit.zone, &zone)) {
        return Err(Fault::directive("is duplicate"));
    }
    let (burst, delay) = (burst.saturating_mul(1000), delay.saturating_mul(1000));
    limits.edit().push(Limit { zone, burst, delay });
    Ok(())
}

impl Declared {
    fn buckets(&self) -> MutexGuard<'_, Buckets> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of the key; none where it does not count.
    fn key(&self, req: &Request) -> Option<Bytes> {
        let key = self.key.eval(req);
        if key.len() > 65535 {
            let (text, value) = (log::bytes(&self.key_text), log::bytes(&key));
            req.log(
                Level::Error,
                None,
                format_args!("the value of the \"{text}\" key is more than 65535 bytes: \"{value}\""),
            );
            return None;
        }
        (!key.is_empty()).then_some(key)
    }
}

/// A limit that agreed, and waits for the others.
struct Pending<'c> {
    limit: &'c Limit,
    zone: &'c Declared,
    key: Bytes,
}

/// The longest delay so far: milliseconds, the excess it is for, and the zone.
struct Delay<'c> {
    ms: i64,
    excess: i64,
    zone: &'c Zone,
}

fn delay_of(limit: &Limit, excess: i64, rate: i64) -> i64 {
    if excess <= limit.delay { 0 } else { (excess - limit.delay) * 1000 / rate }
}

fn now() -> i64 {
    clock::now() as i64
}

fn handler(req: &mut Request) -> Step<'_> {
    if req.limit_status.req.is_some() {
        return Verdict::Next.into();
    }
    let limits: &'static [Limit] = &req.conf.limit_req.limits;
    let mut pending: Vec<Pending<'static>> = Vec::new();
    let mut passed = None;
    for (i, limit) in limits.iter().enumerate() {
        let Some(zone) = limit.zone.declared.get() else { continue };
        let Some(key) = zone.key(req) else { continue };
        let answer = zone.buckets().ask(&key, now(), limit.burst, i == limits.len() - 1);
        match answer {
            Answer::Pending => pending.push(Pending { limit, zone, key }),
            Answer::Passed(excess) => {
                let ms = delay_of(limit, excess, zone.buckets().rate());
                passed = Some(Delay { ms, excess, zone: &limit.zone });
            }
            Answer::Busy(_) | Answer::Full => {
                pending.iter().for_each(|p| p.zone.buckets().forget(&p.key));
                return reject(req, &limit.zone, answer);
            }
        }
    }
    let Some(last) =
        pending.last().map(|p| &p.limit.zone).or(passed.as_ref().and(limits.last().map(|l| &l.zone)))
    else {
        return Verdict::Next.into();
    };
    let mut longest = passed.unwrap_or(Delay { ms: 0, excess: 0, zone: last });
    for p in pending.iter().rev() {
        let mut buckets = p.zone.buckets();
        let excess = buckets.account(&p.key, now());
        let ms = delay_of(p.limit, excess, buckets.rate());
        if ms > longest.ms {
            longest = Delay { ms, excess, zone: &p.limit.zone };
        }
    }
    delay(req, &longest)
}

fn reject<'a>(req: &'a mut Request, zone: &Zone, answer: Answer) -> Step<'a> {
    let conf = &req.conf.limit_req;
    let name = log::bytes(&zone.name);
    if let Answer::Busy(excess) = answer {
        let dry_run = if *conf.dry_run { ", dry run" } else { "" };
        let (whole, rest) = (excess / 1000, excess % 1000);
        req.log(
            *conf.log_level,
            None,
            format_args!("limiting requests{dry_run}, excess: {whole}.{rest:03} by zone \"{name}\""),
        );
    } else {
        let text = format_args!("could not allocate node in limit_req zone \"{name}\"");
        log::error(&log::main(), Level::Alert, None, text);
    }
    if *conf.dry_run {
        req.limit_status.req = Some("REJECTED_DRY_RUN");
        return Verdict::Next.into();
    }
    req.limit_status.req = Some("REJECTED");
    Verdict::Status(*conf.status as u16).into()
}

fn delay<'a>(req: &'a mut Request, longest: &Delay<'_>) -> Step<'a> {
    if longest.ms == 0 {
        req.limit_status.req = Some("PASSED");
        return Verdict::Next.into();
    }
    let conf = &req.conf.limit_req;
    // One level below that of refusals.
    let level = match *conf.log_level {
        Level::Error => Level::Warn,
        Level::Warn => Level::Notice,
        _ => Level::Info,
    };
    let dry_run = if *conf.dry_run { ", dry run" } else { "" };
    let (whole, rest, name) = (longest.excess / 1000, longest.excess % 1000, log::bytes(&longest.zone.name));
    req.log(
        level,
        None,
        format_args!("delaying request{dry_run}, excess: {whole}.{rest:03}, by zone \"{name}\""),
    );
    if *conf.dry_run {
        req.limit_status.req = Some("DELAYED_DRY_RUN");
        return Verdict::Next.into();
    }
    req.limit_status.req = Some("DELAYED");
    let ms = longest.ms as u64;
    Step::Later(Box::pin(async move {
        match req.pause(ms).await {
            Ok(()) => Verdict::Next,
            Err(_) => Verdict::Status(499),
        }
    }))
}
