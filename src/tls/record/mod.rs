//! The record layer once the handshake is done (RFC 8446 section 5, RFC 5246 section 6).
//!
//! rustls shakes hands; the keys that come of it are used here. Text is sealed from where its owner keeps it into one
//! buffer that leaves in one write, however many records that is, and records are opened into where the reader wants
//! them. Buffers are of the thread's pool and go back to it when they are empty.

mod cipher;
mod control;
#[cfg(any(test, fuzzing))]
pub mod hostile;
mod secret;

#[cfg(test)]
mod tests;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::{AlertDescription, ContentType, Error, ExtractedSecrets, ProtocolVersion, SupportedCipherSuite};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::Buffer;
use cipher::{Cipher, HEADER, MAX_TEXT, Pieces, frame};
use control::{FATAL, KEY_UPDATE_MESSAGE, Patience, WARNING};
use secret::Secret;
pub(super) use secret::{Listen, Secrets};

/// Most bytes of text that one write takes.
const WRITE: usize = 64 << 10;
/// Bytes read at a time by one who wants little.
const READ: usize = 4 << 10;
/// The same by one who has room for a whole record.
const READ_LONG: usize = 64 << 10;

/// What a handshake came to.
pub(super) struct Agreed {
    pub(super) version: ProtocolVersion,
    pub(super) suite: SupportedCipherSuite,
    pub(super) keys: ExtractedSecrets,
    pub(super) secrets: Secrets,
    /// The client's side; takes tickets (RFC 8446 section 4.6.1).
    pub(super) client: Option<KernelConnection<ClientConnectionData>>,
    /// Most bytes of text to put into a record.
    pub(super) record: usize,
    /// What was read behind the handshake, still sealed.
    pub(super) unread: Buffer,
    /// Data that came with the handshake.
    pub(super) early: Vec<u8>,
}

struct Traffic {
    send: Secret,
    receive: Secret,
}

/// A connection's records, both ways.
pub(super) struct Records {
    open: Cipher,
    seal: Cipher,
    /// None in TLSv1.2.
    secrets: Option<Box<Traffic>>,
    tickets: Option<Box<KernelConnection<ClientConnectionData>>>,
    is_client: bool,
    /// Records that a key may seal.
    limit: u64,
    record: usize,
    /// Sealed bytes read; in front of them what was opened and not taken yet.
    input: Buffer,
    /// Bytes of `input` that are open, and bytes behind them that are nobody's.
    left: usize,
    skip: usize,
    early: Vec<u8>,
    /// Sealed bytes to be written.
    output: Buffer,
    /// A handshake message that has not come to its end.
    message: Vec<u8>,
    patience: Patience,
    /// The peer sends no more.
    ended: bool,
    /// close_notify was sent, or an alert that ends everything.
    closed: bool,
    /// A KeyUpdate goes before the next data.
    update_due: bool,
    failed: Option<Error>,
}

// === impl Records ===

impl Records {
    pub(super) fn new(agreed: Agreed) -> Result<Records, Error> {
        let Agreed { version, suite, keys, secrets, client, record, unread, early } = agreed;
        let is_client = client.is_some();
        let limit = match suite {
            SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
            SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
        };
        let secrets = match secrets.split(suite.suite(), is_client) {
            Some((send, receive)) => Some(Box::new(Traffic { send, receive })),
            None if version == ProtocolVersion::TLSv1_3 => {
                return Err(Error::General("no secrets".into()));
            }
            None => None,
        };
        Ok(Records {
            open: Cipher::new(version, keys.rx)?,
            seal: Cipher::new(version, keys.tx)?,
            tickets: client.filter(|_| secrets.is_some()).map(Box::new),
            secrets,
            is_client,
            // One record is kept for the KeyUpdate, or the alert.
            limit: limit - 1,
            record: record.clamp(1, MAX_TEXT),
            input: unread,
            left: 0,
            skip: 0,
            early,
            output: Buffer::default(),
            message: Vec::new(),
            patience: Patience::default(),
            ended: false,
            closed: false,
            update_due: false,
            failed: None,
        })
    }

    /// Whether the peer said that it sends no more, or sent what was not read so far.
    pub(super) fn has_unread(&self) -> bool {
        self.ended || self.failed.is_some() || !self.input.is_empty() || !self.early.is_empty()
    }

