//! Directives of an `upstream` block, the same for http and stream.
//!
//! Each is generic over the [`Place`] it stands in; the rooms register them with theirs.

use std::net::SocketAddr;
use std::sync::Arc;

use super::balance::Method;
use super::balance::least_time::{LeastTime, Metric};
use super::groups::Groups;
use super::peer::{Down, Peer, Settings};
pub use super::sticky::directive::sticky;
use crate::conf::grammar::Context;
use crate::conf::url::{self, Use};
use crate::conf::{Build, Fault, Outcome, set, units};
use crate::net::Address;
use crate::syntax::Directive;
use crate::value::{Template, VarId};

/// Longest `route`.
pub(super) const MAX_SID: usize = 32;
/// Smallest zone: eight pages.
const MIN_ZONE: usize = 8 * 4096;

/// Where a block of upstreams stands: http or stream.
pub trait Place {
    /// Whether it is stream.
    const STREAM: bool;
    /// What may stand in an `upstream` block here.
    const CONTEXT: Context;
    /// The groups read so far.
    fn groups(cf: &mut Build) -> &mut Groups;
    /// Compiles text with variables.
    fn template(cf: &mut Build, text: &[u8]) -> Outcome<Template>;
    /// The variable of that name.
    fn variable(cf: &mut Build, name: &[u8]) -> VarId;
}

pub(super) fn shown(text: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(text)
}

/// One `server`.
#[derive(Clone, Debug)]
pub struct Draft {
    /// As written.
    pub name: Arc<[u8]>,
    /// All addresses of it.
    pub addrs: Vec<Address>,
    /// Parameters.
    pub settings: Settings,
    /// `backup`
    pub backup: bool,
    /// `route`
    pub route: Option<String>,
    /// `resolve`
    pub resolve: bool,
    /// The name to resolve while serving, and the port that belongs to it.
    pub host: Vec<u8>,
    #[allow(missing_docs)]
    pub port: u16,
    /// `service`
    pub service: Option<Vec<u8>>,
}

impl Default for Draft {
    fn default() -> Self {
        Draft {
            name: Arc::from(&b""[..]),
            addrs: Vec::new(),
            settings: Settings::default(),
            backup: false,
            route: None,
            resolve: false,
            host: Vec::new(),
            port: 0,
            service: None,
        }
    }
}

impl Draft {
    /// A peer for each address.
    pub fn peers(&self) -> impl Iterator<Item = Peer> {
        self.addrs.iter().map(|address| self.peer(address.clone(), self.name.clone()))
    }

    /// A peer for one address.
    pub fn peer(&self, address: Address, server: Arc<[u8]>) -> Peer {
        let name: Arc<str> = match &address {
            Address::Unix(_) if !self.name.is_empty() => shown(&self.name).into(),
            address => address.to_string().into(),
        };
        Peer::new(address, name, server, self.settings.clone(), self.route.as_deref())
    }
}

/// `upstream NAME { ... }`
pub fn upstream<P: Place>(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    P::groups(cf).open(d.arg(1), d.at())?;
    cf.block(d, P::CONTEXT)?;
    if P::groups(cf).current().servers.as_ref().is_none_or(Vec::is_empty) {
        return Err(Fault::Whole(format!("no servers are inside upstream{}", d.end())));
    }
    Ok(())
}

/// `server ADDRESS [parameter ...]`
pub fn server<P: Place>(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let backup = P::groups(cf).current().takes_backup;
    let mut draft = Draft::default();
    for word in d.args().skip(1) {
        if P::STREAM || !http_parameter(&mut draft, word)? {
            parameter(&mut draft, word, backup)?;
        }
    }
    let text = d.arg(1);
    let service =
        |sentence: &str| Err(Fault::here(format!("service upstream \"{}\" {sentence}", shown(text))));
    if draft.service.is_some() && !draft.resolve {
        return service("requires \"resolve\" parameter");
    }
    let default_port = if P::STREAM { 0 } else { 80 };
    let to = Use { default_port, no_resolve: draft.resolve, ..Use::default() };
    let url =
        url::parse(text, &to).map_err(|e| Fault::here(format!("{e} in upstream \"{}\"", shown(text))))?;
    if P::STREAM && url.no_port && draft.service.is_none() {
        return Err(Fault::here(format!("no port in upstream \"{}\"", shown(text))));
    }
    if draft.service.is_some() && !url.no_port {
        return service("may not have port");
    }
    if draft.service.is_some() && !url.addrs.is_empty() {
        return service("requires domain name");
    }
    draft.resolve &= url.addrs.is_empty();
    draft.host = url.host;
    draft.port = url.port;
    draft.name = text.into();
    draft.addrs = url.addrs;
    P::groups(cf).current().servers.get_or_insert_default().push(draft);
    Ok(())
}

