//! Whole handshakes, both ends in one process.

use super::*;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

pub(super) fn fixture(name: &str) -> String {
    format!("{}/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn pair(name: &str) -> CertificatePair {
    let key = name.trim_end_matches("-chain");
    CertificatePair { certificate: fixture(&format!("{name}.crt")), key: fixture(&format!("{key}.key")) }
}

fn server_tls(names: &[&str]) -> ServerTls {
    ServerTls { certificates: names.iter().map(|n| pair(n)).collect(), ..ServerTls::default() }
}

pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub(super) type Side = Result<TlsStream<DuplexStream>, HandshakeError>;

pub(super) async fn meet_by(
    choose: impl FnOnce(&Asking<'_, DuplexStream>) -> Choice,
    client: &Arc<Connector>,
    name: &str,
) -> (Side, Side) {
    let (a, b) = duplex(64 * 1024);
    tokio::join!(accept(a, choose), client.connect(b, name))
}

pub(super) async fn meet(server: &Arc<Server>, client: &Arc<Connector>) -> (Side, Side) {
    meet_by(|_| Choice::Serve(Arc::clone(server)), client, "localhost").await
}

/// Lets each end read something, tickets included.
pub(super) async fn exchange(server: &mut TlsStream<DuplexStream>, client: &mut TlsStream<DuplexStream>) {
    let mut buffer = [0; 4];
    client.write_all(b"ping").await.unwrap();
    client.flush().await.unwrap();
    server.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"ping");
    server.write_all(b"pong").await.unwrap();
    server.flush().await.unwrap();
    client.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"pong");
}

pub(super) fn leaf(stream: &TlsStream<DuplexStream>) -> String {
    let cert = stream.info().certificate().unwrap();
    format!("{} {}", cert.subject(), cert.serial())
}

pub(super) fn connector(change: impl FnOnce(&mut ClientTls)) -> Arc<Connector> {
    let mut settings = ClientTls { server_name: true, ..ClientTls::default() };
    change(&mut settings);
    Connector::new(&settings).unwrap()
}

#[test]
fn a_connection_carries_data_and_ends() {
    run(async {
        let server =
            Server::new(&ServerTls { alpn: vec![b"h2".to_vec()], ..server_tls(&["ecdsa"]) }).unwrap();
        assert!(server.warnings.is_empty(), "{:?}", server.warnings);
        let client = connector(|c| c.alpn = vec![b"h2".to_vec(), b"http/1.1".to_vec()]);
        let (s, c) = meet(&server, &client).await;
        let (mut s, mut c) = (s.unwrap(), c.unwrap());
        exchange(&mut s, &mut c).await;

        let info = Arc::clone(s.info());
        assert_eq!(info.protocol(), "TLSv1.3");
        assert_eq!(info.cipher(), "TLS_AES_256_GCM_SHA384");
        assert_eq!(info.curve(), "X25519MLKEM768");
        assert_eq!(info.curves(), "X25519MLKEM768:X25519:prime256v1:secp384r1");
        assert!(info.ciphers().starts_with("TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:"));
        assert_eq!(info.sigalg(), "ecdsa_secp256r1_sha256");
        assert_eq!(info.server_name.as_deref(), Some("localhost"));
        assert_eq!(info.alpn.as_deref(), Some(&b"h2"[..]));
        assert_eq!(info.session_reused(), ".");
        assert_eq!(info.session_id().len(), 64);
        assert_eq!(info.client_verify(), "NONE");
        assert_eq!(c.info().alpn.as_deref(), Some(&b"h2"[..]));

        c.shutdown().await.unwrap();
        assert_eq!(s.read(&mut [0; 8]).await.unwrap(), 0);
        // The other end goes without a word: an end all the same.
        drop(s);
        assert_eq!(c.read(&mut [0; 8]).await.unwrap(), 0);
    });
}

