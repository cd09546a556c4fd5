//! One client's side of a session of datagrams.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Waker};

use bytes::Bytes;

use super::{Door, Key};
use crate::net::datagram;

/// Bytes that wait for a session; what is more than that is lost, as datagrams may be.
const MOST_WAITING: usize = 256 << 10;

/// Datagrams on their way to a session.
#[derive(Default)]
pub struct Inbox {
    waiting: RefCell<VecDeque<Bytes>>,
    bytes: Cell<usize>,
    waker: RefCell<Option<Waker>>,
    /// Datagrams the session is to have; 0 is no limit.
    most: usize,
    taken: Cell<usize>,
    /// The session's rate allows none now: they are lost.
    delayed: Cell<bool>,
}

impl Inbox {
    pub(super) fn new(most: usize) -> Inbox {
        Inbox { most, taken: Cell::new(1), ..Inbox::default() }
    }

    /// Puts a datagram; true where it is the last one for this session.
    pub(super) fn put(&self, bytes: &[u8]) -> bool {
        if self.delayed.get() || self.bytes.get() + bytes.len() > MOST_WAITING {
            return false;
        }
        self.bytes.set(self.bytes.get() + bytes.len());
        self.waiting.borrow_mut().push_back(Bytes::copy_from_slice(bytes));
        self.taken.set(self.taken.get() + 1);
        self.wake();
        self.most != 0 && self.taken.get() >= self.most
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// The next datagram; the task is woken when another comes.
    pub(super) fn next(&self, cx: &mut Context<'_>) -> Option<Bytes> {
        let next = self.waiting.borrow_mut().pop_front();
        match &next {
            Some(bytes) => self.bytes.set(self.bytes.get() - bytes.len()),
            None => *self.waker.borrow_mut() = Some(cx.waker().clone()),
        }
        next
    }

    /// Whether the rate forbids to take datagrams.
    pub(super) fn set_delayed(&self, delayed: bool) {
        self.delayed.set(delayed);
    }
}

/// The client of a session.
pub struct Client {
    door: Rc<Door>,
    key: Key,
    number: u64,
    /// The datagram that began the session.
    pub first: Bytes,
    pub(super) inbox: Rc<Inbox>,
}

impl Client {
    pub(super) fn new(door: Rc<Door>, key: Key, number: u64, first: Bytes, inbox: Rc<Inbox>) -> Client {
        Client { door, key, number, first, inbox }
    }

    /// Sends a datagram, from the address that the client asked. One that the system has no room for is lost.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match datagram::send(&*self.door.socket, bytes, &self.key.0, self.key.1) {
            Err(reason) if reason.kind() == io::ErrorKind::WouldBlock => Ok(0),
            sent => sent,
        }
    }

    /// Whether the worker shuts down.
    pub(super) fn closing(&self) -> bool {
        self.door.closing.get()
    }

    /// The session takes no more: the client's next datagram begins another.
    pub(super) fn leave(&self) {
        self.door.end(&self.key, self.number);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.leave();
    }
}
