//! Sessions over loopback sockets, under configurations read by the real code.

pub(crate) mod harness;
mod moderation;

use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::spawn_local;

use super::modules::pass;
use crate::net::splice;
use harness::{Running, echo, expect, nobody, refusal, rest, run};

const FORMAT: &str = "log_format t '$remote_addr $status $bytes_received/$bytes_sent $upstream_addr \
                      $upstream_bytes_sent/$upstream_bytes_received $protocol'; access_log access.log t;";

#[test]
fn bytes_pass_and_are_counted() {
    run(async {
        let to = echo("hi ").await;
        let running = Running::start(&format!("{FORMAT} server {{ listen LISTEN0; proxy_pass {to}; }}"));
        let mut client = running.connect(0).await;
        expect(&mut client, "hi ").await;
        client.write_all(b"hello").await.unwrap();
        expect(&mut client, "hello").await;
        let from = client.local_addr().unwrap();
        drop(client);
        let line = running.line("access.log", " 200 ").await;
        assert_eq!(line, format!("127.0.0.1 200 5/8 {to} 5/8 TCP"));
        let listen = running.addresses[0];
        assert!(running.file("error.log").contains(&format!("client {from} connected to {listen}\n")));
        assert!(running.line("error.log", "proxy 127.0.0.1:").await.ends_with(&format!("connected to {to}")));
        let end = "client disconnected, bytes from/to client:5/8, bytes from/to upstream:8/5";
        assert!(running.line("error.log", "disconnected").await.ends_with(end));
    });
}

#[test]
fn a_refused_upstream_is_told_and_the_next_one_taken() {
    run(async {
        let (bad, good) = (nobody(), echo("good").await);
        let running = Running::start(&format!(
            "{FORMAT} upstream u {{ server {bad}; server {good}; }} server {{ listen LISTEN0; proxy_pass u; }}
             server {{ listen LISTEN1; proxy_pass {bad}; }}
             server {{ listen LISTEN2; proxy_pass u; proxy_next_upstream off; }}"
        ));
        let mut client = running.connect(0).await;
        expect(&mut client, "good").await;
        drop(client);
        let line = running.line("access.log", "200").await;
        assert_eq!(line, format!("127.0.0.1 200 0/4 {bad}, {good} 0, 0/0, 4 TCP"));
        let line = running.line("error.log", "connect() failed").await;
        let listen = running.addresses[0];
        let text = format!(
            "connect() failed (111: Connection refused) while connecting to upstream, client: 127.0.0.1, \
             server: {listen}, upstream: \"{bad}\", bytes from/to client:0/0, bytes from/to upstream:0/0"
        );
        assert!(line.contains(" [error] ") && line.ends_with(&text), "{line}");

        let mut client = running.connect(1).await;
        assert_eq!(rest(&mut client).await, "");
        assert_eq!(running.line("access.log", " 502 ").await, format!("127.0.0.1 502 0/0 {bad} 0/0 TCP"));
    });
}

async fn bulk(body: &str, size: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let running = Running::start(&format!("{FORMAT} server {{ listen LISTEN0; proxy_pass {to}; {body} }}"));
    let client = running.connect(0).await;
    let (upstream, _) = listener.accept().await.unwrap();
    let pattern: Rc<Vec<u8>> = Rc::new((0..size).map(|i| ((i * 31) >> 7) as u8).collect());
    let mut tasks = Vec::new();
    let (client_read, client_write) = client.into_split();
    let (upstream_read, upstream_write) = upstream.into_split();
    for (mut read, mut write) in [(client_read, upstream_write), (upstream_read, client_write)] {
        let sent = pattern.clone();
        let writing = spawn_local(async move {
            write.write_all(&sent).await.unwrap();
            write
        });
        let expected = pattern.clone();
        tasks.push(spawn_local(async move {
            let mut got = vec![0; expected.len()];
            read.read_exact(&mut got).await.unwrap();
            assert!(got == *expected);
            (read, writing.await.unwrap())
        }));
    }
    let mut ends = Vec::new();
    for task in tasks {
        ends.push(task.await.unwrap());
    }
    drop(ends);
    running.line("access.log", " 200 ").await.replace(&to.to_string(), "TO")
}

