//! Handshakes, which rustls makes: it is given one record at a time, so that what comes behind the last one is left for
//! the record layer that takes over.

use std::io;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::{Accepted, Acceptor, ServerConnection};
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, Error, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::failure::{HandshakeError, NotTls};
use super::record::{Agreed, Records, Secrets};
use crate::net::Buffer;

/// Type, version and length in front of a record (RFC 8446 section 5.1).
const RECORD_HEADER: usize = 5;
/// Bytes read at a time.
const READ: usize = 4 << 10;
/// Most bytes of a record, header included (RFC 5246 section 6.2.3).
const LONGEST: usize = RECORD_HEADER + (16 << 10) + 2048;
/// Room for most flights of a handshake.
const FLIGHT: usize = 4 << 10;

/// What comes in during a handshake, cut at the ends of records.
pub(super) struct Incoming {
    bytes: Buffer,
    /// To a server: bytes of the record begun that were not given yet.
    left: usize,
    /// To a client: bytes that its session may look at.
    offered: usize,
}

// === impl Incoming ===

impl Incoming {
    fn new() -> Incoming {
        Incoming { bytes: Buffer::default(), left: 0, offered: 0 }
    }

    /// Reads more; the peer's end is an error.
    async fn read<IO: AsyncRead + Unpin>(&mut self, io: &mut IO) -> Result<(), HandshakeError> {
        if self.bytes.capacity() == 0 {
            self.bytes = Buffer::with_capacity(READ);
        } else if self.bytes.spare().is_empty() {
            self.bytes.compact();
            if self.bytes.spare().is_empty() {
                self.bytes.grow(LONGEST.max(self.bytes.len() + READ));
            }
        }
        match io.read(self.bytes.spare()).await {
            Ok(0) => Err(HandshakeError::Closed(None)),
            Ok(n) => {
                self.bytes.filled(n);
                Ok(())
            }
            Err(e) => Err(HandshakeError::from_io(e)),
        }
    }

    /// How many bytes of one record can be given now; 0 where more must be read to know.
    fn ready(&mut self) -> usize {
        if self.left == 0
            && let Some([.., high, low]) = self.bytes.bytes().first_chunk::<RECORD_HEADER>()
        {
            self.left = RECORD_HEADER + usize::from(u16::from_be_bytes([*high, *low]));
        }
        self.left.min(self.bytes.len())
    }

    /// Gives what is ready of one record to `take`, which says how much it took; false where nothing was ready.
    fn give(
        &mut self,
        mut take: impl FnMut(&mut &[u8]) -> io::Result<usize>,
    ) -> Result<bool, HandshakeError> {
        let n = self.ready();
        let mut unread = &self.bytes.bytes()[..n];
        while !unread.is_empty() {
            // It takes nothing any more once the peer said close_notify.
            if take(&mut unread).map_err(HandshakeError::from_io)? == 0 {
                return Err(HandshakeError::Closed(None));
            }
        }
        self.left -= n;
        self.bytes.consume(n);
        Ok(n > 0)
    }

    /// Offers one record more; false where it has not come to its end.
    fn widen(&mut self) -> bool {
        let next = &self.bytes.bytes()[self.offered..];
        let Some([kind, major, _, high, low]) = next.first_chunk::<RECORD_HEADER>() else { return false };
        let len = RECORD_HEADER + usize::from(u16::from_be_bytes([*high, *low]));
        // What is no record is refused by its header.
        let is_record = (20..=23).contains(kind) && *major == 3 && len <= LONGEST;
        let n = if is_record { len } else { next.len() };
        if next.len() < n {
            return false;
        }
        self.offered += n;
        true
    }

    fn offer(&mut self) -> &mut [u8] {
        &mut self.bytes.bytes_mut()[..self.offered]
    }

    /// The session is done with `n` bytes.
    fn discard(&mut self, n: usize) {
        self.offered = self.offered.saturating_sub(n);
        self.bytes.consume(n);
    }

    fn rest(mut self) -> Buffer {
        if self.bytes.is_empty() {
            self.bytes.release();
        }
        self.bytes
    }
}

/// Reads the ClientHello. What does not begin like TLS gets no alert, as from OpenSSL.
pub(super) async fn client_hello<IO>(io: &mut IO) -> Result<(Accepted, Incoming), HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut acceptor = Acceptor::default();
    let mut incoming = Incoming::new();
    let mut first = true;
    let mut ssl2 = false;
    loop {
        if incoming.ready() == 0 {
            incoming.read(io).await?;
            continue;
        }
        if std::mem::take(&mut first) {
            if let Some(other) = NotTls::of(incoming.bytes.bytes()) {
                return Err(HandshakeError::NotTls(other));
            }
            // A hello in the form of SSL 2 is from before there were alerts.
            ssl2 = incoming.bytes.bytes().first().is_some_and(|byte| byte & 0x80 != 0);
        }
        incoming.give(|unread| acceptor.read_tls(unread))?;
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok((accepted, incoming)),
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

/// Answers a hello; `session_id` goes into the tickets.
pub(super) async fn answer<IO>(
    io: &mut IO,
    (accepted, mut incoming): (Accepted, Incoming),
    config: Arc<ServerConfig>,
    session_id: &[u8],
) -> Result<(ServerConnection, Incoming, Secrets), HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut secrets = Secrets::default();
    let begun = secrets.watch(|| accepted.into_connection(config));
    let mut session = match begun {
        Ok(session) => session,
        Err((error, mut alert)) => {
            let mut bytes = Vec::new();
            let _ = alert.write_all(&mut bytes);
            let _ = io.write_all(&bytes).await;
            return Err(HandshakeError::from_tls(error));
        }
    };
    session.set_resumption_data(session_id);
    let mut flight = Vec::new();
    loop {
        send(io, &mut session, &mut flight).await?;
        if !session.is_handshaking() {
            return Ok((session, incoming, secrets));
        }
        if !incoming.give(|unread| session.read_tls(unread))? {
            incoming.read(io).await?;
            continue;
        }
        if let Err(error) = secrets.watch(|| session.process_new_packets()) {
            // An alert that tells why; it is too late for its own failure to matter.
            let _ = send(io, &mut session, &mut flight).await;
            return Err(HandshakeError::from_tls(error));
        }
    }
}

