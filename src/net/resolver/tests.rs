use std::collections::HashMap;
use std::net::UdpSocket as StdSocket;
use std::sync::{Arc, Mutex};

use super::*;

/// Data of records by name and type.
type Records = Arc<Mutex<HashMap<(String, u16), Vec<Vec<u8>>>>>;

/// A name server: answers by name and type; what it has no answer for does not exist.
#[derive(Clone, Default)]
struct Zone {
    records: Records,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Zone {
    fn set(&self, name: &str, kind: u16, data: &[&[u8]]) {
        let data = data.iter().map(|d| d.to_vec()).collect();
        self.records.lock().unwrap().insert((name.to_owned(), kind), data);
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn reply(&self, query: &[u8], ttl: u8) -> Vec<u8> {
        let end = query.len() - 4;
        let mut labels = Vec::new();
        let mut at = 12;
        while query[at] != 0 {
            let length = usize::from(query[at]);
            labels.push(String::from_utf8(query[at + 1..at + 1 + length].to_vec()).unwrap());
            at += 1 + length;
        }
        let (name, kind) = (labels.join("."), u16::from_be_bytes([query[end], query[end + 1]]));
        self.asked.lock().unwrap().push(format!("{name} {kind}"));
        let records = self.records.lock().unwrap();
        let alias = records.get(&(name.clone(), 5)).map(|data| (5, data));
        let own = records.get(&(name.clone(), kind)).map(|data| (kind, data));
        let exists = records.keys().any(|(known, _)| *known == name);
        let mut reply = query.to_vec();
        reply[2..4].copy_from_slice(if exists { &[0x81, 0x80] } else { &[0x81, 0x83] });
        if let Some((kind, data)) = own.or(alias) {
            reply[7] = data.len() as u8;
            for data in data {
                reply.extend_from_slice(&[0xc0, 12]);
                reply.extend_from_slice(&kind.to_be_bytes());
                reply.extend_from_slice(&[0, 1, 0, 0, 0, ttl, 0, data.len() as u8]);
                reply.extend_from_slice(data);
            }
        }
        reply
    }

    /// Serves from a thread, for as long as the test runs.
    fn serve(&self, ttl: u8) -> SocketAddr {
        let socket = StdSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let zone = self.clone();
        std::thread::spawn(move || {
            let mut room = [0; 512];
            while let Ok((n, from)) = socket.recv_from(&mut room) {
                let _ = socket.send_to(&zone.reply(&room[..n], ttl), from);
            }
        });
        address
    }
}

fn run<F: Future>(f: F) -> F::Output {
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&rt, f)
}

#[test]
fn both_families_are_asked_for_and_kept() {
    let zone = Zone::default();
    zone.set("a.test", 1, &[&[127, 0, 0, 9]]);
    zone.set("a.test", 28, &[&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]]);
    let resolver = Resolver::new(vec![zone.serve(60)], None, true, true);
    run(async {
        let answer = resolver.addresses(b"A.test.", 5000).await.unwrap();
        let expected: Vec<IpAddr> = vec!["127.0.0.9".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(answer.addresses, expected);
        let mut again = resolver.addresses(b"a.test", 5000).await.unwrap().addresses;
        again.sort();
        assert_eq!(again, expected);
        assert_eq!(zone.asked(), 2);
    });
}

#[test]
fn equal_queries_in_flight_are_one() {
    let zone = Zone::default();
    zone.set("a.test", 1, &[&[127, 0, 0, 9]]);
    let resolver = Resolver::new(vec![zone.serve(60)], None, true, false);
    run(async {
        let (one, two) =
            tokio::join!(resolver.addresses(b"a.test", 5000), resolver.addresses(b"a.test", 5000));
        assert_eq!(one, two);
        assert_eq!(zone.asked(), 1);
    });
}

#[test]
fn aliases_are_followed_but_not_for_ever() {
    let zone = Zone::default();
    zone.set("a.test", 5, &[&[1, b'b', 0xc0, 14]]);
    zone.set("b.test", 1, &[&[127, 0, 0, 9]]);
    zone.set("l.test", 5, &[&[1, b'm', 0xc0, 14]]);
    zone.set("m.test", 5, &[&[1, b'l', 0xc0, 14]]);
    let resolver = Resolver::new(vec![zone.serve(60)], None, true, false);
    run(async {
        let found = resolver.addresses(b"a.test", 5000).await.unwrap().addresses;
        assert_eq!(found, ["127.0.0.9".parse::<IpAddr>().unwrap()]);
        assert_eq!(resolver.addresses(b"l.test", 5000).await, Err(HOST_NOT_FOUND));
    });
}

#[test]
fn a_name_that_does_not_exist_is_asked_for_again() {
    let zone = Zone::default();
    let resolver = Resolver::new(vec![zone.serve(60)], None, true, true);
    run(async {
        let failure = resolver.addresses(b"a.test", 5000).await.unwrap_err();
        assert_eq!(failure.to_string(), "3: Host not found");
        zone.set("a.test", 1, &[&[127, 0, 0, 9]]);
        assert!(resolver.addresses(b"a.test", 5000).await.is_ok());
        assert_eq!(resolver.addresses(b"a..test", 5000).await, Err(HOST_NOT_FOUND));
    });
}

#[test]
fn silence_times_out() {
    let silent = StdSocket::bind("127.0.0.1:0").unwrap();
    let resolver = Resolver::new(vec![silent.local_addr().unwrap()], None, true, true);
    run(async {
        let failure = resolver.addresses(b"a.test", 30).await.unwrap_err();
        assert_eq!(failure.to_string(), "110: Operation timed out");
    });
}

#[test]
fn answers_of_others_do_not_count() {
    let (server, liar) = (StdSocket::bind("127.0.0.1:0").unwrap(), StdSocket::bind("127.0.0.1:0").unwrap());
    let zone = Zone::default();
    zone.set("a.test", 1, &[&[127, 0, 0, 6]]);
    let resolver = Resolver::new(vec![server.local_addr().unwrap()], None, true, false);
    let answers = std::thread::spawn(move || {
        let mut room = [0; 512];
        let (n, from) = server.recv_from(&mut room).unwrap();
        let lie = zone.reply(&room[..n], 9);
        liar.send_to(&lie, from).unwrap();
        let mut wrong = lie.clone();
        wrong[0] ^= 1;
        server.send_to(&wrong, from).unwrap();
        zone.set("a.test", 1, &[&[127, 0, 0, 9]]);
        server.send_to(&zone.reply(&room[..n], 9), from).unwrap();
    });
    run(async {
        let found = resolver.addresses(b"a.test", 5000).await.unwrap().addresses;
        assert_eq!(found, ["127.0.0.9".parse::<IpAddr>().unwrap()]);
    });
    answers.join().unwrap();
}

#[test]
fn what_does_not_fit_comes_over_tcp() {
    use std::io::{Read, Write};
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = StdSocket::bind(tcp.local_addr().unwrap()).unwrap();
    let zone = Zone::default();
    zone.set("a.test", 1, &[&[127, 0, 0, 9]]);
    let resolver = Resolver::new(vec![tcp.local_addr().unwrap()], None, true, false);
    let answers = std::thread::spawn(move || {
        let mut room = [0; 512];
        let (n, from) = udp.recv_from(&mut room).unwrap();
        let mut truncated = zone.reply(&room[..n], 9)[..n].to_vec();
        truncated[2..4].copy_from_slice(&[0x83, 0x80]);
        truncated[7] = 0;
        udp.send_to(&truncated, from).unwrap();
        let (mut stream, _) = tcp.accept().unwrap();
        let mut query = vec![0; n + 2];
        stream.read_exact(&mut query).unwrap();
        let reply = zone.reply(&query[2..], 9);
        stream.write_all(&(reply.len() as u16).to_be_bytes()).unwrap();
        stream.write_all(&reply[..5]).unwrap();
        stream.flush().unwrap();
        stream.write_all(&reply[5..]).unwrap();
        let _ = stream.read(&mut room);
    });
    run(async {
        let found = resolver.addresses(b"a.test", 5000).await.unwrap().addresses;
        assert_eq!(found, ["127.0.0.9".parse::<IpAddr>().unwrap()]);
    });
    answers.join().unwrap();
}

#[test]
fn services_have_addresses_by_priority() {
    let zone = Zone::default();
    zone.set(
        "_http._tcp.test",
        33,
        &[
            &[0, 2, 0, 1, 0, 81, 1, b'b', 0],
            &[0, 1, 0, 7, 0, 80, 1, b'a', 0],
            &[0, 1, 0, 1, 0, 80, 1, b'x', 0],
        ],
    );
    zone.set("a", 1, &[&[127, 0, 0, 1]]);
    zone.set("b", 1, &[&[127, 0, 0, 2]]);
    let resolver = Resolver::new(vec![zone.serve(60)], Some(7), true, false);
    run(async {
        let services = resolver.services(b"test", b"http", 5000).await;
        let targets = services.targets.unwrap();
        let shown: Vec<_> = targets.iter().map(|t| (t.address.to_string(), t.priority, t.weight)).collect();
        assert_eq!(shown, [("127.0.0.1:80".to_owned(), 1, 7), ("127.0.0.2:81".to_owned(), 2, 1)]);
        assert_eq!(services.failed, [(b"x".to_vec(), HOST_NOT_FOUND)]);
        assert!((now()..=now() + 7).contains(&services.valid));
        assert_eq!(resolver.services(b"other", b"http", 5000).await.targets, Err(HOST_NOT_FOUND));
    });
}
