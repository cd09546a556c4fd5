//! Long request bodies.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::{Backend, ok, wait};
use crate::http::testing::Site;

/// A site that stores bodies first, or below `/live` does not.
fn site(backend: &Backend) -> Site {
    let site = Site::new(&format!(
        "server {{ LISTEN client_max_body_size 0; client_body_temp_path body;
           location / {{ proxy_pass http://{0}; }}
           location /live {{ proxy_pass http://{0}; proxy_request_buffering off; }} }}",
        backend.addr
    ));
    let _ = std::fs::create_dir(site.folder.path().join("body"));
    site
}

#[test]
fn long_bodies_arrive_whole_and_the_connection_serves_on() {
    let backend = Backend::new(|asked, stream| {
        let body = asked.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        stream.write_all(ok(&body.len().to_string()).as_bytes()).is_ok()
    });
    let site = site(&backend);
    let body: String = (0..3_000_000u32).map(|n| char::from(b'a' + (n * 7 / 3 % 26) as u8)).collect();
    let mut client = TcpStream::connect(site.addr).unwrap();
    for (path, len) in [("/", 3_000_000), ("/live", 3_000_000), ("/live", 70_000), ("/", 2), ("/live", 2)] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n\r\n");
        let (request, mut other) = (head + &body[..len], client.try_clone().unwrap());
        let sender = std::thread::spawn(move || other.write_all(request.as_bytes()).unwrap());
        let (mut answer, want) = (Vec::new(), format!("\r\n\r\n{len}"));
        while !answer.ends_with(want.as_bytes()) {
            let mut piece = [0; 4096];
            let n = client.read(&mut piece).unwrap();
            assert!(n > 0, "{path} {len}: {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&piece[..n]);
        }
        sender.join().unwrap();
        let asked = backend.last();
        assert!(asked.starts_with(&format!("POST {path} ")) && asked.ends_with(&body[..len]), "{path} {len}");
    }
}

#[test]
fn a_client_that_leaves_within_a_long_body_is_told_of() {
    for path in ["/", "/live"] {
        let backend = Backend::says(&ok("x"));
        let site = site(&backend);
        let mut client = TcpStream::connect(site.addr).unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n");
        client.write_all((head + &"x".repeat(500_000)).as_bytes()).unwrap();
        drop(client);
        wait("a log line", || site.log().contains("client prematurely closed connection"));
        assert_eq!(backend.last(), "");
    }
}
