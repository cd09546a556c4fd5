//! Responders that answer, and what is made of it.

use super::cache::StatusCache;
use super::inquiry::now;
use super::judge::{self, Trust};
use super::response::{Single, Status, read};
use super::staple::{Staple, Stapling};
use super::*;
use crate::log::{ErrorLog, Level};
use crate::tls::testing::{Made, Say, Wish, ca, responder, usage};
use crate::tls::verify::{PathVerifier, Purpose};
use crate::tls::{self, CertificatePair, Choice, ServerTls, TlsStream, VerifyMode};
use proptest::prelude::*;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{DigitallySignedStruct, SignatureScheme};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpListener;

/// A root, an intermediate under it and a certificate under that.
struct Pki {
    root: Made,
    int: Made,
    leaf: Made,
}

fn pki(url: Option<&str>) -> Pki {
    let root = Made::root(&Wish { subject: "root", extensions: &[ca(None)], ..Wish::default() });
    let aia: Vec<Vec<u8>> = url.map(responder).into_iter().collect();
    let above = [vec![ca(None)], aia.clone()].concat();
    let int = root.issue(&Wish { subject: "int", serial: 2, extensions: &above, ..Wish::default() });
    let leaf = int.issue(&Wish { subject: "leaf", serial: 3, extensions: &aia, ..Wish::default() });
    Pki { root, int, leaf }
}

fn verifier(anchors: &[&Made]) -> Arc<PathVerifier> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let store = anchors.iter().map(|m| m.cert.clone()).collect();
    PathVerifier::new(store, &[], 100, Purpose::Responder, &provider)
}

const THIS: &str = "20200101000000Z";
const NEXT: &str = "20991231000000Z";

