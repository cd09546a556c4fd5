//! A connected stream socket, watched by the runtime of its thread.

use std::cell::{Cell, Ref, RefCell};
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::ptr::NonNull;
use std::task::{Context, Poll, Waker, ready};

use super::Address;
use nix::sys::socket::{MsgFlags, recv, send};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::task::coop::has_budget_remaining;

/// A socket over TCP or a unix socket. Reader and writer are of one task.
///
/// One that is connected is watched for input alone: it can be written to, and to be told so would cost a turn. The
/// first write that finds no room has it watched for both.
pub struct Socket {
    /// Goes before the descriptor it names. None where it could not be watched again.
    watch: RefCell<Option<Watch>>,
    /// It is watched for room to write, too.
    both: Cell<bool>,
    /// Who is going to be woken by input: none while there may be some.
    waits: Cell<Option<Task>>,
    unix: bool,
    fd: OwnedFd,
}

/// What has the runtime look for events.
type Watch = AsyncFd<Number>;

/// The number of a descriptor that somebody else owns.
struct Number(RawFd);

impl AsRawFd for Number {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

/// A task by what its waker refers to, which is nobody else's for as long as the waker is kept somewhere.
type Task = NonNull<()>;

/// None for a waker that wakes nobody.
fn task(cx: &Context<'_>) -> Option<Task> {
    NonNull::new(cx.waker().data().cast_mut())
}

/// What was read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Bytes; none at the peer's end.
    pub len: usize,
    /// That was all there was, and the task will be woken by more.
    pub waits: bool,
}