/// One parameter of `server`.
pub fn parameter(draft: &mut Draft, word: &[u8], backup: bool) -> Outcome {
    let invalid = || Fault::invalid_parameter(word);
    let count = |text: &[u8]| {
        let number = units::number(text).ok_or_else(invalid)?;
        Ok::<u32, Fault>(u32::try_from(number).unwrap_or(u32::MAX))
    };
    let s = &mut draft.settings;
    if let Some(text) = word.strip_prefix(b"weight=") {
        s.weight = i64::from(count(text)?.min(i32::MAX as u32));
        if s.weight == 0 {
            return Err(invalid());
        }
    } else if let Some(text) = word.strip_prefix(b"max_conns=") {
        s.max_conns = count(text)?;
    } else if let Some(text) = word.strip_prefix(b"max_fails=") {
        s.max_fails = count(text)?;
    } else if let Some(text) = word.strip_prefix(b"fail_timeout=") {
        s.fail_timeout = units::seconds(text).ok_or_else(invalid)?.min(i64::MAX as u64 - 1) as i64;
    } else if word == b"backup" {
        if !backup {
            return Err(Fault::here(format!(
                "balancing method does not support parameter \"{}\"",
                shown(word)
            )));
        }
        draft.backup = true;
    } else if word == b"down" {
        s.down = Down::Down;
    } else if word == b"resolve" {
        draft.resolve = true;
    } else if let Some(text) = word.strip_prefix(b"service=") {
        if text.is_empty() {
            return Err(Fault::here("service is empty"));
        }
        draft.service = Some(text.to_vec());
    } else {
        return Err(invalid());
    }
    Ok(())
}

/// A parameter that only http has.
pub fn http_parameter(draft: &mut Draft, word: &[u8]) -> Outcome<bool> {
    if word == b"drain" {
        draft.settings.down = Down::Draining;
    } else if let Some(text) = word.strip_prefix(b"route=") {
        if text.is_empty() {
            return Err(Fault::here("route is empty"));
        }
        if text.len() > MAX_SID {
            return Err(Fault::here(format!("route is longer than {MAX_SID}")));
        }
        draft.route = Some(shown(text).into());
    } else {
        return Ok(false);
    }
    Ok(true)
}

fn balance<P: Place>(cf: &mut Build, d: &Directive<'_>, method: Method, backup: bool) {
    if P::groups(cf).current().set_method(method, backup) {
        cf.warn(d.at(), "load balancing method redefined");
    }
}

/// `ip_hash`
pub fn ip_hash<P: Place>(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    balance::<P>(cf, d, Method::IpHash, false);
    Ok(())
}

/// `hash KEY [consistent]`
pub fn hash<P: Place>(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let key = P::template(cf, d.arg(1))?;
    if d.len() == 2 {
        balance::<P>(cf, d, Method::Hash(key), false);
        return Ok(());
    }
    balance::<P>(cf, d, Method::ConsistentHash(key), false);
    if d.arg(2) == b"consistent" { Ok(()) } else { Err(Fault::invalid_parameter(d.arg(2))) }
}

/// `least_conn`
pub fn least_conn<P: Place>(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    balance::<P>(cf, d, Method::LeastConn, true);
    Ok(())
}