#[test]
fn servers_are_chosen_by_name() {
    run(async {
        let one = Server::new(&server_tls(&["ecdsa"])).unwrap();
        let two = Server::new(&server_tls(&["other"])).unwrap();
        let client = connector(|_| ());
        for (name, subject) in [("other.test", "CN=other.test 22"), ("localhost", "CN=localhost 21")] {
            let choose = |asking: &Asking<'_, _>| {
                let asked = asking.name();
                assert_eq!(asked, Some(name));
                Choice::Serve(Arc::clone(if asked == Some("other.test") { &two } else { &one }))
            };
            let (s, c) = meet_by(choose, &client, name).await;
            s.unwrap();
            assert_eq!(leaf(&c.unwrap()), subject);
        }
        // No name is sent for addresses, for odd names, or when the settings do not want it.
        let silent = connector(|c| c.server_name = false);
        for (client, name) in [(&client, "127.0.0.1"), (&client, "odd name!"), (&silent, "localhost")] {
            let (s, c) = meet_by(
                |asking| {
                    assert_eq!(asking.name(), None);
                    Choice::Serve(Arc::clone(&one))
                },
                client,
                name,
            )
            .await;
            assert_eq!(s.unwrap().info().server_name, None);
            c.unwrap();
        }
    });
}

#[test]
fn a_rejected_name_gets_an_alert() {
    run(async {
        let (s, c) = meet_by(|_| Choice::Reject, &connector(|_| ()), "localhost").await;
        let e = s.err().unwrap();
        assert_eq!(e.to_string(), "handshake rejected");
        assert_eq!(e.level(Peer::Client), Level::Info);
        let e = c.err().unwrap();
        assert_eq!(
            e.to_string(),
            "SSL_do_handshake() failed (SSL: error:0A000458:SSL routines::tlsv1 unrecognized name:SSL alert number 112)"
        );
        assert_eq!(e.level(Peer::Upstream), Level::Error);
    });
}

#[test]
fn the_certificate_fits_the_client() {
    run(async {
        let server = Server::new(&server_tls(&["rsa", "ecdsa"])).unwrap();
        for (cipher, serial) in [
            ("ECDHE-RSA-AES128-GCM-SHA256", "CN=localhost 20"),
            ("ECDHE-ECDSA-AES128-GCM-SHA256", "CN=localhost 21"),
        ] {
            let client = connector(|c| {
                c.ciphers = cipher.to_owned();
                c.protocols = vec![Protocol::TlsV1_2];
            });
            let (s, c) = meet(&server, &client).await;
            let s = s.unwrap();
            assert_eq!(s.info().protocol(), "TLSv1.2");
            assert_eq!(s.info().cipher(), cipher);
            assert_eq!(leaf(&c.unwrap()), serial);
        }
        let rsa = Server::new(&server_tls(&["rsa"])).unwrap();
        let (s, c) = meet(&rsa, &connector(|_| ())).await;
        assert_eq!(s.unwrap().info().sigalg(), "rsa_pss_rsae_sha512");
        c.unwrap();
    });
}

#[test]
fn tickets_outlive_a_reload_but_not_a_change_of_server() {
    run(async {
        for protocol in [Protocol::TlsV1_2, Protocol::TlsV1_3] {
            let keys = TicketKeys::random(Duration::from_secs(3600)).unwrap();
            let build = |names: &[&str], verify| {
                Server::new(&ServerTls {
                    tickets: Some(Arc::clone(&keys)),
                    verify,
                    client_certificate: Some(fixture("ca.crt")),
                    ..server_tls(names)
                })
                .unwrap()
            };
            let client = connector(|c| c.protocols = vec![protocol]);
            let visit = |server: Arc<Server>| {
                let client = Arc::clone(&client);
                async move {
                    let (s, c) = meet(&server, &client).await;
                    let (mut s, mut c) = (s.unwrap(), c.unwrap());
                    exchange(&mut s, &mut c).await;
                    assert_eq!(s.info().reused, c.info().reused);
                    (s.info().reused, s.info().session_id())
                }
            };
            let (reused, first) = visit(build(&["ecdsa"], VerifyMode::Off)).await;
            assert!(!reused);
            let (reused, again) = visit(build(&["ecdsa"], VerifyMode::Off)).await;
            assert!(reused, "{protocol:?}");
            assert!(protocol == Protocol::TlsV1_2 || first == again);
            assert!(!visit(build(&["rsa"], VerifyMode::Off)).await.0);
            assert!(!visit(build(&["rsa"], VerifyMode::On)).await.0);
        }
    });
}

