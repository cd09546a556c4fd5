//! TLS passthrough by name (`fixtures/documents/tls-passthrough.conf`).

use crate::support::backend::{Backend, mirror, ok};
use crate::support::client::{Client, get};
use crate::support::server::connect;
use crate::support::sites::{OWN, Site, passthrough};
use crate::support::{PATIENCE, bytes, hash, tls};
use rustls::StreamOwned;
use std::io::Write;

const PBX: &str = "pbx.mydomain.com";
/// The certificate of the service that is passed through to.
const THEIRS: &str = "pbx.home.test";
const MANY: usize = 64 << 20;

/// Both services say which they are and hash what they are sent; `/64M` is a long answer.
fn home(name: &str) -> Site {
    let service = |label: &'static str| {
        move |request: &crate::support::client::Message, stream: &mut dyn crate::support::client::Stream| {
            match request.path() {
                "/64M" => stream.write_all(&ok(&bytes(7, MANY))),
                "/hash" => stream.write_all(&ok(hash(&request.body).as_bytes())),
                _ => stream.write_all(&ok(label.as_bytes())),
            }
        }
    };
    let pbx = Backend::https(THEIRS, service("pbx"));
    let cloud = Backend::http(service("cloud"));
    passthrough(name, pbx, cloud)
}

#[test]
fn a_name_leads_to_its_own_certificate_and_all_others_to_the_default() {
    let home = home("names");
    for ip in ["127.0.0.1", "[::1]"] {
        let ask = |sni: Option<&str>, certificate: &str| {
            let stream = tls::connect(&format!("{ip}:{}", home.tls), sni, certificate);
            Client::new(stream).get(sni.unwrap_or("none"), "/").unwrap().text()
        };
        assert_eq!(ask(Some(PBX), THEIRS), "pbx");
        assert_eq!(ask(Some("PBX.MyDomain.com"), THEIRS), "pbx", "names have no case");
        assert_eq!(ask(Some("cloud.mydomain.com"), OWN), "cloud");
        assert_eq!(ask(Some("unknown.mydomain.com"), OWN), "cloud");
        assert_eq!(ask(None, OWN), "cloud");
    }
    assert_eq!(home.backends[0].connections(), 4);
    assert_eq!(home.backends[1].connections(), 6);
    assert_eq!(home.server.faults(), [""; 0]);
}

/// The first flight of a client that asks for `sni`, and the client.
fn hello(sni: &str, presented: &str) -> (rustls::ClientConnection, Vec<u8>) {
    let mut client = tls::client(Some(sni), presented);
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    (client, bytes)
}

#[test]
fn a_hello_may_come_byte_by_byte() {
    let home = home("bytewise");
    for (sni, certificate, service) in [(PBX, THEIRS, "pbx"), ("cloud.mydomain.com", OWN, "cloud")] {
        let (client, hello) = hello(sni, certificate);
        let mut socket = connect(home.tls);
        for byte in hello {
            socket.write_all(&[byte]).unwrap();
            std::thread::yield_now();
        }
        let answer = Client::new(StreamOwned::new(client, socket)).get(sni, "/").unwrap();
        assert_eq!(answer.text(), service);
    }
}

#[test]
fn a_hello_may_come_in_three_records() {
    let home = home("records");
    for (sni, certificate, service) in [(PBX, THEIRS, "pbx"), ("cloud.mydomain.com", OWN, "cloud")] {
        let (client, hello) = hello(sni, certificate);
        let (head, body) = hello.split_at(5);
        assert_eq!(usize::from(u16::from_be_bytes([head[3], head[4]])), body.len(), "one record");
        let mut socket = connect(home.tls);
        // The first cut is inside the handshake header, the second wherever.
        for part in [&body[..3], &body[3..90], &body[90..]] {
            let mut record = head[..3].to_vec();
            record.extend_from_slice(&(part.len() as u16).to_be_bytes());
            record.extend_from_slice(part);
            socket.write_all(&record).unwrap();
        }
        let answer = Client::new(StreamOwned::new(client, socket)).get(sni, "/").unwrap();
        assert_eq!(answer.text(), service);
    }
}

#[test]
fn what_is_not_tls_goes_to_the_default() {
    let home = home("plain");
    let answer = get(home.tls, "cloud.mydomain.com", "/").unwrap();
    assert_eq!(answer.status(), 400);
    assert!(answer.text().contains("The plain HTTP request was sent to HTTPS port"), "{}", answer.text());
}

#[test]
fn much_arrives_whole_both_ways() {
    let home = home("volume");
    let sent = bytes(3, MANY);
    for (sni, certificate) in [(PBX, THEIRS), ("cloud.mydomain.com", OWN)] {
        let stream = tls::connect(&format!("127.0.0.1:{}", home.tls), Some(sni), certificate);
        stream.sock.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Client::new(stream);
        let answer = client.get(sni, "/64M").unwrap();
        assert_eq!((answer.body.len(), hash(&answer.body)), (MANY, hash(&bytes(7, MANY))), "{sni}");
        if sni == PBX {
            assert_eq!(client.post(sni, "/hash", &sent).unwrap().text(), hash(&sent));
        }
    }
}

#[test]
fn the_document_is_served_as_it_is_written() {
    let home = home("written");
    // Without a slash the location of the document matches nothing: the request ends in the server's own root.
    let answer = get(home.plain, PBX, "/.well-known/acme-challenge/token").unwrap();
    assert_eq!(answer.status(), 404);
    assert!(home.server.log().contains("/html/.well-known/acme-challenge/token\" failed (2: No such file"));
    // Nobody else's requests come this way, and upstreams see the document's headers.
    let other = passthrough("written-mirror", Backend::https(THEIRS, mirror), Backend::http(mirror));
    let answer =
        Client::new(other.connect("cloud.mydomain.com")).get("cloud.mydomain.com", "/a%20b/?q=1").unwrap();
    let expected = format!("GET /a%20b/?q=1 HTTP/1.1\nHost: 127.0.0.1:{}\n", other.backends[1].port);
    assert_eq!(answer.text(), expected);
}