/// `least_time METRIC [inflight]`
pub fn least_time<P: Place>(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let stream = P::STREAM;
    let read = LeastTime { metric: Metric::LastByte, inflight: d.len() == 3, stream };
    balance::<P>(cf, d, Method::LeastTime(read), true);
    if d.len() == 3 && d.arg(2) != b"inflight" {
        return Err(Fault::invalid_parameter(d.arg(2)));
    }
    let group = P::groups(cf).current();
    let words: &[(&str, Metric)] = match stream {
        true => {
            &[("connect", Metric::Connect), ("first_byte", Metric::First), ("last_byte", Metric::LastByte)]
        }
        false => &[("header", Metric::First), ("last_byte", Metric::LastByte)],
    };
    set::choice(&mut group.least_time, d, words)?;
    let metric = *group.least_time;
    group.method = Some(Method::LeastTime(LeastTime { metric, ..read }));
    Ok(())
}

/// `random [two [least_conn]]`
pub fn random<P: Place>(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let method = if d.len() == 1 { Method::Random } else { Method::RandomTwo };
    balance::<P>(cf, d, method, false);
    if d.len() > 1 && d.arg(1) != b"two" {
        return Err(Fault::invalid_parameter(d.arg(1)));
    }
    if d.len() > 2 && d.arg(2) != b"least_conn" {
        return Err(Fault::invalid_parameter(d.arg(2)));
    }
    Ok(())
}

/// `keepalive N [local]`
pub fn keepalive<P: Place>(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let to = &mut P::groups(cf).current().keepalive;
    to.once()?;
    let limit = units::number(d.arg(1)).ok_or_else(|| {
        Fault::here(format!("invalid value \"{}\" in \"{}\" directive", shown(d.arg(1)), shown(d.name())))
    })?;
    if d.len() == 3 && d.arg(2) != b"local" {
        return Err(Fault::invalid_parameter(d.arg(2)));
    }
    to.set((usize::try_from(limit).unwrap_or(usize::MAX), d.len() == 3))
}

/// `keepalive_requests N`
pub fn keepalive_requests<P: Place>(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    set::number(&mut P::groups(cf).current().keepalive_requests, d)
}

/// `keepalive_time TIME`
pub fn keepalive_time<P: Place>(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    set::msec(&mut P::groups(cf).current().keepalive_time, d)
}

/// `keepalive_timeout TIME`
pub fn keepalive_timeout<P: Place>(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    set::msec(&mut P::groups(cf).current().keepalive_timeout, d)
}

/// `resolver ADDRESS ...`
pub fn resolver<P: Place>(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    crate::conf::resolver::set(&mut P::groups(cf).current().resolver, d)
}

/// `resolver_timeout TIME`
pub fn resolver_timeout<P: Place>(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    set::msec(&mut P::groups(cf).current().resolver_timeout, d)
}

/// `zone NAME [SIZE]`. States are shared by all threads with or without it; what it says is checked.
pub fn zone<P: Place>(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let name = d.arg(1);
    if name.is_empty() {
        return Err(Fault::here("invalid zone name \"\""));
    }
    let mut size = 0;
    if d.len() == 3 {
        size = units::size(d.arg(2))
            .ok_or_else(|| Fault::here(format!("invalid zone size \"{}\"", shown(d.arg(2)))))?;
        if size < MIN_ZONE {
            return Err(Fault::here(format!("zone \"{}\" is too small", shown(name))));
        }
    }
    P::groups(cf).current().zoned = true;
    cf.zones.add(name, size, if P::STREAM { "ngx_stream_upstream" } else { "ngx_http_upstream" })
}

/// A peer for the one address of a group that no block describes: its failures do not count.
pub(super) fn implied(address: Address) -> Draft {
    let settings = Settings { weight: 0, max_fails: 0, fail_timeout: 0, ..Settings::default() };
    Draft { addrs: vec![address], settings, ..Draft::default() }
}

/// Peers for the addresses a name has, in a group that no block describes.
pub(super) fn implied_by_name(ips: Vec<std::net::IpAddr>, port: u16) -> Draft {
    let addrs = ips.into_iter().map(|ip| SocketAddr::new(ip, port).into()).collect();
    Draft { addrs, ..Draft::default() }
}