fn say<'a>(about: &'a [(&'a Made, Status)], issuer: &'a Made, signer: &'a Made) -> Say<'a> {
    Say { about, issuer, signer, with: &[], by_key: false, this: THIS, next: Some(NEXT) }
}

fn judged(say: &Say<'_>, chain: &[&Made], anchors: &[&Made], trust: Trust) -> String {
    let response = say.response();
    let basic = read(&response).unwrap();
    let chain: Vec<_> = chain.iter().map(|m| m.cert.clone()).collect();
    match judge::signer(&basic, &chain, &verifier(anchors), trust, now()) {
        Ok(()) => "good".to_owned(),
        Err(e) => e.to_string(),
    }
}

#[test]
fn the_issuer_or_its_delegate_signs() {
    let Pki { root, int, leaf } = pki(None);
    let about = [(&leaf, Status::Good)];
    let all = [&leaf, &int, &root];
    let by_int = say(&about, &int, &int);
    assert_eq!(judged(&by_int, &all, &[&root], Trust::Path), "good");
    assert_eq!(judged(&Say { by_key: true, ..by_int }, &all, &[&root], Trust::Path), "good");
    // The signer comes along, but nobody knows its root.
    let with = [&int];
    let unknown = judged(&Say { with: &with, ..say(&about, &int, &int) }, &[], &[], Trust::Path);
    assert_eq!(
        unknown,
        "OCSP_basic_verify() failed (SSL: error:13800065:OCSP routines::certificate verify error:\
         Verify error: unable to get local issuer certificate)"
    );
    assert_eq!(judged(&Say { with: &with, ..say(&about, &int, &int) }, &[], &[], Trust::Anyone), "good");
    assert_eq!(judged(&say(&about, &int, &int), &[&int], &[], Trust::Chain), "good");
    assert_eq!(
        judged(&say(&about, &int, &int), &[], &[&root], Trust::Anyone),
        "OCSP_basic_verify() failed (SSL: error:13800076:OCSP routines::signer certificate not found)"
    );
    let not_trusted = "OCSP_basic_verify() failed (SSL: error:13800070:OCSP routines::root ca not trusted)";
    assert_eq!(judged(&say(&about, &int, &root), &all, &[&root], Trust::Path), not_trusted);

    let wish = |extensions| Wish { subject: "responder", serial: 9, extensions, ..Wish::default() };
    let (charged, plain) = ([usage(9)], [usage(2)]);
    let delegate = int.issue(&wish(&charged));
    let with = [&delegate];
    let delegated = Say { with: &with, ..say(&about, &int, &delegate) };
    assert_eq!(judged(&delegated, &all, &[&root], Trust::Path), "good");
    let other = int.issue(&wish(&plain));
    let with = [&other];
    let not_delegated = Say { with: &with, ..say(&about, &int, &other) };
    assert_eq!(
        judged(&not_delegated, &all, &[&root], Trust::Path),
        "OCSP_basic_verify() failed (SSL: error:13800067:OCSP routines::missing ocspsigning usage \
         error:13800070:OCSP routines::root ca not trusted)"
    );
    // Charged by somebody else.
    let foreign = root.issue(&wish(&charged));
    let with = [&foreign];
    let by_foreign = Say { with: &with, ..say(&about, &int, &foreign) };
    assert_eq!(judged(&by_foreign, &all, &[&root], Trust::Path), not_trusted);
}

#[test]
fn a_signature_is_of_all_that_is_said() {
    let Pki { root, int, leaf } = pki(None);
    let mut response = say(&[(&leaf, Status::Revoked)], &int, &int).response();
    let chain = [int.cert.clone()];
    let verifier = verifier(&[&root]);
    // The serial number stands in front of the status.
    let at = response.windows(5).position(|w| w == [2, 1, 3, 0xa1, 17]).unwrap();
    response[at + 2] = 4;
    let basic = read(&response).unwrap();
    for trust in [Trust::Anyone, Trust::Chain, Trust::Path] {
        assert_eq!(
            judge::signer(&basic, &chain, &verifier, trust, now()).unwrap_err().to_string(),
            "OCSP_basic_verify() failed (SSL: error:13800075:OCSP routines::signature failure)"
        );
    }
}

#[test]
fn responses_have_their_time() {
    let single = |this: &'static str, next: Option<&'static str>| Single {
        hash: &[],
        name_hash: &[],
        key_hash: &[],
        serial: &[],
        status: Status::Good,
        this_update: this.as_bytes(),
        next_update: next.map(str::as_bytes),
    };
    let at = 951_868_799; // 2000-02-29 23:59:59
    let words = |this, next| judge::is_timely(&single(this, next), at).unwrap_err();
    assert_eq!(judge::is_timely(&single("20000229000000Z", None), at), Ok(None));
    assert_eq!(judge::is_timely(&single("20000301000459Z", None), at), Ok(None));
    assert_eq!(judge::is_timely(&single("20000229000000Z", Some("20000229235459Z")), at), Ok(Some(at - 300)));
    for (this, next, reason) in [
        ("20000301000500Z", None, "1380007E:OCSP routines::status not yet valid"),
        ("20000229000000Z", Some("20000229235458Z"), "1380007D:OCSP routines::status expired"),
        ("20000301000400Z", Some("20000301000300Z"), "1380007C:OCSP routines::nextupdate before thisupdate"),
        ("x", None, "1380007B:OCSP routines::error in thisupdate field"),
        ("20000229000000Z", Some("x"), "1380007A:OCSP routines::error in nextupdate field"),
    ] {
        assert_eq!(words(this, next), format!("OCSP_check_validity() failed (SSL: error:{reason})"));
    }
}

#[test]
fn staples_are_renewed_before_they_end() {
    let Pki { root, int, leaf } = pki(Some("http://127.0.0.1:1/"));
    let key = Arc::new(leaf.certified(&[&int]));
    let new = |stapling: &Stapling| Staple::new(&key, "leaf.crt", stapling, &verifier(&[&root]));
    let staple = new(&Stapling::default()).unwrap();
    let stapled = |now| staple.current(now).ocsp.clone();
    assert!(staple.is_due(1000));
    assert!(!staple.is_due(1000), "it is being fetched");
    staple.done();
    staple.keep(None, 1000);
    assert!(!staple.is_due(1300));
    assert!(staple.is_due(1301));
    staple.done();
    staple.keep(Some((b"a".to_vec(), Some(2000))), 1000);
    assert_eq!(stapled(2000).as_deref(), Some(&b"a"[..]));
    assert_eq!(stapled(2001), None);
    assert!(!staple.is_due(1700));
    assert!(staple.is_due(1701));
    staple.done();
    // A failure leaves what is good still.
    staple.keep(None, 1701);
    assert_eq!(stapled(2000).as_deref(), Some(&b"a"[..]));
    staple.keep(Some((b"b".to_vec(), None)), 1000);
    assert_eq!(stapled(i64::MAX).as_deref(), Some(&b"b"[..]));
    assert!(!staple.is_due(4600));
    assert!(staple.is_due(4601));
    staple.done();
    // Almost over when it comes.
    staple.keep(Some((b"c".to_vec(), Some(1100))), 1000);
    assert!(!staple.is_due(1300));
}

#[test]
fn what_cannot_be_stapled_is_said() {
    let Pki { root, int, leaf } = pki(None);
    let said = |key: &Made, chain: &[&Made], responder: &str, anchors: &[&Made]| {
        let stapling = Stapling { responder: responder.into(), ..Stapling::default() };
        let key = Arc::new(key.certified(chain));
        Staple::new(&key, "a.crt", &stapling, &verifier(anchors)).err().map(|e| e.to_string())
    };
    let ignored = |why: &str| Some(format!("\"ssl_stapling\" ignored, {why}"));
    let url = "http://127.0.0.1:1";
    assert_eq!(
        said(&leaf, &[], url, &[&root]),
        ignored("issuer certificate not found for certificate \"a.crt\"")
    );
    assert_eq!(said(&leaf, &[&int], url, &[]), None);
    assert_eq!(said(&leaf, &[], url, &[&int]), None);
    assert_eq!(said(&leaf, &[&int], "", &[]), ignored("no OCSP responder URL in the certificate \"a.crt\""));
    let no_http = "invalid URL prefix in OCSP responder \"https://r/\" in the certificate \"a.crt\"";
    assert_eq!(said(&leaf, &[&int], "https://r/", &[]), ignored(no_http));
    let no_port = "invalid port in OCSP responder \"127.0.0.1:0\" in the certificate \"a.crt\"";
    assert_eq!(said(&leaf, &[&int], "http://127.0.0.1:0", &[]), ignored(no_port));
}

/// A log in a file of its own.
struct Told(PathBuf);

impl Told {
    fn new(name: &str) -> (Told, Log) {
        let path = std::env::temp_dir().join(format!("nxr-ocsp-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let log = ErrorLog::built_in(Some(&path), Level::Info);
        (Told(path), Log { log, connection: Some(7), context: " while SSL handshaking".to_owned() })
    }

    /// What was logged since the last time, without date and process.
    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.0).unwrap();
        std::fs::write(&self.0, "").unwrap();
        text.lines().map(|l| l.split_once(" *7 ").unwrap().1.to_owned()).collect()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Answers every connection with the bytes that are set, and keeps what it was asked.
struct Server {
    at: SocketAddr,
    answer: Rc<RefCell<Vec<u8>>>,
    asked: Rc<RefCell<Vec<String>>>,
    count: Rc<Cell<usize>>,
}

async fn server() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server {
        at: listener.local_addr().unwrap(),
        answer: Rc::default(),
        asked: Rc::default(),
        count: Rc::default(),
    };
    let (answer, asked, count) =
        (Rc::clone(&server.answer), Rc::clone(&server.asked), Rc::clone(&server.count));
    tokio::task::spawn_local(async move {
        while let Ok((mut io, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                io.read_buf(&mut request).await.unwrap();
            }
            asked.borrow_mut().push(String::from_utf8(request).unwrap());
            count.set(count.get() + 1);
            let bytes = answer.borrow().clone();
            io.write_all(&bytes).await.unwrap();
        }
    });
    server
}

impl Server {
    fn says(&self, response: &[u8]) {
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/ocsp-response\r\n\r\n";
        *self.answer.borrow_mut() = [&head[..], response].concat();
    }
}

fn run(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, future);
}

#[test]
fn clients_are_asked_about() {
    run(async {
        let server = server().await;
        let url = format!("http://{}/o", server.at);
        let Pki { root, int, leaf } = pki(Some(&url));
        let path: Vec<_> = [&leaf, &int, &root].iter().map(|m| m.cert.clone()).collect();
        let checker = |leaf: bool, cache: Option<StatusCache>| {
            Checker::new(ClientStatus { leaf, responder: None, cache }, verifier(&[&root]))
        };
        let (told, log) = Told::new("clients");
        let asking =
            format!(" while requesting certificate status, responder: 127.0.0.1, peer: {}", server.at);

        server.says(&say(&[(&leaf, Status::Good)], &int, &int).response());
        assert_eq!(checker(true, None).check(&path, &log).await, Ok(()));
        let asked = server.asked.borrow()[0].clone();
        assert!(asked.starts_with("GET /o/ME"), "{asked}");
        assert!(asked.ends_with(" HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n"), "{asked}");
        assert!(told.lines().is_empty());

        // The answer about the leaf says nothing of the certificate above it.
        let all = checker(false, None);
        assert_eq!(all.check(&path, &log).await, Err(StatusError::RequestFailed));
        let not_found = "certificate status not found in the OCSP response";
        assert_eq!(told.lines(), [format!("{not_found}{asking}")]);

        for (status, error) in
            [(Status::Revoked, StatusError::Revoked), (Status::Unknown, StatusError::Unknown)]
        {
            server.says(&say(&[(&leaf, status)], &int, &int).response());
            assert_eq!(all.check(&path, &log).await, Err(error));
        }
        // A path of one certificate is an anchor, which is not asked about.
        assert_eq!(all.check(&path[2..], &log).await, Ok(()));
        assert!(told.lines().is_empty());

        // A status is asked for once.
        let cached = checker(true, Some(StatusCache::new(1 << 16)));
        let before = server.count.get();
        for _ in 0..2 {
            server.says(&say(&[(&leaf, Status::Good)], &int, &int).response());
            assert_eq!(cached.check(&path, &log).await, Ok(()));
            server.says(b"");
        }
        assert_eq!(server.count.get(), before + 1);
    });
}

#[test]
fn failures_are_told() {
    run(async {
        let server = server().await;
        let at = server.at;
        let Pki { root, int, leaf } = pki(None);
        let path: Vec<_> = [&leaf, &int, &root].iter().map(|m| m.cert.clone()).collect();
        let (told, log) = Told::new("failures");
        let ask = async |responder: Option<&str>| {
            let responder = responder.map(|url| Responder::new(url.as_bytes(), false).unwrap());
            let checker =
                Checker::new(ClientStatus { leaf: true, responder, cache: None }, verifier(&[&root]));
            assert_eq!(checker.check(&path, &log).await, Err(StatusError::RequestFailed));
            told.lines()
        };
        let here = format!("http://{at}");
        let asking = " while requesting certificate status, responder: ";
        let peer = format!("{asking}127.0.0.1, peer: {at}");
        assert_eq!(ask(None).await, ["no OCSP responder URL in certificate while SSL handshaking"]);
        assert_eq!(
            ask(Some("http://r.example/")).await,
            [format!("no resolver defined to resolve r.example{asking}r.example")]
        );
        // A port that was just given back.
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let refused = format!("{asking}127.0.0.1, peer: {closed}");
        assert_eq!(
            ask(Some(&format!("http://{closed}"))).await,
            [
                format!("recv() failed (111: Connection refused){refused}"),
                format!("OCSP responder prematurely closed connection{refused}"),
            ]
        );
        for (answer, words) in [
            (&b""[..], "OCSP responder prematurely closed connection"),
            (b"HTTP/1.0 200 OK\r\n", "OCSP responder prematurely closed connection"),
            (b"hello", "OCSP responder sent invalid response"),
            (
                b"HTTP/1.0 404 Not Found\r\nContent-Type: text/html\r\n\r\n",
                "OCSP responder sent invalid \"Content-Type\" header: \"text/html\"",
            ),
            (
                b"HTTP/1.0 200 OK\r\n\r\n\x30\x03\x0a\x01\x06",
                "OCSP response not successful (6: unauthorized)",
            ),
            (
                b"HTTP/1.0 200 OK\r\n\r\nhello",
                "d2i_OCSP_RESPONSE() failed (SSL: error:0688010A:asn1 encoding routines::nested asn1 error:\
                 Type=OCSP_RESPONSE)",
            ),
        ] {
            *server.answer.borrow_mut() = answer.to_vec();
            assert_eq!(ask(Some(&here)).await, [format!("{words}{peer}")]);
        }
        // Any other status is failure enough.
        *server.answer.borrow_mut() = b"HTTP/1.0 500 x\r\n\r\n".to_vec();
        assert!(ask(Some(&here)).await.is_empty());
        // Longer than anything that is read.
        let endless = [&b"HTTP/1.0 200 OK\r\n\r\n"[..], &[0x30; 20_000]].concat();
        *server.answer.borrow_mut() = endless;
        assert_eq!(ask(Some(&here)).await.len(), 1);
    });
}

/// Takes any certificate, and keeps what is stapled to it.
#[derive(Debug, Default)]
struct Stapled(std::sync::Mutex<Vec<u8>>);

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

/// Shakes hands and returns the server's side with what was stapled. `client` is a certificate to show.
async fn shake(
    server: &Arc<tls::Server>,
    client: Option<&CertifiedKey>,
) -> (TlsStream<DuplexStream>, Vec<u8>) {
    let (side, stapled) = try_shake(server, client).await;
    (side.unwrap(), stapled)
}

type Side = Result<TlsStream<DuplexStream>, tls::HandshakeError>;

async fn try_shake(server: &Arc<tls::Server>, client: Option<&CertifiedKey>) -> (Side, Vec<u8>) {
    let seen = Arc::new(Stapled::default());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(seen.clone());
    let config = match client {
        None => config.with_no_client_auth(),
        Some(key) => config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone()))),
    };
    let (a, b) = duplex(1 << 16);
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").unwrap();
    let (server, client) =
        tokio::join!(tls::accept(a, |_| Choice::Serve(server.clone())), connector.connect(name, b));
    // Under TLSv1.3 a client has done its part before the server has checked it.
    client.unwrap();
    let stapled = seen.0.lock().unwrap().clone();
    (server, stapled)
}

