//! `ngx_http_access`: `allow` and `deny` by the client's address.

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Outcome, set};
use crate::http::conf::Loc;
use crate::http::module::{Handlers, Module, Step, Verdict};
use crate::http::modules::core::Satisfy;
use crate::http::request::Request;
use crate::log::Level;
use crate::net::access::{Rule, denies};
use crate::settings;
use crate::syntax::Directive;

/// The module.
pub struct Access;

settings! {
    /// The rules, the first that fits decides.
    pub struct LocConf {
        rules: Vec<Rule> = Vec::new(),
    }
}

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

impl Module for Access {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands =
        Commands { module: "ngx_http_access", setters: &[("allow", rule), ("deny", rule)] };

    fn handlers(loc: &Loc, to: &mut Handlers) {
        if !loc.access.rules.is_empty() {
            to.access.push(access);
        }
    }
}

fn rule(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let rule = set::access_rule(cf, d)?;
    cf.http.loc().access().rules.edit().push(rule);
    Ok(())
}

fn access(req: &mut Request) -> Step<'_> {
    let denied = denies(&req.conf.access.rules, &req.conn.client());
    match denied {
        None => Verdict::Next.into(),
        Some(false) => Verdict::Allow.into(),
        Some(true) => {
            if *req.conf.core.satisfy == Satisfy::All {
                req.log(Level::Error, None, format_args!("access forbidden by rule"));
            }
            Verdict::Status(403).into()
        }
    }
}