#[test]
fn the_session_cache_is_shared_by_equal_servers() {
    run(async {
        for protocol in [Protocol::TlsV1_2, Protocol::TlsV1_3] {
            let cache = SessionCache::shared(1 << 20);
            let build = |cache: Option<SessionCache>| {
                Server::new(&ServerTls { session_cache: cache, ..server_tls(&["ecdsa"]) }).unwrap()
            };
            let client = connector(|c| c.protocols = vec![protocol]);
            let mut reused = Vec::new();
            for cache in [Some(cache.clone()), Some(cache), None] {
                let (s, c) = meet(&build(cache), &client).await;
                let (mut s, mut c) = (s.unwrap(), c.unwrap());
                exchange(&mut s, &mut c).await;
                reused.push(s.info().reused);
            }
            assert_eq!(reused, [false, true, false], "{protocol:?}");
        }
    });
}

async fn client_verdict(
    mode: VerifyMode,
    certificate: Option<&str>,
    protocol: Protocol,
) -> (String, Option<u32>) {
    let server = Server::new(&ServerTls {
        verify: mode,
        client_certificate: Some(fixture("ca.crt")),
        tickets: Some(TicketKeys::random(Duration::from_secs(3600)).unwrap()),
        ..server_tls(&["ecdsa"])
    })
    .unwrap();
    let client = connector(|c| {
        c.certificate = certificate.map(pair);
        c.protocols = vec![protocol];
    });
    let mut last = None;
    for reused in [false, true] {
        let (s, c) = meet(&server, &client).await;
        let (mut s, mut c) = (s.unwrap(), c.unwrap());
        exchange(&mut s, &mut c).await;
        assert_eq!(s.info().reused, reused);
        let now = (s.info().client_verify(), s.info().verdict.and_then(Result::err).map(|e| e.0));
        assert!(last.is_none() || last.as_ref() == Some(&now), "a resumed session has the same verdict");
        last = Some(now);
    }
    last.unwrap()
}

#[test]
fn client_certificates_are_judged_and_never_fail_a_handshake() {
    run(async {
        use VerifyMode::*;
        for protocol in [Protocol::TlsV1_2, Protocol::TlsV1_3] {
            for (mode, certificate, words, number) in [
                (On, None, "NONE", None),
                (Optional, Some("client"), "SUCCESS", None),
                (On, Some("self"), "FAILED:self-signed certificate", Some(18)),
                (On, Some("expired"), "FAILED:certificate has expired", Some(10)),
                (OptionalNoCa, Some("client-int"), "FAILED:unable to verify the first certificate", Some(21)),
                (On, Some("rsa"), "FAILED:unsuitable certificate purpose", Some(26)),
                (Off, Some("client"), "NONE", None),
            ] {
                let found = client_verdict(mode, certificate, protocol).await;
                assert_eq!(found, (words.to_owned(), number), "{mode:?} {certificate:?} {protocol:?}");
            }
        }
    });
}

