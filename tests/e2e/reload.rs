//! Reloads, upgrades and ends under load.

use crate::support::backend::{Backend, ok};
use crate::support::client::{Client, get};
use crate::support::server::{CONF, Server, connect, http};
use crate::support::sites::{OWN, sso, sso_text};
use crate::support::{bytes, free_port, tls, wait};
use crate::websocket::{SSO, WebSocket, backend};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

/// Clients that ask without a pause until they are told to stop.
struct Load {
    ending: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<String>>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(clients: usize, ask: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Load {
        let ask = Arc::new(ask);
        let (ending, answered, failures) =
            <(Arc<AtomicBool>, Arc<AtomicUsize>, Arc<Mutex<Vec<String>>>)>::default();
        let threads = (0..clients).map(|_| {
            let (ask, ending, answered, failures) =
                (ask.clone(), ending.clone(), answered.clone(), failures.clone());
            std::thread::spawn(move || {
                while !ending.load(Ordering::SeqCst) {
                    match ask() {
                        Ok(()) => _ = answered.fetch_add(1, Ordering::SeqCst),
                        Err(reason) => failures.lock().unwrap().push(reason),
                    }
                }
            })
        });
        let threads = threads.collect();
        Load { ending, answered, failures, threads }
    }

    /// Waits until `count` more requests have been answered.
    fn wait_for(&self, count: usize) {
        let goal = self.answered.load(Ordering::SeqCst) + count;
        wait("answers", || (self.answered.load(Ordering::SeqCst) >= goal).then_some(()));
    }

    fn end(self) {
        self.ending.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().unwrap();
        }
        let failures = self.failures.lock().unwrap();
        assert!(
            failures.is_empty(),
            "{} of {}: {failures:?}",
            failures.len(),
            self.answered.load(Ordering::SeqCst)
        );
    }
}

/// Asks over TLS on a connection of its own, twice.
fn ask_sso(port: u16) -> Result<(), String> {
    let mut client = Client::new(tls::connect(&format!("127.0.0.1:{port}"), Some(SSO), OWN));
    let answer = client.get(SSO, "/first").map_err(|reason| format!("first: {reason}"))?;
    if answer.status() != 200 {
        return Err(answer.line);
    }
    // An idle connection may be closed by a reload: only an answer that has begun counts.
    match client.get(SSO, "/second") {
        Ok(answer) if answer.status() != 200 => Err(answer.line),
        _ => Ok(()),
    }
}

#[test]
fn ten_reloads_under_load_lose_nothing() {
    let site = sso("reloads", backend(), "");
    let (tls_port, plain) = (site.tls, site.plain);
    let load = Load::start(4, move || {
        ask_sso(tls_port)?;
        let answer = get(plain, SSO, "/a?b").map_err(|reason| format!("plain: {reason}"))?;
        (answer.status() == 301).then_some(()).ok_or(answer.line)
    });
    let mut sockets: Vec<_> = (0..3).map(|_| WebSocket::open(&site)).collect();
    let mut workers = vec![site.server.worker()];
    for round in 0..10 {
        load.wait_for(5);
        assert!(site.server.run(&["-s", "reload"]).status.success());
        // The old workers stay: they have the websockets.
        let new =
            wait("a new worker", || site.server.workers().into_iter().find(|pid| !workers.contains(pid)));
        workers.push(new);
        for socket in &mut sockets {
            let payload = bytes(round, 70_000);
            assert!(socket.echo(&payload).unwrap() == payload, "round {round}");
        }
        sockets.push(WebSocket::open(&site));
    }
    load.wait_for(20);
    load.end();
    assert_eq!(site.server.faults(), [""; 0]);
    drop(sockets);
    assert_eq!(Some(&site.server.worker()), workers.last(), "the old workers end with their websockets");
}

#[test]
fn a_bad_reload_is_refused_and_the_old_worker_serves_on() {
    let port = free_port();
    let text = |body: &str| http(&format!("server {{ listen 127.0.0.1:{port}; {body} }}"));
    let server = Server::start("bad-reload", &text("return 200 old;"));
    let worker = server.worker();
    for (bad, reason) in [
        ("nonsense on;", "[emerg] "),
        (
            "return 200 new; listen 127.0.0.1:99999;",
            "invalid port in \"127.0.0.1:99999\" of the \"listen\" directive",
        ),
        (
            "return 200 new; access_log /nowhere/at/all;",
            "open() \"/nowhere/at/all\" failed (2: No such file or directory)",
        ),
        ("listen 192.0.2.1:1; return 200 new;", "bind() to 192.0.2.1:1 failed (99: "),
        ("return 200 new; ", "unexpected end of file, expecting \"}\""),
    ] {
        let text = text(bad);
        let text = if bad.ends_with(' ') { text.trim_end_matches(['}', '\n', ' ']).to_owned() } else { text };
        server.configure(&text);
        let before = server.log().len();
        server.signal(Signal::SIGHUP);
        wait(reason, || server.log()[before..].contains(reason).then_some(()));
        assert!(server.log()[before..].contains("[emerg]"));
        assert_eq!(get(port, "x", "/").unwrap().text(), "old");
        assert_eq!(server.worker(), worker);
    }
    assert!(
        server.log().contains(&format!("unknown directive \"nonsense\" in {}:", server.path(CONF).display()))
    );
    server.configure(&text("return 200 new;"));
    server.signal(Signal::SIGHUP);
    wait("the new answer", || (get(port, "x", "/").unwrap().text() == "new").then_some(()));
}

