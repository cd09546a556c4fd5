//! What reaches the backend.

use super::*;

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
