//! The binary under test in a directory of its own.

use super::{PATIENCE, fixture, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

pub const CONF: &str = "nginx.conf";

/// A directory with a configuration, and the process serving it.
pub struct Server {
    pub directory: PathBuf,
    pub process: Option<Child>,
}

/// `text` with a main context that logs to the directory and a worker of one thread, in the foreground.
pub fn foreground(text: &str) -> String {
    format!("daemon off; error_log logs/error.log info;\n{text}")
}

/// A configuration with an `http` block alone.
pub fn http(text: &str) -> String {
    foreground(&format!("events {{}}\nhttp {{ access_log logs/access.log;\n{text}\n}}\n"))
}

/// A configuration with a `stream` block alone.
pub fn stream(text: &str) -> String {
    foreground(&format!("events {{}}\nstream {{\n{text}\n}}\n"))
}

impl Server {
    /// The directory with `text` as its configuration, and nothing started.
    pub fn new(name: &str, text: &str) -> Server {
        let directory =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("e2e-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(directory.join("logs")).unwrap();
        fs::create_dir_all(directory.join("html")).unwrap();
        std::os::unix::fs::symlink(fixture("home-lab/certs"), directory.join("certs")).unwrap();
        let server = Server { directory, process: None };
        server.configure(text);
        server
    }

    /// Starts the server and waits until it can be connected to.
    pub fn start(name: &str, text: &str) -> Server {
        let mut server = Server::new(name, text);
        server.spawn();
        server
    }

    /// Starts the server in this directory.
    pub fn spawn(&mut self) {
        self.process = Some(self.command().stderr(Stdio::null()).spawn().unwrap());
        self.wait_for_pid();
        wait("a worker", || (!self.workers().is_empty() || self.is_single()).then_some(()));
    }

    fn is_single(&self) -> bool {
        fs::read_to_string(self.path(CONF)).unwrap().contains("master_process off")
    }

    pub fn configure(&self, text: &str) {
        // In one step, so that a reload never reads half a file.
        fs::write(self.path("new.conf"), text).unwrap();
        fs::rename(self.path("new.conf"), self.path(CONF)).unwrap();
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nxr"));
        command.arg("-p").arg(&self.directory).args(["-c", CONF, "-e", "logs/error.log"]);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub fn pid_file(&self) -> PathBuf {
        self.path("logs/nginx.pid")
    }

    pub fn wait_for_pid(&self) -> i32 {
        let path = self.pid_file();
        wait("the pid file", || fs::read_to_string(&path).ok()?.trim().parse().ok())
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.wait_for_pid()), signal).unwrap();
    }

    /// The children of the master.
    pub fn workers(&self) -> Vec<i32> {
        children(self.wait_for_pid())
    }

    /// The one worker there is.
    pub fn worker(&self) -> i32 {
        wait("one worker", || match self.workers()[..] {
            [worker] => Some(worker),
            _ => None,
        })
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("logs/error.log")).unwrap_or_default()
    }

    pub fn access_log(&self) -> String {
        fs::read_to_string(self.path("logs/access.log")).unwrap_or_default()
    }

    pub fn wait_for_log(&self, words: &str) {
        wait(words, || self.log().contains(words).then_some(()));
    }

    /// Lines of the error log at `error` and above.
    pub fn faults(&self) -> Vec<String> {
        let serious = ["[emerg]", "[alert]", "[crit]", "[error]"];
        let log = self.log();
        log.lines()
            .filter(|line| serious.iter().any(|level| line.contains(level)))
            .map(str::to_owned)
            .collect()
    }

    pub fn ended(&mut self) -> ExitStatus {
        let mut process = self.process.take().unwrap();
        wait("the end of the process", || process.try_wait().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for name in ["logs/nginx.pid", "logs/nginx.pid.oldbin"] {
            let Ok(text) = fs::read_to_string(self.path(name)) else { continue };
            let Ok(pid) = text.trim().parse() else { continue };
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        if let Some(process) = &mut self.process {
            let _ = process.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.len().saturating_sub(4000);
            eprintln!("{}", log.get(tail..).unwrap_or(&log));
        } else {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

fn children(parent: i32) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // pid (name) state parent ...
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        let mut fields = rest.split_whitespace();
        let state = fields.next();
        if state != Some("Z") && fields.next() == Some(&parent.to_string()) {
            found.push(pid);
        }
    }
    found
}

/// Open descriptors of a process.
pub fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// The same, once it no longer changes: connections end a little after their clients have gone.
pub fn settled(pid: i32) -> usize {
    wait("a steady number of descriptors", || {
        let count = descriptors(pid);
        let steady = (0..10).all(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            descriptors(pid) == count
        });
        steady.then_some(count)
    })
}

/// Resident memory of a process, in KiB.
pub fn resident(pid: i32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A connection to `port` of this machine that does not wait forever.
pub fn connect(port: u16) -> TcpStream {
    connect_to(&format!("127.0.0.1:{port}"))
}

pub fn connect_to(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Ends a connection with a reset instead of an orderly end.
pub fn reset(stream: TcpStream) {
    let linger = socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));
    linger.unwrap();
    drop(stream);
}
