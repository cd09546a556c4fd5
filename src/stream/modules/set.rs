//! `ngx_stream_set`: assigns variables.

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Fault, Outcome};
use crate::settings;
use crate::stream::conf;
use crate::stream::module::{Handlers, Module, Verdict};
use crate::stream::session::Session;
use crate::syntax::Directive;
use crate::value::{Context, Template, VarId};

/// The module.
pub struct Set;

settings! {
    /// Assignments in order; of a server alone.
    pub struct Srv {
        commands: Vec<(VarId, Template)> = Vec::new(),
    }
}

impl Conf for Srv {
    fn merge(&mut self, _: &Self, _: &mut Build) -> Outcome {
        Ok(())
    }
}

impl Module for Set {
    type Main = ();
    type Srv = Srv;
    const COMMANDS: Commands = Commands { module: "ngx_stream_set", setters: &[("set", directive)] };

    fn handlers(srv: &conf::Srv, to: &mut Handlers) {
        if !srv.set.commands.is_empty() {
            to.preaccess.push(handler);
        }
    }
}

fn directive(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let Some(name) = d.arg(1).strip_prefix(b"$") else {
        let shown = String::from_utf8_lossy(d.arg(1));
        return Err(Fault::here(format!("invalid variable name \"{shown}\"")));
    };
    if name.is_empty() {
        return Err(Fault::here("invalid variable name \"$\""));
    }
    let id = cf.stream.vars.define_slot(name)?;
    let value = cf.stream.template(d.arg(2))?;
    cf.stream.srv().set().commands.edit().push((id, value));
    Ok(())
}

fn handler(s: &mut Session) -> Verdict {
    let server = s.server;
    for (id, value) in &**server.srv.set.commands {
        let value = value.eval(s);
        s.variables().set(s, *id, value);
    }
    Verdict::Next
}
