//! A client's connection: what its requests share, and how it begins.

use std::cell::{Cell, OnceCell, Ref, RefCell};
use std::net::IpAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::listen::{Addr, Port};
use super::{Http, Server};
use crate::log::ErrorLog;
use crate::net::{Address, Buffer, Deadline, Io, proxy_protocol};
use crate::process::{Count, Slot, count};
use crate::tls::TlsInfo;

/// A client's connection. Requests share it; all that changes has a cell. It is small, as there may be many that only
/// wait: what few have is on the heap.
pub struct Connection {
    /// Number in the log (`*7`).
    pub number: u64,
    /// The bytes.
    pub io: Io,
    /// What was read and not used yet.
    pub buffer: RefCell<Buffer>,
    /// One deadline for whatever is waited for.
    pub deadline: Deadline,
    peer: RefCell<Peer>,
    /// The listening socket's servers.
    pub port: &'static Port,
    /// The servers of the address it came to.
    pub addr: &'static Addr,
    /// What few connections have.
    rare: OnceCell<Box<Rare>>,
    /// The server that the name in the TLS handshake chose.
    pub tls_server: Option<&'static Server>,
    /// Requests on this connection so far.
    pub requests: Cell<u32>,
    /// Milliseconds of the thread's clock at accept.
    pub start_ms: u64,
    /// Between two requests.
    pub idle: Cell<bool>,
    /// Counts it among those that wait for a request.
    waiting: Cell<bool>,
    /// Milliseconds it may be idle.
    pub keepalive: Cell<u32>,
    /// The error log of the server chosen so far.
    pub(super) log: Cell<&'static ErrorLog>,
    /// Its place among those that are open.
    place: Cell<u32>,
    nodelay: Cell<bool>,
    /// Counts the connection until it ends.
    _slot: Option<Slot>,
}

/// Who is at the other end.
struct Peer {
    /// Its address, or what real IP made of it.
    address: Address,
    /// The same as text, for `$remote_addr` and the log.
    text: Box<str>,
    /// Its own address, where real IP put another in its place.
    own: Option<Box<Address>>,
}

#[derive(Default)]
struct Rare {
    /// The address it came to, once asked for.
    local: OnceCell<Address>,
    /// Addresses from the PROXY protocol.
    proxy_protocol: Option<proxy_protocol::Header>,
    /// TLS facts, where the connection itself does not have them.
    tls: Option<Arc<TlsInfo>>,
}

/// The connections of a thread.
#[derive(Default)]
struct Open {
    places: Vec<Weak<Connection>>,
    free: Vec<u32>,
}

thread_local! {
    static OPEN: RefCell<Open> = RefCell::default();
}

/// What is known of a connection before its first request.
pub struct Incoming {
    /// Number in the log.
    pub number: u64,
    /// Who connected, or whom the PROXY protocol names.
    pub client: Address,
    /// The listening socket's servers.
    pub port: &'static Port,
    /// The servers of the address it came to.
    pub addr: &'static Addr,
    /// The address it came to, where that was asked for.
    pub local: Option<Address>,
    /// Addresses from the PROXY protocol.
    pub proxy_protocol: Option<Box<proxy_protocol::Header>>,
    /// Counts the connection until it ends.
    pub slot: Option<Slot>,
    /// Milliseconds of the thread's clock at accept.
    pub start_ms: u64,
}

impl Connection {
    /// A connection whose handshakes are done.
    pub fn new(incoming: Incoming, io: Io, tls_server: Option<usize>, http: &'static Http) -> Rc<Connection> {
        Connection::with_tls(incoming, io, None, tls_server, http)
    }

    /// The same, with what is known of a TLS connection that `io` only stands for.
    pub fn with_tls(
        incoming: Incoming,
        io: Io,
        tls: Option<Arc<TlsInfo>>,
        tls_server: Option<usize>,
        http: &'static Http,
    ) -> Rc<Connection> {
        let tls_server = tls_server.map(|index| &http.servers[index]);
        let server = tls_server.unwrap_or(&http.servers[incoming.addr.default]);
        let rare = OnceCell::new();
        if incoming.local.is_some() || incoming.proxy_protocol.is_some() || tls.is_some() {
            let local = incoming.local.map(OnceCell::from).unwrap_or_default();
            let proxy_protocol = incoming.proxy_protocol.map(|header| *header);
            rare.get_or_init(|| Box::new(Rare { local, proxy_protocol, tls }));
        }
        let conn = Connection {
            number: incoming.number,
            buffer: RefCell::new(Buffer::default()),
            deadline: Deadline::never(),
            peer: RefCell::new(Peer {
                text: incoming.client.host().into(),
                address: incoming.client,
                own: None,
            }),
            rare,
            port: incoming.port,
            addr: incoming.addr,
            nodelay: Cell::new(io.is_tls()),
            tls_server,
            requests: Cell::new(0),
            start_ms: incoming.start_ms,
            idle: Cell::new(false),
            waiting: Cell::new(false),
            keepalive: Cell::new(75_000),
            log: Cell::new(server.root.error_log()),
            place: Cell::new(0),
            _slot: incoming.slot,
            io,
        };
        let conn = Rc::new(conn);
        conn.place.set(OPEN.with(|open| open.borrow_mut().add(&conn)));
        conn
    }

