//! `ngx_http_stub_status`: counters of connections and requests.

use std::sync::atomic::Ordering;

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Outcome};
use crate::http::conf::{Loc, LocationBuild};
use crate::http::method::Method;
use crate::http::module::{Handlers, Module, Verdict, Wait};
use crate::http::request::Request;
use crate::process::Stats;
use crate::value::Builtin;

/// The module.
pub struct StubStatus;

/// Whether a location answers with the counters. A location within it does not.
#[derive(Clone, Debug, Default)]
pub struct LocConf {
    on: bool,
}

impl Conf for LocConf {
    fn merge(&mut self, _: &Self, _: &mut Build) -> Outcome {
        Ok(())
    }
}

impl Module for StubStatus {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_status",
        setters: &[("stub_status", |cf, _| {
            cf.http.loc().stub_status().on = true;
            Ok(())
        })],
    };
    const VARIABLES: &'static [Builtin<Request>] = &[
        Builtin::new("connections_active", |_, out| {
            number(out, Stats::total().active.load(Ordering::Relaxed))
        }),
        Builtin::new("connections_reading", |_, out| {
            number(out, Stats::total().reading.load(Ordering::Relaxed))
        }),
        Builtin::new("connections_writing", |_, out| {
            number(out, Stats::total().writing.load(Ordering::Relaxed))
        }),
        Builtin::new("connections_waiting", |_, out| {
            number(out, Stats::total().waiting.load(Ordering::Relaxed))
        }),
    ];

    fn close(location: &mut LocationBuild, _: &mut Build) -> Outcome {
        // Settings of its own, so that it does not share its parent's.
        location.conf.stub_status();
        Ok(())
    }

    fn handlers(loc: &Loc, to: &mut Handlers) {
        if loc.stub_status.on {
            to.handler = Some(handler);
        }
    }
}

fn number(out: &mut Vec<u8>, value: i64) -> bool {
    out.extend_from_slice(value.max(0).to_string().as_bytes());
    true
}

fn handler(req: &mut Request) -> Wait<'_, Verdict> {
    Box::pin(async move {
        if !matches!(req.method, Method::Get | Method::Head) {
            return Verdict::Status(405);
        }
        if let Err(verdict) = req.discard_body().await {
            return verdict;
        }
        match req.respond(200, "text/plain", text(&Stats::total()).as_bytes()).await {
            Ok(()) => Verdict::Done,
            Err(_) => Verdict::Close,
        }
    })
}

fn text(stats: &Stats) -> String {
    let counted = [&stats.accepted, &stats.handled, &stats.requests].map(|n| n.load(Ordering::Relaxed));
    let [accepted, handled, requests] = counted;
    let now = [&stats.active, &stats.reading, &stats.writing, &stats.waiting];
    let [active, reading, writing, waiting] = now.map(|n| n.load(Ordering::Relaxed).max(0));
    format!(
        "Active connections: {active} \nserver accepts handled requests\n {accepted} {handled} {requests} \n\
         Reading: {reading} Writing: {writing} Waiting: {waiting} \n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_nginxs() {
        let stats = Stats::default();
        stats.accepted.store(3, Ordering::Relaxed);
        stats.active.store(2, Ordering::Relaxed);
        stats.waiting.store(-1, Ordering::Relaxed);
        assert_eq!(
            text(&stats),
            "Active connections: 2 \nserver accepts handled requests\n 3 0 0 \nReading: 0 Writing: 0 Waiting: 0 \n"
        );
    }
}
