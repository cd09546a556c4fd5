//! One byte stream over TCP, a unix socket or TLS, usable by a reader and a writer of the same task.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

/// A connected stream socket.
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
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
        match self {
            Socket::Tcp(s) => attempt!(s, cx, poll_read_ready, s.try_read(buf)),
            Socket::Unix(s) => attempt!(s, cx, poll_read_ready, s.try_read(buf)),
        }
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
    pub fn try_io<R>(
        &self,
        interest: tokio::io::Interest,
        call: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        match self {
            Socket::Tcp(s) => s.try_io(interest, call),
            Socket::Unix(s) => s.try_io(interest, call),
        }
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
            Io::Tls(s) => {
                let mut space = ReadBuf::new(buf);
                ready!(Pin::new(&mut **s.borrow_mut()).poll_read(cx, &mut space))?;
                Poll::Ready(Ok(space.filled().len()))
            }
        }
    }

    /// Writes some of `buf`.
    pub fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Io::Plain(s) => s.poll_write(cx, buf),
            Io::Tls(s) => Pin::new(&mut **s.borrow_mut()).poll_write(cx, buf),
        }
    }

    /// Writes some of several pieces in one call.
    pub fn poll_write_vectored(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Io::Plain(s) => s.poll_write_vectored(cx, bufs),
            Io::Tls(s) => Pin::new(&mut **s.borrow_mut()).poll_write_vectored(cx, bufs),
        }
    }

    /// Sends what TLS holds back; plain sockets hold nothing.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Io::Plain(_) => Poll::Ready(Ok(())),
            Io::Tls(s) => Pin::new(&mut **s.borrow_mut()).poll_flush(cx),
        }
    }

    /// Says that nothing more will be written: close_notify for TLS, FIN below it.
    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Io::Plain(s) => Poll::Ready(s.shutdown(Shutdown::Write)),
            Io::Tls(s) => Pin::new(&mut **s.borrow_mut()).poll_shutdown(cx),
        }
    }

    /// Reads into `buf`; 0 is the peer's end.
    pub async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_read(cx, buf)).await
    }

    /// Writes all of `buf` and flushes it.
    pub async fn write_all(&self, mut buf: &[u8]) -> io::Result<()> {
        while !buf.is_empty() {
            match std::future::poll_fn(|cx| self.poll_write(cx, buf)).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => buf = &buf[n..],
            }
        }
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Whether this is TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self, Io::Tls(_))
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
            Io::Tls(s) => f(s.borrow().get_ref().0),
        }
    }

    /// The socket's descriptor, for options and counters.
    pub fn raw_fd(&self) -> RawFd {
        self.with_socket(|s| s.as_fd().as_raw_fd())
    }
}
