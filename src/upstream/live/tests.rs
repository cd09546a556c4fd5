use super::*;
use crate::upstream::balance::Method;
use crate::upstream::testing::{names, take};
use crate::upstream::{End, UpstreamState};

/// A group with these fixed servers and one that is resolved.
fn group(fixed: &[&str], server: Draft) -> &'static Group {
    let peer = |text: &&str| {
        let address: SocketAddr = text.parse().unwrap();
        Draft::default().peer(address.into(), text.as_bytes().into())
    };
    let name =
        format!("live-{}", crate::net::resolver::now() as usize + std::ptr::from_ref(&server) as usize);
    let peers = fixed.iter().map(peer).collect();
    let mut group = Group::new(name.as_str().into(), Method::RoundRobin, peers, Vec::new()).unwrap();
    let resolver = Arc::new(Resolver::new(Vec::new(), None, true, true));
    let server = Draft { resolve: true, host: b"a.test".to_vec(), port: 80, ..server };
    group.live = Live::new(&group, false, &[server], true, Asking { resolver, timeout: 1 });
    Box::leak(Box::new(group))
}

fn place(address: &str) -> Place {
    let address: SocketAddr = address.parse().unwrap();
    Place { address, server: address.to_string().as_bytes().into(), weight: 1, backup: false }
}

fn set(group: &Group, places: &[Place]) {
    assert!(group.live.as_ref().unwrap().replace(group, 0, places));
}

#[test]
fn peers_come_and_go() {
    let g = group(&["127.0.0.1:1"], Draft::default());
    assert_eq!(names(g, 2), "127.0.0.1:1 127.0.0.1:1");
    set(g, &[place("127.0.0.1:2"), place("127.0.0.1:3")]);
    assert_eq!(names(g, 3), "127.0.0.1:1 127.0.0.1:2 127.0.0.1:3");
    set(g, &[place("127.0.0.1:3")]);
    assert_eq!(names(g, 2), "127.0.0.1:1 127.0.0.1:3");
    set(g, &[]);
    assert_eq!(names(g, 1), "127.0.0.1:1");
}

#[test]
fn a_group_may_have_no_peers_yet() {
    let g = group(&[], Draft::default());
    assert!(take(g).next(0).is_err());
    set(g, &[place("127.0.0.1:2")]);
    assert_eq!(names(g, 1), "127.0.0.1:2");
}

#[test]
fn a_peer_that_stays_keeps_its_failures_and_its_number() {
    let g = group(&["127.0.0.1:1"], Draft::default());
    set(g, &[place("127.0.0.1:2")]);
    let live = g.live.as_ref().unwrap();
    let mut pick = take(g);
    pick.next(0).unwrap();
    pick.release(End::Done, &UpstreamState::default(), 0);
    let mut pick = take(g);
    let number = pick.next(0).unwrap().address_id;
    set(g, &[place("127.0.0.1:3"), place("127.0.0.1:2")]);
    // The failure is of the list before, and counts in the one now.
    assert!(pick.fail(0));
    let now = live.peers();
    let stayed = now.iter().find(|p| p.address_id == number).unwrap();
    assert_eq!((stayed.address.to_string().as_str(), stayed.fails()), ("127.0.0.1:2", 1));
    assert_eq!(now.primary.states()[1].accessed, 0);
    assert!(!names(g, 8).contains("127.0.0.1:2"));
    set(g, &[]);
    set(g, &[place("127.0.0.1:2")]);
    assert!(names(g, 8).contains("127.0.0.1:2"));
}

#[test]
fn services_of_lower_priority_are_backups() {
    let server = Draft { service: Some(b"http".to_vec()), ..Draft::default() };
    let g = group(&[], server.clone());
    let target = |port, priority, weight| Target {
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        name: b"s".to_vec(),
        priority,
        weight,
    };
    let live = g.live.as_ref().unwrap();
    let places = live.places(&server, &[target(1, 1, 5), target(2, 1, 5), target(3, 2, 7)]);
    set(g, &places);
    let now = live.peers();
    assert_eq!((now.primary.peers.len(), now.backup.as_ref().unwrap().peers.len()), (2, 1));
    assert_eq!(now.primary.total_weight, 10);
    // Another weight makes another peer.
    let places = live.places(&server, &[target(1, 1, 6)]);
    set(g, &places);
    assert_eq!(live.peers().primary.peers[0].settings.weight, 6);
    assert!(live.peers().primary.single && live.peers().backup.is_none());
    let backup = Draft { backup: true, ..server };
    assert_eq!(live.places(&backup, &[target(1, 1, 1), target(2, 2, 1)]).len(), 1);
}