#[test]
fn long_transfers_arrive_whole_both_ways() {
    const SIZE: usize = 64 << 20;
    let line = run(bulk("", SIZE));
    assert_eq!(line, format!("127.0.0.1 200 {SIZE}/{SIZE} TO {SIZE}/{SIZE} TCP"));
    assert!(splice::kept() > 0);
}

#[test]
fn copying_moves_the_same() {
    // A rate that does not bind keeps bytes out of pipes.
    const SIZE: usize = 64 << 20;
    let line = run(bulk("proxy_upload_rate 4096m; proxy_download_rate 4096m; proxy_buffer_size 64k;", SIZE));
    assert_eq!(line, format!("127.0.0.1 200 {SIZE}/{SIZE} TO {SIZE}/{SIZE} TCP"));
    assert_eq!(splice::kept(), 0);
}

#[test]
fn messages_there_is_no_room_for_arrive_in_order() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let running = Running::start(&format!(
            "{FORMAT} server {{ listen LISTEN0; proxy_pass {to}; proxy_socket_sndbuf 8k; }}"
        ));
        let mut client = running.connect(0).await;
        let (mut upstream, _) = listener.accept().await.unwrap();
        // Pieces smaller than a buffer, until nobody takes more.
        let (mut sent, mut refused) = (Vec::new(), 0);
        while refused < 1000 {
            let piece: Vec<u8> = (sent.len()..sent.len() + 1000).map(|i| ((i * 31) >> 7) as u8).collect();
            match client.try_write(&piece) {
                Ok(n) => {
                    sent.extend_from_slice(&piece[..n]);
                    refused = 0;
                }
                Err(_) => refused += 1,
            }
            tokio::task::yield_now().await;
        }
        let mut got = vec![0; sent.len()];
        upstream.read_exact(&mut got).await.unwrap();
        assert!(got == sent);
        client.write_all(b"more").await.unwrap();
        expect(&mut upstream, "more").await;
        drop(client);
        let n = sent.len() + 4;
        assert_eq!(running.line("access.log", " 200 ").await, format!("127.0.0.1 200 {n}/0 {to} {n}/0 TCP"));
    });
}

#[test]
fn rates_hold() {
    run(async {
        let to = echo("").await;
        let running =
            Running::start(&format!("server {{ listen LISTEN0; proxy_pass {to}; proxy_upload_rate 1000; }}"));
        let mut client = running.connect(0).await;
        let start = std::time::Instant::now();
        client.write_all(&[b'x'; 2500]).await.unwrap();
        expect(&mut client, &"x".repeat(2500)).await;
        assert!(start.elapsed().as_millis() >= 900, "{:?}", start.elapsed());
    });
}

#[test]
fn without_half_close_the_first_end_ends_all() {
    run(async {
        let to = echo("").await;
        let running = Running::start(&format!("server {{ listen LISTEN0; proxy_pass {to}; }}"));
        let mut client = running.connect(0).await;
        client.write_all(b"x").await.unwrap();
        expect(&mut client, "x").await;
        client.shutdown().await.unwrap();
        assert_eq!(rest(&mut client).await, "");
        running.line("error.log", "client disconnected").await;
    });
}

#[test]
fn half_close_lets_the_other_side_finish() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let running =
            Running::start(&format!("server {{ listen LISTEN0; proxy_pass {to}; proxy_half_close on; }}"));
        let mut client = running.connect(0).await;
        let (mut upstream, _) = listener.accept().await.unwrap();
        client.write_all(b"all I have").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(rest(&mut upstream).await, "all I have");
        upstream.write_all(b"and my answer").await.unwrap();
        expect(&mut client, "and my answer").await;
        drop(upstream);
        assert_eq!(rest(&mut client).await, "");
        let line = running.line("error.log", "disconnected").await;
        let text = "upstream disconnected, bytes from/to client:10/13, bytes from/to upstream:13/10";
        assert!(line.ends_with(text), "{line}");
    });
}

#[test]
fn silence_is_timed_out() {
    run(async {
        let to = echo("").await;
        let running =
            Running::start(&format!("server {{ listen LISTEN0; proxy_pass {to}; proxy_timeout 50ms; }}"));
        let mut client = running.connect(0).await;
        assert_eq!(rest(&mut client).await, "");
        let line = running.line("error.log", "timed out").await;
        let text =
            "connection timed out (110: Connection timed out) while proxying connection, client: 127.0.0.1";
        assert!(line.contains(" [info] ") && line.contains(text), "{line}");
    });
}

