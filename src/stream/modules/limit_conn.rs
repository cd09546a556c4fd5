//! `ngx_stream_limit_conn`: how many connections a key may have.

use std::sync::Arc;

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Outcome, set};
use crate::log::Level;
use crate::settings;
use crate::stream::conf;
use crate::stream::module::{Handlers, Module, UNAVAILABLE, Verdict};
use crate::stream::session::Session;
use crate::syntax::Directive;
use crate::value::Builtin;
use crate::value::limit_conn::{ConnZone, ConnZones, Refused, limit_directive, zone_directive};

/// The module.
pub struct LimitConn;

/// The zones by name.
#[derive(Clone, Debug, Default)]
pub struct Main {
    zones: ConnZones,
}

settings! {
    /// Limits of a server.
    pub struct Srv {
        limits: Vec<(Arc<ConnZone>, u32)> = Vec::new(),
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
            ("limit_conn_zone", |cf, d| {
                zone_directive(cf, d, |cf| &mut cf.stream.vars, |cf| &mut cf.stream.main().limit_conn().zones)
            }),
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

    fn handlers(srv: &conf::Srv, to: &mut Handlers) {
        if !srv.limit_conn.limits.is_empty() {
            to.preaccess.push(handler);
        }
    }
}

fn limit(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let known = cf.stream.srv().limit_conn().limits.clone();
    let limit = limit_directive(cf, d, |cf| &mut cf.stream.main().limit_conn().zones, &known)?;
    cf.stream.srv().limit_conn().limits.edit().push(limit);
    Ok(())
}

fn handler(s: &mut Session) -> Verdict {
    let server = s.server;
    for (zone, limit) in &**server.srv.limit_conn.limits {
        let key = match zone.key(s) {
            Ok(Some(key)) => key,
            Ok(None) => continue,
            Err(long) => {
                let (text, value) = (crate::log::bytes(long.key), crate::log::bytes(&long.value));
                s.error(
                    Level::Error,
                    format_args!("the value of the \"{text}\" key is more than 255 bytes: \"{value}\""),
                );
                continue;
            }
        };
        s.limit_conn_status = Some("PASSED");
        match zone.hold(key, *limit) {
            Ok(held) => s.limits.push(held),
            Err(refused) => return refuse(s, refused, zone),
        }
    }
    Verdict::Next
}

fn refuse(s: &mut Session, refused: Refused, zone: &ConnZone) -> Verdict {
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
