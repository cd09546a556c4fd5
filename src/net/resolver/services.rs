//! Services: SRV records (RFC 2782) and the addresses of the servers they name.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;

use super::keep::Keep;
use super::message::Service;
use super::{Answer, Failure, HOST_NOT_FOUND, Resolver, follow, normal, random, within};

/// One address of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where it is.
    pub address: SocketAddr,
    /// The server's name.
    pub name: Vec<u8>,
    /// Lower ones come first.
    pub priority: u16,
    /// The server's share.
    pub weight: u16,
}

/// What is known of a service.
#[derive(Debug)]
pub struct Services {
    /// Its addresses, by priority, or why there are none.
    pub targets: Result<Vec<Target>, Failure>,
    /// Until when, in seconds of the monotonic clock.
    pub valid: i64,
    /// Servers without addresses, and why.
    pub failed: Vec<(Vec<u8>, Failure)>,
}

/// The name that has the SRV records: a service without dots is one over TCP.
fn name_of(domain: &[u8], service: &[u8]) -> Vec<u8> {
    let domain = normal(domain);
    match service.contains(&b'.') {
        true => [service, b".", &domain].concat().to_ascii_lowercase(),
        false => [b"_", service, b"._tcp.", &domain].concat().to_ascii_lowercase(),
    }
}

pub async fn find(resolver: &Resolver, domain: &[u8], service: &[u8], timeout: u64) -> Services {
    let keep = Keep::of(resolver);
    let found = within(timeout, follow(&keep, true, name_of(domain, service))).await;
    let found = match found {
        Ok((found, _)) => found,
        Err(failure) => {
            let valid = resolver.failure_valid();
            return Services { targets: Err(failure), valid, failed: Vec::new() };
        }
    };
    let names = found.services.iter().map(|s| Box::pin(resolver.addresses(&s.name, timeout)));
    let answers = all(names.collect()).await;
    let mut services = collect(&found.services, &answers, found.valid);
    if services.targets.is_err() {
        services.valid = resolver.failure_valid();
    }
    services
}

fn collect(list: &[Service], answers: &[Result<Answer, Failure>], mut valid: i64) -> Services {
    let mut failed = Vec::new();
    let mut addresses: Vec<Vec<Target>> = Vec::new();
    for (service, answer) in list.iter().zip(answers) {
        let found = match answer {
            Ok(answer) => {
                valid = valid.min(answer.valid);
                answer.addresses.as_slice()
            }
            Err(failure) => {
                failed.push((service.name.clone(), *failure));
                &[]
            }
        };
        let target = |ip: &std::net::IpAddr| Target {
            address: SocketAddr::new(*ip, service.port),
            name: service.name.clone(),
            priority: service.priority,
            weight: service.weight,
        };
        addresses.push(found.iter().map(target).collect());
    }
    if addresses.iter().all(Vec::is_empty) {
        let missing = failed.iter().any(|(_, failure)| *failure == HOST_NOT_FOUND);
        let first = failed.first().map_or(HOST_NOT_FOUND, |(_, failure)| *failure);
        let failure = if missing { HOST_NOT_FOUND } else { first };
        return Services { targets: Err(failure), valid, failed };
    }
    let mut targets = Vec::new();
    addresses.retain(|targets| !targets.is_empty());
    for group in addresses.chunk_by_mut(|a, b| a[0].priority == b[0].priority) {
        spread(group);
        targets.extend(group.iter_mut().flat_map(std::mem::take));
    }
    Services { targets: Ok(targets), valid, failed }
}

/// Lets any of the servers of one priority be first, by their shares.
fn spread(group: &mut [Vec<Target>]) {
    let share = |targets: &Vec<Target>| targets.iter().map(|t| usize::from(t.weight)).sum::<usize>();
    let mut place = random(group.iter().map(share).sum());
    let first = group.iter().position(|targets| match place.checked_sub(share(targets)) {
        Some(left) => {
            place = left;
            false
        }
        None => true,
    });
    group.rotate_left(first.unwrap_or(0));
}

/// Waits for all of them at once.
async fn all<F: Future>(mut work: Vec<Pin<Box<F>>>) -> Vec<F::Output> {
    let mut done: Vec<Option<F::Output>> = work.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, done) in work.iter_mut().zip(&mut done) {
            if done.is_none()
                && let Poll::Ready(output) = future.as_mut().poll(cx)
            {
                *done = Some(output);
            }
        }
        if done.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}
