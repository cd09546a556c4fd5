use std::io::IoSlice;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;
use rustls::{ContentType, Error, InvalidMessage, PeerMisbehaved, ProtocolVersion};

use super::Records;
use super::control::KEY_UPDATE_MESSAGE;
use super::hostile::{Wire, converse, pair, sealed, sender};
use ProtocolVersion::{TLSv1_2, TLSv1_3};

const BOTH: [ProtocolVersion; 2] = [TLSv1_3, TLSv1_2];

fn wire(input: Vec<u8>, step: usize) -> Wire {
    Wire { input, output: Vec::new(), step }
}

/// What `pieces` are on the wire.
fn write(records: &mut Records, pieces: &[&[u8]]) -> Vec<u8> {
    let mut to = wire(Vec::new(), 1);
    let mut cx = Context::from_waker(Waker::noop());
    let all: Vec<u8> = pieces.concat();
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut rest = &mut slices[..];
    let mut done = 0;
    while done < all.len() {
        let Poll::Ready(Ok(n)) = records.poll_write(&mut to, &mut cx, rest) else { panic!("not written") };
        assert!(n > 0);
        done += n;
        IoSlice::advance_slices(&mut rest, n);
    }
    assert!(records.is_flushed());
    to.output
}

/// All that comes, and the error it ends with.
fn read(records: &mut Records, from: &mut Wire, room: usize) -> (Vec<u8>, Option<Error>) {
    let mut cx = Context::from_waker(Waker::noop());
    let (mut all, mut buf) = (Vec::new(), vec![0; room]);
    loop {
        match records.poll_read(from, &mut cx, &mut buf) {
            Poll::Ready(Ok(0)) => return (all, None),
            Poll::Ready(Ok(n)) => all.extend_from_slice(&buf[..n]),
            Poll::Ready(Err(e)) => {
                return (all, Some(e.get_ref().unwrap().downcast_ref::<Error>().unwrap().clone()));
            }
            Poll::Pending => panic!("the wire never waits"),
        }
    }
}

/// What the first of a pair makes of `said`; and the alert it answers with.
fn refuses(version: ProtocolVersion, said: Vec<u8>) -> (Vec<u8>, Error, Option<u8>) {
    let (mut one, mut other) = pair(version);
    let mut from = wire(said, 1000);
    let (text, error) = read(&mut one, &mut from, 100);
    let mut back = wire(from.output, 1000);
    let alert = match read(&mut other, &mut back, 100).1 {
        Some(Error::AlertReceived(alert)) => Some(u8::from(alert)),
        None => None,
        other => panic!("{other:?}"),
    };
    (text, error.expect("it is refused"), alert)
}

fn says(version: ProtocolVersion, kind: ContentType, text: &[u8]) -> (Error, Option<u8>) {
    let (_, error, alert) = refuses(version, sealed(&mut sender(version), kind, text));
    (error, alert)
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40_000), 1..5),
        step in 1usize..70_000,
        room in 1usize..70_000,
        tls13: bool,
    ) {
        let (mut one, mut other) = pair(if tls13 { TLSv1_3 } else { TLSv1_2 });
        let all = pieces.concat();
        let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        let mut bytes = write(&mut one, &slices);
        bytes.extend(write(&mut one, &[b"more"]));
        let (text, error) = read(&mut other, &mut wire(bytes, step), room);
        prop_assert_eq!(error, None);
        prop_assert!(text == [&all[..], b"more"].concat());
    }

    #[test]
    fn a_changed_byte_is_noticed(at in 0usize..1000, bit in 0u8..8, tls13: bool) {
        let version = if tls13 { TLSv1_3 } else { TLSv1_2 };
        let mut cipher = sender(version);
        let mut bytes = sealed(&mut cipher, ContentType::ApplicationData, &[7; 100]);
        bytes.extend(sealed(&mut cipher, ContentType::ApplicationData, &[8; 100]));
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let (mut one, _) = pair(version);
        let (text, error) = read(&mut one, &mut wire(bytes, 4096), 4096);
        // A record that seems longer than what comes ends the connection as if it were cut.
        prop_assert!(error.is_some() || text.len() < 200);
        prop_assert!(text.iter().all(|byte| *byte == 7) && text.len() <= 100);
    }

    #[test]
    fn nothing_said_is_too_much(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        converse(&bytes);
    }
}

