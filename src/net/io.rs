//! One byte stream over TCP, a unix socket or TLS, usable by a reader and a writer of the same task.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::{Address, Buffer, proxy_protocol};
use crate::tls::{TlsInfo, TlsStream};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connected stream socket.
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
}

/// What is known of a peer's next bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peeked {
    /// How many are there.
    pub len: usize,
    /// No more will come.
    pub end: bool,
}

/// Why there is no header of the PROXY protocol.
#[derive(Debug)]
pub enum NoHeader {
    /// What came is none.
    Wrong(proxy_protocol::Error),
    /// Reading failed.
    Failed(io::Error),
}

impl From<io::Error> for NoHeader {
    fn from(reason: io::Error) -> NoHeader {
        NoHeader::Failed(reason)
    }
}

impl From<proxy_protocol::Error> for NoHeader {
    fn from(error: proxy_protocol::Error) -> NoHeader {
        NoHeader::Wrong(error)
    }
}

macro_rules! attempt {
    ($stream:expr, $cx:expr, $ready:ident, $op:expr) => {
        loop {
            match $op {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!($stream.$ready($cx))?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        }
    };
}

impl Socket {
    /// Reads what is there into `buf`; 0 is the peer's end.
    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let read: Poll<io::Result<usize>> = (|| match self {
            Socket::Tcp(s) => attempt!(s, cx, poll_read_ready, s.try_read(buf)),
            Socket::Unix(s) => attempt!(s, cx, poll_read_ready, s.try_read(buf)),
        })();
        if let Poll::Ready(Ok(n)) = read
            && n > 0
            && n < buf.len()
        {
            // All that had come was read: the next reader waits for more without asking the system.
            let _ = self.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        }
        read
    }

    /// Writes some of `buf`.
    pub fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Socket::Tcp(s) => attempt!(s, cx, poll_write_ready, s.try_write(buf)),
            Socket::Unix(s) => attempt!(s, cx, poll_write_ready, s.try_write(buf)),
        }
    }

    /// Writes some of several pieces in one call.
    pub fn poll_write_vectored(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Socket::Tcp(s) => attempt!(s, cx, poll_write_ready, s.try_write_vectored(bufs)),
            Socket::Unix(s) => attempt!(s, cx, poll_write_ready, s.try_write_vectored(bufs)),
        }
    }

    /// Ready when there are bytes, or the peer's end, to read.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(s) => s.poll_read_ready(cx),
            Socket::Unix(s) => s.poll_read_ready(cx),
        }
    }

    /// Ready when bytes can be written.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(s) => s.poll_write_ready(cx),
            Socket::Unix(s) => s.poll_write_ready(cx),
        }
    }

    /// Runs a system call on the socket when `interest` is there; a `WouldBlock` makes it wait again.
    pub fn try_io<R>(&self, interest: Interest, call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        match self {
            Socket::Tcp(s) => s.try_io(interest, call),
            Socket::Unix(s) => s.try_io(interest, call),
        }
    }

    /// The address of this end; an unnamed unix socket where it cannot be had.
    pub fn local_address(&self) -> Address {
        match self {
            Socket::Tcp(s) => s.local_addr().map_or(Address::Unix(PathBuf::new()), Address::Inet),
            Socket::Unix(s) => {
                let path = s.local_addr().ok().and_then(|a| a.as_pathname().map(PathBuf::from));
                Address::Unix(path.unwrap_or_default())
            }
        }
    }

    /// Another descriptor of the same socket, to look at it while its owner is busy.
    pub fn duplicate(&self) -> io::Result<Socket> {
        let fd = self.as_fd().try_clone_to_owned()?;
        Ok(match self {
            Socket::Tcp(_) => Socket::Tcp(TcpStream::from_std(fd.into())?),
            Socket::Unix(_) => Socket::Unix(UnixStream::from_std(fd.into())?),
        })
    }

    /// Small writes leave at once (TCP_NODELAY).
    pub fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(s) => s.set_nodelay(true),
            Socket::Unix(_) => Ok(()),
        }
    }

    /// The next byte to be read, left where it is; none at the peer's end. `WouldBlock` where nothing is there:
    /// [`Socket::poll_read_ready`] then waits.
    pub fn peek_byte(&self) -> io::Result<Option<u8>> {
        self.try_io(Interest::READABLE, || {
            let mut byte = [0u8];
            let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
            let n = recv(self.as_fd().as_raw_fd(), &mut byte, flags)?;
            Ok((n > 0).then_some(byte[0]))
        })
    }

    /// Ready when more than `seen` bytes can be peeked at, or when no more will come; bytes stay where they are.
    pub fn poll_peek(&self, cx: &mut Context<'_>, room: &mut [u8], seen: usize) -> Poll<io::Result<Peeked>> {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let mut peek = || {
            self.try_io(Interest::READABLE, || {
                let len = recv(self.as_fd().as_raw_fd(), room, flags)?;
                // Nothing new: wait again, unless nothing new can come.
                match len == seen && len > 0 && !self.peer_has_ended() {
                    true => Err(io::ErrorKind::WouldBlock.into()),
                    false => Ok(Peeked { len, end: len == seen }),
                }
            })
        };
        attempt!(self, cx, poll_read_ready, peek())
    }

    /// Whether the peer has said its last.
    fn peer_has_ended(&self) -> bool {
        // nix has no name for this one.
        let hangup = PollFlags::from_bits_retain(libc::POLLRDHUP);
        let mut fds = [PollFd::new(self.as_fd(), hangup)];
        matches!(poll(&mut fds, PollTimeout::ZERO), Ok(n) if n > 0)
    }

    /// Reads the PROXY protocol's header and not a byte more; none where it names no addresses.
    ///
    /// # Errors
    /// What to log, before "while reading PROXY protocol".
    pub async fn read_proxy_protocol(&self) -> Result<Option<proxy_protocol::Header>, NoHeader> {
        let mut bytes = Buffer::with_capacity(proxy_protocol::MAX_HEADER);
        let mut seen = 0;
        let read = loop {
            let peeked = poll_fn(|cx| self.poll_peek(cx, bytes.spare(), seen)).await?;
            let there = &bytes.spare()[..peeked.len];
            match proxy_protocol::read(there)? {
                Some(read) => break read,
                None if peeked.end => return Err(proxy_protocol::broken(there).into()),
                None => seen = peeked.len,
            }
        };
        let mut left = read.len;
        while left > 0 {
            match poll_fn(|cx| self.poll_read(cx, &mut bytes.spare()[..left])).await? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                n => left -= n,
            }
        }
        Ok(read.header)
    }

    /// Notes that all there was has been read, so that the next read waits without asking the system. To be called
    /// after a read that returned less than there was room for.
    pub fn set_drained(&self) {
        let drained = || Err::<(), _>(io::Error::from(io::ErrorKind::WouldBlock));
        // The error is the message.
        let _ = self.try_io(Interest::READABLE, drained);
    }

    /// Shuts one or both directions.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        socket2::SockRef::from(self).shutdown(how)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(s) => s.as_fd(),
            Socket::Unix(s) => s.as_fd(),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let n = ready!(Socket::poll_read(&self, cx, buf.initialize_unfilled()))?;
        buf.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Socket::poll_write(&self, cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Socket::poll_write_vectored(&self, cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown(Shutdown::Write))
    }
}