fn settings(key: &Made, chain: &[&Made]) -> ServerTls {
    let (certificate, key) = key.pems(chain);
    let pair = CertificatePair { certificate: format!("data:{certificate}"), key: format!("data:{key}") };
    ServerTls { certificates: vec![pair], ..ServerTls::default() }
}

#[test]
fn a_staple_is_fetched_for_the_next_client() {
    run(async {
        let responder = server().await;
        let Pki { int, leaf, .. } = pki(Some(&format!("http://{}", responder.at)));
        let response = say(&[(&leaf, Status::Good)], &int, &int).response();
        // What comes after the response is not part of it.
        responder.says(&[&response[..], b"\r\n"].concat());
        let stapling = Some(Stapling { verify: true, ..Stapling::default() });
        let server = tls::Server::new(&ServerTls { stapling, ..settings(&leaf, &[&int]) }).unwrap();
        assert!(server.not_stapled.is_empty());
        assert_eq!(shake(&server, None).await.1, b"");
        while shake(&server, None).await.1.is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(shake(&server.with_alpn(Vec::new()), None).await.1, response);
        assert_eq!(responder.count.get(), 1);
    });
}

#[test]
fn a_revoked_certificate_is_none() {
    run(async {
        let responder = server().await;
        let Pki { root, int, leaf } = pki(Some(&format!("http://{}", responder.at)));
        let client_status = Some(ClientStatus { leaf: true, responder: None, cache: None });
        let trusted = root.pems(&[]).0;
        let server = tls::Server::new(&ServerTls {
            client_status,
            verify: VerifyMode::On,
            client_certificate: Some(format!("data:{trusted}")),
            ..settings(&leaf, &[&int])
        });
        let server = server.unwrap();
        let client = leaf.certified(&[&int]);
        let (_told, log) = Told::new("revoked");
        for (status, words) in [
            (Status::Good, "SUCCESS"),
            (Status::Revoked, "FAILED:certificate revoked"),
            (Status::Unknown, "FAILED:certificate status unknown"),
        ] {
            responder.says(&say(&[(&leaf, status)], &int, &int).response());
            let (mut stream, _) = shake(&server, Some(&client)).await;
            stream.check_status(|| log.clone()).await;
            assert_eq!(stream.info().client_verify(), words);
        }
        // Nobody is asked about a client without a certificate, or with a bad one.
        let before = responder.count.get();
        let other = pki(None);
        let stranger = other.leaf.certified(&[&other.int]);
        for (client, words) in [(None, "NONE"), (Some(&stranger), "FAILED:certificate signature failure")] {
            let (mut stream, _) = shake(&server, client).await;
            stream.check_status(|| log.clone()).await;
            assert_eq!(stream.info().client_verify(), words);
        }
        assert_eq!(responder.count.get(), before);
    });
}

