//! OCSP with a responder of the test's own: clients that are asked about, and staples that are fetched by name.

use crate::support::server::{Server, connect_to, foreground};
use crate::support::{PATIENCE, fixture, free_port, wait};
use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use x509_parser::prelude::{FromDer, X509Certificate};

fn path(name: &str) -> String {
    fixture(&format!("tls/{name}")).display().to_string()
}

fn certificate(name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path(name)).unwrap()
}

fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = match content.len() {
        n @ 0..=0x7f => vec![tag, n as u8],
        n @ 0x80..=0xff => vec![tag, 0x81, n as u8],
        n => vec![tag, 0x82, (n >> 8) as u8, n as u8],
    };
    out.extend(content);
    out
}

fn seq(parts: &[&[u8]]) -> Vec<u8> {
    der(0x30, parts)
}

/// What the test's CA says of one of its certificates (RFC 6960 section 4.2.1); `status` is a CertStatus.
fn response(about: &str, status: &[u8]) -> Vec<u8> {
    let (ca, leaf) = (certificate("ca.crt"), certificate(about));
    let (_, ca) = X509Certificate::from_der(&ca).unwrap();
    let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
    let sha1 = |bytes: &[u8]| {
        let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
        der(4, &[hash.as_ref()])
    };
    let time = |text: &str| der(0x18, &[text.as_bytes()]);
    let id = seq(&[
        &seq(&[&[6, 5, 0x2b, 0x0e, 3, 2, 0x1a], &[5, 0]]),
        &sha1(ca.subject().as_raw()),
        &sha1(&ca.public_key().subject_public_key.data),
        &der(2, &[leaf.raw_serial()]),
    ]);
    let next = der(0xa0, &[&time("20991231000000Z")]);
    let single = seq(&[&id, status, &time("20200101000000Z"), &next]);
    let named = der(0xa1, &[ca.subject().as_raw()]);
    let data = seq(&[&named, &time("20200101000000Z"), &seq(&[&single])]);
    let key = PrivatePkcs8KeyDer::from_pem_file(path("ca.key")).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.secret_pkcs8_der()).unwrap();
    let signature = key.sign(&SystemRandom::new(), &data).unwrap();
    // ecdsa-with-SHA256
    let algorithm = [0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
    // So that who does not trust the CA knows it.
    let certificates = der(0xa0, &[&seq(&[&certificate("ca.crt")])]);
    let basic = seq(&[&data, &algorithm, &der(3, &[&[0], signature.as_ref()]), &certificates]);
    let typed = seq(&[&[6, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1], &der(4, &[&basic])]);
    seq(&[&[0x0a, 1, 0], &der(0xa0, &[&typed])])
}

const GOOD: &[u8] = &[0x80, 0];

fn revoked() -> Vec<u8> {
    der(0xa1, &[&der(0x18, &[b"20200101000000Z"])])
}

/// A responder that says one thing, whatever it is asked; it counts.
struct Responder {
    port: u16,
    says: Arc<Mutex<Vec<u8>>>,
    count: Arc<AtomicUsize>,
}

impl Responder {
    fn new(response: Vec<u8>) -> Responder {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let (says, count) = (Arc::new(Mutex::new(response)), Arc::new(AtomicUsize::new(0)));
        let (answer, counted) = (says.clone(), count.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
                    request.push(byte[0]);
                }
                assert!(request.starts_with(b"GET /"));
                counted.fetch_add(1, Ordering::SeqCst);
                let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/ocsp-response\r\n\r\n";
                let body = answer.lock().unwrap().clone();
                // Whoever hung up does not want it.
                let _ = stream.write_all(&[&head[..], &body].concat());
            }
        });
        Responder { port, says, count }
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

/// A name server for which every name is 127.0.0.1; it counts.
fn name_server() -> (u16, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    std::thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((n, from)) = socket.recv_from(&mut packet) {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut answer = packet[..n].to_vec();
            answer[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1]);
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
            socket.send_to(&answer, from).unwrap();
        }
    });
    (port, count)
}

/// Takes any certificate, and keeps what is stapled to it.
#[derive(Debug, Default)]
struct Stapled(Mutex<Vec<u8>>);

