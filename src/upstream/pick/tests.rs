//! Failures, windows, limits and bindings, with a clock set by hand.

use super::*;
use crate::upstream::testing::{group, names, take, take_from};

const START: u64 = 1_000_000;

/// One request that takes the first peer it is given, which fails or not.
fn once(g: &'static Group, now: u64, fail: bool) -> (String, bool) {
    let mut pick = take(g);
    let server = pick.next(now).unwrap().server.clone();
    let end = if fail { End::Failed } else { End::Done };
    let disabled = pick.release(end, &UpstreamState::default(), now);
    (String::from_utf8_lossy(&server).into_owned(), disabled)
}

#[test]
fn a_failed_peer_rests_for_fail_timeout() {
    let g = group("", &["a fail_timeout=5s", "b"]);
    assert_eq!(once(g, START, true), ("a".into(), true));
    for now in (START..START + 5999).step_by(500) {
        assert_eq!(once(g, now, false).0, "b", "at {now}");
    }
    // More than five whole seconds later it is in turn again, its weight coming back: -1, 0, then 1.
    assert_eq!(once(g, START + 6000, false).0, "b");
    assert_eq!(once(g, START + 6000, false).0, "b");
    assert_eq!(once(g, START + 6000, true), ("a".into(), true));
    assert_eq!(once(g, START + 11_999, false).0, "b");
    // The next test succeeds: it is live again.
    assert_eq!(once(g, START + 12_000, false).0, "b");
    assert_eq!(once(g, START + 12_000, false).0, "b");
    assert_eq!(g.fixed.primary.peers[0].fails(), 2);
    assert_eq!(once(g, START + 12_000, false).0, "a");
    assert_eq!(g.fixed.primary.peers[0].fails(), 0);
}

#[test]
fn max_fails_counts_failures_within_the_window() {
    let g = group("", &["a max_fails=2 fail_timeout=10s", "b max_fails=0"]);
    assert_eq!(once(g, START, true), ("a".into(), false));
    assert_eq!(once(g, START, true), ("b".into(), false));
    assert_eq!(once(g, START, true), ("a".into(), true));
    for _ in 0..3 {
        assert_eq!(once(g, START + 10_000, true), ("b".into(), false));
    }
}

#[test]
fn weight_comes_back_step_by_step_after_a_failure() {
    let g = group("", &["a weight=4 max_fails=2", "b weight=4"]);
    assert_eq!(once(g, START, true), ("a".into(), false));
    // By hand: effective 2, then 3, 4 as rounds go by.
    let effective = || g.fixed.primary.states()[0].effective_weight;
    assert_eq!(effective(), 2);
    assert_eq!(once(g, START, false).0, "b");
    assert_eq!(effective(), 3);
    once(g, START, false);
    assert_eq!(effective(), 4);
    once(g, START, false);
    assert_eq!(effective(), 4);
}

#[test]
fn failures_of_a_single_peer_do_not_count() {
    let g = group("", &["a"]);
    for _ in 0..3 {
        assert_eq!(once(g, START, true), ("a".into(), false));
    }
    let mut pick = take(g);
    assert_eq!(pick.tries(), 1);
    pick.next(START).unwrap();
    pick.fail(START);
    assert_eq!(pick.tries(), 0);
    pick.retry_kept();
    assert_eq!(pick.tries(), 1);
    assert_eq!(&*pick.next(START).unwrap().server, b"a");
}

#[test]
fn backup_servers_serve_when_no_other_can() {
    let g = group("", &["a", "b backup", "c backup"]);
    assert_eq!(take(g).tries(), 3);
    assert_eq!(names(g, 3), "a a a");
    let mut pick = take(g);
    assert_eq!(&*pick.next(START).unwrap().server, b"a");
    assert!(pick.fail(START));
    assert_eq!(&*pick.next(START).unwrap().server, b"b");
    assert!(pick.fail(START));
    assert_eq!(&*pick.next(START).unwrap().server, b"c");
    assert!(pick.fail(START));
    assert_eq!(pick.tries(), 0);
    let none = pick.next(START).unwrap_err();
    assert_eq!(&*none.name, "u");
    // All failed: nobody is revived before the time is over.
    assert!(take(g).next(START + 9_999).is_err());
    assert_eq!(&*take(g).next(START + 11_000).unwrap().server, b"a");
}

#[test]
fn max_conns_holds_until_a_connection_ends() {
    let g = group("", &["a max_conns=1", "b max_conns=2"]);
    let mut held: Vec<Pick> = (0..3).map(|_| take(g)).collect();
    let served: Vec<_> = held.iter_mut().map(|p| p.next(0).unwrap().server.clone()).collect();
    assert_eq!(served.iter().filter(|s| &***s == b"a").count(), 1);
    assert!(take(g).next(0).is_err());
    held.clear();
    assert!(take(g).next(0).is_ok());
    let g = group("", &["a max_conns=1"]);
    let mut first = take(g);
    first.next(0).unwrap();
    assert!(take(g).next(0).is_err());
    first.release(End::Done, &UpstreamState::default(), 0);
    assert!(take(g).next(0).is_ok());
}

#[test]
fn sticky_routes_bind_even_to_a_draining_server() {
    let g = group("sticky route $key", &["a route=r1", "b route=r2 drain", "c route=r3 down"]);
    let server = |key: &str| take_from(g, None, key).next(0).unwrap().server.to_vec();
    for _ in 0..3 {
        assert_eq!(server("r2"), b"b");
        assert_eq!(server("r1"), b"a");
        assert_eq!(server("r3"), b"a");
        assert_eq!(server(""), b"a");
    }
}

#[test]
fn sticky_cookies_bind() {
    let g = group("sticky cookie srv expires=1h domain=.x path=/ httponly secure samesite=lax", &["a", "b"]);
    let mut pick = take_from(g, None, "");
    let sid = pick.next(0).unwrap().sid().to_owned();
    let expected = format!(
        "srv={sid}; expires=Thu, 01-Jan-70 01:00:00 GMT; max-age=3600; domain=.x; httponly; secure; samesite=lax; path=/"
    );
    let source = crate::upstream::testing::Fixed::new(None, "");
    assert_eq!(String::from_utf8(pick.cookie(&source, 0).unwrap()).unwrap(), expected);
    let first = pick.peer().unwrap().server.clone();
    drop(pick);
    for _ in 0..3 {
        assert_eq!(take_from(g, None, &sid).next(0).unwrap().server, first);
    }
}

#[test]
fn threads_share_the_states() {
    let g = group("", &["a", "b"]);
    let served: Vec<String> = std::thread::scope(|s| {
        let threads: Vec<_> = (0..4).map(|_| s.spawn(|| names(g, 500))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let a: usize = served.iter().map(|s| s.matches('a').count()).sum();
    assert_eq!(a, 1000);
    assert!(g.peers().all(|p| p.conns() == 0));
}

#[test]
fn a_resolved_group_has_every_address() {
    let addresses = ["127.0.0.1:80".parse().unwrap(), "[::1]:80".parse().unwrap()];
    let g = GroupRef::Owned(Group::resolved_inet("host", addresses));
    let mut pick = g.start(&crate::upstream::testing::Fixed::new(None, ""));
    assert_eq!(&*pick.next(0).unwrap().name, "127.0.0.1:80");
    pick.fail(0);
    assert_eq!(&*pick.next(0).unwrap().name, "[::1]:80");
}
