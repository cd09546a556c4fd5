//! Configurations and requests that are wrong: nginx's words, nginx's pages.

use crate::support::backend::{Backend, mirror};
use crate::support::client::{exchange, get};
use crate::support::server::{CONF, Server, connect, descriptors, http, settled};
use crate::support::{free_port, wait};
use std::fs;
use std::io::{Read, Write};

/// Configurations, each with the line that is wrong and what is said of it.
const BROKEN: &[(&str, &str)] = &[
    ("events {}\nhttp {\n  servre {}\n}\n", "unknown directive \"servre\" in CONF:3"),
    ("events {}\nhttp {\n  server { listen 80 }\n}\n", "unexpected \"}\" in CONF:3"),
    ("events {}\nhttp {\n  server { listen \"80\"x; }\n}\n", "unexpected \"x\" in CONF:3"),
    ("events {}\nhttp {\n  server {\n", "unexpected end of file, expecting \"}\" in CONF:4"),
    ("events {}\n}\n", "unexpected \"}\" in CONF:2"),
    ("events {}\n;\n", "unexpected \";\" in CONF:2"),
    (
        "events {}\nhttp {\n  server { listen 127.0.0.1:70000; }\n}\n",
        "invalid port in \"127.0.0.1:70000\" of the \"listen\" directive in CONF:3",
    ),
    ("events {}\nhttp {\n  server { listen 127.0.0.1:1 sll; }\n}\n", "invalid parameter \"sll\" in CONF:3"),
    ("events {}\nserver {}\n", "\"server\" directive is not allowed here in CONF:2"),
    (
        "events {}\nhttp {\n  server { root; }\n}\n",
        "invalid number of arguments in \"root\" directive in CONF:3",
    ),
    ("events {}\nhttp {\n  server { root a; root b; }\n}\n", "\"root\" directive is duplicate in CONF:3"),
    (
        "events {}\nhttp {\n  server { sendfile maybe; }\n}\n",
        "invalid value \"maybe\" in \"sendfile\" directive, it must be \"on\" or \"off\" in CONF:3",
    ),
    (
        "events {}\nhttp {\n  server { location /a {} location /a {} }\n}\n",
        "duplicate location \"/a\" in CONF:3",
    ),
    (
        "events {}\nhttp {\n  server { location / { proxy_pass ftp://x; } }\n}\n",
        "invalid URL prefix in CONF:3",
    ),
    ("events {}\nhttp {\n  server { return 200 $nothing; }\n}\n", "unknown \"nothing\" variable"),
    (
        "events {}\nhttp {\n  server { client_max_body_size much; }\n}\n",
        "\"client_max_body_size\" directive invalid value in CONF:3",
    ),
    (
        "events {}\nhttp {\n  server { location ~ ( {} }\n}\n",
        "pcre2_compile() failed: missing closing parenthesis in \"(\" in CONF:3",
    ),
    (
        "events {}\nhttp {\n  include nothing.conf;\n}\n",
        "open() \"DIR/nothing.conf\" failed (2: No such file or directory) in CONF:3",
    ),
    (
        "events {}\nhttp {\n  server { listen 127.0.0.1:1 ssl; }\n}\n",
        "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive in CONF:3",
    ),
    ("worker_processes many;\nevents {}\n", "\"worker_processes\" directive invalid value in CONF:1"),
];