#[test]
fn large_writes_leave_in_few_records() {
    for version in BOTH {
        let (mut one, _) = pair(version);
        let text = vec![1; 64 << 10];
        let bytes = write(&mut one, &[&text]);
        let overhead = if version == TLSv1_3 { 22 } else { 29 };
        assert_eq!(bytes.len(), text.len() + 4 * overhead);
        // What is small leaves as one record, whatever it is made of.
        assert_eq!(write(&mut one, &[b"head", b"", b"body"]).len(), 8 + overhead);
    }
}

#[test]
fn records_out_of_order_are_refused() {
    for version in BOTH {
        let mut cipher = sender(version);
        let first = sealed(&mut cipher, ContentType::ApplicationData, b"1");
        let second = sealed(&mut cipher, ContentType::ApplicationData, b"2");
        for said in [second.clone(), [&first[..], &first[..]].concat()] {
            let (_, error, alert) = refuses(version, said);
            assert_eq!((error, alert), (Error::DecryptError, Some(20)));
        }
    }
}

#[test]
fn padding_is_taken_off() {
    let mut cipher = sender(TLSv1_3);
    // The type that follows is sealed as text here, and zeros stand where the type would be.
    let said = sealed(&mut cipher, ContentType::from(0), b"text\x17\0\0\0");
    let (mut one, _) = pair(TLSv1_3);
    assert_eq!(read(&mut one, &mut wire(said, 9), 3), (b"text".to_vec(), None));
    let (error, alert) = says(TLSv1_3, ContentType::from(0), &[0; 10]);
    assert_eq!((error, alert), (PeerMisbehaved::IllegalTlsInnerPlaintext.into(), Some(10)));
}

#[test]
fn headers_that_cannot_be_are_refused_at_once() {
    for version in BOTH {
        let most: u16 = if version == TLSv1_3 { 16384 + 256 } else { 16384 + 2048 };
        let long = (most + 1).to_be_bytes();
        let (_, error, alert) = refuses(version, vec![23, 3, 3, long[0], long[1]]);
        assert_eq!((error, alert), (Error::PeerSentOversizedRecord, Some(22)));
        let (_, error, _) = refuses(version, b"GET / HTTP/1.1\r\n".to_vec());
        assert_eq!(error, InvalidMessage::InvalidContentType.into());
        let (_, error, alert) = refuses(version, vec![23, 3, 3, 0, 0]);
        assert_eq!((error, alert), (Error::DecryptError, Some(20)));
    }
    // In TLSv1.3 nothing is sent in the clear once the handshake is done, alerts included.
    for clear in [&[20, 3, 3, 0, 1, 1][..], &[21, 3, 3, 0, 2, 1, 0], &[22, 3, 3, 0, 4, 0, 0, 0, 0]] {
        let (_, error, alert) = refuses(TLSv1_3, clear.to_vec());
        assert!(matches!(error, Error::InappropriateMessage { .. }), "{error:?}");
        assert_eq!(alert, Some(10));
    }
}

#[test]
fn more_text_than_a_record_may_have_is_refused() {
    // 16384 bytes and padding are fine, 16385 are not: the room that padding has is not text's.
    let mut cipher = sender(TLSv1_3);
    let mut text = vec![5; 16384];
    let said = sealed(&mut cipher, ContentType::ApplicationData, &text);
    let (mut one, _) = pair(TLSv1_3);
    assert_eq!(read(&mut one, &mut wire(said, 100_000), 1000).0.len(), 16384);
    *text.last_mut().unwrap() = 23;
    let said = sealed(&mut sender(TLSv1_3), ContentType::from(0), &text);
    let (mut one, _) = pair(TLSv1_3);
    assert_eq!(read(&mut one, &mut wire(said, 100_000), 100_000).0.len(), 16383);
}