    /// The client's IP address, where it has one.
    pub fn client_ip(&self) -> Option<IpAddr> {
        match &*self.client() {
            Address::Inet(addr) => Some(addr.ip()),
            Address::Unix(_) => None,
        }
    }

    /// The address it came to.
    pub fn local(&self) -> &Address {
        let rare = self.rare.get_or_init(Box::default);
        rare.local.get_or_init(|| self.io.with_socket(|s| s.local_address()))
    }

    /// Addresses from the PROXY protocol.
    pub fn proxy_protocol(&self) -> Option<&proxy_protocol::Header> {
        self.rare.get().and_then(|rare| rare.proxy_protocol.as_ref())
    }

    /// The server that requests begin with: the TLS name's, or the address's default.
    pub fn default_server(&self, http: &'static Http) -> &'static Server {
        self.tls_server.unwrap_or_else(|| &http.servers[self.addr.default])
    }

    /// Whether it is TLS.
    pub fn is_tls(&self) -> bool {
        self.io.is_tls() || self.rare.get().is_some_and(|rare| rare.tls.is_some())
    }

    /// TLS facts, where it is TLS.
    pub fn tls(&self) -> Option<Arc<TlsInfo>> {
        self.io.tls_info().or_else(|| self.rare.get().and_then(|rare| rare.tls.clone()))
    }

    /// The peer's address, or what real IP made of it.
    pub fn client(&self) -> Ref<'_, Address> {
        Ref::map(self.peer.borrow(), |peer| &peer.address)
    }

    /// The same as text, for `$remote_addr` and the log.
    pub fn client_text(&self) -> Ref<'_, str> {
        Ref::map(self.peer.borrow(), |peer| &*peer.text)
    }

    /// The peer's own address, where real IP put another in its place.
    pub fn realip(&self) -> Option<Ref<'_, Address>> {
        Ref::filter_map(self.peer.borrow(), |peer| peer.own.as_deref()).ok()
    }

    /// Puts another address in the place of the peer's own.
    pub fn set_realip(&self, address: Address) {
        let mut peer = self.peer.borrow_mut();
        peer.text = address.host().into();
        let own = std::mem::replace(&mut peer.address, address);
        peer.own = Some(Box::new(own));
    }

    /// Gives the peer its own address back.
    pub fn restore_client(&self) {
        let mut peer = self.peer.borrow_mut();
        if let Some(own) = peer.own.take() {
            peer.text = own.host().into();
            peer.address = *own;
        }
    }

    /// Whether it is between two requests and may be closed.
    pub fn set_resting(&self, resting: bool) {
        self.idle.set(resting);
        self.set_waiting(resting);
    }

    /// Counts it, for stub_status, among those that wait for a request.
    pub fn set_waiting(&self, waiting: bool) {
        if self.waiting.replace(waiting) != waiting {
            count(Count::Waiting, if waiting { 1 } else { -1 });
        }
    }

    /// Small writes leave at once from now on.
    pub fn set_nodelay(&self) {
        if !self.nodelay.replace(true) {
            // A unix socket has no such option.
            let _ = self.io.with_socket(|s| s.set_nodelay());
        }
    }
}

impl Open {
    fn add(&mut self, conn: &Rc<Connection>) -> u32 {
        let conn = Rc::downgrade(conn);
        match self.free.pop() {
            Some(place) => {
                self.places[place as usize] = conn;
                place
            }
            None => {
                self.places.push(conn);
                self.places.len() as u32 - 1
            }
        }
    }

    fn remove(&mut self, place: u32) {
        self.places[place as usize] = Weak::new();
        self.free.push(place);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.set_waiting(false);
        let _ = OPEN.try_with(|open| {
            if let Ok(mut open) = open.try_borrow_mut() {
                open.remove(self.place.get());
            }
        });
    }
}

fn for_each_open(mut each: impl FnMut(&Connection)) {
    let all: Vec<_> = OPEN.with(|open| open.borrow().places.iter().filter_map(Weak::upgrade).collect());
    all.iter().for_each(|conn| each(conn));
}

/// Closes this thread's idle connections.
pub fn close_idle() {
    for_each_open(|conn| {
        if conn.idle.get() {
            conn.deadline.set(0);
        }
    });
}

/// Closes up to `count` of this thread's idle connections; returns how many.
pub fn drain_idle(count: usize) -> usize {
    let mut closed = 0;
    for_each_open(|conn| {
        if closed < count && conn.idle.replace(false) {
            conn.deadline.set(0);
            closed += 1;
        }
    });
    closed
}

/// Cuts this thread's connections off, whatever they do.
pub fn close_all() {
    for_each_open(|conn| {
        let _ = conn.io.with_socket(|s| s.shutdown(std::net::Shutdown::Both));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Connection>() <= 248, "{}", size_of::<Connection>());
    }
}
