//! FastCGI, uwsgi and SCGI, each against a server of its own.

use std::collections::BTreeMap;

use super::*;
use crate::http::upstream::fastcgi::{HEADER, header, kind};

/// What a server received.
#[derive(Clone, Debug, Default)]
struct Asked {
    params: BTreeMap<String, String>,
    body: Vec<u8>,
    /// `FCGI_KEEP_CONN`
    keep: bool,
    /// Sizes of the records that the body came in.
    pieces: Vec<usize>,
}

impl Asked {
    fn param(&self, name: &str) -> Option<&str> {
        self.params.get(name).map(String::as_str)
    }
}

/// A server of one of the protocols.
struct Server {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// `read` takes a request, `answer` gives the bytes for it; the connection stays where the request says so.
    fn new(
        read: fn(&mut TcpStream) -> Option<Asked>,
        answer: impl Fn(&Asked, &mut TcpStream) + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (asked, connections) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::<AtomicUsize>::default());
        let (list, count, answer) = (asked.clone(), connections.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::Relaxed);
                let (list, answer) = (list.clone(), answer.clone());
                std::thread::spawn(move || {
                    stream.set_nodelay(true).unwrap();
                    while let Some(asked) = read(&mut stream) {
                        list.lock().unwrap().push(asked.clone());
                        answer(&asked, &mut stream);
                        if !asked.keep {
                            return;
                        }
                    }
                });
            }
        });
        Server { addr, asked, connections }
    }

    /// A FastCGI server that always gives this response.
    fn fastcgi(response: &'static str) -> Server {
        Server::new(read_fastcgi, move |_, stream| {
            let _ = stream.write_all(&records(response.as_bytes()));
        })
    }

    fn last(&self) -> Asked {
        self.asked.lock().unwrap().last().cloned().unwrap_or_default()
    }

    /// A site whose `/` goes to it.
    fn site(&self, pass: &str, more: &str) -> Site {
        let text = format!("server {{ LISTEN location / {{ {pass}_pass {}; {more} }} }}", self.addr);
        let site = Site::new(&text);
        for folder in ["client_body_temp", "fastcgi_temp"] {
            std::fs::create_dir(site.folder.path().join(folder)).unwrap();
        }
        site
    }
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    [&header(kind, content.len() as u16, 0)[..], content].concat()
}