#[test]
fn alerts_end_or_warn() {
    for version in BOTH {
        let (error, alert) = says(version, ContentType::Alert, &[2, 40]);
        assert!(matches!(error, Error::AlertReceived(_)));
        assert_eq!(alert, None);
        for broken in [&[1][..], &[1, 0, 0], &[]] {
            let (error, alert) = says(version, ContentType::Alert, broken);
            assert_eq!((error, alert), (InvalidMessage::MessageTooShort.into(), Some(50)));
        }
        // What follows close_notify is nobody's.
        let mut cipher = sender(version);
        let mut said = sealed(&mut cipher, ContentType::ApplicationData, b"all");
        said.extend(sealed(&mut cipher, ContentType::Alert, &[1, 0]));
        said.extend(sealed(&mut cipher, ContentType::ApplicationData, b"more"));
        let (mut one, _) = pair(version);
        assert_eq!(read(&mut one, &mut wire(said, 4096), 4096), (b"all".to_vec(), None));
        assert!(one.has_unread());
        // user_canceled is to be ignored, a few times.
        let mut cipher = sender(version);
        let mut said = Vec::new();
        for _ in 0..5 {
            said.extend(sealed(&mut cipher, ContentType::Alert, &[1, 90]));
        }
        let (_, error, alert) = refuses(version, said);
        assert_eq!((error, alert), (PeerMisbehaved::TooManyWarningAlertsReceived.into(), Some(10)));
    }
    assert!(matches!(says(TLSv1_3, ContentType::Alert, &[1, 100]).0, Error::AlertReceived(_)));
}

#[test]
fn keys_change_on_request_and_at_their_limit() {
    let (mut one, mut other) = pair(TLSv1_3);
    let mut said = write(&mut other, &[b"old "]);
    other.update_due = true;
    said.extend(write(&mut other, &[b"new "]));
    other.seal.set_seq((1 << 24) - 1);
    one.open.set_seq(0);
    let late = {
        // The reader counts too.
        let (text, error) = read(&mut one, &mut wire(said, 11), 100);
        assert_eq!((text, error), (b"old new ".to_vec(), None));
        one.ended = false;
        one.open.set_seq((1 << 24) - 1);
        write(&mut other, &[b"newest"])
    };
    assert_eq!(read(&mut one, &mut wire(late, 4096), 100), (b"newest".to_vec(), None));
    // A wish is met before the next data, and once.
    let mut wish = KEY_UPDATE_MESSAGE;
    wish[4] = 1;
    other.push(ContentType::Handshake, &wish).unwrap();
    other.seal = other.secrets.as_mut().unwrap().send.update(&other.seal).unwrap();
    let mut said = other.output.bytes().to_vec();
    other.output.release();
    said.extend(write(&mut other, &[b"wished"]));
    one.ended = false;
    assert_eq!(read(&mut one, &mut wire(said, 4096), 100), (b"wished".to_vec(), None));
    assert!(one.update_due);
    let back = write(&mut one, &[b"met"]);
    assert!(!one.update_due);
    assert_eq!(read(&mut other, &mut wire(back, 4096), 100), (b"met".to_vec(), None));
}

#[test]
fn a_key_of_tls12_ends_with_its_connection() {
    let (mut one, mut other) = pair(TLSv1_2);
    one.seal.set_seq((1 << 24) - 1);
    other.open.set_seq((1 << 24) - 1);
    let mut to = wire(Vec::new(), 1);
    let mut cx = Context::from_waker(Waker::noop());
    let written = one.poll_write(&mut to, &mut cx, &[IoSlice::new(b"x")]);
    assert!(matches!(written, Poll::Ready(Err(_))));
    assert_eq!(read(&mut other, &mut wire(to.output, 100), 100), (Vec::new(), None));
}