macro_rules! attempt {
    ($socket:expr, $cx:expr, $ready:ident, $op:expr) => {
        loop {
            match $op {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!($socket.$ready($cx))?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        }
    };
}

/// Whether `n` bytes read into `buf` were all that had come.
fn is_all(n: usize, buf: &[u8]) -> bool {
    0 < n && n < buf.len()
}

fn watch(fd: &OwnedFd, interest: Interest) -> io::Result<Watch> {
    // SAFETY: a `Socket` drops what watches its descriptor before the descriptor, whose number stays till then.
    let watch = unsafe { AsyncFd::register_with_interest(Number(fd.as_raw_fd()), interest) };
    watch.map_err(io::Error::from)
}

impl Socket {
    /// A connection that is there; `fd` does not block.
    pub fn connected(fd: OwnedFd, unix: bool) -> io::Result<Socket> {
        let watch = watch(&fd, Interest::READABLE)?;
        Ok(Socket {
            watch: RefCell::new(Some(watch)),
            both: Cell::new(false),
            waits: Cell::default(),
            unix,
            fd,
        })
    }

    /// A connection that is being made; `fd` does not block.
    pub fn connecting(fd: OwnedFd, unix: bool) -> io::Result<Socket> {
        let watch = watch(&fd, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Socket {
            watch: RefCell::new(Some(watch)),
            both: Cell::new(true),
            waits: Cell::default(),
            unix,
            fd,
        })
    }

    #[inline]
    fn watched(&self) -> io::Result<Ref<'_, Watch>> {
        Ref::filter_map(self.watch.borrow(), Option::as_ref).map_err(|_| io::ErrorKind::NotConnected.into())
    }

    /// Reads what is there into `buf`; 0 is the peer's end.
    #[inline]
    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_receive(&*self.watched()?, cx, buf)
    }

    /// As [`Socket::poll_read`], for a task that has nothing to do with what it reads but pass it on and wait for more.
    #[inline]
    pub fn poll_take(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<Taken>> {
        let watch = self.watched()?;
        let len = ready!(self.poll_receive(&watch, cx, buf))?;
        let waits = is_all(len, buf) && self.poll_input(&watch, cx).is_pending();
        Poll::Ready(Ok(Taken { len, waits }))
    }

    #[inline]
    fn poll_receive(&self, watch: &Watch, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut read = None;
            let tried = watch.try_io(Interest::READABLE, |_| {
                // There is input, so that whoever waited for it has been woken.
                self.waits.set(None);
                let n = recv(self.fd.as_raw_fd(), buf, MsgFlags::empty())?;
                read = Some(n);
                // The next reader waits for more without asking the system.
                if is_all(n, buf) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match (read, tried) {
                (Some(n), _) => return Poll::Ready(Ok(n)),
                (None, Err(e)) if e.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.poll_input(watch, cx))?
                }
                (None, Err(e)) if e.kind() != io::ErrorKind::Interrupted => return Poll::Ready(Err(e)),
                (None, _) => {}
            }
        }
    }

    /// Writes some of `buf`.
    pub fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let write = || Ok(send(self.fd.as_raw_fd(), buf, MsgFlags::MSG_NOSIGNAL)?);
        attempt!(self, cx, poll_write_ready, self.try_io(Interest::WRITABLE, write))
    }

    /// Writes some of several pieces in one call.
    pub fn poll_write_vectored(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let write = || Ok(nix::sys::uio::writev(&self.fd, bufs)?);
        attempt!(self, cx, poll_write_ready, self.try_io(Interest::WRITABLE, write))
    }

    /// Ready when there are bytes, or the peer's end, to read.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_waiting(cx) {
            return Poll::Pending;
        }
        self.poll_input(&*self.watched()?, cx)
    }

    #[inline]
    fn poll_input(&self, watch: &Watch, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ready = watch.poll_read_ready(cx);
        // A task that has had its turn is told to wait too, but for its next one.
        if ready.is_pending() && has_budget_remaining() {
            self.waits.set(task(cx));
        }
        ready.map_ok(drop)
    }

    /// Whether there may be something to read, as far as is known without asking the system.
    #[inline]
    pub fn is_readable(&self) -> bool {
        self.try_io(Interest::READABLE, || Ok(())).is_ok()
    }

    /// Whether there is nothing to read, and this task will be woken when there is.
    #[inline]
    pub fn is_waiting(&self, cx: &Context<'_>) -> bool {
        let waits = self.waits.get();
        waits.is_some() && waits == task(cx) && !self.is_readable()
    }

    /// Ready when bytes can be written.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.both.replace(true) {
            // A descriptor is watched once.
            drop(self.watch.take());
            self.waits.set(None);
            self.watch.replace(Some(watch(&self.fd, Interest::READABLE | Interest::WRITABLE)?));
            // What waited for input waited for the watch that is gone.
            cx.waker().wake_by_ref();
        }
        self.watched()?.poll_write_ready(cx).map_ok(drop)
    }

    /// Runs a system call on the socket when `interest`, one of reading or of writing, is there as far as is known; a
    /// `WouldBlock` makes it wait again.
    #[inline]
    pub fn try_io<R>(&self, interest: Interest, call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        if interest.is_writable() && !self.both.get() {
            return call();
        }
        self.watched()?.try_io(interest, |_| {
            // There is input, so that whoever waited for it has been woken.
            if interest.is_readable() {
                self.waits.set(None);
            }
            call()
        })
    }

    /// As [`Socket::try_io`], again and again until something is done.
    pub fn poll_io<R>(
        &self,
        interest: Interest,
        cx: &mut Context<'_>,
        mut call: impl FnMut() -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        match interest {
            Interest::READABLE => attempt!(self, cx, poll_read_ready, self.try_io(interest, &mut call)),
            _ => attempt!(self, cx, poll_write_ready, self.try_io(interest, &mut call)),
        }
    }

    /// What is known of the input without asking the system.
    pub fn readiness(&self) -> Poll<io::Result<Ready>> {
        let watch = self.watched()?;
        let ready = pin!(watch.ready(Interest::READABLE)).poll(&mut Context::from_waker(Waker::noop()));
        ready.map_ok(|guard| guard.ready())
    }

    /// Whether it is a unix socket.
    pub fn is_unix(&self) -> bool {
        self.unix
    }

    /// The address of this end; an unnamed unix socket where it cannot be had.
    pub fn local_address(&self) -> Address {
        let address = socket2::SockRef::from(self).local_addr().ok();
        let inet = address.as_ref().and_then(socket2::SockAddr::as_socket);
        let path = || address.as_ref().and_then(|a| a.as_pathname().map(PathBuf::from)).unwrap_or_default();
        inet.map_or_else(|| Address::Unix(path()), Address::Inet)
    }

    /// Another descriptor of the same socket, to look at it while its owner is busy.
    pub fn duplicate(&self) -> io::Result<Socket> {
        Socket::connected(self.fd.try_clone()?, self.unix)
    }

    /// Small writes leave at once (TCP_NODELAY).
    pub fn set_nodelay(&self) -> io::Result<()> {
        if self.unix { Ok(()) } else { socket2::SockRef::from(self).set_tcp_nodelay(true) }
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

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Socket({})", self.fd.as_raw_fd())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    pub fn run<F: Future>(f: F) -> F::Output {
        let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&rt, f)
    }

    /// A watched socket and its peer.
    pub fn pair() -> (Socket, UnixStream) {
        let (own, peer) = UnixStream::pair().unwrap();
        own.set_nonblocking(true).unwrap();
        (Socket::connected(own.into(), true).unwrap(), peer)
    }

    /// The same over TCP.
    pub fn tcp_pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        own.set_nonblocking(true).unwrap();
        (Socket::connected(own.into(), false).unwrap(), listener.accept().unwrap().0)
    }

    /// Writes until there is no room.
    fn fill(socket: &Socket) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        let mut written = 0;
        while let Poll::Ready(n) = socket.poll_write(&mut cx, &[7; 4096]) {
            written += n.unwrap();
        }
        written
    }

    #[test]
    fn it_is_watched_for_room_once_it_has_none() {
        run(async {
            let (socket, mut peer) = pair();
            assert!(!socket.both.get());
            let written = fill(&socket);
            assert!(socket.both.get() && written > 0);
            let reader = std::thread::spawn(move || peer.read_exact(&mut vec![0; written]).map(|()| peer));
            poll_fn(|cx| socket.poll_write(cx, b"more")).await.unwrap();
            let mut more = [0; 4];
            reader.join().unwrap().unwrap().read_exact(&mut more).unwrap();
            assert_eq!(&more, b"more");
        });
    }

    #[test]
    fn who_waits_for_input_hears_of_it_though_a_write_finds_no_room() {
        run(async {
            let (socket, mut peer) = pair();
            let mut filled = false;
            let read = poll_fn(|cx| {
                let mut byte = [0];
                if socket.poll_read(cx, &mut byte).is_ready() {
                    return Poll::Ready(byte[0]);
                }
                if !std::mem::replace(&mut filled, true) {
                    while socket.poll_write(cx, &[7; 4096]).is_ready() {}
                    peer.write_all(b"x").unwrap();
                }
                Poll::Pending
            });
            assert_eq!(read.await, b'x');
        });
    }

    #[test]
    fn whoever_waits_last_is_woken_each_time() {
        run(async {
            let (socket, mut peer) = pair();
            let socket = std::rc::Rc::new(socket);
            for text in [b"one", b"two"] {
                poll_fn(|cx| {
                    assert!(!socket.is_waiting(cx) && socket.poll_read_ready(cx).is_pending());
                    assert!(socket.is_waiting(cx) && socket.poll_read_ready(cx).is_pending());
                    Poll::Ready(())
                })
                .await;
                let own = socket.clone();
                let other = tokio::task::spawn_local(async move {
                    let mut bytes = [0; 8];
                    let n = poll_fn(|cx| own.poll_read(cx, &mut bytes)).await.unwrap();
                    assert!(!own.is_readable());
                    bytes[..n].to_vec()
                });
                tokio::task::yield_now().await;
                peer.write_all(text).unwrap();
                assert_eq!(other.await.unwrap(), text);
            }
        });
    }

    #[test]
    fn who_takes_all_there_is_waits_for_more() {
        run(async {
            let (socket, mut peer) = pair();
            let mut room = [0; 4];
            let mut take = async |bytes: &[u8]| {
                peer.write_all(bytes).unwrap();
                poll_fn(|cx| socket.poll_take(cx, &mut room).map_ok(|taken| (taken, socket.is_waiting(cx))))
                    .await
            };
            assert_eq!(take(b"abc").await.unwrap(), (Taken { len: 3, waits: true }, true));
            // As much as there was room for: there may be more.
            assert_eq!(take(b"abcde").await.unwrap(), (Taken { len: 4, waits: false }, false));
            assert_eq!(take(b"").await.unwrap(), (Taken { len: 1, waits: true }, true));
            drop(peer);
            let end = poll_fn(|cx| socket.poll_take(cx, &mut room)).await.unwrap();
            assert_eq!(end, Taken { len: 0, waits: false });
        });
    }

    #[test]
    fn a_task_that_has_had_its_turn_waits_the_next_time() {
        run(async {
            let (socket, mut peer) = pair();
            let mut turns = 0;
            let read = poll_fn(|cx| {
                turns += 1;
                if turns == 1 {
                    while let Poll::Ready(turn) = tokio::task::coop::poll_proceed(cx) {
                        turn.made_progress();
                    }
                }
                let ready = socket.poll_read_ready(cx);
                if turns <= 2 {
                    assert!(ready.is_pending() && socket.is_waiting(cx) == (turns == 2));
                    if turns == 2 {
                        peer.write_all(b"x").unwrap();
                    }
                }
                ready
            });
            tokio::task::spawn_local(async {}).await.unwrap();
            read.await.unwrap();
            assert!(turns >= 3);
        });
    }

    #[test]
    fn the_end_shows_without_asking() {
        run(async {
            let (socket, peer) = pair();
            assert!(socket.readiness().is_pending());
            drop(peer);
            poll_fn(|cx| socket.poll_read_ready(cx)).await.unwrap();
            assert!(matches!(socket.readiness(), Poll::Ready(Ok(ready)) if ready.is_read_closed()));
        });
    }
}
