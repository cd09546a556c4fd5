//! Starting, stopping, reloading and upgrading, on the server of `examples/echo.rs`.

use nix::sys::signal::Signal;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// A directory with a configuration, and the process serving it.
struct Server {
    directory: PathBuf,
    port: u16,
    process: Option<Child>,
}

struct Client {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
    /// What the server said first: greeting, process, thread.
    greeting: Vec<String>,
}

impl Server {
    fn new(name: &str, directives: &str) -> Server {
        let directory = std::env::temp_dir().join(format!("nxr-process-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(directory.join("logs")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Server { directory, port, process: None };
        server.configure(directives);
        server
    }

    fn start(name: &str, directives: &str) -> Server {
        let mut server = Server::new(name, directives);
        let process = server.command().stderr(Stdio::null()).spawn().unwrap();
        server.process = Some(process);
        server.wait_for_pid();
        server
    }

    fn configure(&self, directives: &str) {
        let text = format!("listen 127.0.0.1:{}\n{directives}\n", self.port);
        fs::write(self.path("echo.conf"), text).unwrap();
    }

    fn command(&self) -> Command {
        let binary = Path::new(env!("CARGO_BIN_EXE_nxr")).with_file_name("examples").join("echo");
        assert!(binary.exists(), "build the examples first: cargo build --examples");
        let mut command = Command::new(binary);
        command.arg("-p").arg(&self.directory).args(["-c", "echo.conf", "-e", "error.log"]);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn pid_file(&self) -> PathBuf {
        self.path("logs/nginx.pid")
    }

    fn wait_for_pid(&self) -> i32 {
        let path = self.pid_file();
        wait("the pid file", || fs::read_to_string(&path).ok()?.trim().parse().ok())
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.wait_for_pid()), signal).unwrap();
    }

    fn connect(&self) -> Client {
        let stream = wait("a connection", || TcpStream::connect(("127.0.0.1", self.port)).ok());
        Client::new(stream)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("error.log")).unwrap_or_default()
    }

    fn wait_for_log(&self, words: &str) {
        wait(words, || self.log().contains(words).then_some(()));
    }

    fn ended(&mut self) -> ExitStatus {
        let mut process = self.process.take().unwrap();
        wait("the end of the process", || process.try_wait().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for name in ["logs/nginx.pid", "logs/nginx.pid.oldbin"] {
            let Ok(text) = fs::read_to_string(self.path(name)) else { continue };
            let Ok(pid) = text.trim().parse() else { continue };
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGTERM);
        }
        if let Some(process) = &mut self.process {
            let _ = process.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        } else {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

impl Client {
    fn new(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap());
        let mut client = Client { stream, lines, greeting: Vec::new() };
        client.greeting = client.read().unwrap().split(' ').map(str::to_owned).collect();
        client
    }

    fn read(&mut self) -> Option<String> {
        let mut line = String::new();
        let count = self.lines.read_line(&mut line).unwrap_or(0);
        (count > 0).then(|| line.trim_end().to_owned())
    }

    fn say(&mut self, line: &str) -> Option<String> {
        self.stream.write_all(format!("{line}\n").as_bytes()).unwrap();
        self.read()
    }

    fn worker(&self) -> i32 {
        self.greeting[1].parse().unwrap()
    }
}

fn wait<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "no {what} within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn serves_until_told_to_quit() {
    let mut server = Server::start("quit", "daemon off\ngreeting hello\nlisten unix:/tmp/nxr-echo-quit.sock");
    let mut client = server.connect();
    assert_eq!(client.greeting[0], "hello");
    assert_eq!(client.say("one").as_deref(), Some("one"));
    let local = UnixStream::connect("/tmp/nxr-echo-quit.sock").unwrap();
    drop(local);
    assert_eq!(client.say("two,").as_deref(), Some("two,"));
    server.signal(Signal::SIGQUIT);
    server.wait_for_log("gracefully shutting down");
    assert_eq!(client.say("three").as_deref(), Some("three"), "a busy connection is served to its end");
    assert_eq!(client.read(), None);
    assert_eq!(server.ended().code(), Some(0));
    assert!(!server.pid_file().exists() && !Path::new("/tmp/nxr-echo-quit.sock").exists());
    let log = server.log();
    for words in [
        "[notice] ",
        ": using the \"epoll\" event method\n",
        ": start worker processes\n",
        ": signal 3 (SIGQUIT) received from ",
        ", shutting down\n",
        ": exiting\n",
        &format!(": worker process {} exited with code 0\n", client.worker()),
    ] {
        assert!(log.contains(words), "{words:?} in {log}");
    }
    assert_eq!(log.matches("SIGQUIT").count(), 1);
    assert!(log.ends_with(": exit\n"));
}

#[test]
fn terminates_at_once() {
    let mut server = Server::start("term", "daemon off\nthreads 2");
    let mut client = server.connect();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.ended().code(), Some(0));
    assert_eq!(client.read(), None);
}

