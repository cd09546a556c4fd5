//! Thousands of short sessions, and hundreds that end badly, leave descriptors, connections and memory where they were.

use crate::support::backend::{Backend, mirror, ok};
use crate::support::client::{Client, get};
use crate::support::server::{
    Server, connect, descriptors, foreground, http, reset, resident, settled, stream,
};
use crate::support::sites::passthrough;
use crate::support::{PATIENCE, free_port, tls, wait};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SESSIONS: usize = 2000;
/// Sessions of the kinds that end badly: they take longer.
const BAD_SESSIONS: usize = 400;
/// What memory may grow by after the warm-up, in KiB: caches and pools fill late.
const GROWTH: usize = 4096;

/// Descriptors of the pipes that a thread keeps for later transfers; how many there are depends on how many sessions
/// met, and is far below the number of sessions.
const PIPES: usize = 32;

/// Runs `session` in rounds and holds the worker's descriptors and memory to what they were after the first.
fn soak(server: &Server, session: impl Fn(usize) + Sync) {
    soak_rounds(server, 400, SESSIONS, session);
    assert_eq!(server.faults(), [""; 0]);
}

fn soak_rounds(server: &Server, first: usize, count: usize, session: impl Fn(usize) + Sync) {
    let round = |count: usize| {
        std::thread::scope(|scope| {
            for client in 0..4 {
                let session = &session;
                scope.spawn(move || (0..count / 4).for_each(|number| session(number * 4 + client)));
            }
        });
    };
    let worker = server.worker();
    round(first);
    let (before, memory) = (settled(worker), resident(worker));
    round(count);
    wait("descriptors as before", || (descriptors(worker) <= before + PIPES).then_some(()));
    let grown = resident(worker).saturating_sub(memory);
    assert!(grown < GROWTH, "{grown} KiB more after {count} sessions, {memory} before");
    assert_eq!(server.worker(), worker);
}

/// A configuration of stream with a status page on `status`; one thread has few connections to give.
fn counted(status: u16, text: &str) -> String {
    foreground(&format!(
        "events {{ worker_connections 200; }}
         http {{ access_log off; server {{ listen 127.0.0.1:{status}; stub_status; }} }}
         stream {{ {text} }}"
    ))
}

/// Waits until nobody is connected but the one who asks: every session is over, its task with it.
fn alone(status: u16) {
    wait("all sessions over", || {
        let page = get(status, "x", "/").unwrap().text();
        page.starts_with("Active connections: 1 ").then_some(())
    });
}

#[test]
fn stream_proxy() {
    let backend = Backend::http(mirror);
    let port = free_port();
    let text =
        stream(&format!("server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{}; }}", backend.port));
    let server = Server::start("soak-stream", &text);
    soak(&server, |number| {
        assert_eq!(get(port, "x", &format!("/{number}")).unwrap().status(), 200);
    });
    assert_eq!(backend.connections(), SESSIONS + 400);
}

/// Answers datagrams with themselves, and remembers who sent which.
struct Echo {
    port: u16,
    /// Where the datagrams of each client came from.
    senders: Arc<Mutex<HashMap<Vec<u8>, Vec<u16>>>>,
    ending: Arc<AtomicBool>,
}

impl Echo {
    fn start() -> Echo {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let (senders, ending) =
            (Arc::<Mutex<HashMap<Vec<u8>, Vec<u16>>>>::default(), Arc::<AtomicBool>::default());
        let (known, end) = (senders.clone(), ending.clone());
        std::thread::spawn(move || {
            let mut room = [0; 2000];
            while let Ok((n, from)) = socket.recv_from(&mut room) {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                known.lock().unwrap().entry(room[..n].to_vec()).or_default().push(from.port());
                let _ = socket.send_to(&room[..n], from);
            }
        });
        Echo { port, senders, ending }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        let _ = UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"", ("127.0.0.1", self.port));
    }
}

/// A client of datagrams.
fn datagrams(port: u16) -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.connect(("127.0.0.1", port)).unwrap();
    client
}

fn ask(client: &UdpSocket, text: &str) {
    client.send(text.as_bytes()).unwrap();
    let mut room = [0; 2000];
    let n = client.recv(&mut room).unwrap();
    assert_eq!(&room[..n], text.as_bytes());
}

#[test]
fn udp_proxy() {
    let echo = Echo::start();
    let [port, status] = [(); 2].map(|()| free_port());
    let text = format!(
        "server {{ listen 127.0.0.1:{port} udp; proxy_responses 1; proxy_pass 127.0.0.1:{}; }}",
        echo.port
    );
    let server = Server::start("soak-udp", &counted(status, &text));
    soak(&server, |number| ask(&datagrams(port), &format!("datagram {number}")));
    alone(status);
}