/// A backend whose answer waits for a word on the channel.
fn gated() -> (Backend, mpsc::Sender<()>, Arc<AtomicUsize>) {
    let (open, gate) = mpsc::channel();
    let (gate, arrived) = (Mutex::new(gate), Arc::new(AtomicUsize::new(0)));
    let count = arrived.clone();
    let backend = Backend::http(move |request, stream| {
        if request.path() == "/gate" {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = gate.lock().unwrap().recv();
        }
        stream.write_all(&ok(b"through"))
    });
    (backend, open, arrived)
}

#[test]
fn quit_finishes_the_request_that_runs() {
    let (backend, open, arrived) = gated();
    let port = free_port();
    let mut server = Server::start(
        "quit-running",
        &http(&format!(
            "server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{}; }} }}",
            backend.port
        )),
    );
    let mut client = Client::new(connect(port));
    client.send(b"GET /gate HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    wait("the request at the backend", || (arrived.load(Ordering::SeqCst) == 1).then_some(()));
    assert!(server.run(&["-s", "quit"]).status.success());
    server.wait_for_log("gracefully shutting down");
    open.send(()).unwrap();
    let answer = client.receive().unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "through"));
    assert_eq!(server.ended().code(), Some(0));
    assert_eq!(server.faults(), [""; 0]);
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn quit_ends_at_once_with_idle_connections_open() {
    let mut site = sso("quit-idle", backend(), "");
    let mut idle = Client::new(site.connect(SSO));
    idle.get(SSO, "/").unwrap();
    assert!(site.server.run(&["-s", "quit"]).status.success());
    assert_eq!(site.server.ended().code(), Some(0));
    assert!(idle.get(SSO, "/").is_err());
}

#[test]
fn a_shutdown_timeout_ends_websockets() {
    let mut site = sso("quit-timeout", backend(), "worker_shutdown_timeout 1s;");
    let mut socket = WebSocket::open(&site);
    assert!(site.server.run(&["-s", "quit"]).status.success());
    assert_eq!(socket.echo(b"until then").unwrap(), b"until then");
    assert_eq!(site.server.ended().code(), Some(0));
    assert_eq!(socket.rest(), b"");
}

#[test]
fn a_killed_worker_is_replaced_under_load() {
    let port = free_port();
    let server =
        Server::start("killed", &http(&format!("server {{ listen 127.0.0.1:{port}; return 200 here; }}")));
    for _ in 0..3 {
        let worker = server.worker();
        kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
        server.wait_for_log(&format!("worker process {worker} exited on signal 9"));
        assert_eq!(get(port, "x", "/").unwrap().text(), "here");
        assert_ne!(server.worker(), worker);
    }
    assert_eq!(server.log().matches("[alert]").count(), 3);
}

#[test]
fn an_upgrade_of_the_binary_loses_nothing() {
    let backend = backend();
    let (plain, tls_port) = (free_port(), free_port());
    let text = sso_text(backend.port, plain, tls_port).replacen("daemon off;", "daemon on;", 1);
    let mut server = Server::start("upgrade", &text);
    assert_eq!(server.ended().code(), Some(0), "the process that was started goes away");
    let site = crate::support::sites::Site { server, plain, tls: tls_port, backends: vec![backend] };
    let server = &site.server;
    let old = server.wait_for_pid();
    let old_worker = server.worker();
    let load = Load::start(3, move || ask_sso(tls_port));
    let mut socket = WebSocket::open(&site);

    server.signal(Signal::SIGUSR2);
    let new = wait("a new master", || {
        let pid = fs::read_to_string(server.pid_file()).ok()?.trim().parse().ok()?;
        (pid != old).then_some(pid)
    });
    assert_eq!(fs::read_to_string(server.path("logs/nginx.pid.oldbin")).unwrap(), format!("{old}\n"));
    let new_worker = server.worker();
    assert_ne!(new_worker, old_worker);
    load.wait_for(20);
    kill(Pid::from_raw(old), Signal::SIGQUIT).unwrap();
    load.wait_for(20);
    assert_eq!(socket.echo(b"still").unwrap(), b"still");
    drop(socket);
    wait("the end of the old master", || (!server.path("logs/nginx.pid.oldbin").exists()).then_some(()));
    load.wait_for(20);
    load.end();
    assert_eq!(server.wait_for_pid(), new);
    assert_eq!(server.worker(), new_worker);
    assert_eq!(server.faults(), [""; 0]);
}

#[test]
fn an_upgrade_can_be_taken_back() {
    let port = free_port();
    let text = http(&format!("server {{ listen 127.0.0.1:{port}; return 200 here; }}"));
    let mut server = Server::start("taken-back", &text.replacen("daemon off;", "", 1));
    assert_eq!(server.ended().code(), Some(0));
    let old = server.wait_for_pid();
    server.signal(Signal::SIGUSR2);
    let new = wait("a new master", || Some(server.wait_for_pid()).filter(|pid| *pid != old));
    kill(Pid::from_raw(old), Signal::SIGWINCH).unwrap();
    server.wait_for_log("gracefully shutting down");
    assert_eq!(get(port, "x", "/").unwrap().text(), "here");
    // HUP starts the workers of the old binary again, without reading the file; the new one is told to go.
    kill(Pid::from_raw(old), Signal::SIGHUP).unwrap();
    kill(Pid::from_raw(new), Signal::SIGQUIT).unwrap();
    wait("the old pid file", || (server.wait_for_pid() == old).then_some(()));
    assert_eq!(get(port, "x", "/").unwrap().text(), "here");
    let mut idle = connect(port);
    idle.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(Client::new(idle).receive().unwrap().text(), "here");
}
