//! Moving bytes from socket to socket inside the kernel: splice(2) through pipes that each thread keeps.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;
use socket2::SockRef;

use super::Socket;

/// Bytes a pipe is asked to hold; where the system allows less, it holds less.
const SIZE: usize = 256 << 10;
/// Bytes of a long transfer to take at once, or somewhat less.
const PORTION: usize = 128 << 10;
/// Pipes a thread keeps for later.
const KEEP: usize = 16;

thread_local! {
    static POOL: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
}

struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// An empty pipe, or one that holds bytes on their way. Goes back to the pool when dropped empty.
pub struct Pipe {
    ends: Option<Ends>,
    len: usize,
}

impl Pipe {
    /// A pipe; none where the system gives no more, and bytes have to be copied.
    pub fn take() -> Option<Pipe> {
        let kept = POOL.with(|pool| pool.borrow_mut().pop());
        let ends = match kept {
            Some(ends) => ends,
            None => {
                let (read, write) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).ok()?;
                // A refusal (pipe-user-pages-soft) leaves the usual size, which does.
                let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(SIZE as i32));
                Ends { read, write }
            }
        };
        Some(Pipe { ends: Some(ends), len: 0 })
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes what `from` has, at most `most` bytes; 0 is its end. To be called on an empty pipe: then `WouldBlock` is
    /// about the socket.
    pub fn fill(&mut self, from: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let n = transfer(from, ends.write.as_fd(), most.min(SIZE))?;
        self.len += n;
        Ok(n)
    }

    /// Gives `to` what it takes; the pipe must not be empty, so that `WouldBlock` is about the socket.
    pub fn drain(&mut self, to: BorrowedFd<'_>) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let n = transfer(ends.read.as_fd(), to, self.len)?;
        self.len -= n.min(self.len);
        Ok(n)
    }
}

/// Bytes to take at once of a long transfer that goes to `to`: what leaves in whole segments. A remainder would leave
/// as a segment of its own each time.
pub fn portion(to: &Socket) -> usize {
    // The size of a segment grows with the window of the peer, and may change with the way.
    match SockRef::from(to).tcp_mss() {
        Ok(segment @ 1..) if segment as usize <= PORTION => PORTION - PORTION % segment as usize,
        // Not TCP.
        _ => PORTION,
    }
}

fn transfer(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize) -> io::Result<usize> {
    let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
    Ok(splice(from, None, to, None, len, flags)?)
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take().filter(|_| self.len == 0) else { return };
        // Past the thread's end the pool is gone and the pipe is simply closed.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < KEEP {
                pool.push(ends);
            }
        });
    }
}

/// How many pipes this thread keeps.
#[cfg(test)]
pub fn kept() -> usize {
    POOL.with(|pool| pool.borrow().len())
}

#[cfg(test)]
mod tests {
    use super::super::socket::tests::{pair, run, tcp_pair};
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn bytes_go_through_and_the_pipe_is_used_again() {
        let (mut source, from) = UnixStream::pair().unwrap();
        let (to, mut sink) = UnixStream::pair().unwrap();
        from.set_nonblocking(true).unwrap();
        let mut pipe = Pipe::take().unwrap();
        assert_eq!(pipe.fill(from.as_fd(), SIZE).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        source.write_all(b"hello").unwrap();
        assert_eq!(pipe.fill(from.as_fd(), SIZE).unwrap(), 5);
        assert_eq!((pipe.len(), pipe.drain(to.as_fd()).unwrap(), pipe.is_empty()), (5, 5, true));
        let mut text = [0; 5];
        sink.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"hello");
        drop(source);
        assert_eq!(pipe.fill(from.as_fd(), SIZE).unwrap(), 0);
        let number = pipe.ends.as_ref().unwrap().read.as_raw_fd();
        drop(pipe);
        assert_eq!(Pipe::take().unwrap().ends.as_ref().unwrap().read.as_raw_fd(), number);
    }

    #[test]
    fn a_portion_is_whole_segments() {
        run(async {
            let (socket, _peer) = tcp_pair();
            let segment = SockRef::from(&socket).tcp_mss().unwrap() as usize;
            let portion = portion(&socket);
            assert!(segment > 1 && portion.is_multiple_of(segment), "{portion} of {segment}");
            assert!((PORTION - segment + 1..=PORTION).contains(&portion), "{portion} of {segment}");
        });
    }

    #[test]
    fn what_has_no_segments_takes_all_of_a_portion() {
        run(async { assert_eq!(portion(&pair().0), PORTION) });
    }

    #[test]
    fn a_pipe_with_bytes_in_it_is_not_kept() {
        let (mut source, from) = UnixStream::pair().unwrap();
        source.write_all(b"secret").unwrap();
        let mut pipe = Pipe::take().unwrap();
        pipe.fill(from.as_fd(), SIZE).unwrap();
        let before = kept();
        drop(pipe);
        assert_eq!(kept(), before);
    }
}