/// A TLS 1.3 ClientHello for `name`.
fn hello(name: &str) -> Vec<u8> {
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut client = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn preread_routes_by_name_however_the_hello_is_cut() {
    run(async {
        let (a, b) = (echo("a").await, echo("b").await);
        let running = Running::start(&format!(
            "map $ssl_preread_server_name $to {{ a.test {a}; default {b}; }}
             log_format t '$ssl_preread_server_name $ssl_preread_protocol $status'; access_log access.log t;
             server {{ listen LISTEN0; ssl_preread on; proxy_pass $to; }}"
        ));
        for (name, answer) in [("a.test", "a"), ("other.test", "b")] {
            let mut client = running.connect(0).await;
            client.set_nodelay(true).unwrap();
            let hello = hello(name);
            for byte in &hello {
                client.write_all(std::slice::from_ref(byte)).await.unwrap();
                tokio::task::yield_now().await;
            }
            expect(&mut client, answer).await;
            let mut back = vec![0; hello.len()];
            client.read_exact(&mut back).await.unwrap();
            assert_eq!(back, hello);
            drop(client);
            running.line("access.log", &format!("{name} TLSv1.3 200")).await;
        }
        let mut client = running.connect(0).await;
        client.write_all(b"SSH-2.0-x\r\n").await.unwrap();
        expect(&mut client, "bSSH-2.0-x\r\n").await;
    });
}

#[test]
fn preread_chooses_a_server_by_name() {
    run(async {
        let running = Running::start(
            "ssl_preread on;
             server { listen LISTEN0; return default; }
             server { listen LISTEN0; server_name a.test *.b.test; return a; }
             server { listen LISTEN0; server_name ~^(?<who>.+)\\.c\\.test$; return $who:$server_name; }",
        );
        for (name, answer) in [
            ("a.test", "a"),
            ("x.B.test", "a"),
            ("joe.c.test", "joe:~^(?<who>.+)\\.c\\.test$"),
            ("none.test", "default"),
        ] {
            let mut client = running.connect(0).await;
            client.write_all(&hello(name)).await.unwrap();
            assert_eq!(rest(&mut client).await, answer);
        }
    });
}

#[test]
fn a_preread_that_is_too_long_or_too_slow_ends_the_session() {
    run(async {
        let running = Running::start(
            "log_format t '$status'; access_log access.log t;
             server { listen LISTEN0; ssl_preread on; preread_buffer_size 64; return x; }
             server { listen LISTEN1; ssl_preread on; preread_timeout 30ms; return x; }",
        );
        let mut client = running.connect(0).await;
        client.write_all(&hello("a.test")).await.unwrap();
        assert_eq!(rest(&mut client).await, "");
        running.line("access.log", "400").await;
        assert!(
            running.file("error.log").contains("preread buffer full while prereading client data, client: ")
        );
        let mut client = running.connect(1).await;
        assert_eq!(rest(&mut client).await, "");
        running.line("access.log", "200").await;
    });
}

#[test]
fn the_proxy_protocol_is_read_believed_and_passed_on() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let running = Running::start(&format!(
            "log_format t '$remote_addr $remote_port $realip_remote_addr $proxy_protocol_server_port $status';
             access_log access.log t;
             server {{ listen LISTEN0 proxy_protocol; set_real_ip_from 127.0.0.0/8; proxy_pass {to};
                       proxy_protocol on; }}"
        ));
        let mut client = running.connect(0).await;
        for piece in [&b"PROXY TCP4 192.0.2.7 "[..], b"198.51.100.1 1234 80\r\nhello"] {
            client.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        let (mut upstream, _) = listener.accept().await.unwrap();
        let port = running.addresses[0].port();
        expect(&mut upstream, &format!("PROXY TCP4 192.0.2.7 127.0.0.1 1234 {port}\r\nhello")).await;
        drop((client, upstream));
        assert_eq!(running.line("access.log", "192").await, "192.0.2.7 1234 127.0.0.1 80 200");

        let mut client = running.connect(0).await;
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        assert_eq!(rest(&mut client).await, "");
        let listen = running.addresses[0];
        let line = running.line("error.log", "broken header").await;
        let text = format!(
            "broken header: \"GET / HTTP/1.0\" while reading PROXY protocol, client: 127.0.0.1, server: {listen}"
        );
        assert!(line.ends_with(&text), "{line}");
        running.line("access.log", "400").await;
    });
}

