//! TLS connections, accepted and opened, as byte streams.

use super::client::{Connector, rustls_name};
use super::failure::HandshakeError;
use super::handshake;
use super::info::{Offered, TlsInfo};
use super::ocsp::{Checker, Log};
use super::record::Records;
use super::server::{Path, Server};
use crate::net::Socket;
use aws_lc_rs::rand;
use rustls::server::ClientHello;
use rustls::{CommonState, HandshakeKind, ProtocolVersion, SignatureScheme};
use std::io::{self, IoSlice, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

/// What to do with a client that asked for a name.
#[derive(Debug, Clone)]
pub enum Choice {
    Serve(Arc<Server>),
    /// `ssl_reject_handshake`.
    Reject,
    /// The certificate to show could not be loaded, which has been told.
    NoCertificate,
}

/// A client that has said hello and nothing else.
pub struct Asking<'a, IO> {
    hello: ClientHello<'a>,
    io: &'a IO,
}

impl<IO> Asking<'_, IO> {
    /// The name it asks for.
    pub fn name(&self) -> Option<&str> {
        self.hello.server_name()
    }

    /// The stream underneath.
    pub fn io(&self) -> &IO {
        self.io
    }

    /// What is known of its connection to `server` so far.
    pub fn info(&self, server: &Server) -> TlsInfo {
        let offered = offered(&self.hello);
        let newest = server.tls13 && offered.ciphers.iter().any(|suite| suite >> 8 == 0x13);
        TlsInfo {
            version: Some(if newest { ProtocolVersion::TLSv1_3 } else { ProtocolVersion::TLSv1_2 }),
            suite: None,
            group: None,
            scheme: None,
            offered,
            server_name: self.name().map(Box::from),
            reused: false,
            session_id: None,
            alpn: None,
            certificate: None,
            verdict: None,
            status: Ok(()),
        }
    }
}

/// A TLS connection over any byte stream. `poll_shutdown` says close_notify first; a peer's end of stream is an end
/// with or without its close_notify, as under nginx.
pub struct TlsStream<IO> {
    io: IO,
    pub(super) records: Records,
    info: Arc<TlsInfo>,
    /// Who is to be asked about a client's certificates, and these with those above them.
    unasked: Option<Box<(Arc<Checker>, Path)>>,
}

/// unrecognized_name (RFC 6066 section 3).
const UNRECOGNIZED_NAME: u8 = 112;
/// internal_error (RFC 8446 section 6.2).
const INTERNAL_ERROR: u8 = 80;

/// Takes a client through the handshake; `choose` picks the server, by the name the client asks for and more.
pub async fn accept<IO>(
    io: IO,
    choose: impl FnOnce(&Asking<'_, IO>) -> Choice,
) -> Result<TlsStream<IO>, HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    // Boxed for the time of the handshake: its state is large, and a task keeps room for its largest moment.
    Box::pin(handshake(io, choose)).await
}

async fn handshake<IO>(
    mut io: IO,
    choose: impl FnOnce(&Asking<'_, IO>) -> Choice,
) -> Result<TlsStream<IO>, HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let (accepted, incoming) = handshake::client_hello(&mut io).await?;
    let hello = accepted.client_hello();
    let server = match choose(&Asking { hello: accepted.client_hello(), io: &io }) {
        Choice::Serve(server) => server,
        Choice::Reject => return Err(refuse(io, UNRECOGNIZED_NAME, HandshakeError::Rejected).await),
        Choice::NoCertificate => {
            return Err(refuse(io, INTERNAL_ERROR, HandshakeError::NoCertificate).await);
        }
    };
    let server_name = hello.server_name().map(Box::from);
    let offered = offered(&hello);
    let key = server.config.cert_resolver.resolve(accepted.client_hello());

    let mut session_id = [0; 32];
    // Only a label: without randomness it stays empty, and the handshake will fail anyway.
    let _ = rand::fill(&mut session_id);
    let config = Arc::clone(&server.config);
    let (mut session, incoming, secrets) =
        handshake::answer(&mut io, (accepted, incoming), config, &session_id).await?;

    let mut early = Vec::new();
    if let Some(mut data) = session.early_data() {
        data.read_to_end(&mut early).map_err(HandshakeError::from_io)?;
    }
    let mut info = common(&session);
    if let Some(id) = session.received_resumption_data().and_then(|d| d.try_into().ok()) {
        session_id = id;
    }
    if !info.reused {
        let schemes = signing_schemes(&offered, info.version);
        info.scheme = key.as_ref().and_then(|k| k.key.choose_scheme(&schemes)).map(|signer| signer.scheme());
    }
    if let Some(key) = &key {
        server.staples.update(key);
    }
    let mut unasked = None;
    match session.peer_certificates().and_then(|chain| server.verify_client(chain)) {
        None => {}
        Some(Err(error)) => info.verdict = Some(Err(error)),
        Some(Ok(path)) => {
            info.verdict = Some(Ok(()));
            unasked = server.checker.as_ref().map(|checker| Box::new((Arc::clone(checker), path)));
        }
    }
    info.session_id = Some(session_id);
    info.server_name = server_name;
    info.offered = offered;
    let records = handshake::server_records(session, incoming, secrets, early, server.record_size)
        .map_err(HandshakeError::from_tls)?;
    Ok(TlsStream { io, records, info: Arc::new(info), unasked })
}