/// A whole response.
fn records(response: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    response.chunks(60_000).for_each(|piece| out.extend_from_slice(&record(kind::STDOUT, piece)));
    out.extend_from_slice(&record(kind::STDOUT, b""));
    out.extend_from_slice(&record(kind::END_REQUEST, &[0; 8]));
    out
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn exactly(stream: &mut TcpStream, n: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; n];
    stream.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

fn read_fastcgi(stream: &mut TcpStream) -> Option<Asked> {
    let (mut asked, mut params) = (Asked::default(), Vec::new());
    loop {
        let head = exactly(stream, HEADER)?;
        let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
        let content = exactly(stream, length)?;
        exactly(stream, usize::from(head[6]))?;
        match head[1] {
            kind::BEGIN_REQUEST => asked.keep = content[2] == 1,
            kind::PARAMS => params.extend_from_slice(&content),
            kind::STDIN if length == 0 => break,
            kind::STDIN => {
                asked.pieces.push(length);
                asked.body.extend_from_slice(&content);
            }
            other => panic!("record {other}"),
        }
    }
    let mut rest = &params[..];
    let length = |rest: &mut &[u8]| {
        let size = if rest[0] < 128 { 1 } else { 4 };
        let (bytes, after) = rest.split_at(size);
        *rest = after;
        bytes.iter().fold(0usize, |n, byte| n << 8 | usize::from(*byte)) & 0x7fff_ffff
    };
    while !rest.is_empty() {
        let (name, value) = (length(&mut rest), length(&mut rest));
        asked.params.insert(text(&rest[..name]), text(&rest[name..name + value]));
        rest = &rest[name + value..];
    }
    Some(asked)
}

fn read_scgi(stream: &mut TcpStream) -> Option<Asked> {
    let mut length = Vec::new();
    loop {
        match exactly(stream, 1)?[0] {
            b':' => break,
            digit => length.push(digit),
        }
    }
    let content = exactly(stream, text(&length).parse().unwrap())?;
    assert_eq!(exactly(stream, 1)?, b",");
    let words: Vec<&[u8]> = content.split(|byte| *byte == 0).collect();
    assert_eq!(words[0], b"CONTENT_LENGTH");
    let mut asked = Asked::default();
    for pair in words.chunks_exact(2) {
        asked.params.insert(text(pair[0]), text(pair[1]));
    }
    asked.body = exactly(stream, asked.param("CONTENT_LENGTH")?.parse().unwrap())?;
    Some(asked)
}

fn read_uwsgi(stream: &mut TcpStream) -> Option<Asked> {
    let head = exactly(stream, 4)?;
    let content = exactly(stream, usize::from(u16::from_le_bytes([head[1], head[2]])))?;
    let mut asked = Asked::default();
    asked.params.insert("modifiers".into(), format!("{} {}", head[0], head[3]));
    let (mut words, mut rest) = (Vec::new(), &content[..]);
    while rest.len() > 1 {
        let length = usize::from(u16::from_le_bytes([rest[0], rest[1]]));
        words.push(text(&rest[2..2 + length]));
        rest = &rest[2 + length..];
    }
    for pair in words.chunks_exact(2) {
        asked.params.insert(pair[0].clone(), pair[1].clone());
    }
    let length = asked.param("CONTENT_LENGTH").and_then(|text| text.parse().ok()).unwrap_or(0);
    asked.body = exactly(stream, length)?;
    Some(asked)
}

#[test]
fn an_application_is_told_of_the_request() {
    let server = Server::fastcgi("Content-Type: text/plain\r\nX-A: b\r\n\r\nhello");
    let site = server.site(
        "fastcgi",
        "fastcgi_index i.php; fastcgi_split_path_info ^(.+\\.php)(.*)$; fastcgi_param SCRIPT $fastcgi_script_name;
         fastcgi_param INFO $fastcgi_path_info; fastcgi_param EMPTY ''; fastcgi_param NOT $arg_no if_not_empty;
         fastcgi_param HTTP_GONE ''; fastcgi_param HTTP_X_OWN mine; fastcgi_param LENGTH $content_length;",
    );
    let answer = site.ask(
        "POST",
        "/x.php/more?q",
        "Content-Length: 3\r\nGone: 1\r\nX-Own: theirs\r\nX-Two: a\r\nx-two: b\r\nCookie: a\r\nCookie: b\r\n\r\nabc",
    );
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    assert_eq!((answer.field("x-a"), answer.field("content-type")), (Some("b"), Some("text/plain")));
    assert_eq!(answer.field("server").map(|server| server.starts_with("nxr")), Some(true));
    let asked = server.last();
    let params: Vec<(&str, &str)> = asked.params.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(
        params,
        [
            ("EMPTY", ""),
            ("HTTP_CONTENT_LENGTH", "3"),
            ("HTTP_COOKIE", "a; b"),
            ("HTTP_HOST", "x"),
            ("HTTP_X_OWN", "mine"),
            ("HTTP_X_TWO", "a, b"),
            ("INFO", "/more"),
            ("LENGTH", "3"),
            ("SCRIPT", "/x.php"),
        ]
    );
    assert_eq!((&asked.body[..], asked.keep), (&b"abc"[..], false));
    assert_eq!(site.log().matches("[error]").count(), 0, "{}", site.log());
}

#[test]
fn statuses_are_those_of_the_fields() {
    for (head, status, first) in [
        ("Status: 404 Nowhere\r\n", 404, "HTTP/1.1 404 Nowhere"),
        ("Status: 204\r\n", 204, "HTTP/1.1 204 No Content"),
        ("Location: http://a/b\r\n", 302, "HTTP/1.1 302 Moved Temporarily"),
        ("X: y\r\n", 200, "HTTP/1.1 200 OK"),
    ] {
        let response: &'static str = String::leak(format!("{head}\r\n"));
        let answer = Server::fastcgi(response).site("fastcgi", "").get("/");
        assert_eq!((answer.status, answer.head.lines().next()), (status, Some(first)));
        assert_eq!(answer.field("status"), None);
    }
    let site = Server::fastcgi("Status: no\r\n\r\n").site("fastcgi", "");
    assert_eq!(site.get("/").status, 502);
    assert!(site.log().contains("upstream sent invalid status \"no\" while reading response header"));
    let site = Server::new(read_fastcgi, |_, stream| stream.write_all(&[2; 16]).unwrap()).site("fastcgi", "");
    assert_eq!(site.get("/").status, 502);
    assert!(
        site.log().contains("upstream sent unsupported FastCGI protocol version: 2 while"),
        "{}",
        site.log()
    );
    assert!(site.log().contains(", upstream: \"fastcgi://127.0.0.1:"));
}

#[test]
fn connections_are_kept_where_both_sides_agree() {
    for (keep, connections) in [("on", 1), ("off", 3)] {
        let server = Server::fastcgi("A: b\r\n\r\nbody");
        let site = Site::new(&format!(
            "upstream u {{ server {}; keepalive 1; }}
             server {{ LISTEN location / {{ fastcgi_pass u; fastcgi_keep_conn {keep}; }} }}",
            server.addr
        ));
        (0..3).for_each(|_| assert_eq!(site.get("/").text(), "body"));
        assert_eq!(server.connections.load(Ordering::Relaxed), connections);
        assert_eq!(server.last().keep, keep == "on");
    }
}

#[test]
fn long_bodies_go_both_ways() {
    let server = Server::new(read_fastcgi, |asked, stream| {
        let answer = [&b"Content-Type: a/b\r\n\r\n"[..], &asked.body].concat();
        let _ = stream.write_all(&records(&answer));
    });
    let body: String = (0..60_000).map(|n| format!("{n} ")).collect();
    let fields = format!("Content-Length: {}\r\n\r\n{body}", body.len());
    for more in [
        "client_body_buffer_size 1k;",
        "client_body_buffer_size 1m;",
        "fastcgi_request_buffering off;",
        "fastcgi_buffering off;",
        "client_body_in_file_only clean;",
    ] {
        let site = server.site("fastcgi", more);
        let answer = site.ask("POST", "/", &fields);
        assert!(answer.text() == body, "{more} {}", answer.body.len());
        assert!(server.last().pieces.iter().all(|size| *size <= 32 << 10));
    }
    let site = server.site("fastcgi", "fastcgi_pass_request_body off;");
    assert_eq!((site.ask("POST", "/", &fields).status, server.last().body.len()), (200, 0));
}

#[test]
fn it_does_not_matter_where_records_are_cut() {
    let mut wire = record(kind::STDERR, b"a notice\n");
    for piece in [&b"X-Fi"[..], b"eld: value\r\n", b"\r", b"\nhel", b"lo"] {
        wire.extend_from_slice(&[&header(kind::STDOUT, piece.len() as u16, 3)[..], piece, &[0; 3]].concat());
    }
    wire.extend_from_slice(&records(b" world"));
    let (cuts, next) = (wire.len(), AtomicUsize::new(0));
    let server = Server::new(read_fastcgi, move |_, stream| {
        let at = next.fetch_add(1, Ordering::Relaxed) % cuts;
        stream.write_all(&wire[..at]).unwrap();
        let _ = stream.write_all(&wire[at..]);
    });
    let site = server.site("fastcgi", "");
    for _ in 0..cuts {
        let answer = site.get("/");
        assert_eq!((answer.text().as_str(), answer.field("x-field")), ("hello world", Some("value")));
    }
    assert!(site.log().contains("FastCGI sent in stderr: \"a notice\" while reading response header"));
}

#[test]
fn many_messages_may_come_before_a_head() {
    let server = Server::new(read_fastcgi, |_, stream| {
        for _ in 0..40 {
            stream.write_all(&record(kind::STDERR, &[b'm'; 1000])).unwrap();
        }
        let _ = stream.write_all(&records(b"A: b\r\n\r\nfine"));
    });
    assert_eq!(server.site("fastcgi", "").get("/").text(), "fine");
    let caught = server.site("fastcgi", "fastcgi_catch_stderr mmm;");
    assert_eq!(caught.get("/").status, 502);
}

#[test]
fn what_is_cut_short_is_no_answer() {
    let server = Server::fastcgi("Content-Length: 9\r\n\r\nshort");
    let site = server.site("fastcgi", "");
    assert_eq!(site.get("/").text(), "short");
    wait("the log", || {
        site.log().contains("upstream prematurely closed FastCGI stdout while reading upstream")
    });
    let server = Server::new(read_fastcgi, |_, _| ());
    let site = server.site("fastcgi", "");
    assert_eq!(site.get("/").status, 502);
    assert!(site.log().contains("upstream prematurely closed connection while reading response header"));
}

#[test]
fn others_are_tried_and_errors_intercepted() {
    let (bad, good) = (Server::fastcgi("Status: 503 No\r\n\r\n"), Server::fastcgi("A: b\r\n\r\ngood"));
    let site = Site::new(&format!(
        "upstream u {{ server {}; server {} backup; }}
         server {{ LISTEN error_page 503 /err;
             location / {{ fastcgi_pass u; fastcgi_next_upstream http_503; }}
             location /one {{ fastcgi_pass {}; fastcgi_intercept_errors on; }}
             location /err {{ return 200 page; }} }}",
        bad.addr, good.addr, bad.addr
    ));
    assert_eq!(site.get("/").text(), "good");
    let answer = site.get("/one");
    assert_eq!((answer.status, answer.text().as_str()), (503, "page"));
}

#[test]
fn locations_and_conditions_inherit_as_in_nginx() {
    let server = Server::fastcgi("A: b\r\n\r\ncgi");
    let site = Site::new(&format!(
        "server {{ LISTEN location / {{ fastcgi_pass {addr}; fastcgi_param A outer;
             if ($arg_x) {{ set $y 1; }} if ($arg_own) {{ return 204; }}
             location /in {{ fastcgi_param B inner; }} location /pass {{ set $to {addr}; fastcgi_pass $to; }} }} }}",
        addr = server.addr
    ));
    assert_eq!((site.get("/").text(), server.last().params.len()), ("cgi".into(), 2));
    assert_eq!(
        (site.get("/?x=1").text(), server.last().param("A").map(str::to_owned)),
        ("cgi".into(), Some("outer".into()))
    );
    assert_eq!((site.get("/?own=1").status, site.get("/in").status), (204, 404));
    assert_eq!(site.get("/pass").text(), "cgi");
}

