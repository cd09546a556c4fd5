//! A peer that says anything it likes in good records: for tests and fuzzing.

use std::io::IoSlice;
use std::task::{Context, Waker};

use rustls::crypto::aws_lc_rs::cipher_suite;
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::{ConnectionTrafficSecrets, ContentType, ExtractedSecrets, KeyLog, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::cipher::{Cipher, Pieces};
use super::{Agreed, Listen, Records, Secrets};
use crate::net::Buffer;

/// A stream that gives `input` in pieces of at most `step` bytes, and takes everything.
pub(super) struct Wire {
    pub(super) input: Vec<u8>,
    pub(super) output: Vec<u8>,
    pub(super) step: usize,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let n = self.step.min(self.input.len()).min(buf.remaining());
        buf.put_slice(&self.input[..n]);
        self.input.drain(..n);
        std::task::Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        self.output.extend_from_slice(buf);
        std::task::Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

/// Keys of AES-256-GCM, one for each `side`.
fn keys(side: u8) -> ConnectionTrafficSecrets {
    ConnectionTrafficSecrets::Aes256Gcm { key: AeadKey::from([side; 32]), iv: Iv::new([side; 12]) }
}

/// The ends of a connection, both of which think that they are servers.
pub(super) fn pair(version: ProtocolVersion) -> (Records, Records) {
    let suite = match version {
        ProtocolVersion::TLSv1_3 => cipher_suite::TLS13_AES_256_GCM_SHA384,
        _ => cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    };
    let end = |mine: u8, other: u8| {
        let mut secrets = Secrets::default();
        secrets.watch(|| {
            Listen.log("SERVER_TRAFFIC_SECRET_0", &[], &[mine; 48]);
            Listen.log("CLIENT_TRAFFIC_SECRET_0", &[], &[other; 48]);
        });
        Records::new(Agreed {
            version,
            suite,
            keys: ExtractedSecrets { tx: (0, keys(mine)), rx: (0, keys(other)) },
            secrets,
            client: None,
            record: 16 << 10,
            unread: Buffer::default(),
            early: Vec::new(),
        })
        .expect("the keys are of the suite")
    };
    (end(1, 2), end(2, 1))
}

/// The cipher by which the second of a [`pair`] sends.
pub(super) fn sender(version: ProtocolVersion) -> Cipher {
    Cipher::new(version, (0, keys(2))).expect("the key is of the suite")
}

pub(super) fn sealed(cipher: &mut Cipher, kind: ContentType, text: &[u8]) -> Vec<u8> {
    let mut out = vec![0; cipher.sealed_len(text.len())];
    let piece = [IoSlice::new(text)];
    cipher.seal(kind, &mut Pieces::new(&piece), text.len(), &mut out).expect("it fits");
    out
}

/// Whatever `bytes` say, as records of every kind, the layer takes it or refuses it, and ends.
pub fn converse(bytes: &[u8]) {
    let Some((&first, mut rest)) = bytes.split_first() else { return };
    let version = if first & 1 == 0 { ProtocolVersion::TLSv1_3 } else { ProtocolVersion::TLSv1_2 };
    let mut cipher = sender(version);
    let mut wire = Wire { input: Vec::new(), output: Vec::new(), step: 1 + usize::from(first >> 2) };
    while let Some((&[kind, len], after)) = rest.split_first_chunk::<2>() {
        let (text, after) = after.split_at(usize::from(len).min(after.len()));
        match kind {
            // A record in the clear, or nothing of the sort.
            0 => wire.input.extend_from_slice(text),
            kind => wire.input.extend(sealed(&mut cipher, ContentType::from(kind % 26), text)),
        }
        rest = after;
    }
    let (mut records, _) = pair(version);
    let mut cx = Context::from_waker(Waker::noop());
    let mut room = vec![0; if first & 2 == 0 { 7 } else { 20 << 10 }];
    while let std::task::Poll::Ready(Ok(1..)) = records.poll_read(&mut wire, &mut cx, &mut room) {
        let _ = records.poll_write(&mut wire, &mut cx, &[IoSlice::new(b"answer")]);
    }
    let _ = records.poll_shutdown(&mut wire, &mut cx);
    assert!(wire.output.len() < 4096 + 64 * (bytes.len() + 1));
}
