//! Whole exchanges, over the loopback interface.

mod bodies;
mod cgi;
mod fields;
mod hints;
mod request;
mod retry;
mod store;
mod uploads;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::http::testing::{Answer, Site, emerg};

/// A server that answers by script and remembers what it was asked.
struct Backend {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

type Script = dyn Fn(&str, &mut TcpStream) -> bool + Send + Sync;

impl Backend {
    /// `script` gets a request, head and body, and says whether the connection stays.
    fn new(script: impl Fn(&str, &mut TcpStream) -> bool + Send + Sync + 'static) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (asked, connections) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicUsize>::default());
        let script: Arc<Script> = Arc::new(script);
        let (list, count) = (asked.clone(), connections.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::Relaxed);
                let (list, script) = (list.clone(), script.clone());
                std::thread::spawn(move || serve(stream, &list, &*script));
            }
        });
        Backend { addr, asked, connections }
    }

    /// One that always gives the same answer.
    fn says(answer: &str) -> Backend {
        let answer = answer.to_owned();
        Backend::new(move |_, stream| stream.write_all(answer.as_bytes()).is_ok())
    }

    fn last(&self) -> String {
        self.asked.lock().unwrap().last().cloned().unwrap_or_default()
    }

    /// A site that passes `/` on to it, with more directives.
    fn site(&self, more: &str) -> Site {
        Site::new(&format!("server {{ LISTEN location / {{ proxy_pass http://{}; {more} }} }}", self.addr))
    }
}

fn serve(mut stream: TcpStream, list: &Mutex<Vec<String>>, script: &Script) {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let (mut head, mut length, mut chunked) = (String::new(), 0, false);
        loop {
            let start = head.len();
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
            let line = head[start..].trim_end().to_ascii_lowercase();
            if let Some(n) = line.strip_prefix("content-length: ") {
                length = n.parse().unwrap();
            }
            chunked |= line == "transfer-encoding: chunked";
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        while chunked {
            let mut size = String::new();
            reader.read_line(&mut size).unwrap();
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            let mut piece = vec![0; size + 2];
            reader.read_exact(&mut piece).unwrap();
            body.extend_from_slice(&piece[..size]);
            chunked = size > 0;
        }
        head.push_str(&String::from_utf8_lossy(&body));
        list.lock().unwrap().push(head.clone());
        if !script(&head, &mut stream) {
            return;
        }
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Waits for a condition that another thread makes true.
fn wait(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited too long for {what}");
        std::thread::yield_now();
    }
}

#[test]
fn it_does_not_matter_where_a_response_is_cut() {
    let answers = [
        ok("hello world").replace("\r\n\r\n", "\r\nX-A: b\r\n\r\n"),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n6\r\nhello \r\n5;e=f\r\nworld\r\n0\r\n\r\n"
            .to_owned(),
    ];
    for answer in answers {
        let cuts = answer.len();
        let next = AtomicUsize::new(0);
        let backend = Backend::new(move |_, stream| {
            let at = next.fetch_add(1, Ordering::Relaxed) % cuts;
            stream.write_all(&answer.as_bytes()[..at]).unwrap();
            stream.write_all(&answer.as_bytes()[at..]).is_ok()
        });
        let site = backend.site("");
        for _ in 0..cuts {
            let answer = site.get("/");
            assert_eq!(
                (answer.status, answer.text().as_str(), answer.field("x-a")),
                (200, "hello world", Some("b"))
            );
        }
        assert_eq!(site.log().matches("[error]").count(), 0);
    }
}

#[test]
fn settings_are_checked_against_each_other() {
    let inside = |text: &str| emerg(&format!("server {{ location / {{ {text} }} }}"));
    assert!(inside("proxy_buffers 1 4k;").contains("there must be at least 2 \"proxy_buffers\""));
    assert!(inside("proxy_busy_buffers_size 1k;").contains("must be equal to or greater than the maximum"));
    assert!(
        inside("proxy_max_temp_file_size 1k;").contains("must be equal to zero to disable temporary files")
    );
    assert!(inside("proxy_pass ftp://x;").contains("invalid URL prefix"));
    assert!(
        inside("proxy_redirect default;").contains("should be placed after the \"proxy_pass\" directive")
    );
    let regex = emerg("server { location ~ x { proxy_pass http://127.0.0.1/a; } }");
    assert!(regex.contains("\"proxy_pass\" cannot have URI part in location given by regular expression"));
}