/// Writes what the session has to say, a flight at a time.
async fn send<IO: AsyncWrite + Unpin>(
    io: &mut IO,
    session: &mut ServerConnection,
    flight: &mut Vec<u8>,
) -> Result<(), HandshakeError> {
    if !session.wants_write() {
        return Ok(());
    }
    flight.clear();
    flight.reserve(FLIGHT);
    while session.wants_write() {
        session.write_tls(flight).map_err(HandshakeError::from_io)?;
    }
    io.write_all(flight).await.map_err(HandshakeError::from_io)?;
    io.flush().await.map_err(HandshakeError::from_io)
}

/// The record layer of a server whose handshake is done.
pub(super) fn server_records(
    session: ServerConnection,
    incoming: Incoming,
    secrets: Secrets,
    early: Vec<u8>,
    record: usize,
) -> Result<Records, Error> {
    let (version, suite) = agreed(&session)?;
    let keys = session.dangerous_extract_secrets()?;
    let unread = incoming.rest();
    Records::new(Agreed { version, suite, keys, secrets, client: None, record, unread, early })
}

fn agreed(state: &CommonState) -> Result<(rustls::ProtocolVersion, rustls::SupportedCipherSuite), Error> {
    let found = state.protocol_version().zip(state.negotiated_cipher_suite());
    found.ok_or(Error::HandshakeNotComplete)
}

/// Shakes hands with an upstream.
pub(super) async fn greet<IO>(
    io: &mut IO,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<(UnbufferedClientConnection, Incoming, Secrets, Vec<u8>), HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut secrets = Secrets::default();
    let mut incoming = Incoming::new();
    let mut session = UnbufferedClientConnection::new(config, name).map_err(HandshakeError::from_tls)?;
    let mut flight = Vec::new();
    let mut early = Vec::new();
    loop {
        let (taken, step) = secrets.watch(|| step(&mut session, incoming.offer(), &mut flight, &mut early));
        incoming.discard(taken);
        match step {
            Ok(Step::Again) => {}
            Ok(Step::Send) => {
                io.write_all(&flight).await.map_err(HandshakeError::from_io)?;
                io.flush().await.map_err(HandshakeError::from_io)?;
                flight.clear();
            }
            Ok(Step::Read) => {
                while !incoming.widen() {
                    incoming.read(io).await?;
                }
            }
            Ok(Step::Done) => return Ok((session, incoming, secrets, early)),
            Ok(Step::Closed) => return Err(HandshakeError::Closed(None)),
            Err(error) => {
                // What is left to say is an alert. One step and no more: the next would look at what came again.
                let _ = self::step(&mut session, incoming.offer(), &mut flight, &mut early);
                let _ = io.write_all(&flight).await;
                let _ = io.flush().await;
                return Err(HandshakeError::from_tls(error));
            }
        }
    }
}

/// What a handshake needs next.
enum Step {
    Again,
    Send,
    Read,
    Done,
    Closed,
}

/// One step of rustls's machine; and how many bytes of `record` it is done with.
fn step(
    session: &mut UnbufferedClientConnection,
    record: &mut [u8],
    flight: &mut Vec<u8>,
    early: &mut Vec<u8>,
) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { mut discard, state } = session.process_tls_records(record);
    let step = match state {
        Err(error) => Err(error),
        Ok(ConnectionState::EncodeTlsData(mut data)) => encode(flight, |to| data.encode(to)),
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Send)
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::Read),
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Done),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            while let Some(Ok(record)) = traffic.next_record() {
                early.extend_from_slice(record.payload);
                discard += record.discard;
            }
            Ok(Step::Again)
        }
        Ok(_) => Ok(Step::Closed),
    };
    (discard, step)
}

/// Appends a record that rustls made.
fn encode(
    flight: &mut Vec<u8>,
    mut to: impl FnMut(&mut [u8]) -> Result<usize, rustls::unbuffered::EncodeError>,
) -> Result<Step, Error> {
    use rustls::unbuffered::{EncodeError, InsufficientSizeError};
    let at = flight.len();
    let n = match to(&mut []) {
        Ok(n) => n,
        Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
            flight.resize(at + required_size, 0);
            to(&mut flight[at..]).map_err(|e| Error::General(e.to_string()))?
        }
        Err(e) => return Err(Error::General(e.to_string())),
    };
    flight.truncate(at + n);
    Ok(Step::Again)
}

/// The record layer of a client whose handshake is done.
pub(super) fn client_records(
    session: UnbufferedClientConnection,
    incoming: Incoming,
    secrets: Secrets,
    early: Vec<u8>,
) -> Result<Records, Error> {
    let (version, suite) = agreed(&session)?;
    let (keys, kernel) = session.dangerous_into_kernel_connection()?;
    let (record, unread) = (usize::MAX, incoming.rest());
    Records::new(Agreed { version, suite, keys, secrets, client: Some(kernel), record, unread, early })
}
