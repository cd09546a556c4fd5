//! `ngx_http_limit_conn`: so many requests of a key at a time.

use std::sync::Arc;

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Fault, Outcome, Setting, set};
use crate::http::conf::Loc;
use crate::http::module::{Handlers, Module, Step, Verdict};
use crate::http::request::Request;
use crate::log::{self, Level};
use crate::settings;
use crate::syntax::Directive;
use crate::value::Builtin;
use crate::value::limit_conn::{ConnZone, ConnZones, Held, Refused, limit_directive, zone_directive};

/// The module.
pub struct LimitConn;

/// The zones by name.
#[derive(Clone, Debug, Default)]
pub struct MainConf {
    zones: ConnZones,
}

impl Conf for MainConf {
    fn merge(&mut self, _: &Self, _: &mut Build) -> Outcome {
        Ok(())
    }
}

settings! {
    /// The limits of a location.
    pub struct LocConf {
        limits: Vec<(Arc<ConnZone>, u32)> = Vec::new(),
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

impl Module for LimitConn {
    type Main = MainConf;
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_limit_conn",
        setters: &[
            ("limit_conn_zone", |cf, d| {
                zone_directive(cf, d, |cf| &mut cf.http.vars, |cf| &mut cf.http.main().limit_conn().zones)
            }),
            ("limit_conn", limit_conn),
            ("limit_conn_log_level", |cf, d| {
                set::choice(&mut cf.http.loc().limit_conn().log_level, d, LEVELS)
            }),
            ("limit_conn_status", |cf, d| status(&mut cf.http.loc().limit_conn().status, d)),
            ("limit_conn_dry_run", |cf, d| set::flag(&mut cf.http.loc().limit_conn().dry_run, d)),
        ],
    };
    const VARIABLES: &'static [Builtin<Request>] = &[Builtin::new("limit_conn_status", |req, out| {
        let status = req.limit_status.conn;
        status.is_some_and(|status| {
            out.extend_from_slice(status.as_bytes());
            true
        })
    })];

    fn handlers(loc: &Loc, to: &mut Handlers) {
        if !loc.limit_conn.limits.is_empty() {
            to.preaccess.push(handler);
        }
    }
}

/// The levels that limits may be logged with.
pub(super) const LEVELS: &[(&str, Level)] =
    &[("info", Level::Info), ("notice", Level::Notice), ("warn", Level::Warn), ("error", Level::Error)];

/// A status from 400 to 599.
pub(super) fn status(to: &mut Setting<usize>, d: &Directive<'_>) -> Outcome {
    set::number(to, d)?;
    match **to {
        400..=599 => Ok(()),
        _ => Err(Fault::here("value must be between 400 and 599")),
    }
}

fn limit_conn(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let known = cf.http.loc().limit_conn().limits.clone();
    let limit = limit_directive(cf, d, |cf| &mut cf.http.main().limit_conn().zones, &known)?;
    cf.http.loc().limit_conn().limits.edit().push(limit);
    Ok(())
}

/// What a request counts for, until it is over.
#[derive(Default)]
struct Holds(Vec<Held>);

fn handler(req: &mut Request) -> Step<'_> {
    if req.limit_status.conn.is_some() {
        return Verdict::Next.into();
    }
    let conf = &req.conf.limit_conn;
    for (zone, limit) in conf.limits.iter() {
        let key = match zone.key(req) {
            Ok(Some(key)) => key,
            Ok(None) => continue,
            Err(long) => {
                let (text, value) = (log::bytes(long.key), log::bytes(&long.value));
                req.log(
                    Level::Error,
                    None,
                    format_args!("the value of the \"{text}\" key is more than 255 bytes: \"{value}\""),
                );
                continue;
            }
        };
        req.limit_status.conn = Some("PASSED");
        match zone.hold(key, *limit) {
            Ok(held) => req.context_mut::<Holds>().0.push(held),
            Err(refused) => return refuse(req, zone, refused),
        }
    }
    Verdict::Next.into()
}

fn refuse<'a>(req: &'a mut Request, zone: &ConnZone, refused: Refused) -> Step<'a> {
    let conf = &req.conf.limit_conn;
    if refused == Refused::Limit {
        let dry_run = if *conf.dry_run { ", dry run," } else { "" };
        let name = log::bytes(&zone.name);
        req.log(*conf.log_level, None, format_args!("limiting connections{dry_run} by zone \"{name}\""));
    }
    req.context_mut::<Holds>().0.clear();
    if *conf.dry_run {
        req.limit_status.conn = Some("REJECTED_DRY_RUN");
        return Verdict::Next.into();
    }
    req.limit_status.conn = Some("REJECTED");
    Verdict::Status(*conf.status as u16).into()
}