impl ServerCertVerifier for Stapled {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap() = ocsp.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// Connects with the client's certificate, says something, and returns all that comes back with the staple.
fn ask(port: u16, says: &[u8]) -> (String, Vec<u8>) {
    let stapled = Arc::new(Stapled::default());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::from_pem_file(path("client.key")).unwrap();
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(stapled.clone())
        .with_client_auth_cert(vec![certificate("client.crt")], key)
        .unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let socket = connect_to(&format!("127.0.0.1:{port}"));
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket);
    let mut text = Vec::new();
    // A server that refuses may be gone before it has heard anything.
    if stream.write_all(says).is_ok() {
        let _ = stream.read_to_end(&mut text);
    }
    let staple = stapled.0.lock().unwrap().clone();
    (String::from_utf8_lossy(&text).into_owned(), staple)
}

const REQUEST: &[u8] = b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n";

#[test]
fn clients_of_http_and_stream_are_asked_about() {
    let responder = Responder::new(response("client.crt", GOOD));
    let (http, stream) = (free_port(), free_port());
    let tls = format!(
        "ssl_certificate {}; ssl_certificate_key {}; ssl_client_certificate {}; ssl_verify_client on; ssl_ocsp on; \
         ssl_ocsp_responder http://127.0.0.1:{};",
        path("ecdsa.crt"),
        path("ecdsa.key"),
        path("ca.crt"),
        responder.port
    );
    let server = Server::start(
        "ocsp-clients",
        &foreground(&format!(
            "events {{}}\n\
             http {{ access_log off; {tls} \
             server {{ listen 127.0.0.1:{http} ssl; location / {{ return 200 \"http $ssl_client_verify\"; }} }} }}\n\
             stream {{ {tls} \
             server {{ listen 127.0.0.1:{stream} ssl; return \"stream $ssl_client_verify\"; }} }}\n"
        )),
    );
    assert!(ask(http, REQUEST).0.ends_with("http SUCCESS"));
    assert_eq!(ask(stream, b"").0, "stream SUCCESS");
    assert_eq!(responder.count(), 2);
    *responder.says.lock().unwrap() = response("client.crt", &revoked());
    let (refused, _) = ask(http, REQUEST);
    assert!(refused.starts_with("HTTP/1.1 400 Bad Request"), "{refused}");
    assert!(refused.contains("<center>The SSL certificate error</center>"), "{refused}");
    assert_eq!(ask(stream, b"").0, "");
    let log = server.log();
    let said = log.matches("client SSL certificate verify error: certificate revoked while ").count();
    assert_eq!(said, 2, "{log}");
}

#[test]
fn a_staple_is_fetched_by_name_and_shared_by_all_threads() {
    let good = response("ecdsa.crt", GOOD);
    let responder = Responder::new(good.clone());
    let (names, asked) = name_server();
    let port = free_port();
    let server = Server::start(
        "ocsp-staple",
        &foreground(&format!(
            "worker_processes 2;\nevents {{}}\nhttp {{ access_log off; resolver 127.0.0.1:{names} ipv6=off; \
             server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {}; ssl_certificate_key {}; \
             ssl_trusted_certificate {}; ssl_stapling on; ssl_stapling_verify on; \
             ssl_stapling_responder http://localhost:{}/ocsp; location / {{ return 204; }} }} }}\n",
            path("ecdsa.crt"),
            path("ecdsa.key"),
            path("ca.crt"),
            responder.port
        )),
    );
    assert_eq!(ask(port, REQUEST).1, b"");
    wait("a staple", || (ask(port, REQUEST).1 == good).then_some(()));
    for _ in 0..4 {
        assert_eq!(ask(port, REQUEST).1, good);
    }
    assert_eq!(responder.count(), 1);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    let log = server.log();
    assert!(!log.contains("[warn]") && !log.contains("[error]"), "{log}");
}

#[test]
fn what_cannot_be_stapled_is_said_by_the_check() {
    let text = format!(
        "events {{}}\nhttp {{ server {{ listen 127.0.0.1:{}; ssl_certificate {crt}; ssl_certificate_key {}; \
         ssl_stapling on; }} }}\n\
         stream {{ server {{ listen 127.0.0.1:{} ssl; ssl_certificate {crt}; ssl_certificate_key {}; \
         ssl_trusted_certificate {}; ssl_stapling on; return ok; }} }}\n",
        free_port(),
        path("ecdsa.key"),
        free_port(),
        path("ecdsa.key"),
        path("ca.crt"),
        crt = path("ecdsa.crt"),
    );
    let output = Server::new("ocsp-check", &foreground(&text)).run(&["-t"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let crt = path("ecdsa.crt");
    for why in ["issuer certificate not found for certificate", "no OCSP responder URL in the certificate"] {
        let line = format!("nxr: [warn] \"ssl_stapling\" ignored, {why} \"{crt}\"\n");
        assert!(said.contains(&line), "{said}");
    }
}
