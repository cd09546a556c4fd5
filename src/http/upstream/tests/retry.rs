//! Kept connections, failures and what follows them.

use super::*;

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
