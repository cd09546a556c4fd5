//! Starting, stopping, reloading, reopening, upgrading: what the master and the command line do.

use crate::support::client::{Client, get};
use crate::support::server::{CONF, Server, connect, http, settled};
use crate::support::{free_port, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Output;

/// A request but for its last line: its connection is busy until it is completed with `REST`.
const HALF: &[u8] = b"GET /half HTTP/1.1\r\nHost: x\r\n";
const REST: &[u8] = b"\r\n";

/// A server that answers with `greeting` and the worker's process.
fn greeting(port: u16, greeting: &str) -> String {
    http(&format!("server {{ listen 127.0.0.1:{port}; return 200 \"{greeting} $pid\"; }}"))
}

/// What a server of [`greeting`] says: greeting and process.
fn greet(port: u16) -> (String, i32) {
    let text = get(port, "x", "/").unwrap().text();
    let (greeting, pid) = text.split_once(' ').unwrap();
    (greeting.to_owned(), pid.parse().unwrap())
}

/// A connection with a request on its way, known to the server.
fn busy(server: &Server, port: u16) -> Client<TcpStream> {
    let mut client = Client::new(connect(port));
    client.get("x", "/first").unwrap();
    client.send(HALF).unwrap();
    let socket = client.stream.get_ref();
    // Read by the server once nothing of it waits in either queue.
    let port = socket.local_addr().unwrap().port();
    wait("the half of the request at the server", || (queued(port) == Some(0)).then_some(()));
    assert!(server.pid_file().exists());
    client
}

/// Bytes that the server has not read of the connection from `port`.
fn queued(port: u16) -> Option<u64> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let remote = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let receive = fields.get(4)?.split_once(':')?.1;
        let found = fields.get(2)?.ends_with(&remote) && fields.get(3) == Some(&"01");
        found.then(|| u64::from_str_radix(receive, 16).ok())?
    })
}

#[test]
fn serves_until_told_to_quit() {
    let port = free_port();
    let socket = format!("/tmp/nxr-e2e-{}.sock", std::process::id());
    let text = http(&format!(
        "server {{ listen 127.0.0.1:{port}; listen unix:{socket}; return 200 \"hello $pid\"; }}"
    ));
    let mut server = Server::start("quit", &text);
    let worker = greet(port).1;
    let mut local = Client::new(UnixStream::connect(&socket).unwrap());
    assert_eq!(local.get("x", "/").unwrap().text(), format!("hello {worker}"));
    let mut client = busy(&server, port);
    server.signal(Signal::SIGQUIT);
    server.wait_for_log("gracefully shutting down");
    client.send(REST).unwrap();
    let answer = client.receive().unwrap();
    assert_eq!(answer.text(), format!("hello {worker}"), "a busy connection is served to its end");
    assert_eq!(answer.header("Connection"), Some("close"));
    assert!(client.receive().is_err());
    assert_eq!(server.ended().code(), Some(0));
    assert!(!server.pid_file().exists() && !std::path::Path::new(&socket).exists());
    let log = server.log();
    for words in [
        "[notice] ",
        ": using the \"epoll\" event method\n",
        ": start worker processes\n",
        &format!(": start worker process {worker}\n"),
        ": signal 3 (SIGQUIT) received from ",
        ", shutting down\n",
        ": exiting\n",
        &format!(": worker process {worker} exited with code 0\n"),
    ] {
        assert!(log.contains(words), "{words:?} in {log}");
    }
    assert_eq!(log.matches("SIGQUIT").count(), 1);
    assert!(log.ends_with(": exit\n"));
}

#[test]
fn terminates_at_once() {
    let port = free_port();
    let mut server = Server::start("term", &format!("worker_processes 2;\n{}", greeting(port, "x")));
    let mut client = busy(&server, port);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.ended().code(), Some(0));
    let mut rest = Vec::new();
    let _ = client.stream.read_to_end(&mut rest);
    assert_eq!(rest, b"");
}