/// A connection's bytes. All methods take `&self`: the halves never wait for each other.
pub enum Io {
    /// Plain.
    Plain(Socket),
    /// TLS.
    Tls(RefCell<Box<TlsStream<Socket>>>),
}

impl Io {
    /// Over TLS, handshake done.
    pub fn tls(stream: TlsStream<Socket>) -> Io {
        Io::Tls(RefCell::new(Box::new(stream)))
    }

    /// Reads what is there into `buf`; 0 is the peer's end.
    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Io::Plain(s) => s.poll_read(cx, buf),
            Io::Tls(s) => s.borrow_mut().poll_read(cx, buf),
        }
    }

    /// Ready when a read may bring something: to be asked before room is made for it.
    pub fn poll_worth_reading(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Io::Plain(s) => s.poll_read_ready(cx),
            // TLS may hold what was read from the socket before.
            Io::Tls(_) => Poll::Ready(Ok(())),
        }
    }

    /// Writes some of `buf`.
    pub fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Io::Plain(s) => s.poll_write(cx, buf),
            Io::Tls(s) => s.borrow_mut().poll_write(cx, &[IoSlice::new(buf)]),
        }
    }

    /// Writes some of several pieces in one call.
    pub fn poll_write_vectored(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Io::Plain(s) => s.poll_write_vectored(cx, bufs),
            Io::Tls(s) => s.borrow_mut().poll_write(cx, bufs),
        }
    }

    /// Whether all that was written has left; plain sockets hold nothing.
    pub fn is_flushed(&self) -> bool {
        match self {
            Io::Plain(_) => true,
            Io::Tls(s) => s.borrow().is_flushed(),
        }
    }

    /// Sends what TLS holds back; plain sockets hold nothing.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Io::Plain(_) => Poll::Ready(Ok(())),
            Io::Tls(s) => s.borrow_mut().poll_flush(cx),
        }
    }

    /// Says that nothing more will be written: close_notify for TLS, FIN below it.
    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Io::Plain(s) => Poll::Ready(s.shutdown(Shutdown::Write)),
            Io::Tls(s) => s.borrow_mut().poll_shutdown(cx),
        }
    }

    /// Reads into `buf`; 0 is the peer's end.
    pub async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, buf)).await
    }

    /// Writes all of `buf` and flushes it.
    pub async fn write_all(&self, mut buf: &[u8]) -> io::Result<()> {
        while !buf.is_empty() {
            match poll_fn(|cx| self.poll_write(cx, buf)).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => buf = &buf[n..],
            }
        }
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Whether this is TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self, Io::Tls(_))
    }

    /// TLS facts, where it is TLS.
    pub fn tls_info(&self) -> Option<Arc<TlsInfo>> {
        match self {
            Io::Plain(_) => None,
            Io::Tls(s) => Some(s.borrow().info().clone()),
        }
    }

    /// The plain socket, which bytes can be spliced from and to.
    pub fn plain(&self) -> Option<&Socket> {
        match self {
            Io::Plain(s) => Some(s),
            Io::Tls(_) => None,
        }
    }

    /// Calls `f` with the socket below.
    pub fn with_socket<R>(&self, f: impl FnOnce(&Socket) -> R) -> R {
        match self {
            Io::Plain(s) => f(s),
            Io::Tls(s) => f(s.borrow().io()),
        }
    }

    /// The socket's descriptor, for options and counters.
    pub fn raw_fd(&self) -> RawFd {
        self.with_socket(|s| s.as_fd().as_raw_fd())
    }
}
