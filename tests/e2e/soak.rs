//! Thousands of short sessions leave descriptors and memory where they were.

use crate::support::backend::{Backend, mirror, ok};
use crate::support::client::{Client, get};
use crate::support::server::{Server, descriptors, foreground, http, resident, settled, stream};
use crate::support::sites::passthrough;
use crate::support::{free_port, tls, wait};

const SESSIONS: usize = 2000;
/// What memory may grow by after the warm-up, in KiB: caches and pools fill late.
const GROWTH: usize = 4096;

/// Clients at a time.
const CLIENTS: usize = 4;
/// Both ends of the pipes that a thread keeps for long bodies: as many as it needed at a time.
const PIPES: usize = 2 * CLIENTS;

/// Runs `session` in rounds and holds the worker's descriptors and memory to what they were after the first.
fn soak(server: &Server, session: impl Fn(usize) + Sync) {
    let round = |count: usize| {
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let session = &session;
                scope.spawn(move || {
                    (0..count / CLIENTS).for_each(|number| session(number * CLIENTS + client))
                });
            }
        });
    };
    let worker = server.worker();
    round(400);
    let (before, memory) = (settled(worker), resident(worker));
    round(SESSIONS);
    wait("descriptors as before", || (descriptors(worker) <= before + PIPES).then_some(()));
    let grown = resident(worker).saturating_sub(memory);
    assert!(grown < GROWTH, "{grown} KiB more after {SESSIONS} sessions, {memory} before");
    assert_eq!(server.worker(), worker);
    assert_eq!(server.faults(), [""; 0]);
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