#[test]
fn upstreams_are_verified_by_path_and_name() {
    run(async {
        let verify = |trusted: &str| {
            let trusted = Some(fixture(trusted));
            connector(|c| {
                c.verify = true;
                c.trusted_certificate = trusted;
            })
        };
        let cases = [
            ("ecdsa", "ca.crt", "localhost", None),
            ("cn-chain", "ca.crt", "cn.example.com", None),
            ("self", "self.crt", "self.example.com", None),
            ("ecdsa", "ca.crt", "a.example.com", None),
            ("ecdsa", "ca.crt", "other.test", Some("upstream SSL certificate does not match \"other.test\"")),
            ("ecdsa", "ca.crt", "127.0.0.1", Some("upstream SSL certificate does not match \"127.0.0.1\"")),
            (
                "ecdsa",
                "self.crt",
                "localhost",
                Some("upstream SSL certificate verify error: (21:unable to verify the first certificate)"),
            ),
            (
                "cn-chain",
                "self.crt",
                "cn.example.com",
                Some("upstream SSL certificate verify error: (20:unable to get local issuer certificate)"),
            ),
            (
                "self",
                "ca.crt",
                "self.example.com",
                Some("upstream SSL certificate verify error: (18:self-signed certificate)"),
            ),
        ];
        for (certificate, trusted, name, expected) in cases {
            let server = Server::new(&server_tls(&[certificate])).unwrap();
            let (_, c) = meet_by(|_| Choice::Serve(Arc::clone(&server)), &verify(trusted), name).await;
            let e = c.err();
            assert_eq!(
                e.as_ref().map(ToString::to_string).as_deref(),
                expected,
                "{certificate} {trusted} {name}"
            );
            assert!(e.is_none_or(|e| e.level(Peer::Upstream) == Level::Error));
        }
        // Without verification anything goes, odd names included.
        let server = Server::new(&server_tls(&["expired"])).unwrap();
        let (s, c) =
            meet_by(|_| Choice::Serve(Arc::clone(&server)), &connector(|_| ()), "no such.name_").await;
        s.unwrap();
        c.unwrap();
    });
}

#[test]
fn sessions_with_upstreams_are_reused_when_wanted() {
    run(async {
        let keys = TicketKeys::random(Duration::from_secs(3600)).unwrap();
        let server = Server::new(&ServerTls { tickets: Some(keys), ..server_tls(&["ecdsa"]) }).unwrap();
        for reuse in [true, false] {
            let client = connector(|c| {
                c.session_reuse = reuse;
                c.verify = true;
                c.trusted_certificate = Some(fixture("ca.crt"));
            });
            for (i, name) in ["localhost", "localhost", "a.example.com"].into_iter().enumerate() {
                let (s, c) = meet_by(|_| Choice::Serve(Arc::clone(&server)), &client, name).await;
                let (mut s, mut c) = (s.unwrap(), c.unwrap());
                exchange(&mut s, &mut c).await;
                assert_eq!(c.info().reused, reuse && i == 1);
            }
        }
    });
}

#[test]
fn the_curve_and_order_are_the_servers_choice() {
    run(async {
        let server = Server::new(&ServerTls {
            curves: "prime256v1".to_owned(),
            ciphers: "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES256-GCM-SHA384:DHE-RSA-AES128-GCM-SHA256"
                .to_owned(),
            prefer_server_ciphers: true,
            protocols: vec![Protocol::TlsV1_1, Protocol::TlsV1_2],
            ..server_tls(&["ecdsa"])
        })
        .unwrap();
        assert_eq!(
            server.warnings,
            [
                "cipher \"DHE-RSA-AES128-GCM-SHA256\" is not supported",
                "protocol \"TLSv1.1\" is not supported"
            ]
        );
        let (s, c) = meet(&server, &connector(|_| ())).await;
        let s = s.unwrap();
        assert_eq!(s.info().cipher(), "ECDHE-ECDSA-CHACHA20-POLY1305");
        assert_eq!(s.info().curve(), "prime256v1");
        c.unwrap();

        let only13 =
            Server::new(&ServerTls { protocols: vec![Protocol::TlsV1_3], ..server_tls(&["ecdsa"]) }).unwrap();
        let (s, _) = meet(&only13, &connector(|c| c.protocols = vec![Protocol::TlsV1_2])).await;
        assert_eq!(
            s.err().unwrap().to_string(),
            "SSL_do_handshake() failed (SSL: error:0A000102:SSL routines::unsupported protocol)"
        );
    });
}