#[test]
fn a_reload_changes_the_worker_and_loses_no_connection() {
    let port = free_port();
    let server = Server::start("reload", &greeting(port, "old"));
    let old = greet(port).1;
    let mut client = busy(&server, port);

    server.configure(&format!("bogus x;\n{}", greeting(port, "new")));
    assert_eq!(server.run(&["-s", "reload"]).status.code(), Some(1), "-s reads the configuration too");
    server.signal(Signal::SIGHUP);
    server.wait_for_log(&format!("[emerg] {}#", server.wait_for_pid()));
    assert!(
        server
            .log()
            .contains(&format!(": unknown directive \"bogus\" in {}:1\n", server.path(CONF).display()))
    );
    assert_eq!(greet(port), ("old".into(), old));

    server.configure(&greeting(port, "new"));
    assert_eq!(server.run(&["-s", "reload"]).status.code(), Some(0));
    // Every connection is answered while the workers change.
    let new = wait("a new worker", || Some(greet(port)).filter(|(greeting, _)| greeting == "new")).1;
    server.wait_for_log("gracefully shutting down");
    assert_ne!(new, old);
    client.send(REST).unwrap();
    assert_eq!(client.receive().unwrap().text(), format!("old {old}"));
    server.wait_for_log(&format!("worker process {old} exited with code 0"));
    assert_eq!(greet(port), ("new".into(), new));
}

#[test]
fn logs_are_opened_again() {
    let port = free_port();
    let server = Server::start("reopen", &greeting(port, "x"));
    get(port, "x", "/before").unwrap();
    fs::rename(server.path("logs/access.log"), server.path("logs/access.log.1")).unwrap();
    get(port, "x", "/between").unwrap();
    assert!(server.run(&["-s", "reopen"]).status.success());
    wait("a new log", || (server.log().matches(": reopening logs\n").count() == 2).then_some(()));
    wait("the new log written", || {
        get(port, "x", "/after").unwrap();
        server.access_log().contains("/after").then_some(())
    });
    let old = fs::read_to_string(server.path("logs/access.log.1")).unwrap();
    assert!(old.contains("/before") && old.contains("/between"), "{old}");
}

#[test]
fn a_new_binary_takes_over_the_sockets() {
    let port = free_port();
    let mut server = Server::start("takeover", &greeting(port, "x").replacen("daemon off;", "", 1));
    assert_eq!(server.ended().code(), Some(0), "the process that was started goes away");
    let old = server.wait_for_pid();
    let mut client = busy(&server, port);
    let old_worker = server.worker();
    server.signal(Signal::SIGUSR2);
    let new = wait("a new master", || Some(server.wait_for_pid()).filter(|pid| *pid != old));
    server.wait_for_log(": using inherited sockets from \"");

    kill(Pid::from_raw(old), Signal::SIGWINCH).unwrap();
    server.wait_for_log("gracefully shutting down");
    assert_ne!(greet(port).1, old_worker);
    kill(Pid::from_raw(old), Signal::SIGQUIT).unwrap();
    client.send(REST).unwrap();
    assert_eq!(client.receive().unwrap().text(), format!("x {old_worker}"));
    wait("the end of the old master", || (!server.path("logs/nginx.pid.oldbin").exists()).then_some(()));
    assert_eq!(server.wait_for_pid(), new);
    assert_eq!(greet(port).1, server.worker());
}

/// What each epoll instance of a process watches.
fn watched(pid: i32) -> BTreeSet<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten() {
        let Ok(text) = fs::read_to_string(entry.path()) else { continue };
        let lines = text.lines().filter(|line| line.starts_with("tfd:"));
        // An instance may have several descriptors: what it watches is the same.
        all.insert(lines.filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned).collect());
    }
    all
}

