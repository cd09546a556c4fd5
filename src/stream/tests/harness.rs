//! Configurations read by the real code, at work on loopback sockets.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use crate::conf::load::{self, Message};
use crate::net::{Address, Io, Socket};
use crate::stream::Stream;
use crate::stream::serve::serve;
use crate::stream::session::Session;

static NUMBER: AtomicU64 = AtomicU64::new(1);

pub fn scratch() -> PathBuf {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("nxr-stream-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// Reads a configuration; the folder becomes its prefix.
pub fn read(folder: &Path, text: &str) -> Result<load::Ir, String> {
    let conf_file = folder.join("nginx.conf");
    std::fs::write(&conf_file, text).unwrap();
    let options = load::Options {
        conf_file,
        conf_prefix: folder.to_path_buf(),
        prefix: folder.to_path_buf(),
        parameters: None,
        testing: false,
        error_log: Some(folder.join("error.log")),
        pid: folder.join("pid"),
    };
    let mut messages = Vec::new();
    load::load(&options, &mut messages).map_err(|_| match messages.pop() {
        Some(Message::Log(_, text)) => text.replace(&format!("{}/", folder.display()), ""),
        other => format!("{other:?}"),
    })
}

pub fn refusal(body: &str) -> String {
    let folder = scratch();
    let said = read(&folder, &format!("events {{}}\nstream {{\n{body}\n}}\n")).err().unwrap();
    std::fs::remove_dir_all(folder).unwrap();
    said
}

/// A stream block at work on ports of its own: `LISTEN0`, `LISTEN1`, ... in the text are its addresses.
pub struct Running {
    pub stream: &'static Stream,
    folder: PathBuf,
    pub addresses: Vec<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
}

impl Running {
    pub fn start(body: &str) -> Running {
        let folder = scratch();
        let ports = (0..).take_while(|i| body.contains(&format!("LISTEN{i}"))).count();
        let listeners: Vec<StdListener> =
            (0..ports).map(|_| StdListener::bind("127.0.0.1:0").unwrap()).collect();
        let mut text = format!("error_log error.log info;\nevents {{}}\nstream {{\n{body}\n}}\n");
        for (i, listener) in listeners.iter().enumerate() {
            text = text.replace(&format!("LISTEN{i}"), &listener.local_addr().unwrap().to_string());
        }
        let ir = read(&folder, &text).unwrap_or_else(|said| panic!("{said}"));
        let stream: &'static Stream = Box::leak(Box::new(ir.stream.unwrap()));
        ir.files.open(&ir.core.error_log).unwrap();
        for server in &stream.servers {
            let _ = server.main_log.set(ir.core.error_log.clone());
        }
        let mut running = Running { stream, folder, addresses: Vec::new(), tasks: Vec::new() };
        for listener in listeners {
            let address = listener.local_addr().unwrap();
            listener.set_nonblocking(true).unwrap();
            let listener = TcpListener::from_std(listener).unwrap();
            let port =
                stream.ports.iter().position(|port| port.listen.address.to_string() == address.to_string());
            let port = &stream.ports[port.unwrap()];
            running.addresses.push(address);
            running.tasks.push(spawn_local(async move {
                while let Ok((socket, peer)) = listener.accept().await {
                    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                    let io = Io::Plain(Socket::connected(socket.into_std().unwrap().into(), false).unwrap());
                    let session = Box::new(Session::new(stream, port, io, Address::Inet(peer), number));
                    spawn_local(serve(session));
                }
            }));
        }
        running
    }

    pub async fn connect(&self, port: usize) -> TcpStream {
        TcpStream::connect(self.addresses[port]).await.unwrap()
    }

    pub fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.join(name)).unwrap_or_default()
    }

    /// Waits until a file has a line with `text`, and returns it.
    pub async fn line(&self, name: &str, text: &str) -> String {
        let mut turns = 0;
        loop {
            if let Some(line) = self.file(name).lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            turns += 1;
            assert!(turns < 5000, "no \"{text}\" in {name}:\n{}", self.file(name));
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub fn run<F: Future>(work: F) -> F::Output {
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limit = std::time::Duration::from_secs(60);
    LocalSet::new().block_on(&rt, async { tokio::time::timeout(limit, work).await.expect("in time") })
}

/// A server that says its name, then what it is told, until the end.
pub async fn echo(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn_local(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            spawn_local(async move {
                socket.write_all(name.as_bytes()).await.unwrap();
                let (mut from, mut to) = socket.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

/// An address where nobody listens.
pub fn nobody() -> SocketAddr {
    StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub async fn expect(socket: &mut TcpStream, text: &str) {
    let mut buf = vec![0; text.len()];
    socket.read_exact(&mut buf).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&buf), text);
}

pub async fn rest(socket: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let _ = socket.read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).into_owned()
}
