//! Servers whose names are resolved while serving (`server NAME resolve`): their peers come and go with what the
//! names mean. One thread asks; all see what comes of it.
//!
//! A list of peers is never changed: a new one takes its place, with the counts and states of those peers that stay.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::directives::Draft;
use super::group::{Group, Peers};
use super::peer::Peer;
use super::remembered::{self, Known, Record};
use crate::log::{self, Level};
use crate::net::resolver::{HOST_NOT_FOUND, Resolver, Target, now};
use crate::net::{Address, clock, deadline};

/// Who is asked, and how long an answer may take (milliseconds).
#[derive(Clone, Debug)]
pub struct Asking {
    /// `resolver`
    pub resolver: Arc<Resolver>,
    /// `resolver_timeout`
    pub timeout: u64,
}

/// A server that is resolved.
#[derive(Debug)]
struct Host {
    server: Draft,
    /// Until when its peers are known, in seconds of the monotonic clock; 0 where they never were.
    valid: AtomicI64,
}

/// An address that a name means at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub address: SocketAddr,
    /// What consistent hashing places.
    pub server: Arc<[u8]>,
    pub weight: i64,
    pub backup: bool,
}

/// The servers of a group that are resolved, and the peers they come to.
#[derive(Debug)]
pub struct Live {
    hosts: Vec<Host>,
    asking: Asking,
    /// The group may have backup servers.
    takes_backup: bool,
    current: RwLock<Arc<Peers>>,
    /// The number of the next address; held while the list is replaced.
    next: Mutex<u32>,
    record: Option<Record>,
}

impl Live {
    /// The peers of `group` so far, and those that were known of the same servers before a reload. None where there
    /// is no memory for them.
    pub(super) fn new(
        group: &Group,
        stream: bool,
        servers: &[Draft],
        takes_backup: bool,
        asking: Asking,
    ) -> Option<Live> {
        let hosts = servers.iter().filter(|s| s.resolve);
        let hosts = hosts.map(|s| Host { server: s.clone(), valid: AtomicI64::new(0) }).collect();
        let peers = |backup: bool| {
            let all: &[Peer] = match (backup, &group.fixed.backup) {
                (false, _) => &group.fixed.primary.peers,
                (true, Some(tier)) => &tier.peers,
                (true, None) => &[],
            };
            all.iter().map(Peer::again).collect()
        };
        let mut next = group.fixed.iter().map(|p| p.address_id + 1).max().unwrap_or(0);
        let peers = Peers::new(&group.method, peers(false), peers(true), Some(&group.fixed), &mut next)?;
        let record = Record::open(stream, &group.name);
        let known = record.as_ref().map(Record::read).unwrap_or_default();
        let live = Live {
            hosts,
            asking,
            takes_backup,
            current: RwLock::new(Arc::new(peers)),
            next: Mutex::new(next),
            record,
        };
        live.recall(group, known);
        Some(live)
    }

    /// The peers there are now.
    pub(super) fn peers(&self) -> Arc<Peers> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps asking for all names.
    pub(super) fn look_after(&'static self, group: &'static Group) {
        for host in 0..self.hosts.len() {
            tokio::task::spawn_local(async move {
                let valid = self.hosts[host].valid.load(Relaxed);
                let mut wait = u64::try_from((valid - now()) * 1000).unwrap_or(0).max(1);
                loop {
                    deadline::sleep(wait).await;
                    wait = self.refresh(group, host).await;
                }
            });
        }
    }

    /// Asks for a name, and does what follows; milliseconds until it is to be asked again.
    async fn refresh(&self, group: &Group, host: usize) -> u64 {
        let server = &self.hosts[host].server;
        let found = match &server.service {
            Some(service) => self.service(server, service).await,
            None => self.address(server).await,
        };
        let Some((places, valid)) = found else { return self.asking.timeout.max(1000) };
        if !self.replace(group, host, &places) {
            let name = &group.name;
            tell(format_args!("cannot add new server to upstream \"{name}\", memory exhausted"));
        }
        self.hosts[host].valid.store(valid, Relaxed);
        self.remember();
        let seconds = if valid > now() { valid - now() + 1 } else { 1 };
        u64::try_from(seconds * 1000).unwrap_or(1000)
    }

    /// None where nothing is to change.
    async fn address(&self, server: &Draft) -> Option<(Vec<Place>, i64)> {
        let Asking { resolver, timeout } = &self.asking;
        match resolver.addresses(&server.host, *timeout).await {
            Ok(answer) => {
                let place = |ip: &IpAddr| Place {
                    address: SocketAddr::new(*ip, server.port),
                    server: server.name.clone(),
                    weight: server.settings.weight,
                    backup: server.backup,
                };
                Some((answer.addresses.iter().map(place).collect(), answer.valid))
            }
            Err(failure) => {
                tell(format_args!("{} could not be resolved ({failure})", shown(&server.host)));
                (failure == HOST_NOT_FOUND).then(|| (Vec::new(), resolver.failure_valid()))
            }
        }
    }

