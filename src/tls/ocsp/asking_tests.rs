//! Responders that answer, refuse and lie, and what becomes of those who ask.

use super::response::Status;
use super::tests::{Pki, pki, say, verifier};
use super::*;
use crate::log::{ErrorLog, Level};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A log in a file of its own.
pub(super) struct Told(PathBuf);

impl Told {
    pub fn new(name: &str) -> (Told, Log) {
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
pub(super) struct Server {
    pub at: SocketAddr,
    answer: Rc<RefCell<Vec<u8>>>,
    asked: Rc<RefCell<Vec<String>>>,
    pub count: Rc<Cell<usize>>,
}

pub(super) async fn server() -> Server {
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
    pub fn says(&self, response: &[u8]) {
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/ocsp-response\r\n\r\n";
        *self.answer.borrow_mut() = [&head[..], response].concat();
    }
}

pub(super) fn run(future: impl Future<Output = ()>) {
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