#[test]
fn a_reload_changes_the_worker_and_loses_no_connection() {
    let server = Server::start("reload", "daemon off\ngreeting old\nthreads 2");
    let mut client = server.connect();
    assert_eq!(client.say("one,").as_deref(), Some("one,"));

    server.configure("daemon off\ngreeting new\nbogus x");
    assert_eq!(server.run(&["-s", "reload"]).status.code(), Some(1), "-s reads the configuration too");
    server.signal(Signal::SIGHUP);
    server.wait_for_log("[emerg]");
    assert!(server.log().contains(": unknown directive \"bogus\"\n"));
    assert_eq!(server.connect().greeting[0], "old");

    server.configure("daemon off\ngreeting new");
    assert_eq!(server.run(&["-s", "reload"]).status.code(), Some(0));
    // Every connection is answered while the workers change.
    let fresh = wait("a new worker", || {
        let client = server.connect();
        (client.greeting[0] == "new").then_some(client)
    });
    server.wait_for_log("gracefully shutting down");
    assert_ne!(fresh.worker(), client.worker());
    assert_eq!(client.say("two").as_deref(), Some("two"));
    assert_eq!(client.read(), None);
    server.wait_for_log(&format!("worker process {} exited with code 0", client.worker()));
    assert_eq!(server.connect().worker(), fresh.worker());
}

#[test]
fn a_worker_that_dies_is_started_again() {
    let server = Server::start("respawn", "daemon off");
    let first = server.connect().worker();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), Signal::SIGKILL).unwrap();
    server.wait_for_log("[alert] ");
    assert!(server.log().contains(&format!(": worker process {first} exited on signal 9\n")));
    assert_ne!(server.connect().worker(), first);
}

#[test]
fn a_panic_ends_one_connection() {
    let server = Server::start("panic", "daemon off");
    let mut bystander = server.connect();
    let mut client = server.connect();
    assert_eq!(client.say("panic"), None);
    server.wait_for_log(": panic: asked to, at ");
    assert_eq!(bystander.say("still here").as_deref(), Some("still here"));
    assert_eq!(server.connect().worker(), bystander.worker());
}

#[test]
fn logs_are_opened_again() {
    let server = Server::start("reopen", "daemon off");
    let mut client = server.connect();
    client.say("before").unwrap();
    fs::rename(server.path("access.log"), server.path("access.log.1")).unwrap();
    client.say("between").unwrap();
    assert!(server.run(&["-s", "reopen"]).status.success());
    wait("a new log", || (server.log().matches(": reopening logs\n").count() == 2).then_some(()));
    wait("the new log written", || {
        client.say("after").unwrap();
        fs::read_to_string(server.path("access.log")).ok()?.contains("after\n").then_some(())
    });
    assert!(fs::read_to_string(server.path("access.log.1")).unwrap().starts_with("before\nbetween\n"));
}

#[test]
fn a_new_binary_takes_over_the_sockets() {
    let mut server = Server::start("upgrade", "greeting x");
    assert_eq!(server.ended().code(), Some(0), "the process that was started goes away");
    let old = server.wait_for_pid();
    let mut client = server.connect();
    client.say("one,").unwrap();
    server.signal(Signal::SIGUSR2);
    let new = wait("a new master", || Some(server.wait_for_pid()).filter(|pid| *pid != old));
    assert_eq!(fs::read_to_string(server.path("logs/nginx.pid.oldbin")).unwrap(), format!("{old}\n"));
    server.wait_for_log(": using inherited sockets from \"");

    nix::sys::signal::kill(nix::unistd::Pid::from_raw(old), Signal::SIGWINCH).unwrap();
    server.wait_for_log("gracefully shutting down");
    let fresh = server.connect();
    assert_ne!(fresh.worker(), client.worker());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(old), Signal::SIGQUIT).unwrap();
    assert_eq!(client.say("two").as_deref(), Some("two"));
    wait("the end of the old master", || (!server.path("logs/nginx.pid.oldbin").exists()).then_some(()));
    assert_eq!(server.wait_for_pid(), new);
    assert_eq!(server.connect().worker(), fresh.worker());
}