    async fn service(&self, server: &Draft, service: &[u8]) -> Option<(Vec<Place>, i64)> {
        let Asking { resolver, timeout } = &self.asking;
        let found = resolver.services(&server.host, service, *timeout).await;
        let (service, host) = (log::bytes(service), shown(&server.host));
        for (name, failure) in &found.failed {
            let name = log::bytes(name);
            tell(format_args!(
                "{name} could not be resolved ({failure}) while resolving service {service} of {host}"
            ));
        }
        match found.targets {
            Ok(targets) => Some((self.places(server, &targets), found.valid)),
            Err(failure) => {
                tell(format_args!("service {service} of {host} could not be resolved ({failure})"));
                (failure == HOST_NOT_FOUND).then(|| (Vec::new(), found.valid))
            }
        }
    }

    /// Servers with another priority than the best are backup servers, where there can be such.
    fn places(&self, server: &Draft, targets: &[Target]) -> Vec<Place> {
        let best = targets.iter().map(|target| target.priority).min();
        let mut places = Vec::new();
        for target in targets {
            let other = Some(target.priority) != best;
            if other && (server.backup || !self.takes_backup) {
                continue;
            }
            places.push(Place {
                address: target.address,
                server: target.name.as_slice().into(),
                weight: match server.settings.weight {
                    1 => i64::from(target.weight),
                    own => own,
                },
                backup: server.backup || other,
            });
        }
        places
    }

    /// Lets `places` be all that a server means; false where there is no memory for it.
    fn replace(&self, group: &Group, host: usize, places: &[Place]) -> bool {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.peers();
        let mut changed = false;
        let mut tier = |backup: bool| {
            let old: &[Peer] = match (backup, &before.backup) {
                (false, _) => &before.primary.peers,
                (true, Some(tier)) => &tier.peers,
                (true, None) => &[],
            };
            let (peers, same) = self.tier(old, host, places.iter().filter(|p| p.backup == backup));
            changed |= !same;
            peers
        };
        let (primary, backup) = (tier(false), tier(true));
        if !changed {
            return true;
        }
        let Some(peers) = Peers::new(&group.method, primary, backup, Some(&before), &mut next) else {
            return false;
        };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(peers);
        true
    }

    /// The peers of a tier: those that stay, then new ones; whether nothing changed.
    fn tier<'a>(
        &self,
        old: &[Peer],
        host: usize,
        places: impl Iterator<Item = &'a Place>,
    ) -> (Vec<Peer>, bool) {
        let server = &self.hosts[host].server;
        let mut left: Vec<&Place> = places.collect();
        let mut peers = Vec::with_capacity(old.len() + left.len());
        let mut same = true;
        for peer in old {
            if peer.origin != Some(host as u32) {
                peers.push(peer.again());
                continue;
            }
            let fits = |place: &&Place| {
                peer.address == Address::Inet(place.address)
                    && (server.service.is_none()
                        || *peer.server == *place.server && peer.settings.weight == place.weight)
            };
            match left.iter().position(fits) {
                Some(at) => {
                    left.remove(at);
                    peers.push(peer.again());
                }
                None => same = false,
            }
        }
        same &= left.is_empty();
        peers.extend(left.into_iter().map(|place| {
            let mut peer = server.peer(Address::Inet(place.address), place.server.clone());
            peer.settings.weight = place.weight;
            peer.origin = Some(host as u32);
            peer
        }));
        (peers, same)
    }

    /// Takes up what was known before a reload.
    fn recall(&self, group: &Group, known: Vec<Known>) {
        for (at, host) in self.hosts.iter().enumerate() {
            let server = &host.server;
            let Some(known) = known.iter().find(|k| k.is_of(server)) else { continue };
            let place = |place: &Place| match &server.service {
                Some(_) => place.clone(),
                None => Place {
                    address: SocketAddr::new(place.address.ip(), server.port),
                    server: server.name.clone(),
                    weight: server.settings.weight,
                    backup: server.backup,
                },
            };
            let places: Vec<Place> = known.places.iter().map(place).collect();
            // Without memory for it, the names are resolved soon enough.
            if self.replace(group, at, &places) {
                host.valid.store(now() + known.valid - clock::wall().sec, Relaxed);
            }
        }
    }

    /// Writes down what is known, for a reload.
    fn remember(&self) {
        let Some(record) = &self.record else { return };
        let peers = self.peers();
        let known = self.hosts.iter().enumerate().map(|(at, host)| {
            let of = |backup: bool| {
                let all: &[Peer] = match (backup, &peers.backup) {
                    (false, _) => &peers.primary.peers,
                    (true, Some(tier)) => &tier.peers,
                    (true, None) => &[],
                };
                all.iter().filter(|p| p.origin == Some(at as u32)).filter_map(move |p| match &p.address {
                    Address::Inet(address) => Some(Place {
                        address: *address,
                        server: p.server.clone(),
                        weight: p.settings.weight,
                        backup,
                    }),
                    Address::Unix(_) => None,
                })
            };
            let valid = clock::wall().sec + host.valid.load(Relaxed) - now();
            Known::new(&host.server, valid, of(false).chain(of(true)).collect())
        });
        record.write(&remembered::text(known));
    }
}

fn shown(host: &[u8]) -> impl std::fmt::Display + '_ {
    log::bytes(host.strip_suffix(b".").unwrap_or(host))
}

fn tell(message: std::fmt::Arguments<'_>) {
    log::error(&log::main(), Level::Error, None, message);
}

#[cfg(test)]
mod tests;
