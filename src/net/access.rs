//! Lists of `allow` and `deny`: the first rule that fits a client decides.

use std::net::IpAddr;

use super::Address;
use super::cidr::Cidr;

/// One `allow` or `deny`.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// None is `all`.
    net: Option<Cidr>,
    deny: bool,
}

impl Rule {
    /// Reads `all`, `unix:`, an address or a network; whether its address had bits outside of its mask. None where it
    /// is none of these.
    pub fn parse(text: &[u8], deny: bool) -> Option<(Rule, bool)> {
        let (net, low_bits) = match text {
            b"all" => (None, false),
            b"unix:" => (Some(Cidr::Unix), false),
            _ => {
                let parsed = Cidr::parse(text)?;
                (Some(parsed.cidr), parsed.low_bits)
            }
        };
        Some((Rule { net, deny }, low_bits))
    }

    fn is_v4(&self) -> bool {
        matches!(self.net, None | Some(Cidr::V4(..)))
    }

    fn fits(&self, client: IpAddr) -> bool {
        match (self.net, client) {
            (None, _) => true,
            (Some(Cidr::V4(net, mask)), IpAddr::V4(ip)) => ip.to_bits() & mask == net,
            (Some(Cidr::V6(net, mask)), IpAddr::V6(ip)) => ip.to_bits() & mask == net,
            _ => false,
        }
    }
}

/// Whether the first rule for `client` denies; none where no rule is for it.
pub fn denies(rules: &[Rule], client: &Address) -> Option<bool> {
    let found = match client {
        Address::Unix(_) => rules.iter().find(|rule| matches!(rule.net, None | Some(Cidr::Unix))),
        Address::Inet(socket) => {
            // A mapped address is IPv4, unless no rule is about IPv4.
            let ip = match rules.iter().any(Rule::is_v4) {
                true => socket.ip().to_canonical(),
                false => socket.ip(),
            };
            rules.iter().find(|rule| rule.fits(ip))
        }
    };
    found.map(|rule| rule.deny)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(rules: &[&str], client: &str) -> Option<bool> {
        let rule = |text: &&str| {
            let (word, net) = text.split_once(' ').unwrap();
            Rule::parse(net.as_bytes(), word == "deny").unwrap().0
        };
        let rules: Vec<Rule> = rules.iter().map(rule).collect();
        let client = match client {
            "unix:" => Address::Unix("/x".into()),
            ip => Address::Inet(std::net::SocketAddr::new(ip.parse().unwrap(), 1)),
        };
        denies(&rules, &client)
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
