//! What a thread knows: answers while they are valid, and queries in flight.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::message::Service;
use super::{Failure, Resolver, exchange, now, random};

/// Seconds after which an answer that nobody asked for is forgotten.
const UNUSED: i64 = 30;
/// Names among which none is looked for that may be forgotten.
const FEW: usize = 64;

/// The answer to a query.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub v4: Vec<Ipv4Addr>,
    pub v6: Vec<Ipv6Addr>,
    pub services: Vec<Service>,
    /// The name to ask for instead.
    pub alias: Option<Vec<u8>>,
    /// Until when, in seconds of the monotonic clock.
    pub valid: i64,
}

impl Found {
    /// All addresses; with `rotate` beginning at any of them, so that those who ask spread over them.
    pub fn addresses(&self, rotate: bool) -> Vec<IpAddr> {
        let turn = |n: usize| if rotate { random(n) } else { 0 };
        let mut all: Vec<IpAddr> = Vec::with_capacity(self.v4.len() + self.v6.len());
        let (four, six) = self.v4.split_at(turn(self.v4.len()));
        all.extend(six.iter().chain(four).copied().map(IpAddr::V4));
        let (first, rest) = self.v6.split_at(turn(self.v6.len()));
        all.extend(rest.iter().chain(first).copied().map(IpAddr::V6));
        let places = turn(all.len());
        all.rotate_right(places);
        all
    }
}

/// A query in flight.
#[derive(Default)]
pub struct Flight {
    outcome: RefCell<Option<Result<Rc<Found>, Failure>>>,
    wakers: RefCell<Vec<Waker>>,
    waiting: Cell<usize>,
}

impl Flight {
    /// Whether anybody waits for it.
    pub fn wanted(&self) -> bool {
        self.waiting.get() > 0
    }

    fn land(&self, outcome: Result<Rc<Found>, Failure>) {
        *self.outcome.borrow_mut() = Some(outcome);
        self.wakers.take().into_iter().for_each(Waker::wake);
    }

    async fn wait(&self) -> Result<Rc<Found>, Failure> {
        let _place = Place::new(self);
        std::future::poll_fn(|cx| {
            if let Some(outcome) = &*self.outcome.borrow() {
                return Poll::Ready(outcome.clone());
            }
            let mut wakers = self.wakers.borrow_mut();
            if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

/// One that waits.
struct Place<'a>(&'a Flight);

impl<'a> Place<'a> {
    fn new(flight: &'a Flight) -> Place<'a> {
        flight.waiting.set(flight.waiting.get() + 1);
        Place(flight)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

enum Node {
    InFlight(Rc<Flight>),
    Known {
        found: Rc<Found>,
        /// When it is forgotten unless somebody asks.
        until: i64,
    },
}

type Name = (bool, Vec<u8>);

/// What a thread knows by one resolver.
pub struct Keep {
    pub servers: Vec<SocketAddr>,
    pub valid: Option<u32>,
    pub ipv4: bool,
    pub ipv6: bool,
    /// The server to be asked next.
    next: Cell<usize>,
    names: RefCell<HashMap<Name, Node>>,
    /// When names were last looked through.
    swept: Cell<i64>,
}

thread_local! {
    static KEEPS: RefCell<HashMap<usize, Rc<Keep>>> = RefCell::default();
}

impl Keep {
    /// What this thread knows by `resolver`.
    pub fn of(resolver: &Resolver) -> Rc<Keep> {
        KEEPS.with_borrow_mut(|keeps| {
            let new = || {
                Rc::new(Keep {
                    servers: resolver.servers.clone(),
                    valid: resolver.valid,
                    ipv4: resolver.ipv4,
                    ipv6: resolver.ipv6,
                    next: Cell::new(0),
                    names: RefCell::default(),
                    swept: Cell::new(0),
                })
            };
            keeps.entry(resolver.id).or_insert_with(new).clone()
        })
    }

    /// The server for a new query; they take turns.
    pub fn next_server(&self) -> usize {
        let server = self.next.get();
        self.next.set((server + 1) % self.servers.len().max(1));
        server
    }

    /// What is known of a name, or comes to be; whether it is new. An equal query in flight is waited for.
    pub async fn look_up(self: &Rc<Self>, services: bool, name: &[u8]) -> Result<(Rc<Found>, bool), Failure> {
        let key = (services, name.to_vec());
        let now = now();
        let flight = {
            let mut names = self.names.borrow_mut();
            match names.get_mut(&key) {
                Some(Node::Known { found, until }) if found.valid >= now => {
                    *until = now + UNUSED;
                    return Ok((found.clone(), false));
                }
                Some(Node::InFlight(flight)) => flight.clone(),
                _ => {
                    let queries = exchange::Exchange::new(self.clone(), services, name)?;
                    let flight = Rc::new(Flight::default());
                    names.insert(key.clone(), Node::InFlight(flight.clone()));
                    tokio::task::spawn_local(self.clone().fly(key, queries, flight.clone()));
                    flight
                }
            }
        };
        flight.wait().await.map(|found| (found, true))
    }

    async fn fly(self: Rc<Self>, key: Name, queries: exchange::Exchange, flight: Rc<Flight>) {
        let outcome = queries.run(&flight).await;
        let mut names = self.names.borrow_mut();
        match outcome {
            Some(Ok(found)) => {
                let found = Rc::new(found);
                let until = now() + UNUSED;
                names.insert(key, Node::Known { found: found.clone(), until });
                flight.land(Ok(found));
            }
            Some(Err(failure)) => {
                // The next one who asks may have more luck.
                names.remove(&key);
                flight.land(Err(failure));
            }
            None => drop(names.remove(&key)),
        }
        self.sweep(&mut names);
    }

    fn sweep(&self, names: &mut HashMap<Name, Node>) {
        let now = now();
        if names.len() < FEW && now - self.swept.get() < UNUSED || now - self.swept.get() < 1 {
            return;
        }
        self.swept.set(now);
        names.retain(|_, node| !matches!(node, Node::Known { until, .. } if *until < now));
    }
}
