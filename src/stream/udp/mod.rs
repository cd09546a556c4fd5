//! Sessions of datagrams (`listen ... udp`): the datagrams of one client on one socket are a session, until it ends
//! or has all it is to have (`proxy_requests`). A socket belongs to one thread, and so do its sessions.

mod client;
pub mod relay;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use tokio::task::AbortHandle;

pub use client::{Client, Inbox};

use super::Stream;
use super::serve::serve;
use super::session::Session;
use crate::conf::listen::Port;
use crate::log::{self, Level};
use crate::net::listen::Address as ListenAddress;
use crate::net::{Address, datagram, fd, turn};
use crate::process;

/// Datagrams taken before sessions get their turn.
const TURN: usize = 16;

/// Who a session is with: the client, and on a socket for all addresses the one it asked.
type Key = (Address, Option<IpAddr>);

/// A socket and its sessions.
pub struct Door {
    stream: &'static Stream,
    port: &'static Port,
    socket: Arc<OwnedFd>,
    /// Sessions that take more datagrams.
    open: RefCell<HashMap<Key, Rc<Inbox>>>,
    /// All sessions, by number.
    all: RefCell<HashMap<u64, Rc<Inbox>>>,
    /// The worker shuts down.
    closing: Cell<bool>,
}

thread_local! {
    static DOORS: RefCell<Vec<(Rc<Door>, AbortHandle)>> = RefCell::default();
}

/// Serves a datagram socket of port number `port` of `stream.ports`, as a task of this thread.
pub fn datagrams(stream: &'static Stream, port: usize, socket: UdpSocket) {
    let Some(port) = stream.ports.get(port) else { return };
    let door = Rc::new(Door {
        stream,
        port,
        socket: Arc::new(socket.into()),
        open: RefCell::default(),
        all: RefCell::default(),
        closing: Cell::new(false),
    });
    let task = tokio::task::spawn_local(door.clone().stand());
    DOORS.with_borrow_mut(|doors| doors.push((door, task.abort_handle())));
}

/// Takes no more datagrams for `stream` and ends its sessions, whose clients are another worker's from now on.
pub fn close(stream: &'static Stream) {
    DOORS.with_borrow_mut(|doors| {
        doors.retain(|(door, task)| {
            if !std::ptr::eq(door.stream, stream) {
                return true;
            }
            task.abort();
            door.closing.set(true);
            door.all.borrow().values().for_each(|inbox| inbox.wake());
            false
        });
    });
}

impl Door {
    /// Takes datagrams for ever.
    async fn stand(self: Rc<Self>) {
        let socket = match fd::watch(self.socket.clone()) {
            Ok(socket) => socket,
            Err(reason) => return self.alert(&reason, "epoll_ctl() failed"),
        };
        let mut buffer = vec![0; datagram::MAX];
        loop {
            let mut taken = 0;
            std::future::poll_fn(|cx| {
                loop {
                    let Poll::Ready(ready) = socket.poll_read_ready(cx) else {
                        return if taken > 0 { Poll::Ready(()) } else { Poll::Pending };
                    };
                    let Ok(mut ready) = ready else { return Poll::Ready(()) };
                    match ready.try_io(|socket| datagram::receive(socket.get_ref(), &mut buffer)) {
                        Err(_not_ready) => continue,
                        Ok(Ok(got)) => self.admit(&got, &buffer[..got.len.min(datagram::MAX)]),
                        Ok(Err(reason)) => self.alert(&reason, "recvmsg() failed"),
                    }
                    taken += 1;
                    if taken >= TURN {
                        return Poll::Ready(());
                    }
                }
            })
            .await;
            // Sessions take theirs before more is read.
            turn::next().await;
        }
    }

    fn alert(&self, reason: &io::Error, what: &str) {
        log::error_errno(&self.port.listen.log, Level::Alert, None, reason, format_args!("{what}"));
    }

    /// Gives a datagram to its session, or to a new one.
    fn admit(self: &Rc<Self>, got: &datagram::Received, bytes: &[u8]) {
        if got.truncated {
            let log = &self.port.listen.log;
            return log::error(log, Level::Alert, None, format_args!("recvmsg() truncated data"));
        }
        let to = got.to.filter(|_| self.port.listen.wildcard);
        let key = (got.from.clone(), to);
        let known = self.open.borrow().get(&key).cloned();
        match known {
            Some(inbox) => {
                if inbox.put(bytes) {
                    self.open.borrow_mut().remove(&key);
                }
            }
            None => self.begin(key, Bytes::copy_from_slice(bytes)),
        }
    }

    fn begin(self: &Rc<Self>, key: Key, first: Bytes) {
        process::count(process::Count::Accepted, 1);
        let log = &self.port.listen.log;
        let context = format_args!(" while accepting new connection on {}", self.port.listen.address);
        let Ok(slot) = process::client_slot(log, context) else { return };
        process::count(process::Count::Handled, 1);
        let number = process::next_connection_number();
        let local = match (&self.port.listen.address, key.1) {
            (ListenAddress::Inet(own), Some(ip)) => Address::Inet((ip, own.port()).into()),
            (ListenAddress::Inet(own), None) => Address::Inet(*own),
            (ListenAddress::Unix(path), _) => Address::Unix(path.clone()),
        };
        let addr = self.port.addr_of(&local);
        // A session takes as many datagrams as its server says; it has one.
        let most = self.stream.servers.get(addr.default).map_or(0, |server| *server.srv.proxy.requests);
        let inbox = Rc::new(Inbox::new(most));
        if most != 1 {
            self.open.borrow_mut().insert(key.clone(), inbox.clone());
        }
        self.all.borrow_mut().insert(number, inbox.clone());
        let client = Client::new(self.clone(), key.clone(), number, first, inbox);
        let mut session =
            Box::new(Session::of_datagrams(self.stream, self.port, client, key.0, local, number));
        session.slot = slot;
        tokio::task::spawn_local(serve(session));
    }

    /// A session is over.
    fn end(&self, key: &Key, number: u64) {
        let Some(inbox) = self.all.borrow_mut().remove(&number) else { return };
        let mut open = self.open.borrow_mut();
        if open.get(key).is_some_and(|other| Rc::ptr_eq(other, &inbox)) {
            open.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
