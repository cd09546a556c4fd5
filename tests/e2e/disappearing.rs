//! Peers that go away at any moment: each costs one connection, at most one line, and no descriptor.

use crate::support::backend::{Backend, ok};
use crate::support::client::{Client, Message, Stream, get};
use crate::support::server::{Server, connect, descriptors, foreground, reset, settled};
use crate::support::{fixture, free_port, http2, tls, wait};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

const NAME: &str = "cloud.home.test";
const LONG: usize = 8 << 20;

/// What a client and the backend of the same moment tell each other.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
    arrived: AtomicUsize,
}

impl Gate {
    /// The backend is there and waits.
    fn pass(&self) {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        let open = self.open.lock().unwrap();
        drop(self.changed.wait_while(open, |open| !*open).unwrap());
    }

    fn wait_for_arrival(&self, before: usize) {
        wait("the request at the backend", || (self.arrived.load(Ordering::SeqCst) > before).then_some(()));
    }

    fn set(&self, open: bool) {
        *self.open.lock().unwrap() = open;
        self.changed.notify_all();
    }
}

/// A server with every way to a backend: plain, TLS, HTTP/2, stream, preread.
struct Site {
    server: Server,
    plain: u16,
    tls: u16,
    stream: u16,
    preread: u16,
    worker: i32,
    descriptors: usize,
    gate: Arc<Gate>,
    _backend: Backend,
}

