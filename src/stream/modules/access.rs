//! `ngx_stream_access`: `allow` and `deny` by client address.

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Outcome, set};
use crate::log::Level;
use crate::net::access::{Rule, denies};
use crate::settings;
use crate::stream::conf;
use crate::stream::module::{FORBIDDEN, Handlers, Module, Verdict};
use crate::stream::session::Session;
use crate::syntax::Directive;

/// The module.
pub struct Access;

settings! {
    /// Rules in order; the first that fits decides.
    pub struct Srv {
        rules: Vec<Rule> = Vec::new(),
    }
}

impl Conf for Srv {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

impl Module for Access {
    type Main = ();
    type Srv = Srv;
    const COMMANDS: Commands =
        Commands { module: "ngx_stream_access", setters: &[("allow", rule), ("deny", rule)] };

    fn handlers(srv: &conf::Srv, to: &mut Handlers) {
        if !srv.access.rules.is_empty() {
            to.access.push(handler);
        }
    }
}

fn rule(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let rule = set::access_rule(cf, d)?;
    cf.stream.srv().access().rules.edit().push(rule);
    Ok(())
}

fn handler(s: &mut Session) -> Verdict {
    match denies(&s.server.srv.access.rules, &s.client) {
        None => Verdict::Next,
        Some(false) => Verdict::Done,
        Some(true) => {
            s.error(Level::Error, format_args!("access forbidden by rule"));
            Verdict::End(FORBIDDEN)
        }
    }
}