#[test]
fn peers_that_are_no_peers() {
    run(async {
        let server = Server::new(&server_tls(&["ecdsa"])).unwrap();
        for (bytes, words) in [
            (&b""[..], "peer closed connection in SSL handshake"),
            (&[0x16, 3, 1][..], "peer closed connection in SSL handshake"),
            (
                &b"GET / HTTP/1.0\r\n\r\n"[..],
                "SSL_do_handshake() failed (SSL: error:0A00009C:SSL routines::http request)",
            ),
            (
                &b"hello world"[..],
                "SSL_do_handshake() failed (SSL: error:0A00010B:SSL routines::wrong version number)",
            ),
        ] {
            let (a, mut b) = duplex(4096);
            b.write_all(bytes).await.unwrap();
            b.shutdown().await.unwrap();
            let e = accept(a, |_| Choice::Serve(Arc::clone(&server))).await.err().unwrap();
            assert_eq!(e.to_string(), words);
            assert_eq!(e.level(Peer::Client), Level::Info);
        }
    });
}

#[test]
fn settings_that_cannot_work() {
    let fails = |settings: ServerTls| Server::new(&settings).unwrap_err().to_string();
    assert!(fails(server_tls(&["nosuch"])).starts_with("cannot load certificate \""));
    assert_eq!(
        fails(ServerTls {
            ciphers: "DHE-RSA-AES128-GCM-SHA256".to_owned(),
            protocols: vec![Protocol::TlsV1_2],
            ..server_tls(&["ecdsa"])
        }),
        "SSL_CTX_set_cipher_list(\"DHE-RSA-AES128-GCM-SHA256\") failed: none of these ciphers is supported"
    );
    assert_eq!(
        fails(ServerTls {
            verify: VerifyMode::On,
            client_certificate: Some("data:".to_owned()),
            ..server_tls(&["ecdsa"])
        }),
        "cannot load certificate \"data:\": PEM_read_bio_X509_AUX() failed \
         (SSL: error:0480006C:PEM routines::no start line:Expecting: TRUSTED CERTIFICATE)"
    );
}

/// Sends "early" as early data on a resumed session, then "late"; gives what the server says back.
fn early_visit(config: &Arc<rustls::ClientConfig>, address: std::net::SocketAddr, early: bool) -> bool {
    use std::io::{Read, Write};
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut session = rustls::ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    let mut rest: &[u8] = b"earlylate";
    if early {
        let n = session.early_data().expect("a session for early data").write(&rest[..5]).unwrap();
        rest = &rest[n..];
    }
    let mut stream = rustls::Stream::new(&mut session, &mut socket);
    stream.write_all(rest).unwrap();
    let mut answer = [0; 9];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"earlylate");
    session.is_early_data_accepted()
}

#[test]
fn early_data_is_read_before_the_rest() {
    run(async {
        let server = Server::new(&ServerTls {
            early_data: true,
            session_cache: Some(SessionCache::builtin(100)),
            ..server_tls(&["ecdsa"])
        })
        .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let visits = std::thread::spawn(move || {
            let mut config = (*connector(|_| ()).config).clone();
            config.enable_early_data = true;
            let config = Arc::new(config);
            [early_visit(&config, address, false), early_visit(&config, address, true)]
        });
        for reused in [false, true] {
            let (io, _) = listener.accept().await.unwrap();
            let mut stream = accept(io, |_| Choice::Serve(Arc::clone(&server))).await.unwrap();
            let mut text = [0; 9];
            stream.read_exact(&mut text).await.unwrap();
            stream.write_all(&text).await.unwrap();
            stream.flush().await.unwrap();
            assert_eq!(&text, b"earlylate");
            assert_eq!(stream.info().reused, reused);
        }
        assert_eq!(visits.join().unwrap(), [false, true]);
    });
}
