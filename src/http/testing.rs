//! A configuration that is read, or served on a free port of the loopback interface, for the tests of modules.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use crate::conf::load::{Message, Options, load};
use crate::http::Http;
use crate::log::Level;
use crate::net::{Address, Socket};

/// A directory of its own for one test, removed with it.
pub struct Folder(PathBuf);

#[allow(clippy::new_without_default)]
impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("nxr-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(path.join("html")).unwrap();
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file under `html`.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.0.join("html").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn read(folder: &Folder, text: &str) -> (Option<Http>, Vec<Message>) {
    let file = folder.path().join("nginx.conf");
    std::fs::write(
        &file,
        format!("error_log {}/error.log debug; events {{}} http {{ {text} }}", folder.path().display()),
    )
    .unwrap();
    let options = Options {
        conf_file: file,
        conf_prefix: folder.path().to_owned(),
        prefix: folder.path().to_owned(),
        parameters: None,
        testing: false,
        error_log: None,
        pid: folder.path().join("pid"),
    };
    let mut messages = Vec::new();
    let ir = load(&options, &mut messages).ok();
    if let Some(ir) = &ir {
        let _ = ir.files.open(&crate::log::ErrorLog::none());
    }
    (ir.and_then(|ir| ir.http), messages)
}

/// Whether the text of an http block is taken.
pub fn loads(text: &str) -> bool {
    read(&Folder::new(), text).0.is_some()
}

/// Why the text of an http block is refused.
pub fn emerg(text: &str) -> String {
    let (_, messages) = read(&Folder::new(), text);
    match messages.last() {
        Some(Message::Log(Level::Emerg, text)) => text.clone(),
        other => panic!("not refused: {other:?}"),
    }
}

/// An http block that is served. `LISTEN` in its text stands for the `listen` directive, `LISTEN_SSL` for one with
/// TLS.
pub struct Site {
    pub addr: SocketAddr,
    pub folder: Folder,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// An answer taken apart.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a field, by name in any case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (n, value) = line.split_once(": ")?;
            n.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Site {
    pub fn new(text: &str) -> Site {
        Site::with(Folder::new(), text)
    }

    pub fn with(folder: Folder, text: &str) -> Site {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let text = text.replace("LISTEN_SSL", &format!("listen {addr} ssl;"));
        let text = text.replace("LISTEN", &format!("listen {addr};"));
        let (http, messages) = read(&folder, &text);
        let http: &'static Http = Box::leak(Box::new(http.unwrap_or_else(|| panic!("{messages:?}"))));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tokio::task::LocalSet::new().block_on(&runtime, async move {
                listener.set_nonblocking(true).unwrap();
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                ready.send(()).unwrap();
                tokio::select! {
                    () = accept(&listener, http) => {}
                    _ = stopped => {}
                }
            });
        });
        is_ready.recv().unwrap();
        Site { addr, folder, stop: Some(stop), thread: Some(thread) }
    }

    /// Sends bytes and reads to the end.
    pub fn raw(&self, request: &str) -> String {
        String::from_utf8_lossy(&self.bytes(request)).into_owned()
    }

    fn bytes(&self, request: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.addr).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }

    /// A GET over HTTP/1.0, whose body comes as it is.
    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "")
    }

    /// A request over HTTP/1.0 with fields, each with its line end.
    pub fn ask(&self, method: &str, path: &str, fields: &str) -> Answer {
        let answer = self.bytes(&format!("{method} {path} HTTP/1.0\r\nHost: x\r\n{fields}\r\n"));
        let end = memchr::memmem::find(&answer, b"\r\n\r\n").unwrap_or_else(|| {
            panic!("no head in {:?}; log: {}", String::from_utf8_lossy(&answer), self.log())
        });
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body: answer[end + 4..].to_vec() }
    }

    /// The error log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("error.log")).unwrap_or_default()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: &tokio::net::TcpListener, http: &'static Http) {
    for number in 1.. {
        let (stream, peer) = listener.accept().await.unwrap();
        let socket = Socket::connected(stream.into_std().unwrap().into(), false).unwrap();
        crate::http::accept::serve_for_test(http, socket, Address::Inet(peer), number);
    }
}