#[test]
fn scgi_and_uwsgi_servers_are_asked() {
    for (name, read) in [("scgi", read_scgi as fn(&mut TcpStream) -> Option<Asked>), ("uwsgi", read_uwsgi)] {
        for (head, status) in [("Status: 201 Made", 201), ("HTTP/1.1 202 Taken", 202), ("X: y", 200)] {
            let head: &'static str = head;
            let server = Server::new(read, move |asked, stream| {
                let _ = stream.write_all(&[head.as_bytes(), b"\r\nA: b\r\n\r\n", &asked.body].concat());
            });
            let params = if name == "uwsgi" {
                "uwsgi_param CONTENT_LENGTH $content_length; uwsgi_modifier1 5;"
            } else {
                ""
            };
            for more in ["", "X_request_buffering off;", "X_buffering off;"] {
                let site = server.site(
                    name,
                    &format!("X_param ARGS $args; {params} {more}").replace("X_", &format!("{name}_")),
                );
                let answer = site.ask("POST", "/?a=b", "X-Field: v\r\nContent-Length: 4\r\n\r\nbody");
                assert_eq!(
                    (answer.status, answer.text().as_str(), answer.field("a")),
                    (status, "body", Some("b"))
                );
                let asked = server.last();
                let some = |name| asked.param(name);
                assert_eq!(
                    (some("ARGS"), some("HTTP_X_FIELD"), some("HTTP_HOST")),
                    (Some("a=b"), Some("v"), Some("x"))
                );
                assert!(name == "scgi" || some("modifiers") == Some("5 0"));
            }
        }
    }
}

#[test]
fn what_does_not_fit_a_packet_is_told() {
    let fields = format!("A: {}\r\n", "x".repeat(70_000));
    for (name, words) in
        [("fastcgi", "fastcgi request record is too big: "), ("uwsgi", "uwsgi request is too big: ")]
    {
        let site = Site::new(&format!(
            "server {{ LISTEN large_client_header_buffers 4 100k; location / {{ {name}_pass 127.0.0.1:1; }} }}"
        ));
        assert_eq!(site.ask("GET", "/", &fields).status, 500);
        assert!(site.log().contains(words), "{}", site.log());
    }
}
