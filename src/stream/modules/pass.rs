//! `ngx_stream_pass`: gives a connection to another listener of this process, as if it had been accepted there.

use std::cell::RefCell;
use std::sync::Arc;

use crate::conf::build::Commands;
use crate::conf::url::{self, Use};
use crate::conf::{Build, Conf, Fault, Outcome};
use crate::log::Level;
use crate::net::{Address, Io};
use crate::process::Slot;
use crate::settings;
use crate::stream::module::{Content, INTERNAL_ERROR, Module, OK, Wait};
use crate::stream::session::Session;
use crate::syntax::Directive;
use crate::tls::TlsInfo;
use crate::value::Template;

/// How often a connection may be passed on.
const MAX_PASSES: u8 = 10;

/// The module.
pub struct Pass;

#[derive(Clone, Debug)]
enum Target {
    Fixed(Address),
    /// With variables.
    Text(Template),
}

/// Where `pass` goes.
#[derive(Clone, Debug)]
pub struct To(Target);

settings! {
    /// Of a server alone.
    pub struct Srv {
        to: Option<To> = None,
    }
}

impl Conf for Srv {
    fn merge(&mut self, _: &Self, _: &mut Build) -> Outcome {
        Ok(())
    }
}

impl Module for Pass {
    type Main = ();
    type Srv = Srv;
    const COMMANDS: Commands = Commands { module: "ngx_stream_pass", setters: &[("pass", directive)] };
}

fn directive(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    cf.stream.srv().pass().to.once()?;
    cf.stream.serve_by(content);
    let text = cf.stream.template(d.arg(1))?;
    let target = if text.as_constant().is_none() {
        Target::Text(text)
    } else {
        let url = url::parse(d.arg(1), &Use { no_resolve: true, ..Use::default() }).map_err(|error| {
            let text = String::from_utf8_lossy(d.arg(1));
            Fault::here(format!("{error} in \"{text}\" of the \"pass\" directive"))
        })?;
        match url.addrs.first() {
            None => return Err(Fault::directive("has no addresses")),
            Some(Address::Inet(_)) if url.no_port => return Err(Fault::directive("has no port")),
            Some(address) => Target::Fixed(address.clone()),
        }
    };
    cf.stream.srv().pass().to.set(Some(To(target)))
}

/// A connection on its way to another listener.
pub struct Passed {
    /// The connection, which may speak TLS already.
    pub io: Io,
    /// Who connected, or who it says it is.
    pub client: Address,
    /// `$connection`
    pub number: u64,
    /// Kept until the connection is closed; none only where nobody counts.
    pub slot: Option<Slot>,
    /// How often it was passed on.
    pub passes: u8,
    /// What is known of its TLS.
    pub tls: Option<Arc<TlsInfo>>,
}

/// Gives a connection to the listener of an address, or back.
pub type Switchboard = Box<dyn Fn(&Address, Passed) -> Result<(), Box<Passed>>>;

thread_local! {
    static SWITCHBOARD: RefCell<Option<Switchboard>> = const { RefCell::new(None) };
}

/// Sets what connects this thread's listeners.
pub fn set_switchboard(switchboard: Switchboard) {
    SWITCHBOARD.set(Some(switchboard));
}

fn content(s: &mut Session) -> Wait<'_, Content> {
    Box::pin(async move { Content::Served(pass(s)) })
}

/// Gives the connection away, and returns the status of the session.
fn pass(s: &mut Session) -> u16 {
    s.action.set(Some("passing connection to port"));
    if s.udp.is_some() {
        s.error(Level::Error, format_args!("cannot pass udp connection"));
        return INTERNAL_ERROR;
    }
    let Some(to) = target(s) else { return INTERNAL_ERROR };
    if s.passes >= MAX_PASSES {
        s.error(Level::Error, format_args!("stream pass cycle"));
        return INTERNAL_ERROR;
    }
    if !s.read_ahead.get_mut().is_empty() {
        s.error(Level::Error, format_args!("cannot pass connection with preread data"));
        return INTERNAL_ERROR;
    }
    let Some(io) = s.io.take() else { return INTERNAL_ERROR };
    let passed = Passed {
        io,
        client: s.client.clone(),
        number: s.number,
        slot: s.slot.take(),
        passes: s.passes + 1,
        tls: s.tls.clone(),
    };
    let given = SWITCHBOARD.with_borrow(|switchboard| match switchboard {
        Some(switchboard) => switchboard(&to, passed),
        None => Err(Box::new(passed)),
    });
    match given {
        Ok(()) => s.passed = true,
        Err(back) => {
            s.io = Some(back.io);
            s.slot = back.slot;
            s.error(Level::Error, format_args!("port not found for \"{to}\""));
        }
    }
    OK
}

fn target(s: &Session) -> Option<Address> {
    let text = match &s.server.srv.pass.to.as_ref()?.0 {
        Target::Fixed(address) => return Some(address.clone()),
        Target::Text(text) => text.eval(s),
    };
    let shown = crate::log::bytes(&text);
    match url::parse(&text, &Use { no_resolve: true, ..Use::default() }) {
        Err(error) => s.error(Level::Error, format_args!("{error} in pass \"{shown}\"")),
        Ok(url) => match url.addrs.into_iter().next() {
            None => s.error(Level::Error, format_args!("no addresses in pass \"{shown}\"")),
            Some(Address::Inet(_)) if url.no_port => {
                s.error(Level::Error, format_args!("no port in pass \"{shown}\""));
            }
            found => return found,
        },
    }
    None
}

/// Whether a listener at `own` takes what is passed to `to`: a wildcard takes every address of its port.
pub fn takes(own: &Address, to: &Address) -> bool {
    match (own, to) {
        (Address::Inet(own), Address::Inet(to)) if own.ip().is_unspecified() => {
            own.is_ipv4() == to.is_ipv4() && own.port() == to.port()
        }
        _ => own == to,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_takes_its_port() {
        let at = |text: &str| Address::Inet(text.parse().unwrap());
        assert!(takes(&at("0.0.0.0:80"), &at("127.0.0.1:80")));
        assert!(!takes(&at("0.0.0.0:80"), &at("127.0.0.1:81")));
        assert!(!takes(&at("0.0.0.0:80"), &at("[::1]:80")));
        assert!(!takes(&at("127.0.0.1:80"), &at("127.0.0.2:80")));
        assert!(takes(&Address::Unix("/a".into()), &Address::Unix("/a".into())));
    }
}