#[test]
fn a_broken_configuration_gets_nginx_words_and_nothing_starts() {
    let server = Server::new("broken", "");
    let (conf, directory) = (server.path(CONF), server.directory.display().to_string());
    let conf = conf.display().to_string();
    for (text, words) in BROKEN {
        server.configure(text);
        let words = words.replace("CONF", &conf).replace("DIR", &directory);
        let output = server.run(&["-t"]);
        let said = String::from_utf8(output.stderr).unwrap();
        let expected = format!("nxr: [emerg] {words}\nnxr: configuration file {conf} test failed\n");
        assert_eq!((said, output.status.code()), (expected, Some(1)), "{text}");
        let output = server.run(&[]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((said, output.status.code()), (format!("nxr: [emerg] {words}\n"), Some(1)), "{text}");
        assert!(server.log().contains(&words), "{text}");
        assert!(!server.pid_file().exists() || fs::read(server.pid_file()).unwrap().is_empty(), "{text}");
    }
}

/// nginx's page of a status.
fn page(status: &str, heading: &str, more: &str) -> String {
    format!(
        "<html>\r\n<head><title>{status}</title></head>\r\n<body>\r\n<center><h1>{heading}</h1></center>\r\n{more}\
         <hr><center>nxr/{}</center>\r\n</body>\r\n</html>\r\n",
        env!("CARGO_PKG_VERSION")
    )
}

struct Site {
    server: Server,
    port: u16,
    _backend: Backend,
}

fn site(name: &str) -> Site {
    let backend = Backend::http(mirror);
    let port = free_port();
    let text = http(&format!(
        "client_max_body_size 1k; large_client_header_buffers 2 1k; client_header_timeout 300ms;
         client_body_timeout 300ms;
         server {{
             listen 127.0.0.1:{port};
             location / {{ proxy_pass http://127.0.0.1:{0}; }}
             location /files {{ root html; }}
             location /411 {{ return 411; }}
             location /read {{ proxy_pass http://127.0.0.1:{0}; }}
         }}",
        backend.port
    ));
    Site { server: Server::start(name, &text), port, _backend: backend }
}

#[test]
fn wrong_requests_get_nginx_pages() {
    let site = site("pages");
    fs::create_dir_all(site.server.path("html/files")).unwrap();
    fs::write(site.server.path("html/files/a"), "a").unwrap();
    let long = "x".repeat(2000);
    let bad = |heading: &str| page(heading, heading, "");
    let cases: Vec<(String, u16, String)> = vec![
        ("GET\r\n\r\n".into(), 400, bad("400 Bad Request")),
        ("GET / HTTP/1.1\r\n\r\n".into(), 400, bad("400 Bad Request")),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".into(), 400, bad("400 Bad Request")),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n".into(), 400, bad("400 Bad Request")),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".into(),
            400,
            bad("400 Bad Request"),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            400,
            bad("400 Bad Request"),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".into(),
            400,
            bad("400 Bad Request"),
        ),
        ("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400, bad("400 Bad Request")),
        ("GET /../.. HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400, bad("400 Bad Request")),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".into(), 400, bad("400 Bad Request")),
        ("G\u{0}T / HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400, bad("400 Bad Request")),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\r\n\r\n".into(), 400, bad("400 Bad Request")),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n".into(), 405, bad("405 Not Allowed")),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n".into(), 405, bad("405 Not Allowed")),
        (
            "POST /files/a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into(),
            405,
            bad("405 Not Allowed"),
        ),
        ("GET /411 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".into(), 411, bad("411 Length Required")),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n".into(),
            413,
            bad("413 Request Entity Too Large"),
        ),
        (
            format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n{long}\r\n0\r\n\r\n"
            ),
            413,
            bad("413 Request Entity Too Large"),
        ),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414, bad("414 Request-URI Too Large")),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"),
            400,
            page(
                "400 Request Header Or Cookie Too Large",
                "400 Bad Request",
                "<center>Request Header Or Cookie Too Large</center>\r\n",
            ),
        ),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".into(), 505, bad("505 HTTP Version Not Supported")),
        ("GET / HTTP/3.7\r\nHost: a\r\n\r\n".into(), 505, bad("505 HTTP Version Not Supported")),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n".into(),
            501,
            bad("501 Not Implemented"),
        ),
    ];
    for (request, status, page) in cases {
        let answer = String::from_utf8(exchange(site.port, request.as_bytes())).unwrap();
        let shown = &request[..request.len().min(80)];
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{shown:?}: {answer:?}"));
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?}: {head}");
        assert!(head.contains("\r\nConnection: close"), "{shown:?}: {head}");
        assert!(head.contains(&format!("\r\nContent-Length: {}", page.len())), "{shown:?}: {head}");
        assert_eq!(body, page, "{shown:?}");
    }
    assert_eq!(get(site.port, "x", "/").unwrap().status(), 200);
}

#[test]
fn a_client_that_is_too_slow_is_dropped() {
    let site = site("slow");
    let worker = site.server.worker();
    get(site.port, "x", "/").unwrap();
    let before = settled(worker);
    for part in
        ["", "GET / HTTP/1.1\r\nHost:", "POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"]
    {
        let mut client = connect(site.port);
        client.write_all(part.as_bytes()).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"", "{part:?}");
    }
    wait("its descriptors back", || (descriptors(worker) <= before).then_some(()));
    let access = site.server.access_log();
    assert_eq!(access.matches(" 408 0 ").count(), 2, "{access}");
    let log = site.server.log();
    assert!(
        log.contains("[info]")
            && log.contains(
                "client timed out (110: Connection timed out) while reading client request headers"
            ),
        "{log}"
    );
    assert_eq!(site.server.faults(), [""; 0]);
}

#[test]
fn any_bytes_at_all_cost_one_connection() {
    let site = site("any-bytes");
    let worker = site.server.worker();
    get(site.port, "x", "/").unwrap();
    let before = settled(worker);
    let request = b"POST /a%20b?c HTTP/1.1\r\nHost: a\r\nX-Y: z\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for round in 0..400_u64 {
        let noise = crate::support::bytes(round + 1, 4);
        let mut bytes = request.to_vec();
        let place = usize::from(noise[0]) % bytes.len();
        match round % 3 {
            0 => bytes[place] = noise[1],
            1 => _ = bytes.remove(place),
            _ => bytes.insert(place, noise[2]),
        }
        let mut client = connect(site.port);
        client.write_all(&bytes).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.") || answer.starts_with(b"<html>"),
            "{answer:?}"
        );
    }
    wait("its descriptors back", || (descriptors(worker) <= before).then_some(()));
    assert_eq!(site.server.worker(), worker);
    assert_eq!(get(site.port, "x", "/").unwrap().status(), 200);
}
