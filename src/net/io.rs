//! One byte stream over TCP, a unix socket or TLS, usable by a reader and a writer of the same task.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::task::{Context, Poll};

use super::Socket;
use crate::tls::{TlsInfo, TlsStream};

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
    #[inline]
    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Io::Plain(s) => s.poll_read(cx, buf),
            Io::Tls(s) => s.borrow_mut().poll_read(cx, buf),
        }
    }

    /// Ready when a read may bring something: to be asked before room is made for it.
    #[inline]
    pub fn poll_worth_reading(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Io::Plain(s) if s.is_readable() => Poll::Ready(Ok(())),
            Io::Plain(s) => s.poll_read_ready(cx),
            Io::Tls(s) => s.borrow().poll_worth_reading(cx),
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
