//! Whole exchanges, over the loopback interface.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::http::testing::{Answer, Site, emerg};

mod uploads;

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
fn the_head_has_its_own_host_and_no_hop_by_hop_fields() {
    let backend = Backend::says(&ok("x"));
    let site = backend.site(
        "proxy_set_header X-One 1; proxy_set_header X-Two $arg_two; proxy_set_header X-Empty \"\"; \
         proxy_set_header X-Unset $arg_nothing;",
    );
    let fields = "Connection: close\r\nX-One: client\r\nTE: trailers\r\nUpgrade: h2c\r\nAccept: a\r\n";
    site.ask("GET", "/a?two=2", fields);
    let want = format!(
        "GET /a?two=2 HTTP/1.1\r\nHost: {}\r\nX-One: 1\r\nX-Two: 2\r\nAccept: a\r\n\r\n",
        backend.addr
    );
    assert_eq!(backend.last(), want);
}

#[test]
fn uris_are_passed_as_they_came_or_with_the_locations_name_replaced() {
    let backend = Backend::says(&ok("x"));
    let to = backend.addr;
    let site = Site::new(&format!(
        "server {{ LISTEN
            location / {{ proxy_pass http://{to}; }}
            location /a/ {{ proxy_pass http://{to}/b/; }}
            location /c/ {{ proxy_pass http://{to}/; }}
            location = /e {{ proxy_pass http://{to}/f?g=h; }}
            location ~ ^/re/ {{ proxy_pass http://{to}; }}
            location /v/ {{ set $to {to}; proxy_pass http://$to/fixed; }}
            location /w/ {{ set $to {to}; proxy_pass http://$to; }}
            location /r/ {{ rewrite ^/r/(.*) /new/$1 break; proxy_pass http://{to}; }}
        }}"
    ));
    for (asked, passed) in [
        ("/x%2f/../y?z", "/x%2f/../y?z"),
        ("/a/x%20y?z", "/b/x%20y?z"),
        ("/c//x", "/x"),
        ("/e", "/f?g=h"),
        ("/re/%41", "/re/%41"),
        ("/v/x?y", "/fixed"),
        ("/w/x?y", "/w/x?y"),
        ("/r/x%20?y=z", "/new/x%20?y=z"),
    ] {
        site.get(asked);
        assert_eq!(backend.last().split(' ').nth(1), Some(passed), "{asked}");
    }
}

#[test]
fn bodies_have_a_length_once_they_are_read() {
    let backend = Backend::says(&ok("x"));
    let site = Site::new(&format!(
        "server {{ LISTEN location / {{ proxy_pass http://{0}; }}
           location /own {{ proxy_pass http://{0}; proxy_set_body \"<$request_method>\"; }}
           location /none {{ proxy_pass http://{0}; proxy_pass_request_body off;
                             proxy_set_header Content-Length \"\"; }}
           location /live {{ proxy_pass http://{0}; proxy_request_buffering off; }} }}",
        backend.addr
    ));
    let chunked = |path: &str| {
        site.raw(&format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
             3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        ));
        backend.last()
    };
    assert!(chunked("/").ends_with("Content-Length: 5\r\n\r\nabcde"));
    assert!(chunked("/live").ends_with("Content-Length: 5\r\n\r\nabcde"));
    assert!(chunked("/own").ends_with("Content-Length: 6\r\n\r\n<POST>"));
    assert!(chunked("/none").ends_with("\r\n\r\n") && !backend.last().contains("Length"));
}

#[test]
fn a_body_that_comes_slowly_is_passed_on_in_chunks() {
    let backend = Backend::says(&ok("x"));
    let site = backend.site("proxy_request_buffering off;");
    let mut client = TcpStream::connect(site.addr).unwrap();
    client
        .write_all(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    wait("a connection", || backend.connections.load(Ordering::Relaxed) == 1);
    client.write_all(b"3\r\nabc\r\n0\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"));
    assert!(backend.last().ends_with("Transfer-Encoding: chunked\r\n\r\nabc"), "{}", backend.last());
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
fn kept_connections_are_used_again() {
    let backend = Backend::says(&ok("x"));
    let site = Site::new(&format!(
        "upstream u {{ server {}; keepalive 2; }} server {{ LISTEN location / {{ proxy_pass http://u; }} }}",
        backend.addr
    ));
    (0..5).for_each(|_| assert_eq!(site.get("/").text(), "x"));
    assert_eq!(backend.connections.load(Ordering::Relaxed), 1);
}

#[test]
fn failures_have_nginxs_words_and_statuses() {
    for (answer, status, words) in [
        ("", 502, "upstream prematurely closed connection while reading response header from upstream"),
        ("HTTP/1.1 200 OK\r\nA B: c\r\n\r\n", 502, "upstream sent invalid header: \"A\\x20...\""),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
            502,
            "upstream sent duplicate header line: \"Content-Length: 1\", previous value: \"Content-Length: 1\"",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx",
            502,
            "upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            502,
            "unknown \"Transfer-Encoding\": \"gzip\"",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx",
            200,
            "prematurely closed connection while reading upstream",
        ),
    ] {
        let backend = Backend::new(move |_, stream| {
            stream.write_all(answer.as_bytes()).unwrap();
            false
        });
        let site = backend.site("");
        assert_eq!(site.get("/").status, status, "{answer}");
        assert!(site.log().contains(words), "{}", site.log());
    }
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(5000));
    let site = Backend::says(&long).site("proxy_buffer_size 4k;");
    assert_eq!(site.get("/").status, 502);
    assert!(site.log().contains("upstream sent too big header while reading response header from upstream"));
}

#[test]
fn time_limits_and_refusals_lead_to_the_next_peer() {
    let silent = Backend::new(|_, stream| stream.read(&mut [0]).is_err());
    let good = Backend::says(&ok("good"));
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let site = Site::new(&format!(
        "upstream u {{ server {}; server {}; }} upstream r {{ server {refusing}; server {}; }}
         server {{ LISTEN proxy_read_timeout 100ms;
           location / {{ proxy_pass http://u; }} location /r {{ proxy_pass http://r; }}
           location /once {{ proxy_pass http://{}; }} }}",
        silent.addr, good.addr, good.addr, silent.addr
    ));
    assert_eq!(site.get("/").text(), "good");
    assert_eq!(site.get("/r").text(), "good");
    assert_eq!(site.get("/once").status, 504);
    let log = site.log();
    assert!(log.contains(
        "upstream timed out (110: Connection timed out) while reading response header from upstream"
    ));
    assert!(log.contains("connect() failed (111: Connection refused) while connecting to upstream"));
}

#[test]
fn what_must_not_be_repeated_is_not() {
    let bad = Backend::new(|_, _| false);
    let good = Backend::says(&ok("good"));
    let site = Site::new(&format!(
        "upstream u {{ server {}; server {} backup; }}
         server {{ LISTEN location / {{ proxy_pass http://u; }}
           location /any {{ proxy_pass http://u; proxy_next_upstream error non_idempotent; }} }}",
        bad.addr, good.addr
    ));
    assert_eq!(site.ask("POST", "/", "Content-Length: 0\r\n").status, 502);
    let site = Site::new(&format!(
        "upstream u {{ server {}; server {} backup; }}
         server {{ LISTEN location / {{ proxy_pass http://u; proxy_next_upstream error non_idempotent; }} }}",
        bad.addr, good.addr
    ));
    assert_eq!(site.ask("POST", "/", "Content-Length: 0\r\n").text(), "good");
}

#[test]
fn redirects_and_cookies_are_put_in_the_clients_terms() {
    let answer = |to: SocketAddr, path: &str| {
        format!(
            "HTTP/1.1 302 Found\r\nLocation: http://{to}{path}\r\nRefresh: 1; url=http://{to}{path}\r\n\
             Set-Cookie: a=b; Path=/up/x; domain=.up.test\r\nContent-Length: 0\r\n\r\n"
        )
    };
    let own = Arc::new(Mutex::new(None));
    let addr = own.clone();
    let backend = Backend::new(move |_, stream| {
        let to: SocketAddr = addr.lock().unwrap().unwrap();
        stream.write_all(answer(to, "/up/x").as_bytes()).is_ok()
    });
    *own.lock().unwrap() = Some(backend.addr);
    let site = Site::new(&format!(
        "server {{ LISTEN absolute_redirect off;
           location / {{ proxy_pass http://{0}/up/; proxy_cookie_path /up/ /; proxy_cookie_flags a secure samesite=lax;
                         proxy_cookie_domain up.test down.test; }}
           location /off {{ proxy_pass http://{0}; proxy_redirect off; }}
           location /regex {{ proxy_pass http://{0}; proxy_redirect ~^http://[^/]+/up(/.*)$ /re$1; }} }}",
        backend.addr
    ));
    let first = site.get("/");
    assert_eq!((first.field("location"), first.field("refresh")), (Some("/x"), Some("1; url=/x")));
    assert_eq!(first.field("set-cookie"), Some("a=b; Path=/x; domain=.down.test; Secure; SameSite=Lax"));
    let off = format!("http://{}/up/x", backend.addr);
    assert_eq!(site.get("/off").field("location"), Some(off.as_str()));
    assert_eq!(site.get("/regex").field("location"), Some("/re/x"));
}

#[test]
fn fields_for_the_proxy_are_hidden_and_obeyed() {
    let backend = Backend::new(|request, stream| {
        let answer = match request.split(' ').nth(1) {
            Some("/inside") => {
                "HTTP/1.1 200 OK\r\nX-Accel-Redirect: /there?a=b\r\nSet-Cookie: c=d\r\nX-No: x\r\nContent-Length: 0\r\n\r\n"
            }
            Some("/error") => "HTTP/1.1 404 Nope\r\nContent-Length: 2\r\n\r\nno",
            _ => {
                "HTTP/1.1 200 Fine\r\nServer: s\r\nDate: d\r\nX-Accel-Expires: 1\r\nX-Pad: p\r\nX-B: c\r\nContent-Length: 0\r\n\r\n"
            }
        };
        stream.write_all(answer.as_bytes()).is_ok()
    });
    let site = Site::new(&format!(
        "server {{ LISTEN location / {{ proxy_pass http://{0}; proxy_hide_header X-B; proxy_pass_header Server; }}
           location /there {{ internal; return 200 \"there $args\"; }}
           location /error {{ proxy_pass http://{0}; proxy_intercept_errors on; error_page 404 /there; }} }}",
        backend.addr
    ));
    let plain = site.get("/");
    assert!(plain.head.starts_with("HTTP/1.1 200 Fine"), "{}", plain.head);
    assert_eq!(plain.field("server"), Some("s"));
    for hidden in ["x-accel-expires", "x-pad", "x-b"] {
        assert_eq!(plain.field(hidden), None);
    }
    assert_ne!(plain.field("date"), Some("d"));
    let inside = site.get("/inside");
    assert_eq!((inside.status, inside.text().as_str()), (200, "there a=b"));
    assert_eq!((inside.field("set-cookie"), inside.field("x-no")), (Some("c=d"), None));
    assert_eq!(site.get("/error").text(), "there ");
}

/// Bytes that differ wherever one looks.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect()
}

fn same(answer: &Answer, whole: &[u8]) {
    assert_eq!(answer.body.len(), whole.len());
    assert!(answer.body == whole);
}

#[test]
fn long_bodies_arrive_whole() {
    let whole = pattern(3_000_001);
    let sent = whole.clone();
    let backend = Backend::new(move |request, stream| {
        if request.contains("/chunked") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
            for piece in sent.chunks(77_777) {
                stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).unwrap();
                stream.write_all(piece).unwrap();
                stream.write_all(b"\r\n").unwrap();
            }
            return stream.write_all(b"0\r\n\r\n").is_ok();
        }
        let close = request.contains("/close");
        let length = if close { String::new() } else { format!("Content-Length: {}\r\n", sent.len()) };
        stream.write_all(format!("HTTP/1.1 200 OK\r\n{length}\r\n").as_bytes()).unwrap();
        stream.write_all(&sent).is_ok() && !close
    });
    for more in [
        "proxy_max_temp_file_size 0;",
        "proxy_buffering off;",
        "proxy_buffers 2 8k; proxy_buffer_size 8k; proxy_busy_buffers_size 8k; proxy_max_temp_file_size 0;",
    ] {
        let site = backend.site(more);
        for path in ["/length", "/chunked", "/close"] {
            same(&site.get(path), &whole);
        }
    }
}

#[test]
fn what_a_slow_client_does_not_take_waits_in_a_file() {
    let whole = pattern(24 << 20);
    let sent = whole.clone();
    let done = Arc::new(AtomicUsize::new(0));
    let finished = done.clone();
    let backend = Backend::new(move |_, stream| {
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").unwrap();
        stream.write_all(&sent).unwrap();
        finished.store(1, Ordering::SeqCst);
        false
    });
    let site = backend.site("");
    // A process that starts makes this folder.
    std::fs::create_dir(site.folder.path().join("proxy_temp")).unwrap();
    let mut client = TcpStream::connect(site.addr).unwrap();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    // The upstream is done while the client has not read a byte.
    wait("the upstream's end", || done.load(Ordering::SeqCst) == 1);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    let at = memchr::memmem::find(&answer, b"\r\n\r\n").unwrap() + 4;
    assert!(answer[at..] == whole[..]);
    assert!(site.log().contains("an upstream response is buffered to a temporary file"), "{}", site.log());
}

#[test]
fn a_client_that_leaves_ends_the_upstreams_work() {
    let (left, leaving) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (gone, asked) = (left.clone(), leaving.clone());
    let backend = Backend::new(move |_, stream| {
        asked.store(1, Ordering::SeqCst);
        let _ = stream.read(&mut [0]);
        gone.store(1, Ordering::SeqCst);
        false
    });
    let site = backend.site("");
    let mut client = TcpStream::connect(site.addr).unwrap();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    wait("the request", || leaving.load(Ordering::SeqCst) == 1);
    drop(client);
    wait("the upstream's connection to close", || left.load(Ordering::SeqCst) == 1);
    wait("the log", || site.log().contains("so upstream connection is closed too"));
}

#[test]
fn an_upgraded_connection_is_a_tunnel() {
    let backend = Backend::new(|request, stream| {
        assert!(request.contains("Connection: upgrade\r\n") && request.contains("Upgrade: echo\r\n"));
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\nhi ").unwrap();
        let mut bytes = [0; 64];
        loop {
            match stream.read(&mut bytes) {
                Ok(n) if n > 0 => stream.write_all(&bytes[..n]).unwrap(),
                _ => return false,
            }
        }
    });
    let site = backend.site("proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;");
    let mut client = TcpStream::connect(site.addr).unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nearly ")
        .unwrap();
    let mut seen = String::new();
    let mut byte = [0];
    while !seen.ends_with("hi early ") {
        client.read_exact(&mut byte).unwrap();
        seen.push(byte[0] as char);
    }
    assert!(
        seen.starts_with("HTTP/1.1 101 Switching Protocols\r\n") && seen.contains("Connection: upgrade\r\n")
    );
    client.write_all(b"late").unwrap();
    let mut late = [0; 4];
    client.read_exact(&mut late).unwrap();
    assert_eq!(&late, b"late");
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