#[test]
fn nothing_may_stand_behind_a_certificate() {
    run(async {
        let Pki { root, int, leaf } = pki(None);
        let server = tls::Server::new(&ServerTls {
            verify: VerifyMode::On,
            client_certificate: Some(format!("data:{}", root.pems(&[]).0)),
            ..settings(&leaf, &[&int])
        });
        let mut client = leaf.certified(&[&int]);
        assert_eq!(
            shake(&server.as_ref().unwrap().clone(), Some(&client)).await.0.info().client_verify(),
            "SUCCESS"
        );
        let mut longer = client.cert[0].to_vec();
        longer.push(0);
        client.cert[0] = longer.into();
        assert!(try_shake(&server.unwrap(), Some(&client)).await.0.is_err());
    });
}

proptest! {
    /// Whatever is wrong with a response, it is refused rather than believed, and nothing breaks.
    #[test]
    fn damaged_responses_are_not_believed(at in 0usize..400, bit in 0u8..8, cut in 0usize..400) {
        let Pki { root, int, leaf } = pki(None);
        let response = say(&[(&leaf, Status::Good)], &int, &int).response();
        let mut damaged = response.clone();
        let at = at % damaged.len();
        damaged[at] ^= 1 << bit;
        let chain = [int.cert.clone()];
        if let Ok(basic) = read(&damaged) {
            let _ = judge::signer(&basic, &chain, &verifier(&[&root]), Trust::Path, now());
        }
        prop_assert!(read(&response[..cut % response.len()]).is_err());
    }
}
