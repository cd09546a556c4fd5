//! TLS connections, accepted and opened, as byte streams.

use super::client::{Connector, rustls_name};
use super::failure::{HandshakeError, NotTls};
use super::info::{Offered, TlsInfo};
use super::ocsp::{Checker, Log};
use super::server::{Path, Server};
use aws_lc_rs::rand;
use rustls::server::{Acceptor, ClientHello};
use rustls::{CommonState, HandshakeKind, ProtocolVersion, SignatureScheme};
use std::io::{self, IoSlice, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::{StartHandshake, TlsConnector, client, server};

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
    side: Side<IO>,
    info: Arc<TlsInfo>,
    /// Early data of a client has not all been read.
    early: bool,
    /// Who is to be asked about a client's certificates, and these with those above them.
    unasked: Option<Box<(Arc<Checker>, Path)>>,
}

/// Boxed: a task that waits should not carry the state of TLS in its own frame.
enum Side<IO> {
    Server(Box<server::TlsStream<IO>>),
    Client(Box<client::TlsStream<IO>>),
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
    io: IO,
    choose: impl FnOnce(&Asking<'_, IO>) -> Choice,
) -> Result<TlsStream<IO>, HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let start = client_hello(io).await?;
    let hello = start.client_hello();
    let server = match choose(&Asking { hello: start.client_hello(), io: &start.io }) {
        Choice::Serve(server) => server,
        Choice::Reject => return Err(refuse(start.io, UNRECOGNIZED_NAME, HandshakeError::Rejected).await),
        Choice::NoCertificate => {
            return Err(refuse(start.io, INTERNAL_ERROR, HandshakeError::NoCertificate).await);
        }
    };
    let server_name = hello.server_name().map(Box::from);
    let offered = offered(&hello);
    let key = server.config.cert_resolver.resolve(start.client_hello());

    let mut session_id = [0; 32];
    // Only a label: without randomness it stays empty, and the handshake will fail anyway.
    let _ = rand::fill(&mut session_id);
    let accept = start
        .into_stream_with(Arc::clone(&server.config), |session| session.set_resumption_data(&session_id));
    let mut stream = Box::new(accept.await.map_err(HandshakeError::from_io)?);

    let (_, session) = stream.get_mut();
    let early = session.early_data().is_some();
    let mut info = common(session);
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
    Ok(TlsStream { side: Side::Server(stream), info: Arc::new(info), early, unasked })
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

/// Reads the ClientHello. What does not begin like TLS gets no alert, as from OpenSSL.
async fn client_hello<IO>(mut io: IO) -> Result<StartHandshake<IO>, HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut acceptor = Acceptor::default();
    let mut buffer = crate::net::Buffer::with_capacity(4 << 10);
    let mut first = true;
    let mut ssl2 = false;
    loop {
        let n = io.read(buffer.spare()).await.map_err(HandshakeError::from_io)?;
        if n == 0 {
            return Err(HandshakeError::Closed(None));
        }
        buffer.filled(n);
        if first && buffer.len() < RECORD_HEADER {
            continue;
        }
        if std::mem::take(&mut first)
            && let Some(other) = NotTls::of(buffer.bytes())
        {
            return Err(HandshakeError::NotTls(other));
        }
        // A hello in the form of SSL 2 is from before there were alerts.
        ssl2 |= buffer.bytes().first().is_some_and(|byte| byte & 0x80 != 0);
        let mut unread = buffer.bytes();
        while !unread.is_empty() {
            acceptor.read_tls(&mut unread).map_err(HandshakeError::from_io)?;
        }
        buffer.consume(buffer.len());
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(StartHandshake::from_parts(accepted, io)),
            Ok(None) => {}
            Err((error, _)) if ssl2 => return Err(HandshakeError::from_tls(error)),
            Err((error, mut alert)) => {
                let mut bytes = Vec::new();
                // Into memory, which takes all of it; the client may be gone, and then hears nothing.
                let _ = alert.write_all(&mut bytes);
                let _ = io.write_all(&bytes).await;
                return Err(HandshakeError::from_tls(error));
            }
        }
    }
}

/// Type, version and length in front of a record (RFC 8446 section 5.1).
const RECORD_HEADER: usize = 5;

impl Connector {
    /// Takes an upstream through the handshake. `name` is what its certificate has to be for, and what is sent to it
    /// when the settings say so.
    pub async fn connect<IO>(&self, io: IO, name: &str) -> Result<TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let handshake = Box::pin(connector.connect(rustls_name(name), io));
        let stream = Box::new(handshake.await.map_err(HandshakeError::from_io)?);
        let (_, session) = stream.get_ref();
        self.check_name(session.peer_certificates(), name).map_err(HandshakeError::Upstream)?;
        let info = common(session);
        Ok(TlsStream { side: Side::Client(stream), info: Arc::new(info), early: false, unasked: None })
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
        match &self.side {
            Side::Server(s) => s.get_ref().0,
            Side::Client(s) => s.get_ref().0,
        }
    }

    /// The stream underneath; bytes written to it directly are not part of the TLS connection.
    pub fn io_mut(&mut self) -> &mut IO {
        match &mut self.side {
            Side::Server(s) => s.get_mut().0,
            Side::Client(s) => s.get_mut().0,
        }
    }

    /// Whether the peer said close_notify, or sent what was received but not read so far.
    pub fn has_unread(&self) -> bool {
        match &self.side {
            Side::Server(s) => !s.get_ref().1.wants_read(),
            Side::Client(s) => !s.get_ref().1.wants_read(),
        }
    }

    fn read_early(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<bool> {
        if let Side::Server(s) = &mut self.side
            && let Some(mut data) = s.get_mut().1.early_data()
        {
            let n = data.read(buf.initialize_unfilled())?;
            buf.advance(n);
            return Ok(n > 0);
        }
        Ok(false)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if self.early {
            if self.read_early(buf)? {
                return Poll::Ready(Ok(()));
            }
            self.early = false;
        }
        let read = match &mut self.side {
            Side::Server(s) => Pin::new(s.as_mut()).poll_read(cx, buf),
            Side::Client(s) => Pin::new(s.as_mut()).poll_read(cx, buf),
        };
        match read {
            Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            other => other,
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.side {
            Side::Server(s) => Pin::new(s.as_mut()).poll_write(cx, buf),
            Side::Client(s) => Pin::new(s.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.side {
            Side::Server(s) => Pin::new(s.as_mut()).poll_write_vectored(cx, bufs),
            Side::Client(s) => Pin::new(s.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.side {
            Side::Server(s) => Pin::new(s.as_mut()).poll_flush(cx),
            Side::Client(s) => Pin::new(s.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.side {
            Side::Server(s) => Pin::new(s.as_mut()).poll_shutdown(cx),
            Side::Client(s) => Pin::new(s.as_mut()).poll_shutdown(cx),
        }
    }
}
