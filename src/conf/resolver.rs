//! `resolver ADDRESS ... [valid=TIME] [ipv4=on|off] [ipv6=on|off]`, wherever it stands.

use std::sync::Arc;

use super::url::{self, Use};
use super::{Fault, Outcome, Setting, units};
use crate::net::Address;
use crate::net::resolver::Resolver;
use crate::syntax::Directive;

/// Reads a `resolver`.
///
/// # Errors
/// nginx's words.
pub fn set(to: &mut Setting<Option<Arc<Resolver>>>, d: &Directive<'_>) -> Outcome {
    to.once()?;
    to.set(Some(Arc::new(read(d)?)))
}

fn read(d: &Directive<'_>) -> Outcome<Resolver> {
    let (mut servers, mut valid, mut ipv4, mut ipv6) = (Vec::new(), None, true, true);
    for word in d.args() {
        let invalid = || Fault::here(format!("invalid parameter: {}", String::from_utf8_lossy(word)));
        let flag = |text: &[u8]| match text {
            b"on" => Ok(true),
            b"off" => Ok(false),
            _ => Err(invalid()),
        };
        if let Some(text) = word.strip_prefix(b"valid=") {
            let seconds = units::seconds(text).ok_or_else(invalid)?;
            // No time at all is as if there were no such parameter.
            valid = u32::try_from(seconds).ok().filter(|seconds| *seconds != 0);
        } else if let Some(text) = word.strip_prefix(b"ipv4=") {
            ipv4 = flag(text)?;
        } else if let Some(text) = word.strip_prefix(b"ipv6=") {
            ipv6 = flag(text)?;
        } else {
            let url = url::parse(word, &Use { default_port: 53, ..Use::default() }).map_err(|error| {
                Fault::here(format!("{error} in resolver \"{}\"", String::from_utf8_lossy(word)))
            })?;
            servers.extend(url.addrs.iter().filter_map(|address| match address {
                Address::Inet(address) => Some(*address),
                Address::Unix(_) => None,
            }));
        }
    }
    if !ipv4 && !ipv6 {
        return Err(Fault::here("\"ipv4\" and \"ipv6\" cannot both be \"off\""));
    }
    if servers.is_empty() {
        return Err(Fault::here("no name servers defined"));
    }
    Ok(Resolver::new(servers, valid, ipv4, ipv6))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::{Item, LoadOptions, parse_text};

    fn said(words: &str) -> String {
        let text = format!("resolver {words};");
        let tree = parse_text(b"f", text.as_bytes(), &LoadOptions::default());
        let Some(Item::Directive(d)) = tree.items().next() else { return "no directive".into() };
        match read(&d) {
            Ok(resolver) => format!("{resolver:?}"),
            Err(fault) => fault.text(d.name(), d.at()),
        }
    }

    #[test]
    fn servers_and_parameters_are_read() {
        let read = said("127.0.0.1 [::1]:5353 valid=1m ipv6=off");
        for part in ["127.0.0.1:53", "[::1]:5353", "valid: Some(60)", "ipv4: true", "ipv6: false"] {
            assert!(read.contains(part), "{read}");
        }
    }

    #[test]
    fn faults_have_nginx_words() {
        for (words, fault) in [
            ("valid=x 127.0.0.1", "invalid parameter: valid=x in f:1"),
            ("ipv6=x 127.0.0.1", "invalid parameter: ipv6=x in f:1"),
            ("127.0.0.1 ipv4=off ipv6=off", "\"ipv4\" and \"ipv6\" cannot both be \"off\" in f:1"),
            ("valid=1s", "no name servers defined in f:1"),
            ("127.0.0.1:0", "invalid port in resolver \"127.0.0.1:0\" in f:1"),
        ] {
            assert_eq!(said(words), fault, "{words}");
        }
    }
}
