//! hyper's client against the server, over the loopback interface.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::http::testing::{Folder, Site};
use crate::tls::{CertificatePair, ClientTls, Connector};

type Client = SendRequest<Full<Bytes>>;

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

async fn connect(site: &Site, change: impl FnOnce(&mut Builder<TokioExecutor>)) -> Client {
    let stream = TcpStream::connect(site.addr).await.unwrap();
    let mut builder = Builder::new(TokioExecutor::new());
    change(&mut builder);
    let (client, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    client
}

fn request(path: &str) -> hyper::http::request::Builder {
    Request::builder().uri(format!("http://a.test{path}"))
}

async fn send(
    client: &mut Client,
    request: hyper::http::request::Builder,
    body: &'static str,
) -> (Response<()>, Bytes) {
    let request = request.body(Full::from(body)).unwrap();
    let (parts, body) = client.send_request(request).await.unwrap().into_parts();
    (Response::from_parts(parts, ()), body.collect().await.unwrap().to_bytes())
}

async fn get(client: &mut Client, path: &str) -> (Response<()>, Bytes) {
    send(client, request(path), "").await
}

const BASIC: &str = r#"
    server { LISTEN http2 on;
        location / { return 200 "$request|$http2|$host|$http_host|$http_cookie|$http_x_a"; }
        location /none { return 204; }
        location /go { return 302 /there; }
        location /file { }
    }"#;

#[test]
fn answers_as_over_http1_with_names_in_lower_case() {
    let site = Site::new(BASIC);
    run(async {
        let mut client = connect(&site, |_| {}).await;
        let asked = request("/x?y").header("x-a", "1").header("cookie", "a=1").header("cookie", "b=2");
        let (head, body) = send(&mut client, asked, "").await;
        assert_eq!(body, "GET /x?y HTTP/2.0|h2c|a.test|a.test|a=1; b=2|1");
        let names: Vec<&str> = head.headers().keys().map(|name| name.as_str()).collect();
        assert_eq!(names, ["server", "date", "content-type", "content-length"]);
        let (head, body) = get(&mut client, "/none").await;
        assert_eq!((head.status().as_u16(), body.len()), (204, 0));
        assert!(!head.headers().contains_key("content-length"));
        let (head, _) = get(&mut client, "/go").await;
        let location = head.headers()["location"].to_str().unwrap().to_owned();
        assert_eq!(location, format!("http://a.test:{}/there", site.addr.port()));
    });
}

#[test]
fn a_head_has_the_length_and_no_body() {
    let site = Site::new(BASIC);
    site.folder.write("file", "0123456789");
    run(async {
        let mut client = connect(&site, |_| {}).await;
        let (head, body) = send(&mut client, request("/file").method("HEAD"), "").await;
        assert_eq!((head.headers()["content-length"].as_bytes(), body.len()), (&b"10"[..], 0));
    });
}

#[test]
fn the_same_port_speaks_http1() {
    let site = Site::new(BASIC);
    assert!(site.get("/x").text().starts_with("GET /x HTTP/1.0||x|"));
    // As long as it could become a preface, it is waited for.
    assert!(site.raw("PRI * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").starts_with("HTTP/1.1 400 "));
}

#[test]
fn what_nginx_refuses_is_refused() {
    let site = Site::new(BASIC);
    run(async {
        let mut client = connect(&site, |_| {}).await;
        let (head, _) = send(&mut client, request("/").header("host", "b.test"), "").await;
        assert_eq!(head.status(), 400);
        let (head, _) = send(&mut client, request("/").method("BAD.METHOD"), "").await;
        assert_eq!(head.status(), 400);
        let (head, _) = send(&mut client, request("/").method("TRACE"), "").await;
        assert_eq!(head.status(), 405);
    });
    let log = site.log();
    assert!(log.contains(
        "client sent \":authority\" and \"Host\" headers with different values while reading client"
    ));
    assert!(log.contains("client sent invalid method: \"BAD.METHOD\""));
}

#[test]
fn long_bodies_pass_through_small_windows() {
    let folder = Folder::new();
    let text: String = (0..100_000).map(|n| format!("{n:09}\n")).collect();
    folder.write("file", &text);
    let site = Site::with(folder, BASIC);
    run(async {
        let small = |builder: &mut Builder<TokioExecutor>| {
            builder.initial_stream_window_size(20_000).initial_connection_window_size(65_535);
        };
        let mut client = connect(&site, small).await;
        let (mut a, mut b) = (client.clone(), client.clone());
        let (first, second, third) =
            tokio::join!(get(&mut client, "/file"), get(&mut a, "/file"), get(&mut b, "/"));
        assert!(first.1 == text.as_bytes() && second.1 == text.as_bytes());
        assert!(third.1.starts_with(b"GET / HTTP/2.0"));
    });
}

#[test]
fn a_connection_takes_leave_after_keepalive_requests() {
    let site = Site::new(&BASIC.replace("http2 on;", "http2 on; keepalive_requests 2;"));
    run(async {
        let mut client = connect(&site, |_| {}).await;
        for _ in 0..2 {
            assert_eq!(get(&mut client, "/").await.0.status(), 200);
        }
        let gone = async {
            while client.ready().await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
    });
}

#[test]
fn a_client_that_opens_no_window_is_reset() {
    let folder = Folder::new();
    folder.write("file", "x".repeat(1 << 20));
    let site = Site::with(folder, &BASIC.replace("http2 on;", "http2 on; send_timeout 300ms;"));
    run(async {
        let mut client = connect(&site, |builder| {
            builder.initial_stream_window_size(1000);
        })
        .await;
        let asked = request("/file").body(Full::default()).unwrap();
        let response: Response<Incoming> = client.send_request(asked).await.unwrap();
        let start = Instant::now();
        // Nobody reads the body: no window is opened.
        while !site.log().contains("client timed out (110: Connection timed out)") {
            assert!(start.elapsed() < Duration::from_secs(20), "{}", site.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(response.into_body().collect().await.is_err());
        assert_eq!(get(&mut client, "/").await.0.status(), 200);
    });
}

#[test]
fn a_stream_left_by_its_client_is_logged() {
    let folder = Folder::new();
    folder.write("file", "x".repeat(1 << 20));
    let log = folder.path().join("access.log");
    let text = format!("access_log {}; limit_rate 1k; {BASIC}", log.display());
    let site = Site::with(folder, &text);
    run(async {
        let mut client = connect(&site, |_| {}).await;
        let asked = request("/file").body(Full::default()).unwrap();
        drop(client.send_request(asked).await.unwrap());
        let start = Instant::now();
        while !std::fs::read_to_string(&log).unwrap_or_default().contains("\"GET /file HTTP/2.0\" 200 ") {
            assert!(start.elapsed() < Duration::from_secs(20), "not logged");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

// === TLS ===

fn fixture(name: &str) -> String {
    format!("{}/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn tls_site(settings: &str, servers: &str) -> Site {
    let pair =
        format!("ssl_certificate {}; ssl_certificate_key {};", fixture("ecdsa.crt"), fixture("ecdsa.key"));
    let text = format!(
        "{pair} http2 on; server {{ LISTEN_SSL server_name a.test; {settings}
            return 200 \"$http2|$ssl_protocol|$ssl_server_name|$ssl_client_verify|$ssl_client_s_dn\"; }} {servers}"
    );
    Site::new(&text)
}

async fn secure(site: &Site, name: &str, change: impl FnOnce(&mut ClientTls)) -> Client {
    let alpn = vec![b"h2".to_vec()];
    let mut settings = ClientTls { server_name: true, alpn, ..ClientTls::default() };
    change(&mut settings);
    let connector = Connector::new(&settings).unwrap();
    let stream = TcpStream::connect(site.addr).await.unwrap();
    let stream = connector.connect(stream, name).await.unwrap();
    let builder = Builder::new(TokioExecutor::new());
    let (client, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    client
}

fn with_certificate(name: &str) -> impl FnOnce(&mut ClientTls) {
    let (certificate, key) = (fixture(&format!("{name}.crt")), fixture(&format!("{name}.key")));
    move |settings| settings.certificate = Some(CertificatePair { certificate, key })
}

#[test]
fn alpn_leads_to_http2_and_variables_tell_of_tls() {
    let site = tls_site("", "");
    run(async {
        let mut client = secure(&site, "a.test", |_| {}).await;
        assert_eq!(get(&mut client, "/").await.1, "h2|TLSv1.3|a.test|NONE|");
    });
}

#[test]
fn clients_without_the_certificate_asked_for_get_495_and_496() {
    let verify = format!("ssl_verify_client on; ssl_client_certificate {};", fixture("ca.crt"));
    let site = tls_site(&verify, "");
    run(async {
        let mut client = secure(&site, "a.test", |_| {}).await;
        let (head, body) = get(&mut client, "/").await;
        assert_eq!(head.status(), 400);
        assert!(body.windows(40).any(|w| w == b"No required SSL certificate was sent</ti"), "{body:?}");
        let mut client = secure(&site, "a.test", with_certificate("self")).await;
        assert_eq!(get(&mut client, "/").await.0.status(), 400);
        let mut client = secure(&site, "a.test", with_certificate("client")).await;
        let (head, body) = get(&mut client, "/").await;
        assert_eq!(head.status(), 200);
        assert!(body.starts_with(b"h2|TLSv1.3|a.test|SUCCESS|"), "{body:?}");
    });
    let log = site.log();
    assert!(
        log.contains(
            "client sent no required SSL certificate while reading client request headers, client: "
        ),
        "{log}"
    );
    assert!(log.contains("client SSL certificate verify error: (18:self-signed certificate) while reading client request headers, client: "));
}

#[test]
fn a_host_that_wants_certificates_is_not_had_through_another_name() {
    let other = format!(
        "server {{ LISTEN_SSL server_name b.test; ssl_verify_client on; ssl_client_certificate {};
            return 200 b; }} server {{ LISTEN_SSL server_name c.test; http2 off; return 200 c; }}",
        fixture("ca.crt")
    );
    let site = tls_site("", &other);
    run(async {
        let mut client = secure(&site, "a.test", |_| {}).await;
        for (host, status) in [("a.test", 200), ("b.test", 421), ("c.test", 421), ("none.test", 200)] {
            let asked = Request::builder().uri(format!("https://{host}/"));
            assert_eq!(send(&mut client, asked, "").await.0.status(), status, "{host}");
        }
    });
    let log = site.log();
    assert!(
        log.contains(
            "client attempted to request the server name different from the one that was negotiated"
        )
    );
    assert!(log.contains("for which the negotiated protocol is disabled"));
}

#[test]
fn a_rejected_handshake_is_an_alert() {
    let site = tls_site("", "server { LISTEN_SSL server_name b.test; ssl_reject_handshake on; }");
    run(async {
        let settings = ClientTls { server_name: true, ..ClientTls::default() };
        let connector = Connector::new(&settings).unwrap();
        let stream = TcpStream::connect(site.addr).await.unwrap();
        assert!(connector.connect(stream, "b.test").await.is_err());
        let stream = TcpStream::connect(site.addr).await.unwrap();
        assert!(connector.connect(stream, "a.test").await.is_ok());
    });
    assert!(
        site.log()
            .contains("handshake rejected while SSL handshaking, client: 127.0.0.1, server: 127.0.0.1:")
    );
}

#[test]
fn plain_http_on_a_tls_port_is_told_so() {
    let site = tls_site("", "");
    let answer = site.raw("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400 "));
    assert!(answer.contains("The plain HTTP request was sent to HTTPS port"));
    assert!(
        site.log()
            .contains("client sent plain HTTP request to HTTPS port while reading client request headers")
    );
}

#[test]
fn bodies_of_requests_are_read() {
    let site = Site::new(
        "server { LISTEN http2 on; client_max_body_size 10; location / { return 200 $content_length; } }",
    );
    run(async {
        let mut client = connect(&site, |_| {}).await;
        let (head, body) = send(&mut client, request("/").method("POST"), "12345").await;
        assert_eq!((head.status().as_u16(), &body[..]), (200, &b"5"[..]));
        let (head, _) = send(&mut client, request("/").method("POST"), "12345678901").await;
        assert_eq!(head.status(), 413);
        let mut other: SendRequest<Empty<Bytes>> = {
            let stream = TcpStream::connect(site.addr).await.unwrap();
            let builder = Builder::new(TokioExecutor::new());
            let (client, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            client
        };
        let asked = request("/").body(Empty::new()).unwrap();
        assert_eq!(other.send_request(asked).await.unwrap().status(), 200);
    });
}

#[test]
fn an_idle_connection_is_closed_though_its_client_says_nothing() {
    use std::io::{Read, Write};
    let site = Site::new(&BASIC.replace("http2 on;", "http2 on; keepalive_timeout 200ms;"));
    let mut client = std::net::TcpStream::connect(site.addr).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // SETTINGS, and GET / of a.test on stream 1; no acknowledgement of anything.
    let fields = b"\x82\x86\x84\x41\x06a.test";
    client.write_all(super::PREFACE).unwrap();
    client.write_all(b"\0\0\0\x04\0\0\0\0\0").unwrap();
    client.write_all(&[0, 0, fields.len() as u8, 1, 5, 0, 0, 0, 1]).unwrap();
    client.write_all(fields).unwrap();
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert!(memchr::memmem::find(&all, b"GET / HTTP/2.0|h2c|a.test").is_some());
}

// === h2's client: what hyper's does not show ===

async fn bare(site: &Site) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(site.addr).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

/// An upstream that answers one request on each connection with these bytes.
fn upstream(answer: &'static str) -> std::net::SocketAddr {
    let (say, told) = std::sync::mpsc::channel();
    drop(say);
    upstream_after(told, answer)
}

/// The same, once it is told to.
fn upstream_after(told: std::sync::mpsc::Receiver<()>, answer: &'static str) -> std::net::SocketAddr {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let _ = told.recv();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    addr
}

#[test]
fn early_hints_go_in_front_of_the_response() {
    let app = upstream(
        "HTTP/1.1 103 Early\r\nLink: </a.css>\r\nConnection: x\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nend",
    );
    let site = Site::new(&format!(
        "server {{ LISTEN http2 on; location / {{ proxy_pass http://{app}; early_hints $http_wants; }} }}"
    ));
    run(async {
        let mut client = bare(&site).await;
        for wants in [true, false] {
            let asked = Request::get("http://a.test/").header("wants", if wants { "1" } else { "0" });
            let (mut response, _) = client.send_request(asked.body(()).unwrap(), true).unwrap();
            let hints = std::future::poll_fn(|cx| response.poll_informational(cx)).await;
            assert_eq!(hints.is_some(), wants);
            if let Some(hints) = hints {
                let hints = hints.unwrap();
                assert_eq!((hints.status().as_u16(), hints.headers().len()), (103, 1));
                assert_eq!(hints.headers()["link"], "</a.css>");
            }
            let mut response = response.await.unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(response.body_mut().data().await.unwrap().unwrap(), "end");
        }
    });
}

#[test]
fn a_request_goes_on_when_its_response_and_its_connection_are_over() {
    let (say, told) = std::sync::mpsc::channel::<()>();
    let after = upstream_after(told, "HTTP/1.1 204 No Content\r\n\r\n");
    let folder = Folder::new();
    let log = folder.path().join("access.log");
    let site = Site::new(&format!(
        "log_format after $status|$upstream_status; access_log {} after;
        server {{ LISTEN http2 on; location / {{ return 200 body; post_action /after; }}
            location /after {{ proxy_pass http://{after}; }} }}",
        log.display()
    ));
    run(async {
        let mut client = bare(&site).await;
        let asked = Request::get("http://a.test/").body(()).unwrap();
        let (response, _) = client.send_request(asked, true).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "body");
        assert!(body.is_end_stream());
    });
    // With the runtime the connection went. What is logged is where the request came to.
    say.send(()).unwrap();
    let start = Instant::now();
    while std::fs::read_to_string(&log).unwrap_or_default() != "204|204\n" {
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", std::fs::read_to_string(&log));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_body_that_its_client_gives_up_is_no_whole_one() {
    let log = Folder::new();
    let path = log.path().join("access.log");
    let site = Site::new(&format!(
        "access_log {}; server {{ LISTEN http2 on; location / {{ proxy_pass http://{}; }} }}",
        path.display(),
        upstream("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    ));
    run(async {
        let mut client = bare(&site).await;
        let asked = Request::post("http://a.test/").body(()).unwrap();
        let (response, mut body) = client.send_request(asked, false).unwrap();
        body.send_data("some".into(), false).unwrap();
        body.send_reset(h2::Reason::CANCEL);
        assert!(response.await.is_err());
        let start = Instant::now();
        while !std::fs::read_to_string(&path).unwrap_or_default().contains("\"POST / HTTP/2.0\" 499 ") {
            assert!(start.elapsed() < Duration::from_secs(20), "not logged");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn many_streams_at_once_are_all_answered() {
    let site = Site::new(BASIC);
    run(async {
        let client = connect(&site, |_| {}).await;
        for _ in 0..3 {
            let asked = (0..100).map(|n| {
                let mut client = client.clone();
                tokio::spawn(async move { get(&mut client, &format!("/{n}")).await.1 })
            });
            for (n, answer) in asked.collect::<Vec<_>>().into_iter().enumerate() {
                let body = answer.await.unwrap();
                assert!(body.starts_with(format!("GET /{n} HTTP/2.0|").as_bytes()), "{n}: {body:?}");
            }
        }
    });
}
