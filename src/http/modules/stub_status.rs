//! `ngx_http_stub_status`: counters of connections and requests.

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Outcome};
use crate::http::conf::{Loc, LocationBuild};
use crate::http::method::Method;
use crate::http::module::{Handlers, Module, Verdict, Wait};
use crate::http::request::Request;
use crate::process::{Count, Stats};
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
        Builtin::new("connections_active", |_, out| number(out, Count::Active)),
        Builtin::new("connections_reading", |_, out| number(out, Count::Reading)),
        Builtin::new("connections_writing", |_, out| number(out, Count::Writing)),
        Builtin::new("connections_waiting", |_, out| number(out, Count::Waiting)),
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

fn number(out: &mut Vec<u8>, what: Count) -> bool {
    out.extend_from_slice(Stats::total().get(what).max(0).to_string().as_bytes());
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
        let total = Stats::total();
        match req.respond(200, "text/plain", text(|what| total.get(what)).as_bytes()).await {
            Ok(()) => Verdict::Done,
            Err(_) => Verdict::Close,
        }
    })
}

fn text(get: impl Fn(Count) -> i64) -> String {
    let [accepted, handled, requests] = [Count::Accepted, Count::Handled, Count::Requests].map(&get);
    let now = [Count::Active, Count::Reading, Count::Writing, Count::Waiting];
    let [active, reading, writing, waiting] = now.map(|what| get(what).max(0));
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
        let get = |what| match what {
            Count::Accepted => 3,
            Count::Active => 2,
            Count::Waiting => -1,
            _ => 0,
        };
        assert_eq!(
            text(get),
            "Active connections: 2 \nserver accepts handled requests\n 3 0 0 \nReading: 0 Writing: 0 Waiting: 0 \n"
        );
    }
}