fn site(name: &str) -> Site {
    let gate = Arc::new(Gate::default());
    let inner = gate.clone();
    let backend = Backend::http(move |request, stream| answer(&inner, request, stream));
    let [plain, tls, stream, preread] = [(); 4].map(|()| free_port());
    let certs = fixture("home-lab/certs");
    let text = foreground(&format!(
        "events {{}}
         http {{
             access_log logs/access.log; client_max_body_size 0;
             server {{
                 listen 127.0.0.1:{plain}; listen 127.0.0.1:{tls} ssl; http2 on;
                 ssl_certificate {certs}/{NAME}.crt; ssl_certificate_key {certs}/{NAME}.key;
                 location / {{ proxy_pass http://127.0.0.1:{port}; }}
                 location /unbuffered/ {{
                     proxy_pass http://127.0.0.1:{port}/; proxy_buffering off; proxy_request_buffering off;
                     proxy_http_version 1.1;
                 }}
             }}
         }}
         stream {{
             server {{ listen 127.0.0.1:{stream}; proxy_pass 127.0.0.1:{port}; }}
             server {{ listen 127.0.0.1:{preread}; ssl_preread on; proxy_pass 127.0.0.1:{port}; }}
         }}",
        certs = certs.display(),
        port = backend.port,
    ));
    let server = Server::start(name, &text);
    let worker = server.worker();
    let mut site =
        Site { server, plain, tls, stream, preread, worker, descriptors: 0, gate, _backend: backend };
    // What is opened once is open from here on: a thread keeps the pipes it has moved bytes through.
    site.everything_works();
    for port in [plain, stream] {
        for path in ["/long", "/unbuffered/long"] {
            assert_eq!(get(port, NAME, path).unwrap().status(), 200);
        }
    }
    site.descriptors = settled(worker);
    site
}

/// The backend: paths name what it does.
fn answer(gate: &Gate, request: &Message, stream: &mut dyn Stream) -> io::Result<()> {
    let broken = || io::Error::from(io::ErrorKind::ConnectionAborted);
    match request.path() {
        "/gate" => {
            gate.pass();
            stream.write_all(&ok(b"late"))
        }
        "/long" => stream.write_all(&ok(&vec![b'x'; LONG])),
        "/close" => Err(broken()),
        "/half-head" => stream.write_all(b"HTTP/1.1 200 OK\r\nX-Half: ").and(Err(broken())),
        "/half-body" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").and(Err(broken()))
        }
        "/half-chunk" => {
            let half = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc";
            stream.write_all(half).and(Err(broken()))
        }
        "/nonsense" => stream.write_all(b"220 smtp here\r\n").and(Err(broken())),
        _ => stream.write_all(&ok(b"fine")),
    }
}

impl Site {
    fn everything_works(&self) {
        assert_eq!(get(self.plain, NAME, "/").unwrap().text(), "fine");
        assert_eq!(get(self.stream, NAME, "/").unwrap().text(), "fine");
        assert_eq!(Client::new(tls::to(self.tls, NAME)).get(NAME, "/").unwrap().text(), "fine");
        http2::run(async {
            let mut sender = http2::connect(self.tls, NAME).await;
            let (_, body) =
                http2::request(&mut sender, "GET", &format!("https://{NAME}/"), Vec::new()).await.unwrap();
            assert_eq!(&body[..], b"fine");
        });
    }

    /// Lets `moment` happen twice over: by a reset and by an orderly end; `moment` gets what ends a connection.
    fn survives(&self, what: &str, moment: impl Fn(&Site, fn(TcpStream))) {
        for (manner, end) in [("reset", reset as fn(TcpStream)), ("end", drop::<TcpStream>)] {
            let before = self.server.faults().len();
            moment(self, end);
            wait(&format!("descriptors as before: {what}, {manner}"), || {
                (descriptors(self.worker) <= self.descriptors).then_some(())
            });
            let faults = self.server.faults();
            assert!(faults.len() <= before + 1, "{what}, {manner}: {:#?}", &faults[before..]);
            assert_eq!(self.server.workers(), [self.worker], "{what}, {manner}");
        }
    }
}

fn send(port: u16, bytes: &[u8]) -> TcpStream {
    let mut stream = connect(port);
    stream.write_all(bytes).unwrap();
    stream
}

/// Reads some of an answer.
fn some(stream: &mut impl Read) {
    stream.read_exact(&mut [0; 20_000]).unwrap();
}

const GATE: &[u8] = b"GET /gate HTTP/1.1\r\nHost: cloud.home.test\r\n\r\n";
const GET_LONG: &[u8] = b"GET /long HTTP/1.1\r\nHost: cloud.home.test\r\n\r\n";
const HALF_BODY: &[u8] =
    b"POST / HTTP/1.1\r\nHost: cloud.home.test\r\nContent-Length: 100000\r\n\r\nhalf of it";

#[test]
fn a_client_goes_at_any_moment_of_a_request() {
    let site = site("client-goes");
    site.survives("before the first byte", |site, end| end(connect(site.plain)));
    for part in ["G", "GET /", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX-Lo"] {
        site.survives(part, |site, end| end(send(site.plain, part.as_bytes())));
    }
    site.survives("in the body", |site, end| end(send(site.plain, HALF_BODY)));
    let unbuffered = String::from_utf8_lossy(HALF_BODY).replace("POST /", "POST /unbuffered/");
    site.survives("in the body that is passed on", |site, end| end(send(site.plain, unbuffered.as_bytes())));
    let chunk = b"POST /unbuffered/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc";
    site.survives("in a chunk", |site, end| end(send(site.plain, chunk)));
    for path in ["/gate", "/unbuffered/gate"] {
        let request = String::from_utf8_lossy(GATE).replace("/gate", path);
        site.survives(&format!("while {path} waits"), |site, end| {
            let before = site.gate.arrived.load(Ordering::SeqCst);
            site.gate.set(false);
            let client = send(site.plain, request.as_bytes());
            site.gate.wait_for_arrival(before);
            end(client);
            site.gate.set(true);
        });
    }
    for path in ["/long", "/unbuffered/long"] {
        let request = String::from_utf8_lossy(GET_LONG).replace("/long", path);
        site.survives(&format!("in the middle of {path}"), |site, end| {
            let mut client = send(site.plain, request.as_bytes());
            some(&mut client);
            end(client);
        });
    }
    site.survives("between two requests", |site, end| {
        let mut client = Client::new(connect(site.plain));
        client.get(NAME, "/").unwrap();
        end(client.stream.into_inner());
    });
    site.everything_works();
}

#[test]
fn a_client_goes_at_any_moment_of_a_handshake() {
    let site = site("tls-goes");
    let mut client = tls::client(Some(NAME), NAME);
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    for port in [site.tls, site.preread] {
        for length in [0, 1, 4, 5, 6, 50, hello.len() / 2, hello.len() - 1, hello.len()] {
            let part = &hello[..length];
            site.survives(&format!("after {length} bytes of a hello"), |_, end| end(send(port, part)));
        }
    }
    site.survives("after the server's flight", |site, end| {
        let mut stream = send(site.tls, &hello);
        stream.read_exact(&mut [0; 500]).unwrap();
        end(stream);
    });
    site.survives("with bytes that are no hello", |site, end| {
        end(send(site.tls, &[0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5]));
    });
    site.survives("after the handshake", |site, end| {
        let mut stream = tls::to(site.tls, NAME);
        stream.flush().unwrap();
        stream.conn.complete_io(&mut stream.sock).unwrap();
        end(stream.sock);
    });
    site.everything_works();
}

#[test]
fn a_client_goes_at_any_moment_over_tls() {
    let site = site("tls-request-goes");
    let tls = |site: &Site, bytes: &[u8]| {
        let mut stream = tls::to(site.tls, NAME);
        stream.write_all(bytes).unwrap();
        stream.flush().unwrap();
        stream
    };
    site.survives("half a head", |site, end| end(tls(site, b"GET / HT").sock));
    site.survives("half a body", |site, end| end(tls(site, HALF_BODY).sock));
    site.survives("while the upstream answers", |site, end| {
        let before = site.gate.arrived.load(Ordering::SeqCst);
        site.gate.set(false);
        let client = tls(site, GATE);
        site.gate.wait_for_arrival(before);
        end(client.sock);
        site.gate.set(true);
    });
    site.survives("in a download", |site, end| {
        let mut client = tls(site, GET_LONG);
        some(&mut client);
        end(client.sock);
    });
    site.everything_works();
}

#[test]
fn a_client_goes_at_any_moment_over_http2() {
    let site = site("http2-goes");
    let url = |path: &str| format!("https://{NAME}{path}");
    site.survives("without a request", |site, _| {
        http2::run(async { drop(http2::connect(site.tls, NAME).await) });
    });
    site.survives("while the upstream answers", |site, _| {
        let before = site.gate.arrived.load(Ordering::SeqCst);
        site.gate.set(false);
        http2::run(async {
            let mut sender = http2::connect(site.tls, NAME).await;
            let url = url("/gate");
            let request = http2::request(&mut sender, "GET", &url, Vec::new());
            let arrival = async {
                while site.gate.arrived.load(Ordering::SeqCst) == before {
                    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                }
            };
            tokio::select! { _ = request => panic!("answered"), () = arrival => {} }
        });
        site.gate.set(true);
    });
    site.survives("in a download and an upload", |site, _| {
        http2::run(async {
            let mut sender = http2::connect(site.tls, NAME).await;
            sender.ready().await.unwrap();
            let body = || http_body_util::Full::from(bytes::Bytes::from(vec![b'y'; LONG]));
            let download = http::Request::get(url("/long")).body(Default::default()).unwrap();
            let upload = http::Request::post(url("/unbuffered/")).body(body()).unwrap();
            let _upload = tokio::spawn(sender.send_request(upload));
            let (head, mut body) = sender.send_request(download).await.unwrap().into_parts();
            assert_eq!(head.status, 200);
            http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
        });
    });
    site.everything_works();
}

#[test]
fn a_client_of_a_stream_goes_at_any_moment() {
    let site = site("stream-goes");
    site.survives("before the first byte", |site, end| end(connect(site.stream)));
    site.survives("after some bytes", |site, end| end(send(site.stream, b"GET / HT")));
    site.survives("while the upstream answers", |site, end| {
        let before = site.gate.arrived.load(Ordering::SeqCst);
        site.gate.set(false);
        let client = send(site.stream, GATE);
        site.gate.wait_for_arrival(before);
        end(client);
        site.gate.set(true);
    });
    site.survives("in a download", |site, end| {
        let mut client = send(site.stream, GET_LONG);
        some(&mut client);
        end(client);
    });
    site.everything_works();
}

#[test]
fn a_backend_goes_at_any_moment() {
    let site = site("backend-goes");
    for (path, status, words) in [
        ("/close", 502, "upstream prematurely closed connection while reading response header from upstream"),
        (
            "/half-head",
            502,
            "upstream prematurely closed connection while reading response header from upstream",
        ),
        ("/half-body", 200, "upstream prematurely closed connection while reading upstream"),
        ("/half-chunk", 200, "upstream prematurely closed connection while reading upstream"),
    ] {
        for base in ["", "/unbuffered"] {
            let path = format!("{base}{path}");
            site.survives(&path, |site, _| {
                let before = site.server.faults().len();
                let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
                let mut client = send(site.plain, request.as_bytes());
                let mut answer = Vec::new();
                client.read_to_end(&mut answer).unwrap();
                let answer = String::from_utf8_lossy(&answer);
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
                assert!(!answer.ends_with("\r\n0\r\n\r\n"), "{path}: half an answer never looks whole");
                let faults = site.server.faults();
                assert_eq!(faults.len(), before + 1, "{path}: {faults:#?}");
                assert!(faults[before].contains(words), "{path}: {}", faults[before]);
            });
        }
    }
    // What is no response at all is passed on as it is, as one of HTTP/0.9.
    site.survives("nonsense", |site, _| {
        let mut client = send(site.plain, b"GET /nonsense HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"220 smtp here\r\n");
        let words = "upstream sent no valid HTTP/1.0 header while reading response header from upstream";
        assert!(site.server.faults().last().unwrap().contains(words));
    });
    site.everything_works();
}

#[test]
fn a_backend_over_tls_goes_at_any_moment() {
    let cut = Arc::new(AtomicUsize::new(0));
    let bytes = cut.clone();
    // Reads a hello and answers with the first bytes of a server's flight, or none.
    let backend = Backend::start(move |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let flight = [0x16, 3, 3, 0, 0x7a, 2, 0, 0, 0x76, 3, 3];
        let _ = stream.write_all(&flight[..bytes.load(Ordering::SeqCst)]);
    });
    let port = free_port();
    let text = crate::support::server::http(&format!(
        "server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass https://127.0.0.1:{}; }} }}",
        backend.port
    ));
    let server = Server::start("tls-backend-goes", &text);
    let worker = server.worker();
    assert_eq!(get(port, "x", "/").unwrap().status(), 502);
    let before = settled(worker);
    for length in 0..=11 {
        cut.store(length, Ordering::SeqCst);
        let lines = server.faults().len();
        assert_eq!(get(port, "x", "/").unwrap().status(), 502);
        let faults = server.faults();
        assert_eq!(faults.len(), lines + 1, "{faults:#?}");
        assert!(faults[lines].contains("while SSL handshaking to upstream"), "{}", faults[lines]);
    }
    wait("descriptors as before", || (descriptors(worker) <= before).then_some(()));
    assert_eq!(server.worker(), worker);
}