#[test]
fn handshake_messages_are_few() {
    let update = &KEY_UPDATE_MESSAGE[..];
    let ticket = &[4, 0, 0, 1, 0][..];
    for (version, text, alert) in [
        (TLSv1_3, &[24, 0, 0, 1, 2][..], 50),
        (TLSv1_3, &[24, 0, 0, 2, 0, 0], 50),
        (TLSv1_3, &[update, update].concat(), 10),
        (TLSv1_3, ticket, 10),
        (TLSv1_3, &[1, 0, 0, 0], 10),
        (TLSv1_3, &[1, 1, 0, 0], 50),
        (TLSv1_3, &[], 50),
        (TLSv1_2, update, 10),
        (TLSv1_2, &[0, 0, 0, 0], 10),
    ] {
        assert_eq!(says(version, ContentType::Handshake, text).1, Some(alert), "{text:?}");
    }
    // A message in two records, and data between them.
    let mut cipher = sender(TLSv1_3);
    let mut said = sealed(&mut cipher, ContentType::Handshake, &update[..2]);
    said.extend(sealed(&mut cipher, ContentType::ApplicationData, b"x"));
    let (_, error, alert) = refuses(TLSv1_3, said);
    assert_eq!((error, alert), (PeerMisbehaved::MessageInterleavedWithHandshakeMessage.into(), Some(10)));
    let mut cipher = sender(TLSv1_3);
    let mut said = Vec::new();
    for _ in 0..33 {
        let mut secret_free = sealed(&mut cipher, ContentType::ApplicationData, b"");
        said.append(&mut secret_free);
    }
    let (_, error, _) = refuses(TLSv1_3, said);
    assert_eq!(error, PeerMisbehaved::TooManyEmptyFragments.into());
}

#[test]
fn negotiating_again_is_refused() {
    let mut cipher = sender(TLSv1_2);
    let hello = [1, 0, 0, 2, 3, 3];
    let mut said = sealed(&mut cipher, ContentType::Handshake, &hello[..3]);
    said.extend(sealed(&mut cipher, ContentType::Handshake, &hello[3..]));
    said.extend(sealed(&mut cipher, ContentType::ApplicationData, b"goes on"));
    let (mut one, mut other) = pair(TLSv1_2);
    let mut from = wire(said.clone(), 4096);
    assert_eq!(read(&mut one, &mut from, 100), (b"goes on".to_vec(), None));
    // The answer is a warning.
    assert_eq!(read(&mut other, &mut wire(from.output, 100), 100), (Vec::new(), None));
    said.extend(sealed(&mut cipher, ContentType::Handshake, &hello));
    let (_, error, alert) = refuses(TLSv1_2, said);
    assert_eq!((error, alert), (PeerMisbehaved::TooManyRenegotiationRequests.into(), Some(10)));
}

#[test]
fn a_failure_waits_for_what_came_before_it_and_stays() {
    let mut cipher = sender(TLSv1_3);
    let mut said = sealed(&mut cipher, ContentType::ApplicationData, b"good");
    said.extend([23, 3, 3, 0, 20]);
    said.extend([0; 20]);
    let (mut one, _) = pair(TLSv1_3);
    let mut from = wire(said, 4096);
    assert_eq!(read(&mut one, &mut from, 100), (b"good".to_vec(), Some(Error::DecryptError)));
    assert_eq!(read(&mut one, &mut from, 100), (Vec::new(), Some(Error::DecryptError)));
    // Nothing is written behind the alert.
    let mut cx = Context::from_waker(Waker::noop());
    let piece = [IoSlice::new(b"x")];
    assert!(matches!(one.poll_write(&mut from, &mut cx, &piece), Poll::Ready(Err(_))));
}

// === with rustls at the other end ===

mod with_rustls {
    use super::*;
    use crate::tls::{CertificatePair, Choice, ClientTls, Connector, Protocol, Server, ServerTls, accept};
    use rustls::pki_types::ServerName;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