/// Says a fatal alert instead of a ServerHello.
async fn refuse<IO>(mut io: IO, alert: u8, error: HandshakeError) -> HandshakeError
where
    IO: AsyncWrite + Unpin,
{
    // The client may be gone already: there is nothing more to say to it.
    let _ = io.write_all(&[21, 3, 3, 0, 2, 2, alert]).await;
    let _ = io.flush().await;
    error
}

impl Connector {
    /// Takes an upstream through the handshake. `name` is what its certificate has to be for, and what is sent to it
    /// when the settings say so.
    pub async fn connect<IO>(&self, mut io: IO, name: &str) -> Result<TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        // Boxed for the time of the handshake: its state is large.
        let greet = Box::pin(handshake::greet(&mut io, Arc::clone(&self.config), rustls_name(name)));
        let (session, incoming, secrets, early) = greet.await?;
        self.check_name(session.peer_certificates(), name).map_err(HandshakeError::Upstream)?;
        let info = common(&session);
        let records =
            handshake::client_records(session, incoming, secrets, early).map_err(HandshakeError::from_tls)?;
        Ok(TlsStream { io, records, info: Arc::new(info), unasked: None })
    }
}

fn offered(hello: &ClientHello<'_>) -> Offered {
    Offered {
        ciphers: hello.cipher_suites().iter().map(|c| u16::from(*c)).collect(),
        curves: hello.named_groups().unwrap_or_default().iter().map(|g| u16::from(*g)).collect(),
        schemes: hello.signature_schemes().iter().map(|s| u16::from(*s)).collect(),
    }
}

/// TLSv1.3 has no PKCS#1 and no SHA-1 in handshakes (RFC 8446 section 4.2.3).
fn signing_schemes(offered: &Offered, version: Option<ProtocolVersion>) -> Vec<SignatureScheme> {
    let old = |code: u16| code & 0xff == 1 || code >> 8 == 2;
    let codes = offered.schemes.iter().copied();
    codes
        .filter(|c| version != Some(ProtocolVersion::TLSv1_3) || !old(*c))
        .map(SignatureScheme::from)
        .collect()
}

fn common(state: &CommonState) -> TlsInfo {
    TlsInfo {
        version: state.protocol_version(),
        suite: state.negotiated_cipher_suite().map(|s| s.suite()),
        group: state.negotiated_key_exchange_group().map(|g| g.name()),
        scheme: None,
        offered: Offered::default(),
        server_name: None,
        reused: state.handshake_kind() == Some(HandshakeKind::Resumed),
        session_id: None,
        alpn: state.alpn_protocol().map(Box::from),
        certificate: state.peer_certificates().and_then(<[_]>::first).map(|c| c.clone().into_owned()),
        verdict: None,
        status: Ok(()),
    }
}

// === impl TlsStream ===

impl<IO> TlsStream<IO> {
    /// What the handshake came to; it outlives the stream.
    pub fn info(&self) -> &Arc<TlsInfo> {
        &self.info
    }

    /// Asks responders about the client's certificates where `ssl_ocsp` says so. It takes as long as they do: put a
    /// deadline on it. `log` tells where to log.
    pub async fn check_status(&mut self, log: impl FnOnce() -> Log) {
        if let Some(unasked) = self.unasked.take() {
            let (checker, path) = *unasked;
            let status = checker.check(&path, &log()).await;
            Arc::make_mut(&mut self.info).status = status;
        }
    }

    /// The stream underneath.
    pub fn io(&self) -> &IO {
        &self.io
    }

    /// The stream underneath; bytes written to it directly are not part of the TLS connection.
    pub fn io_mut(&mut self) -> &mut IO {
        &mut self.io
    }

    /// Whether the peer said close_notify, or sent what was received but not read so far.
    pub fn has_unread(&self) -> bool {
        self.records.has_unread()
    }

    /// Whether all that was written has left.
    pub fn is_flushed(&self) -> bool {
        self.records.is_flushed()
    }
}

impl TlsStream<Socket> {
    /// Ready when a read may bring something: to be asked before room is made for it.
    pub fn poll_worth_reading(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.records.is_busy() {
            true => Poll::Ready(Ok(())),
            false => self.io.poll_read_ready(cx),
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> TlsStream<IO> {
    /// Reads what is there into `buf`; 0 is the peer's end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.records.poll_read(&mut self.io, cx, buf)
    }

    /// Writes some of several pieces, as one record where they fit.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.records.poll_write(&mut self.io, cx, pieces)
    }

    /// Sends what is held back.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.records.poll_flush(&mut self.io, cx)
    }

    /// Says close_notify, and ends the stream underneath.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.records.poll_shutdown(&mut self.io, cx)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let n = ready!(TlsStream::poll_read(&mut self, cx, buf.initialize_unfilled()))?;
        buf.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        TlsStream::poll_write(&mut self, cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        TlsStream::poll_write(&mut self, cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        TlsStream::poll_flush(&mut self, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        TlsStream::poll_shutdown(&mut self, cx)
    }
}