    /// Whether reading may bring something, or move something on, without a byte from the peer.
    pub(super) fn is_busy(&self) -> bool {
        self.has_unread() || !self.output.is_empty()
    }

    /// Whether records wait to be written.
    pub(super) fn is_flushed(&self) -> bool {
        self.output.is_empty()
    }

    // === reading ===

    /// Reads what is there into `buf`, which is not empty; 0 is the peer's end, with or without its close_notify.
    pub(super) fn poll_read<IO: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let n = if self.failed.is_none() { self.open_some(buf) } else { 0 };
            if self.input.is_empty() {
                self.input.release();
            }
            if n > 0 {
                return Poll::Ready(Ok(n));
            }
            if !self.output.is_empty() {
                // An answer to what came. Should it not leave now, it goes with the next data.
                let _ = self.poll_send(io, cx);
            }
            if let Some(error) = &self.failed {
                return Poll::Ready(Err(failure(error.clone())));
            }
            if self.ended || ready!(self.poll_fill(io, cx, buf.len()))? == 0 {
                self.ended = true;
                self.input.release();
                return Poll::Ready(Ok(0));
            }
        }
    }

    /// Opens what can be opened; a failure is kept until all that came before it is read.
    fn open_some(&mut self, buf: &mut [u8]) -> usize {
        if !self.early.is_empty() {
            let n = self.early.len().min(buf.len());
            buf[..n].copy_from_slice(&self.early[..n]);
            self.early.drain(..n);
            return n;
        }
        let mut done = self.take_left(buf);
        while done < buf.len() && !self.ended {
            match self.open_record(&mut buf[done..]) {
                Ok(Some(n)) => done += n,
                Ok(None) => break,
                Err(error) => {
                    self.fail(error);
                    break;
                }
            }
        }
        done
    }

    /// Takes of what is open already.
    fn take_left(&mut self, buf: &mut [u8]) -> usize {
        let n = self.left.min(buf.len());
        buf[..n].copy_from_slice(&self.input.bytes()[..n]);
        self.input.consume(n);
        self.left -= n;
        if self.left == 0 {
            self.input.consume(std::mem::take(&mut self.skip));
        }
        n
    }

    /// Opens the next record; none where it has not come to its end.
    fn open_record(&mut self, buf: &mut [u8]) -> Result<Option<usize>, Error> {
        let Some((header, len)) = frame(self.input.bytes(), self.open.is_tls13())? else { return Ok(None) };
        let kind = ContentType::from(header[0]);
        if self.open.is_tls13() && kind != ContentType::ApplicationData {
            // Nothing is sent in the clear any more (RFC 8446 section 5).
            let expect_types = vec![ContentType::ApplicationData];
            return Err(Error::InappropriateMessage { expect_types, got_type: kind });
        }
        let Some(payload) = self.input.bytes().get(HEADER..HEADER + len) else { return Ok(None) };
        let room = self.open.room(len);
        if room > buf.len() {
            return self.open_in_place(header, len, buf).map(Some);
        }
        let (kind, n) = self.open.open(&header, payload, &mut buf[..room])?;
        self.input.consume(HEADER + len);
        if kind == ContentType::ApplicationData {
            self.data(n)?;
            return Ok(Some(n));
        }
        self.control(kind, &buf[..n])?;
        Ok(Some(0))
    }

    /// The same for a reader who has not enough room.
    fn open_in_place(&mut self, header: [u8; HEADER], len: usize, buf: &mut [u8]) -> Result<usize, Error> {
        self.input.consume(HEADER);
        let (kind, text) = self.open.open_in_place(&header, &mut self.input.bytes_mut()[..len])?;
        if kind == ContentType::ApplicationData {
            self.data(text.len())?;
            self.input.consume(text.start);
            self.left = text.len();
            self.skip = len - text.end;
            return Ok(self.take_left(buf));
        }
        let said = self.input.bytes()[text].to_vec();
        self.input.consume(len);
        self.control(kind, &said)?;
        Ok(0)
    }

    /// Reads more of sealed bytes, for one who wants `want` open ones.
    fn poll_fill<IO: AsyncRead + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
        want: usize,
    ) -> Poll<io::Result<usize>> {
        let begun = frame(self.input.bytes(), self.open.is_tls13()).ok().flatten();
        let need = HEADER + begun.map_or(0, |(_, len)| len);
        if self.input.capacity() < need {
            // Where long records come, more of them will.
            let size = if want >= MAX_TEXT || need > READ { READ_LONG } else { READ };
            self.input.grow(size.max(need));
        } else {
            self.input.compact();
        }
        let mut space = ReadBuf::new(self.input.spare());
        let read = Pin::new(io).poll_read(cx, &mut space);
        let n = space.filled().len();
        self.input.filled(n);
        if read.is_pending() && self.input.is_empty() {
            self.input.release();
        }
        read.map_ok(|()| n)
    }

    /// Nothing more is understood; the peer is told why.
    fn fail(&mut self, error: Error) {
        if let Some(alert) = control::alert(&error)
            && !self.closed
        {
            // If it cannot be sealed, the peer will see the end all the same.
            let _ = self.push(ContentType::Alert, &[FATAL, u8::from(alert)]);
        }
        self.closed = true;
        self.failed = Some(error);
    }

    // === writing ===

    /// Takes some of several pieces; what cannot be written at once goes with the next write or flush.
    pub(super) fn poll_write<IO: AsyncWrite + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(io, cx))?;
        if self.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let sealed = self.seal_data(pieces).map_err(failure);
        match self.poll_send(io, cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // At worst it waits here.
            _ => Poll::Ready(sealed),
        }
    }

    /// Writes all that is sealed.
    pub(super) fn poll_flush<IO: AsyncWrite + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_send(io, cx))?;
        Pin::new(io).poll_flush(cx)
    }

    /// Says close_notify, and then that nothing more will be written.
    pub(super) fn poll_shutdown<IO: AsyncWrite + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.closed, true) {
            self.push(ContentType::Alert, &[WARNING, u8::from(AlertDescription::CloseNotify)])
                .map_err(failure)?;
        }
        ready!(self.poll_send(io, cx))?;
        match ready!(Pin::new(io).poll_shutdown(cx)) {
            // The peer was faster.
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            done => Poll::Ready(done),
        }
    }

    fn poll_send<IO: AsyncWrite + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            match ready!(Pin::new(&mut *io).poll_write(cx, self.output.bytes()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.output.consume(n),
            }
        }
        self.output.release();
        Poll::Ready(Ok(()))
    }

    fn seal_data(&mut self, pieces: &[IoSlice<'_>]) -> Result<usize, Error> {
        let total = pieces.iter().map(|piece| piece.len()).sum::<usize>().min(WRITE);
        let records = total.div_ceil(self.record);
        self.reserve(total + records * self.seal.sealed_len(0));
        let mut text = Pieces::new(pieces);
        let mut left = total;
        while left > 0 {
            let n = left.min(self.record);
            if self.update_due || self.seal.seq() >= self.limit {
                self.renew()?;
            }
            self.seal_record(ContentType::ApplicationData, &mut text, n)?;
            left -= n;
        }
        Ok(total)
    }

    /// Moves on to the next key. TLSv1.2 has none: there the connection ends.
    fn renew(&mut self) -> Result<(), Error> {
        if self.secrets.is_none() {
            self.closed = true;
            self.push(ContentType::Alert, &[WARNING, u8::from(AlertDescription::CloseNotify)])?;
            return Err(Error::EncryptError);
        }
        self.push(ContentType::Handshake, &KEY_UPDATE_MESSAGE)?;
        if let Some(secrets) = &mut self.secrets {
            self.seal = secrets.send.update(&self.seal)?;
        }
        self.update_due = false;
        Ok(())
    }

    /// Puts a short record behind what waits to be written.
    fn push(&mut self, kind: ContentType, bytes: &[u8]) -> Result<(), Error> {
        self.seal_record(kind, &mut Pieces::new(&[IoSlice::new(bytes)]), bytes.len())
    }

    fn seal_record(&mut self, kind: ContentType, text: &mut Pieces<'_, '_>, n: usize) -> Result<(), Error> {
        let len = self.seal.sealed_len(n);
        self.reserve(len);
        self.seal.seal(kind, text, n, &mut self.output.spare()[..len])?;
        self.output.filled(len);
        Ok(())
    }

    /// Makes room for as many bytes more.
    fn reserve(&mut self, n: usize) {
        if self.output.spare().len() < n {
            self.output.compact();
            if self.output.spare().len() < n {
                self.output.grow(self.output.len() + n);
            }
        }
    }
}

/// As rustls's own streams wrap it.
fn failure(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