#[test]
fn connections_spread_over_the_threads() {
    let port = free_port();
    let server = Server::start("spread", &format!("worker_processes 2;\n{}", greeting(port, "x")));
    // It stays: the number of a descriptor that is closed meanwhile would come again.
    let _first = busy(&server, port);
    settled(server.worker());
    let before: BTreeSet<String> = watched(server.worker()).into_iter().flatten().collect();
    let clients: Vec<_> = (1..64).map(|_| busy(&server, port)).collect();
    let threads = watched(server.worker());
    let mut counts: Vec<usize> = threads.iter().map(|thread| thread.difference(&before).count()).collect();
    counts.retain(|count| *count > 0);
    assert_eq!(counts.iter().sum::<usize>(), clients.len());
    assert!(counts.len() == 2 && counts.iter().all(|count| (25..=38).contains(count)), "{counts:?}");
}

#[test]
fn too_many_connections_are_turned_away() {
    let port = free_port();
    let text = greeting(port, "x").replacen("events {", "events { worker_connections 4; ", 1);
    let server = Server::start("limit", &text);
    let mut kept = Vec::new();
    wait("a connection that is turned away", || {
        let mut client = Client::new(connect(port));
        match client.get("x", "/") {
            Ok(_) => {
                client.send(HALF).unwrap();
                kept.push(client);
                assert!(kept.len() <= 4);
                None
            }
            Err(_) => Some(()),
        }
    });
    server.wait_for_log("[alert] ");
    let words =
        format!(": 4 worker_connections are not enough while accepting new connection on 127.0.0.1:{port}\n");
    assert!(server.log().contains(&words), "{}", server.log());
    drop(kept);
    wait("room for a connection", || get(port, "x", "/").ok());
}

#[test]
fn one_process_may_do_it_all() {
    let port = free_port();
    let text = |word: &str| format!("worker_processes 2; master_process off;\n{}", greeting(port, word));
    let mut server = Server::start("single", &text("old"));
    let (_, pid) = greet(port);
    assert_eq!(pid, server.wait_for_pid());
    let mut client = busy(&server, port);
    server.configure(&text("new"));
    server.signal(Signal::SIGHUP);
    wait("the new greeting", || (greet(port).0 == "new").then_some(()));
    client.send(REST).unwrap();
    assert_eq!(client.receive().unwrap().text(), format!("old {pid}"));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.ended().code(), Some(0));
    assert!(!server.pid_file().exists());
}

#[test]
fn a_configuration_is_tested() {
    let port = free_port();
    let server = Server::new("test", &greeting(port, "x"));
    let conf = server.path(CONF);
    let conf = conf.display();
    let output = server.run(&["-t"]);
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        format!(
            "nxr: the configuration file {conf} syntax is ok\nnxr: configuration file {conf} test is successful\n"
        )
    );
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0));
    assert_eq!(fs::read(server.pid_file()).unwrap(), b"");

    let output = server.run(&["-Tq"]);
    assert_eq!(output.stderr, b"");
    let text = fs::read_to_string(server.path(CONF)).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("# configuration file {conf}:\n{text}\n"));
}

#[test]
fn signals_without_a_process_fail() {
    let server = Server::new("nobody", "events {}\nerror_log logs/error.log notice;\n");
    let pid = server.pid_file();
    let pid = pid.display();
    let words = |output: Output| {
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(
        words(server.run(&["-s", "quit"])),
        format!("nxr: [error] open() \"{pid}\" failed (2: No such file or directory)\n")
    );
    fs::write(server.pid_file(), "12x\n").unwrap();
    assert_eq!(
        words(server.run(&["-s", "quit"])),
        format!("nxr: [error] invalid PID number \"12x\" in \"{pid}\"\n")
    );
    assert!(server.log().contains(": signal process started\n"));
    assert_eq!(words(server.run(&["-s", "x"])), "nxr: invalid option: \"-s x\"\n");
}

#[test]
fn an_address_in_use_is_an_error_after_five_tries() {
    let port = free_port();
    let server = Server::new("in-use", &greeting(port, "x"));
    let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let output = server.run(&[]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    let bind = format!("nxr: [emerg] bind() to 127.0.0.1:{port} failed (98: Address already in use)\n");
    assert_eq!(stderr, bind.repeat(5) + "nxr: [emerg] still could not bind()\n");
}