#[test]
fn rules_limits_and_values() {
    run(async {
        let running = Running::start(
            "log_format t '$status $limit_conn_status $mine'; access_log access.log t if=$logged;
             limit_conn_zone $remote_addr zone=z:32k;
             map $status $logged { default 1; 200 0; }
             geo $where { default far; 127.0.0.0/8 near; }
             split_clients $remote_addr $part { 100% all; }
             server { listen LISTEN0; deny 127.0.0.1; return no; }
             server { listen LISTEN1; set $mine ${where}-$part; limit_conn z 1; return '$mine $server_port'; }
             server { listen LISTEN2; limit_conn z 1; proxy_pass $nowhere; set $nowhere 127.0.0.1; }",
        );
        let mut client = running.connect(0).await;
        assert_eq!(rest(&mut client).await, "");
        assert_eq!(running.line("access.log", "403").await, "403 - -");
        let text = "access forbidden by rule while initializing session, client: 127.0.0.1, server: ";
        assert!(running.file("error.log").contains(text));
        let mut client = running.connect(1).await;
        assert_eq!(rest(&mut client).await, format!("near-all {}", running.addresses[1].port()));
        let mut client = running.connect(2).await;
        assert_eq!(rest(&mut client).await, "");
        assert_eq!(running.line("access.log", "500").await, "500 PASSED -");
        assert!(running.file("error.log").contains("no port in upstream \"127.0.0.1\", client: 127.0.0.1"));
        assert_eq!(running.file("access.log").lines().count(), 2);
    });
}

#[test]
fn a_connection_is_passed_to_another_listener() {
    run(async {
        let running = Running::start(
            "log_format t '$server_name $status'; access_log access.log t;
             server { listen LISTEN0; server_name first; ssl_preread on; pass LISTEN1; }
             server { listen LISTEN1; server_name second; return '$remote_addr'; }
             server { listen LISTEN2; server_name cycle; pass LISTEN2; }
             server { listen LISTEN3; pass 127.0.0.1:1; }",
        );
        let stream = running.stream;
        pass::set_switchboard(Box::new(move |to, passed| {
            match stream.ports.iter().position(|port| port.listen.address.to_string() == to.to_string()) {
                Some(port) => crate::stream::passed(stream, port, passed),
                None => return Err(Box::new(passed)),
            }
            Ok(())
        }));
        let mut client = running.connect(0).await;
        client.write_all(&hello("a.test")).await.unwrap();
        assert_eq!(rest(&mut client).await, "127.0.0.1");
        let mut client = running.connect(2).await;
        assert_eq!(rest(&mut client).await, "");
        running.line("error.log", "stream pass cycle while passing connection to port").await;
        let mut client = running.connect(3).await;
        assert_eq!(rest(&mut client).await, "");
        running.line("error.log", "port not found for \"127.0.0.1:1\"").await;
        assert_eq!(running.file("access.log"), "second 200\ncycle 500\n 200\n");
    });
}

#[test]
fn limited_connections_are_refused() {
    run(async {
        let to = echo("x").await;
        let running = Running::start(&format!(
            "{FORMAT} limit_conn_zone $remote_addr zone=z:32k;
             server {{ listen LISTEN0; limit_conn z 1; proxy_pass {to}; }}"
        ));
        let mut first = running.connect(0).await;
        expect(&mut first, "x").await;
        let mut second = running.connect(0).await;
        assert_eq!(rest(&mut second).await, "");
        running.line("access.log", " 503 ").await;
        running.line("error.log", "limiting connections by zone \"z\" while initializing session").await;
        drop(first);
        running.line("access.log", " 200 ").await;
        let mut third = running.connect(0).await;
        expect(&mut third, "x").await;
    });
}

