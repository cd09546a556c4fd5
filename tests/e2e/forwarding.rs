//! TLS terminated, requests passed on over TLS (`fixtures/documents/sso.conf`).

use crate::support::backend::{Backend, mirror, ok};
use crate::support::client::{Client, Message, Stream, get};
use crate::support::server::connect;
use crate::support::sites::{OWN, sso};
use crate::support::{bytes, hash, http2, tls};
use std::io;
use std::sync::{Arc, Barrier};

const SSO: &str = "sso.domain.tld";
const BACKEND: &str = "authentik.internal";
const MANY: usize = 64 << 20;

/// `/64M` is a long answer, `/hash` hashes what it is sent, everything else says what arrived.
fn service(request: &Message, stream: &mut dyn Stream) -> io::Result<()> {
    match request.path() {
        "/64M" => stream.write_all(&ok(&bytes(7, MANY))),
        "/hash" => stream.write_all(&ok(hash(&request.body).as_bytes())),
        _ => mirror(request, stream),
    }
}

#[test]
fn the_redirect_keeps_path_and_arguments_as_they_were_written() {
    let site = sso("redirect", Backend::https(BACKEND, service), "");
    for target in ["/", "/a/../b//c", "/%7euser/%20x?y=%2F&&z", "/?", "/a?b=c?d#", "//x", "/\u{e4}"] {
        let answer = get(site.plain, SSO, target).unwrap();
        assert_eq!(answer.status(), 301);
        assert_eq!(answer.header("Location"), Some(format!("https://{SSO}{target}").as_str()));
    }
    let mut client = Client::new(connect(site.plain));
    let answer = client.get(&format!("SSO.domain.TLD:{}", site.plain), "/x").unwrap();
    assert_eq!(
        answer.header("Location"),
        Some("https://sso.domain.tld/x"),
        "$host is lower case and has no port"
    );
}

#[test]
fn a_backend_sees_the_request_as_the_document_says() {
    let site = sso("headers", Backend::https(BACKEND, service), "");
    let mut client = Client::new(site.connect(SSO));
    let request = format!(
        "GET /a%2Fb/../c?d=%20e HTTP/1.1\r\nHost: {SSO}\r\nConnection: keep-alive, X-Gone\r\nX-One: 1\r\n\
         X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: gopher\r\n\r\n"
    );
    client.send(request.as_bytes()).unwrap();
    let answer = client.receive().unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.header("Strict-Transport-Security"), Some("max-age=63072000"));
    assert_eq!(
        answer.text(),
        format!(
            "GET /a%2Fb/../c?d=%20e HTTP/1.1\nHost: {SSO}\nX-Forwarded-Proto: https\n\
             X-Forwarded-For: 192.0.2.1, 127.0.0.1\nX-One: 1\n"
        ),
        "neither Connection nor Upgrade without an upgrade"
    );
}

#[test]
fn it_works_the_same_over_ipv6_and_http2() {
    let site = sso("ways", Backend::https(BACKEND, service), "");
    let expected = |address: &str| {
        format!("GET /x HTTP/1.1\nHost: {SSO}\nX-Forwarded-Proto: https\nX-Forwarded-For: {address}\n")
    };
    let stream = tls::connect(&format!("[::1]:{}", site.tls), Some(SSO), OWN);
    assert_eq!(Client::new(stream).get(SSO, "/x").unwrap().text(), expected("::1"));
    let (head, body) = http2::run(async {
        let mut sender = http2::connect(site.tls, OWN).await;
        http2::request(&mut sender, "GET", &format!("https://{SSO}/x"), Vec::new()).await.unwrap()
    });
    assert_eq!(head.status, 200);
    assert_eq!(head.headers["strict-transport-security"], "max-age=63072000");
    assert_eq!(String::from_utf8_lossy(&body), expected("127.0.0.1"));
}

#[test]
fn much_arrives_whole_both_ways() {
    let site = sso("volume-terminated", Backend::https(BACKEND, service), "");
    let (sent, received) = (bytes(3, MANY), hash(&bytes(7, MANY)));
    let mut client = Client::new(site.connect(SSO));
    assert_eq!(hash(&client.get(SSO, "/64M").unwrap().body), received);
    assert_eq!(client.post(SSO, "/hash", &sent).unwrap().text(), hash(&sent));
    http2::run(async {
        let mut sender = http2::connect(site.tls, OWN).await;
        let url = |path: &str| format!("https://{SSO}{path}");
        let (_, body) = http2::request(&mut sender, "GET", &url("/64M"), Vec::new()).await.unwrap();
        assert_eq!(hash(&body), received);
        let (_, body) = http2::request(&mut sender, "POST", &url("/hash"), sent.clone()).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&body), hash(&sent));
    });
    assert_eq!(site.server.faults(), [""; 0]);
}

#[test]
fn many_requests_use_few_connections_to_the_backend() {
    for workers in [1, 2] {
        let backend = Backend::https(BACKEND, service);
        let site = sso(&format!("kept-{workers}"), backend, &format!("worker_processes {workers};"));
        let mut client = Client::new(site.connect(SSO));
        for number in 0..100 {
            assert_eq!(client.get(SSO, &format!("/{number}")).unwrap().status(), 200);
        }
        assert!(
            site.backends[0].connections() <= workers,
            "{} with {workers}",
            site.backends[0].connections()
        );
        // And so do requests that come on a connection each, one after the other.
        for number in 0..100 {
            assert_eq!(Client::new(site.connect(SSO)).get(SSO, &format!("/{number}")).unwrap().status(), 200);
        }
        assert!(site.backends[0].connections() <= 2, "{} with {workers}", site.backends[0].connections());
    }
}

#[test]
fn a_backend_that_is_not_there_costs_a_502_that_keeps_hsts() {
    let mut site = sso("gone", Backend::http(mirror), "");
    site.backends.clear();
    let answer = Client::new(site.connect(SSO)).get(SSO, "/").unwrap();
    assert_eq!(answer.status(), 502);
    assert_eq!(answer.header("Strict-Transport-Security"), Some("max-age=63072000"));
    assert!(answer.text().contains("<center><h1>502 Bad Gateway</h1></center>"), "{}", answer.text());
    let faults = site.server.faults();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].contains("connect() failed (111: Connection refused) while connecting to upstream"));
}

#[test]
fn connections_at_the_same_time_do_not_mix() {
    let site = sso("parallel", Backend::https(BACKEND, service), "worker_processes 2;");
    let barrier = Arc::new(Barrier::new(16));
    let address = format!("127.0.0.1:{}", site.tls);
    let clients: Vec<_> = (0..16)
        .map(|client| {
            let (barrier, address) = (barrier.clone(), address.clone());
            std::thread::spawn(move || {
                let mut connection = Client::new(tls::connect(&address, Some(SSO), OWN));
                barrier.wait();
                for number in 0..50 {
                    let path = format!("/{client}/{number}");
                    let answer = connection.get(SSO, &path).unwrap().text();
                    assert!(answer.starts_with(&format!("GET {path} HTTP/1.1\n")), "{answer}");
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
}