#[test]
fn connections_spread_over_the_threads() {
    let server = Server::start("spread", "daemon off\nthreads 2");
    let clients: Vec<Client> = (0..64).map(|_| server.connect()).collect();
    let first = clients.iter().filter(|client| client.greeting[2] == "0").count();
    assert!((26..=38).contains(&first), "{first} of 64 on the first thread");
}

#[test]
fn too_many_connections_are_turned_away() {
    let server = Server::start("limit", "daemon off\nconnections 2");
    let kept = [server.connect(), server.connect()];
    let mut refused = BufReader::new(TcpStream::connect(("127.0.0.1", server.port)).unwrap());
    let mut line = String::new();
    assert_eq!(refused.read_line(&mut line).unwrap_or(0), 0, "{line}");
    server.wait_for_log("[alert] ");
    let words = format!(
        ": 2 worker_connections are not enough while accepting new connection on 127.0.0.1:{}\n",
        server.port
    );
    assert!(server.log().contains(&words), "{}", server.log());
    drop(kept);
    wait("room for a connection", || {
        let mut lines = BufReader::new(TcpStream::connect(("127.0.0.1", server.port)).ok()?);
        (lines.read_line(&mut line).ok()? > 0).then_some(())
    });
}

#[test]
fn a_shutdown_ends_when_its_time_is_over() {
    let mut server = Server::start("timeout", "daemon off\nshutdown 50");
    let mut client = server.connect();
    client.say("half,").unwrap();
    server.signal(Signal::SIGQUIT);
    assert_eq!(server.ended().code(), Some(0));
    assert_eq!(client.read(), None);
}

#[test]
fn one_process_may_do_it_all() {
    let mut server = Server::start("single", "daemon off\nmaster off\ngreeting old\nthreads 2");
    let mut client = server.connect();
    assert_eq!(client.worker(), server.wait_for_pid());
    server.configure("daemon off\nmaster off\ngreeting new");
    server.signal(Signal::SIGHUP);
    wait("the new greeting", || (server.connect().greeting[0] == "new").then_some(()));
    assert_eq!(client.say("still").as_deref(), Some("still"));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.ended().code(), Some(0));
    assert!(!server.pid_file().exists());
}

#[test]
fn a_configuration_is_tested() {
    let server = Server::new("test", "greeting x");
    let conf = server.path("echo.conf");
    let conf = conf.display();
    let output = server.run(&["-t"]);
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        format!(
            "nxr: the configuration file {conf} syntax is ok\nnxr: configuration file {conf} test is successful\n"
        )
    );
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0));
    assert_eq!(fs::read(server.path("logs/nginx.pid")).unwrap(), b"");

    let output = server.run(&["-Tq"]);
    assert_eq!(output.stderr, b"");
    let text = fs::read_to_string(server.path("echo.conf")).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("# configuration file {conf}:\n{text}\n"));

    server.configure("bogus x");
    let output = server.run(&["-t"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        format!("nxr: [emerg] unknown directive \"bogus\"\nnxr: configuration file {conf} test failed\n")
    );
}

#[test]
fn signals_without_a_process_fail() {
    let server = Server::new("nobody", "greeting x");
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
    fs::write(server.path("logs/nginx.pid"), "12x\n").unwrap();
    assert_eq!(
        words(server.run(&["-s", "quit"])),
        format!("nxr: [error] invalid PID number \"12x\" in \"{pid}\"\n")
    );
    assert!(server.log().contains(": signal process started\n"));
    assert_eq!(words(server.run(&["-s", "x"])), "nxr: invalid option: \"-s x\"\n");
}

#[test]
fn an_address_in_use_is_an_error_after_five_tries() {
    let server = Server::new("inuse", "daemon off");
    let _taken = TcpListener::bind(("127.0.0.1", server.port)).unwrap();
    let output = server.run(&[]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    let bind =
        format!("nxr: [emerg] bind() to 127.0.0.1:{} failed (98: Address already in use)\n", server.port);
    assert_eq!(stderr, bind.repeat(5) + "nxr: [emerg] still could not bind()\n");
}