    fn server(protocols: &[Protocol], ciphers: &str) -> Arc<Server> {
        let file = |end: &str| format!("{}/fixtures/tls/ecdsa.{end}", env!("CARGO_MANIFEST_DIR"));
        let pair = CertificatePair { certificate: file("crt"), key: file("key") };
        Server::new(&ServerTls {
            certificates: vec![pair],
            protocols: protocols.to_vec(),
            ciphers: ciphers.to_owned(),
            ..ServerTls::default()
        })
        .unwrap()
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    type Ours = crate::tls::TlsStream<DuplexStream>;

    async fn to_ours(server: &Arc<Server>) -> (Ours, client::TlsStream<DuplexStream>) {
        let (a, b) = duplex(32 << 10);
        let settings = ClientTls { server_name: true, ..ClientTls::default() };
        let config = Arc::clone(&Connector::new(&settings).unwrap().config);
        let connector = TlsConnector::from(config);
        let name = ServerName::try_from("localhost").unwrap();
        let (ours, theirs) =
            tokio::join!(accept(a, |_| Choice::Serve(server.clone())), connector.connect(name, b));
        (ours.unwrap(), theirs.unwrap())
    }

    async fn from_ours(server: &Arc<Server>) -> (Ours, server::TlsStream<DuplexStream>) {
        let (a, b) = duplex(32 << 10);
        let acceptor = TlsAcceptor::from(Arc::clone(&server.config));
        let connector = Connector::new(&ClientTls { server_name: true, ..ClientTls::default() }).unwrap();
        let (ours, theirs) = tokio::join!(connector.connect(a, "localhost"), acceptor.accept(b));
        (ours.unwrap(), theirs.unwrap())
    }

    async fn pass<A: AsyncWriteExt + Unpin, B: AsyncReadExt + Unpin>(from: &mut A, to: &mut B, n: usize) {
        let text: Vec<u8> = (0..n).map(|at| (at / 7) as u8).collect();
        let mut got = vec![0; n];
        let send = async {
            from.write_all(&text).await.unwrap();
            from.flush().await.unwrap();
        };
        let (_, read) = tokio::join!(send, to.read_exact(&mut got));
        read.unwrap();
        assert!(got == text);
    }

    #[test]
    fn every_suite_is_understood_both_ways() {
        run(async {
            let tls12 = [Protocol::TlsV1_2];
            for (protocols, ciphers) in [
                (&[Protocol::TlsV1_3][..], "HIGH"),
                (&tls12, "ECDHE-ECDSA-AES128-GCM-SHA256"),
                (&tls12, "ECDHE-ECDSA-AES256-GCM-SHA384"),
                (&tls12, "ECDHE-ECDSA-CHACHA20-POLY1305"),
            ] {
                let server = server(protocols, ciphers);
                let (mut ours, mut theirs) = to_ours(&server).await;
                for n in [1, 100, 16384, 16385, 300_000] {
                    pass(&mut ours, &mut theirs, n).await;
                    pass(&mut theirs, &mut ours, n).await;
                }
                theirs.shutdown().await.unwrap();
                assert_eq!(ours.read(&mut [0; 10]).await.unwrap(), 0);
                ours.shutdown().await.unwrap();
                assert_eq!(theirs.read(&mut [0; 10]).await.unwrap(), 0);
                let (mut ours, mut theirs) = from_ours(&server).await;
                for n in [1, 100, 16384, 16385, 300_000] {
                    pass(&mut ours, &mut theirs, n).await;
                    pass(&mut theirs, &mut ours, n).await;
                }
            }
        });
    }

    #[test]
    fn new_keys_are_rustlss() {
        run(async {
            let server = server(&[Protocol::TlsV1_3], "HIGH");
            let (mut ours, mut theirs) = to_ours(&server).await;
            let (mut ours_too, mut theirs_too) = from_ours(&server).await;
            for _ in 0..3 {
                // The wish that goes along is met by ours.
                theirs.get_mut().1.refresh_traffic_keys().unwrap();
                theirs_too.get_mut().1.refresh_traffic_keys().unwrap();
                ours.records.update_due = true;
                for n in [10, 100_000] {
                    pass(&mut theirs, &mut ours, n).await;
                    pass(&mut ours, &mut theirs, n).await;
                    pass(&mut theirs_too, &mut ours_too, n).await;
                    pass(&mut ours_too, &mut theirs_too, n).await;
                }
            }
        });
    }

    #[test]
    fn a_connection_without_a_word_waits_for_no_room() {
        run(async {
            let server = server(&[Protocol::TlsV1_3], "HIGH");
            let (mut ours, mut theirs) = to_ours(&server).await;
            pass(&mut theirs, &mut ours, 100_000).await;
            pass(&mut ours, &mut theirs, 100_000).await;
            assert_eq!(ours.records.input.capacity() + ours.records.output.capacity(), 0);
        });
    }
}