#[test]
fn udp_sessions_that_time_out() {
    let echo = Echo::start();
    let [port, status] = [(); 2].map(|()| free_port());
    let text = format!(
        "server {{ listen 127.0.0.1:{port} udp; proxy_timeout 20ms; proxy_pass 127.0.0.1:{}; }}",
        echo.port
    );
    // Each session lasts as long as its timeout: there are as many at a time as clients are quick.
    let text = counted(status, &text).replace("worker_connections 200;", "worker_connections 4000;");
    let server = Server::start("soak-udp-late", &text);
    soak_rounds(&server, SESSIONS, SESSIONS, |number| {
        ask_until_answered(&datagrams(port), &format!("datagram {number}"));
    });
    assert_eq!(server.faults(), [""; 0]);
    alone(status);
}

/// As [`ask`], where a session may end before the answer comes, which is then lost.
fn ask_until_answered(client: &UdpSocket, text: &str) {
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut room = [0; 2000];
    wait("an answer", || {
        client.send(text.as_bytes()).unwrap();
        client.recv(&mut room).is_ok_and(|n| &room[..n] == text.as_bytes()).then_some(())
    });
}

#[test]
fn udp_without_anybody_to_answer() {
    let [port, status] = [(); 2].map(|()| free_port());
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = format!("server {{ listen 127.0.0.1:{port} udp; proxy_responses 1; proxy_pass {closed}; }}");
    let server = Server::start("soak-udp-dead", &counted(status, &text));
    soak_rounds(&server, 400, SESSIONS, |_| {
        datagrams(port).send(b"hello?").unwrap();
        // The next one waits for this one to be taken: it must not be lost in the socket's buffer.
        drop(get(status, "x", "/").unwrap());
    });
    alone(status);
    server
        .wait_for_log("Connection refused) while proxying and reading from upstream, udp client: 127.0.0.1");
}

/// Each client's datagrams are one session, whichever thread it is on; and every thread has some.
#[test]
fn datagrams_spread_over_threads_and_stay() {
    let echo = Echo::start();
    let port = free_port();
    let text = format!(
        "worker_processes 3; {}",
        stream(&format!(
            "server {{ listen 127.0.0.1:{port} udp reuseport; proxy_pass 127.0.0.1:{}; }}",
            echo.port
        ))
    );
    let server = Server::start("reuseport-udp", &text);
    let threads = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", server.worker())).unwrap().flatten();
        let busy = tasks.filter(|task| {
            let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches:"));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok()).unwrap_or(0) > 20
        });
        busy.count()
    };
    for round in 0..2 {
        let clients: Vec<UdpSocket> = (0..64).map(|_| datagrams(port)).collect();
        for _ in 0..10 {
            clients.iter().enumerate().for_each(|(n, client)| ask(client, &format!("{round} {n}")));
        }
        let mut senders = std::mem::take(&mut *echo.senders.lock().unwrap());
        assert_eq!(senders.len(), 64);
        for (client, ports) in &mut senders {
            assert_eq!(ports.len(), 10);
            ports.dedup();
            assert_eq!(ports.len(), 1, "client {client:?} had several sessions");
        }
        assert!(threads() >= 3, "{} threads at work", threads());
        let worker = server.worker();
        server.signal(nix::sys::signal::SIGHUP);
        wait("the next worker", || (!server.workers().contains(&worker)).then_some(()));
    }
}

/// Sends without end, and counts what left.
fn endless(sent: Arc<AtomicUsize>) -> Backend {
    Backend::start(move |mut stream| {
        let piece = [b'x'; 64 << 10];
        while let Ok(n) = stream.write(&piece) {
            sent.fetch_add(n, Ordering::SeqCst);
        }
    })
}

#[test]
fn resets_in_mid_transfer() {
    let backend = endless(Arc::default());
    let [port, status] = [(); 2].map(|()| free_port());
    let text = format!("server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{}; }}", backend.port);
    let server = Server::start("soak-reset", &counted(status, &text));
    soak_rounds(&server, 100, BAD_SESSIONS, |number| {
        let mut client = connect(port);
        client.read_exact(&mut vec![0; 100 << 10]).unwrap();
        if number % 2 == 0 { reset(client) } else { drop(client) }
    });
    alone(status);
}

#[test]
fn backends_that_reset() {
    let backend = Backend::start(|mut stream| {
        let _ = stream.write_all(&[b'x'; 300 << 10]);
        reset(stream);
    });
    let [port, status] = [(); 2].map(|()| free_port());
    let text = format!("server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{}; }}", backend.port);
    let server = Server::start("soak-backend-reset", &counted(status, &text));
    soak_rounds(&server, 100, BAD_SESSIONS, |_| {
        let mut client = connect(port);
        let ended = client.read_to_end(&mut Vec::new());
        assert!(ended.is_ok() || ended.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset));
    });
    alone(status);
}

