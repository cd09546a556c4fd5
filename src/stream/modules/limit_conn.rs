//! `ngx_stream_limit_conn`: how many connections a key may have.

use std::sync::{Arc, OnceLock};

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Fault, Outcome, set, units};
use crate::log::Level;
use crate::settings;
use crate::stream::conf;
use crate::stream::module::{Handlers, Module, UNAVAILABLE, Verdict};
use crate::stream::session::Session;
use crate::syntax::Directive;
pub use crate::value::conn_zone::Place;
use crate::value::conn_zone::{ConnZone, Refused};
use crate::value::{Builtin, Template};

/// Smallest zone: eight pages.
const MIN_ZONE: usize = 8 * 4096;
/// Longest key.
const MAX_KEY: usize = 255;

/// The module.
pub struct LimitConn;

/// A zone, from its first mention on.
#[derive(Debug)]
pub struct Zone {
    name: Box<[u8]>,
    defined: OnceLock<Defined>,
}

#[derive(Debug)]
struct Defined {
    key: Template,
    key_text: Box<[u8]>,
    counts: Arc<ConnZone>,
}

settings! {
    /// All zones.
    pub struct Main {
        zones: Vec<Arc<Zone>> = Vec::new(),
    }
}

settings! {
    /// Limits of a server.
    pub struct Srv {
        limits: Vec<(Arc<Zone>, u32)> = Vec::new(),
        log_level: Level = Level::Error,
        dry_run: bool = false,
    }
}

impl Conf for Main {
    fn merge(&mut self, _: &Self, _: &mut Build) -> Outcome {
        Ok(())
    }
}

impl Conf for Srv {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

impl Module for LimitConn {
    type Main = Main;
    type Srv = Srv;
    const COMMANDS: Commands = Commands {
        module: "ngx_stream_limit_conn",
        setters: &[
            ("limit_conn_zone", zone),
            ("limit_conn", limit),
            ("limit_conn_log_level", |cf, d| {
                let words = [
                    ("info", Level::Info),
                    ("notice", Level::Notice),
                    ("warn", Level::Warn),
                    ("error", Level::Error),
                ];
                set::choice(&mut cf.stream.srv().limit_conn().log_level, d, &words)
            }),
            ("limit_conn_dry_run", |cf, d| set::flag(&mut cf.stream.srv().limit_conn().dry_run, d)),
        ],
    };
    const VARIABLES: &'static [Builtin<Session>] = &[Builtin::new("limit_conn_status", |s, out| {
        let status = s.limit_conn_status.unwrap_or_default();
        out.extend_from_slice(status.as_bytes());
        !status.is_empty()
    })];

    fn init(cf: &mut Build) -> Outcome {
        match cf.stream.main().limit_conn().zones.iter().find(|zone| zone.defined.get().is_none()) {
            Some(zone) => {
                let name = String::from_utf8_lossy(&zone.name);
                Err(Fault::whole(format!("zero size shared memory zone \"{name}\"")))
            }
            None => Ok(()),
        }
    }

    fn handlers(srv: &conf::Srv, to: &mut Handlers) {
        if !srv.limit_conn.limits.is_empty() {
            to.preaccess.push(handler);
        }
    }
}

fn named(cf: &mut Build, name: &[u8]) -> Arc<Zone> {
    let zones = cf.stream.main().limit_conn().zones.edit();
    if let Some(zone) = zones.iter().find(|zone| *zone.name == *name) {
        return zone.clone();
    }
    let zone = Arc::new(Zone { name: name.into(), defined: OnceLock::new() });
    zones.push(zone.clone());
    zone
}

fn zone(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let key = cf.stream.template(d.arg(1))?;
    let word = d.arg(2);
    let shown = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
    let Some(value) = word.strip_prefix(b"zone=") else { return Err(Fault::invalid_parameter(word)) };
    let invalid = || Fault::here(format!("invalid zone size \"{}\"", shown(word)));
    let colon = memchr::memchr(b':', value).ok_or_else(invalid)?;
    let (name, size) = (&value[..colon], units::size(&value[colon + 1..]).ok_or_else(invalid)?);
    if size < MIN_ZONE {
        return Err(Fault::here(format!("zone \"{}\" is too small", shown(word))));
    }
    if name.is_empty() {
        return Err(Fault::here("\"limit_conn_zone\" must have \"zone\" parameter"));
    }
    let zone = named(cf, name);
    if let Some(before) = zone.defined.get() {
        let (name, key) = (shown(name), shown(&before.key_text));
        return Err(Fault::here(format!("limit_conn_zone \"{name}\" is already bound to key \"{key}\"")));
    }
    let counts = Arc::new(ConnZone::new(size));
    // Just seen not to be there.
    let _ = zone.defined.set(Defined { key, key_text: d.arg(1).into(), counts });
    Ok(())
}

fn limit(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let zone = named(cf, d.arg(1));
    let limits = cf.stream.srv().limit_conn().limits.edit();
    if limits.iter().any(|(other, _)| Arc::ptr_eq(other, &zone)) {
        return Err(Fault::directive("is duplicate"));
    }
    let number = units::number(d.arg(2)).filter(|n| *n > 0).ok_or_else(|| {
        let shown = String::from_utf8_lossy(d.arg(2));
        Fault::here(format!("invalid number of connections \"{shown}\""))
    })?;
    if number > 65535 {
        return Err(Fault::here("connection limit must be less 65536"));
    }
    limits.push((zone, number as u32));
    Ok(())
}

fn handler(s: &mut Session) -> Verdict {
    let server = s.server;
    let conf = &server.srv.limit_conn;
    for (zone, max) in &**conf.limits {
        let Some(defined) = zone.defined.get() else { continue };
        let key = defined.key.eval(s);
        if key.is_empty() {
            continue;
        }
        if key.len() > MAX_KEY {
            let (text, key) = (crate::log::bytes(&defined.key_text), crate::log::bytes(&key));
            s.error(
                Level::Error,
                format_args!("the value of the \"{text}\" key is more than 255 bytes: \"{key}\""),
            );
            continue;
        }
        s.limit_conn_status = Some("PASSED");
        match defined.counts.enter(&key, *max) {
            Ok(place) => s.limits.push(place),
            Err(refused) => return refuse(s, refused, zone),
        }
    }
    Verdict::Next
}

fn refuse(s: &mut Session, refused: Refused, zone: &Zone) -> Verdict {
    let server = s.server;
    let conf = &server.srv.limit_conn;
    if refused == Refused::Limit {
        let dry = if *conf.dry_run { ", dry run," } else { "" };
        let name = crate::log::bytes(&zone.name);
        s.error(*conf.log_level, format_args!("limiting connections{dry} by zone \"{name}\""));
    }
    s.limits.clear();
    if *conf.dry_run {
        s.limit_conn_status = Some("REJECTED_DRY_RUN");
        return Verdict::Next;
    }
    s.limit_conn_status = Some("REJECTED");
    Verdict::End(UNAVAILABLE)
}
