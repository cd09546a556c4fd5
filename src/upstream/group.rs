//! A group as requests use it.

use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use super::balance::Method;
use super::balance::hash::Points;
use super::keepalive;
use super::live::Live;
use super::peer::{Peer, Settings, Tier};
use super::pick::{KeySource, Pick};
use super::sticky::Sticky;
use crate::net::Address;

/// The servers of an `upstream` block, or of an address that `proxy_pass` and its like name.
#[derive(Debug)]
pub struct Group {
    /// The block's name, or the host of the address.
    pub name: Arc<str>,
    /// 0 where none belongs to the name.
    pub port: u16,
    /// Whether there is an `upstream` block.
    pub explicit: bool,
    /// How many idle connections may be kept; none where none are.
    pub keepalive: Option<keepalive::Settings>,
    /// How a peer is chosen.
    pub method: Method,
    pub(super) sticky: Option<Sticky>,
    /// Those that are known from the start.
    pub(super) fixed: Peers,
    /// Those that come and go with what their names mean; they stand in for the fixed ones.
    pub(super) live: Option<Live>,
    /// Its place among the groups of its block, for pools.
    pub(super) slot: u32,
}

/// The peers of a group at one time.
#[derive(Debug)]
pub struct Peers {
    pub(super) primary: Tier,
    pub(super) backup: Option<Tier>,
    pub(super) points: Points,
}

impl Peers {
    /// Peers that follow those `before`; addresses known there keep their numbers, others get those from `next` on.
    /// None where there is no memory for the points of consistent hashing.
    pub(super) fn new(
        method: &Method,
        mut primary: Vec<Peer>,
        mut backup: Vec<Peer>,
        before: Option<&Peers>,
        next: &mut u32,
    ) -> Option<Peers> {
        let mut numbers: Vec<(Address, u32)> =
            before.iter().flat_map(|b| b.iter()).map(|p| (p.address.clone(), p.address_id)).collect();
        for peer in primary.iter_mut().chain(&mut backup) {
            match numbers.iter().find(|(address, _)| *address == peer.address) {
                Some((_, number)) => peer.address_id = *number,
                None => {
                    peer.address_id = *next;
                    numbers.push((peer.address.clone(), *next));
                    *next = next.wrapping_add(1);
                }
            }
        }
        let points = match method {
            Method::ConsistentHash(_) => Points::new(&primary)?,
            _ => Points::default(),
        };
        let single = primary.len() == 1 && backup.is_empty();
        let backup_before = before.and_then(|before| before.backup.as_ref());
        Some(Peers {
            primary: Tier::new(primary, single, before.map(|before| &before.primary)),
            backup: (!backup.is_empty()).then(|| Tier::new(backup, false, backup_before)),
            points,
        })
    }

    /// All peers, backup servers last.
    pub fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.primary.peers.iter().chain(self.backup.iter().flat_map(|b| b.peers.iter()))
    }

    /// Attempts worth making: peers that are not down, backup servers included.
    pub fn tries(&self) -> u32 {
        self.primary.tries + self.backup.as_ref().map_or(0, |b| b.tries)
    }

    pub(super) fn tier(&self, backup: bool) -> &Tier {
        match &self.backup {
            Some(tier) if backup => tier,
            _ => &self.primary,
        }
    }
}

impl Group {
    /// None where there is no memory for the points of consistent hashing.
    pub(super) fn new(
        name: Arc<str>,
        method: Method,
        primary: Vec<Peer>,
        backup: Vec<Peer>,
    ) -> Option<Group> {
        let fixed = Peers::new(&method, primary, backup, None, &mut 0)?;
        Some(Group::of(name, method, fixed))
    }

    fn of(name: Arc<str>, method: Method, fixed: Peers) -> Group {
        Group {
            name,
            port: 0,
            explicit: false,
            keepalive: None,
            method,
            sticky: None,
            fixed,
            live: None,
            slot: 0,
        }
    }

    /// A group of what a name with variables turned out to be (`proxy_pass http://$host`), for one request.
    pub fn resolved(host: &str, addresses: impl IntoIterator<Item = Address>) -> Rc<Group> {
        let peer = |address: Address| {
            let name: Arc<str> = address.to_string().into();
            Peer::new(address, name.clone(), name.into(), Settings::default(), None)
        };
        let peers: Vec<Peer> = addresses.into_iter().map(peer).collect();
        let single = peers.len() == 1;
        let fixed =
            Peers { primary: Tier::new(peers, single, None), backup: None, points: Points::default() };
        Rc::new(Group::of(host.into(), Method::RoundRobin, fixed))
    }

    /// The same for internet addresses.
    pub fn resolved_inet(host: &str, addresses: impl IntoIterator<Item = SocketAddr>) -> Rc<Group> {
        Group::resolved(host, addresses.into_iter().map(Address::Inet))
    }

    /// Begins to choose peers for a request. Keys of hashes and of `sticky` are evaluated now.
    pub fn start(&'static self, source: &impl KeySource) -> Pick {
        Pick::new(GroupRef::Static(self), source)
    }

    /// All peers, backup servers last.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.fixed.iter()
    }
}

/// A group of the configuration, or one that lives as long as its request.
#[derive(Clone, Debug)]
pub enum GroupRef {
    /// Of the configuration.
    Static(&'static Group),
    /// See [`Group::resolved`].
    Owned(Rc<Group>),
}

impl GroupRef {
    /// As [`Group::start`].
    pub fn start(&self, source: &impl KeySource) -> Pick {
        Pick::new(self.clone(), source)
    }
}

impl Deref for GroupRef {
    type Target = Group;
    fn deref(&self) -> &Group {
        match self {
            GroupRef::Static(group) => group,
            GroupRef::Owned(group) => group,
        }
    }
}
