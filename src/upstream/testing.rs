//! Groups for the tests of this room, written as in a file.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::balance::Method;
use super::balance::least_time::{LeastTime, Metric};
use super::directives::{self, Draft};
use super::group::Group;
use super::pick::{End, KeySource, Pick};
use super::state::UpstreamState;
use super::sticky::{Cookie, Expires, Sticky};
use crate::value::{Template, VarId};

/// A source whose every key has the same value.
pub struct Fixed {
    client: Option<IpAddr>,
    key: Bytes,
}

impl Fixed {
    pub fn new(client: Option<IpAddr>, key: &str) -> Fixed {
        Fixed { client, key: Bytes::copy_from_slice(key.as_bytes()) }
    }
}

impl KeySource for Fixed {
    fn client(&self) -> Option<IpAddr> {
        self.client
    }

    fn value(&self, template: &Template) -> Bytes {
        match template.as_constant() {
            Some(text) => Bytes::copy_from_slice(text),
            None => self.key.clone(),
        }
    }

    fn variable(&self, _: VarId, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(&self.key);
        true
    }
}

/// A template that [`Fixed`] gives its key for.
fn key() -> Template {
    struct Nothing;
    impl crate::value::Context for Nothing {
        fn variables(&self) -> &'static crate::value::Variables<Nothing> {
            unreachable!("never evaluated")
        }
        fn scope(&self) -> &crate::value::Scope {
            unreachable!("never evaluated")
        }
    }
    Template::parse(b"$key", &mut crate::value::VariablesBuilder::<Nothing>::new([], [])).unwrap()
}

/// A group "u" balanced as `method` says; servers get addresses 127.0.0.1:1, :2 and so on.
pub fn group(method: &str, servers: &[&str]) -> &'static Group {
    Box::leak(Box::new(build(method, servers)))
}

fn build(method: &str, servers: &[&str]) -> Group {
    let words: Vec<&str> = method.split(' ').collect();
    let least = |metric| Method::LeastTime(LeastTime { metric, inflight: words.len() > 2, stream: false });
    let chosen = match words[..] {
        ["ip_hash"] => Method::IpHash,
        ["hash", _] => Method::Hash(key()),
        ["hash", _, "consistent"] => Method::ConsistentHash(key()),
        ["least_conn"] => Method::LeastConn,
        ["least_time", "header", ..] => least(Metric::First),
        ["least_time", ..] => least(Metric::LastByte),
        ["random"] => Method::Random,
        ["random", "two"] => Method::RandomTwo,
        _ => Method::RoundRobin,
    };
    let (mut primary, mut backup) = (Vec::new(), Vec::new());
    for (i, text) in servers.iter().enumerate() {
        let mut words = text.split(' ');
        let name: Arc<[u8]> = words.next().unwrap().as_bytes().into();
        let mut draft = Draft::default();
        for word in words {
            if !directives::http_parameter(&mut draft, word.as_bytes()).unwrap() {
                directives::parameter(&mut draft, word.as_bytes(), true).unwrap();
            }
        }
        draft.addrs = vec![std::net::SocketAddr::from(([127, 0, 0, 1], i as u16 + 1)).into()];
        draft.name = name;
        if draft.backup { &mut backup } else { &mut primary }.extend(draft.peers());
    }
    let mut group = Group::new("u".into(), chosen, primary, backup).unwrap();
    let lookup = vec![VarId(0)];
    group.sticky = match words[0..2.min(words.len())] {
        ["sticky", "route"] => Some(Sticky { lookup, cookie: None, learn: None }),
        ["sticky", "cookie"] => {
            let cookie = Cookie {
                name: Bytes::from_static(b"srv"),
                domain: Some(Template::constant(".x")),
                path: Some(Bytes::from_static(b"/")),
                expires: Some(Expires::After(3600)),
                samesite: Some(Template::constant("lax")),
                httponly: true,
                secure: true,
            };
            Some(Sticky { lookup, cookie: Some(cookie), learn: None })
        }
        _ => None,
    };
    group
}

pub fn take(group: &'static Group) -> Pick {
    take_from(group, None, "")
}

pub fn take_from(group: &'static Group, client: Option<IpAddr>, key: &str) -> Pick {
    group.start(&Fixed::new(client, key))
}

impl Pick {
    /// The present attempt fails.
    pub fn fail(&mut self, now: u64) -> bool {
        self.release(End::Failed, &UpstreamState::default(), now)
    }
}

/// The servers of `n` requests that all go well.
pub fn names(group: &'static Group, n: usize) -> String {
    let served = (0..n).map(|_| {
        let mut pick = take(group);
        String::from_utf8_lossy(&pick.next(0).unwrap().server).into_owned()
    });
    served.collect::<Vec<_>>().join(" ")
}

/// A group that keeps connections.
pub fn group_with(servers: &[&str], settings: super::keepalive::Settings) -> &'static Group {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let mut group = build("", servers);
    group.keepalive = Some(settings);
    group.slot = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    Box::leak(Box::new(group))
}

/// A configuration in which nothing was read so far.
pub fn build_conf() -> crate::conf::Build {
    crate::conf::Build::new(&crate::conf::load::Options {
        conf_file: "/nginx.conf".into(),
        conf_prefix: "/".into(),
        prefix: "/".into(),
        parameters: None,
        testing: true,
        error_log: None,
        pid: "/nginx.pid".into(),
    })
}