#[test]
fn tls_on_both_sides() {
    let certs = format!("{}/fixtures/tls", env!("CARGO_MANIFEST_DIR"));
    run(async {
        let to = echo("hi ").await;
        let running = Running::start(&format!(
            "log_format t '$ssl_server_name $ssl_protocol $status $bytes_received/$bytes_sent'; access_log access.log t;
             server {{ listen LISTEN0 ssl; ssl_certificate {certs}/ecdsa.crt; ssl_certificate_key {certs}/ecdsa.key;
                       proxy_pass {to}; }}
             server {{ listen LISTEN1; proxy_pass LISTEN0; proxy_ssl on; proxy_ssl_server_name on;
                       proxy_ssl_name one.test; }}
             server {{ listen LISTEN2; proxy_pass LISTEN0; proxy_ssl on; proxy_ssl_verify on;
                       proxy_ssl_trusted_certificate {certs}/ca.crt; proxy_ssl_name wrong.test; }}"
        ));
        let mut client = running.connect(1).await;
        expect(&mut client, "hi ").await;
        client.write_all(b"there").await.unwrap();
        expect(&mut client, "there").await;
        drop(client);
        assert_eq!(running.line("access.log", "one.test").await, "one.test TLSv1.3 200 5/8");
        let mut client = running.connect(2).await;
        assert_eq!(rest(&mut client).await, "");
        running.line("error.log", "while SSL handshaking to upstream, client: 127.0.0.1").await;
    });
}

#[test]
fn certificates_are_named_by_sessions() {
    let certs = format!("{}/fixtures/tls", env!("CARGO_MANIFEST_DIR"));
    run(async {
        let to = echo("hi ").await;
        let running = Running::start(&format!(
            "map $ssl_server_name $pair {{ one.test ecdsa; two.test nosuch; }}
             map $server_port $own {{ default client; }}
             log_format t '$ssl_server_name $status $ssl_client_s_dn'; access_log access.log t;
             server {{ listen LISTEN0 ssl; ssl_certificate {certs}/$pair.crt; ssl_certificate_key {certs}/$pair.key;
                       ssl_verify_client optional_no_ca; proxy_pass {to}; }}
             server {{ proxy_ssl on; proxy_ssl_server_name on; proxy_pass LISTEN0; listen LISTEN1;
                       proxy_ssl_name one.test;
                       proxy_ssl_certificate {certs}/$own.crt; proxy_ssl_certificate_key {certs}/$own.key; }}
             server {{ proxy_ssl on; proxy_ssl_server_name on; proxy_pass LISTEN0; listen LISTEN2;
                       proxy_ssl_name two.test; }}"
        ));
        let mut client = running.connect(1).await;
        expect(&mut client, "hi ").await;
        drop(client);
        running.line("access.log", "one.test 200 emailAddress=").await;
        let mut client = running.connect(2).await;
        assert_eq!(rest(&mut client).await, "");
        running.line("error.log", "nosuch.crt\": BIO_new_file() failed (SSL: error:80000002").await;
        running.line("error.log", "error:0A000179:SSL routines::cert cb error) while SSL handshaking").await;
        running.line("access.log", "two.test 500").await;
    });
}

#[test]
fn refusals_have_nginx_words() {
    let server = |body: &str| refusal(&format!("server {{ listen 127.0.0.1:9; {body} }}"));
    assert_eq!(refusal("server { return x; }"), "no \"listen\" is defined for server in nginx.conf:3");
    assert_eq!(
        server("proxy_pass a b;"),
        "invalid number of arguments in \"proxy_pass\" directive in nginx.conf:3"
    );
    assert_eq!(server("proxy_pass u:x;"), "invalid port in upstream \"u:x\" in nginx.conf:3");
    assert_eq!(
        server("proxy_pass 127.0.0.1:1; proxy_pass 127.0.0.1:1;"),
        "\"proxy_pass\" directive is duplicate in nginx.conf:3"
    );
    assert_eq!(server("allow x;"), "invalid parameter \"x\" in nginx.conf:3");
    assert_eq!(server("limit_conn z 1;"), "zero size shared memory zone \"z\"");
    assert_eq!(server("limit_conn z 0;"), "invalid number of connections \"0\" in nginx.conf:3");
    assert_eq!(server("access_log a b;"), "unknown log format \"b\" in nginx.conf:3");
    assert_eq!(server("access_log a;"), "log format is not specified in nginx.conf:3");
    assert_eq!(server("set x y;"), "invalid variable name \"x\" in nginx.conf:3");
    assert_eq!(server("return $nothing;"), "unknown \"nothing\" variable");
    assert_eq!(server("proxy_bind x;"), "invalid address \"x\" in nginx.conf:3");
    assert_eq!(
        refusal("server { listen 127.0.0.1:9 ssl; }"),
        "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive in nginx.conf:3"
    );
}
