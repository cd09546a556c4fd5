//! `ngx_http_access`: `allow` and `deny` by the client's address.

use std::net::IpAddr;

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Fault, Outcome};
use crate::http::conf::Loc;
use crate::http::module::{Handlers, Module, Step, Verdict};
use crate::http::modules::core::Satisfy;
use crate::http::request::Request;
use crate::log::Level;
use crate::net::Address;
use crate::net::cidr::Cidr;
use crate::settings;
use crate::syntax::Directive;

/// The module.
pub struct Access;

/// One `allow` or `deny`.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// None is `all`.
    net: Option<Cidr>,
    deny: bool,
}

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
    let word = d.arg(1);
    let net = match word {
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
    cf.http.loc().access().rules.edit().push(Rule { net, deny: d.name() == b"deny" });
    Ok(())
}

/// Whether the first rule for `client` denies; none where no rule is for it.
fn find(rules: &[Rule], client: &Address) -> Option<bool> {
    let by_v4 = |ip: u32| {
        rules.iter().find(|rule| match rule.net {
            None => true,
            Some(Cidr::V4(net, mask)) => ip & mask == net,
            _ => false,
        })
    };
    let found = match client {
        Address::Unix(_) => rules.iter().find(|rule| matches!(rule.net, None | Some(Cidr::Unix))),
        Address::Inet(socket) => match socket.ip() {
            IpAddr::V4(ip) => by_v4(ip.to_bits()),
            IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
                // A mapped address is IPv4, unless no rule is about IPv4.
                Some(v4) if rules.iter().any(|rule| matches!(rule.net, None | Some(Cidr::V4(..)))) => {
                    by_v4(v4.to_bits())
                }
                _ => rules.iter().find(|rule| match rule.net {
                    None => true,
                    Some(Cidr::V6(net, mask)) => ip.to_bits() & mask == net,
                    _ => false,
                }),
            },
        },
    };
    found.map(|rule| rule.deny)
}

fn access(req: &mut Request) -> Step<'_> {
    let found = find(&req.conf.access.rules, &req.conn.client());
    match found {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(rules: &[&str], client: &str) -> Option<bool> {
        let rules: Vec<Rule> = rules
            .iter()
            .map(|text| {
                let (word, net) = text.split_once(' ').unwrap();
                let net = match net {
                    "all" => None,
                    "unix:" => Some(Cidr::Unix),
                    net => Some(Cidr::parse(net.as_bytes()).unwrap().cidr),
                };
                Rule { net, deny: word == "deny" }
            })
            .collect();
        let client = match client {
            "unix:" => Address::Unix("/x".into()),
            ip => Address::Inet(std::net::SocketAddr::new(ip.parse().unwrap(), 1)),
        };
        find(&rules, &client)
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rules = ["deny 192.168.1.1", "allow 192.168.1.0/24", "allow 2001:db8::/32", "deny all"];
        assert_eq!(denied(&rules, "192.168.1.1"), Some(true));
        assert_eq!(denied(&rules, "192.168.1.2"), Some(false));
        assert_eq!(denied(&rules, "::ffff:192.168.1.2"), Some(false));
        assert_eq!(denied(&rules, "2001:db8::1"), Some(false));
        assert_eq!(denied(&rules, "10.0.0.1"), Some(true));
        assert_eq!(denied(&rules, "unix:"), Some(true));
        assert_eq!(denied(&["allow unix:"], "unix:"), Some(false));
        assert_eq!(denied(&["allow unix:", "deny ::1"], "127.0.0.1"), None);
        assert_eq!(denied(&["deny ::ffff:1.2.3.4"], "::ffff:1.2.3.4"), Some(true));
    }
}
