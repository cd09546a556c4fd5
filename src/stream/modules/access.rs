//! `ngx_stream_access`: `allow` and `deny` by client address.

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Fault, Outcome};
use crate::log::Level;
use crate::net::Address;
use crate::net::cidr::Cidr;
use crate::settings;
use crate::stream::conf;
use crate::stream::module::{FORBIDDEN, Handlers, Module, Verdict};
use crate::stream::session::Session;
use crate::syntax::Directive;

/// The module.
pub struct Access;

/// One `allow` or `deny`; none is `all`.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    whom: Option<Cidr>,
    deny: bool,
}

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
    let word = d.arg(1);
    let whom = match word {
        b"all" => None,
        b"unix:" => Some(Cidr::Unix),
        _ => {
            let parsed = Cidr::parse(word).ok_or_else(|| Fault::invalid_parameter(word))?;
            if parsed.low_bits {
                let shown = String::from_utf8_lossy(word);
                cf.warn(d.at(), format!("low address bits of {shown} are meaningless"));
            }
            Some(parsed.cidr)
        }
    };
    let deny = d.name() == b"deny";
    cf.stream.srv().access().rules.edit().push(Rule { whom, deny });
    Ok(())
}

fn handler(s: &mut Session) -> Verdict {
    let rules = &s.server.srv.access.rules;
    match rules.iter().find(|rule| fits(rule.whom.as_ref(), &s.client)) {
        None => Verdict::Next,
        Some(rule) if !rule.deny => Verdict::Done,
        Some(_) => {
            s.error(Level::Error, format_args!("access forbidden by rule"));
            Verdict::End(FORBIDDEN)
        }
    }
}

fn fits(whom: Option<&Cidr>, client: &Address) -> bool {
    whom.is_none_or(|cidr| cidr.contains(client))
}