/// Clients that take nothing, until all room between them and the backend is full, and then are gone.
#[test]
fn full_pipes() {
    let sent = Arc::<AtomicUsize>::default();
    let backend = endless(sent.clone());
    let [port, status] = [(); 2].map(|()| free_port());
    let text = format!("server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{}; }}", backend.port);
    let server = Server::start("soak-full", &counted(status, &text));
    let fill = |rounds: usize| {
        for round in 0..rounds {
            let clients: Vec<_> = (0..16).map(|_| connect(port)).collect();
            clients.iter().for_each(|client| assert_eq!(client.peek(&mut [0]).unwrap(), 1));
            wait("nothing more to be sent", || {
                let before = sent.load(Ordering::SeqCst);
                std::thread::sleep(std::time::Duration::from_millis(50));
                (sent.load(Ordering::SeqCst) == before).then_some(())
            });
            clients.into_iter().for_each(|client| if round % 2 == 0 { reset(client) } else { drop(client) });
            alone(status);
        }
    };
    let worker = server.worker();
    fill(2);
    let (before, memory) = (settled(worker), resident(worker));
    fill(6);
    wait("descriptors as before", || (descriptors(worker) <= before + PIPES).then_some(()));
    let grown = resident(worker).saturating_sub(memory);
    assert!(grown < GROWTH, "{grown} KiB more, {memory} before");
    assert_eq!(server.worker(), worker);
}

#[test]
fn nobody_behind_the_proxy() {
    let [port, plain, status] = [(); 3].map(|()| free_port());
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = foreground(&format!(
        "events {{ worker_connections 200; }}
         http {{
             access_log off;
             server {{ listen 127.0.0.1:{status}; stub_status; }}
             server {{ listen 127.0.0.1:{plain}; location / {{ proxy_pass http://{closed}; }} }}
         }}
         stream {{ server {{ listen 127.0.0.1:{port}; proxy_pass {closed}; }} }}"
    ));
    let server = Server::start("soak-dead", &text);
    soak_rounds(&server, 400, SESSIONS, |number| match number % 2 {
        0 => {
            let ended = connect(port).read_to_end(&mut Vec::new());
            assert!(matches!(ended, Ok(0)) || ended.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset));
        }
        _ => assert_eq!(get(plain, "x", "/").unwrap().status(), 502),
    });
    alone(status);
}

#[test]
fn preread() {
    let backend = Backend::https("pbx.home.test", mirror);
    let cloud = Backend::http(mirror);
    let site = passthrough("soak-preread", backend, cloud);
    soak(&site.server, |number| {
        let (name, certificate) =
            [("pbx.mydomain.com", "pbx.home.test"), ("cloud.mydomain.com", "cloud.home.test")][number % 2];
        let stream = tls::connect(&format!("127.0.0.1:{}", site.tls), Some(name), certificate);
        assert_eq!(Client::new(stream).get(name, "/").unwrap().status(), 200);
    });
}

#[test]
fn http_proxy() {
    let backend = Backend::http(|request, stream| {
        std::io::Write::write_all(stream, &ok(&vec![b'x'; 1000 + request.path().len()]))
    });
    let port = free_port();
    let text = http(&format!(
        "server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{}; }} }}",
        backend.port
    ));
    let server = Server::start("soak-http", &text);
    soak(&server, |number| {
        let mut client = Client::new(crate::support::server::connect(port));
        assert_eq!(client.get("x", "/one").unwrap().body.len(), 1004);
        assert_eq!(client.post("x", "/two", &vec![b'y'; number * 50]).unwrap().status(), 200);
    });
}

#[test]
fn reloads_leave_nothing_in_the_master() {
    let port = free_port();
    let server = Server::start(
        "soak-reload",
        &foreground(&format!(
            "events {{}} http {{ access_log logs/access.log; server {{ listen 127.0.0.1:{port}; return 200 x; }} }}"
        )),
    );
    let master = server.wait_for_pid();
    let reload = |count: usize| {
        for _ in 0..count {
            let worker = server.worker();
            server.signal(nix::sys::signal::SIGHUP);
            wait("the next worker", || (server.workers()[..] != [worker]).then_some(()));
            assert_eq!(get(port, "x", "/").unwrap().text(), "x");
            server.worker();
        }
    };
    reload(5);
    let (before, memory) = (settled(master), resident(master));
    reload(40);
    wait("descriptors as before", || (descriptors(master) <= before).then_some(()));
    let grown = resident(master).saturating_sub(memory);
    assert!(grown < GROWTH, "{grown} KiB more after 40 reloads, {memory} before");
}
