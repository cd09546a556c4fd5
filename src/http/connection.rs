//! A client's connection: what its requests share, and how it begins.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::listen::{Addr, Port};
use super::{Http, Server};
use crate::log::ErrorLog;
use crate::net::{Address, Buffer, Deadline, Io, proxy_protocol};
use crate::process::{Counted, Slot, stats};
use crate::tls::TlsInfo;

/// A client's connection. Requests share it; all that changes has a cell.
pub struct Connection {
    /// Number in the log (`*7`).
    pub number: u64,
    /// The bytes.
    pub io: Io,
    /// What was read and not used yet.
    pub buffer: RefCell<Buffer>,
    /// One deadline for whatever is waited for.
    pub deadline: Deadline,
    /// The peer's address, or what real IP made of it.
    pub client: RefCell<Address>,
    /// The same as text, for `$remote_addr` and the log.
    pub client_text: RefCell<String>,
    /// The peer's own address, where real IP put another in its place.
    pub realip: RefCell<Option<Address>>,
    /// The address it came to; see [`Connection::local`].
    local: OnceCell<Address>,
    /// The listening socket's servers.
    pub port: &'static Port,
    /// The servers of the address it came to.
    pub addr: &'static Addr,
    /// Addresses from the PROXY protocol.
    pub proxy_protocol: Option<proxy_protocol::Header>,
    /// TLS facts, where it is TLS.
    pub tls: Option<Arc<TlsInfo>>,
    /// Index of the server that the name in the TLS handshake chose.
    pub tls_server: Option<usize>,
    /// Requests on this connection so far.
    pub requests: Cell<u64>,
    /// Milliseconds of the thread's clock at accept.
    pub start_ms: u64,
    /// Bytes sent for the present request.
    pub sent: Cell<u64>,
    /// Between two requests.
    pub idle: Cell<bool>,
    /// Counts it among those that wait for a request.
    waiting: Cell<Option<Counted>>,
    /// Milliseconds it may be idle.
    pub keepalive: Cell<u64>,
    /// The error log of the server chosen so far.
    pub(super) log: RefCell<ErrorLog>,
    nodelay: Cell<bool>,
    /// Counts the connection until it ends.
    _slot: Option<Slot>,
}

thread_local! {
    static OPEN: RefCell<HashMap<u64, Weak<Connection>>> = RefCell::new(HashMap::new());
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
    pub proxy_protocol: Option<proxy_protocol::Header>,
    /// Counts the connection until it ends.
    pub slot: Option<Slot>,
    /// Milliseconds of the thread's clock at accept.
    pub start_ms: u64,
}

impl Connection {
    /// A connection whose handshakes are done.
    pub fn new(incoming: Incoming, io: Io, tls_server: Option<usize>, http: &'static Http) -> Rc<Connection> {
        let tls = io.tls_info();
        Connection::with_tls(incoming, io, tls, tls_server, http)
    }

    /// The same, with what is known of its TLS.
    pub fn with_tls(
        incoming: Incoming,
        io: Io,
        tls: Option<Arc<TlsInfo>>,
        tls_server: Option<usize>,
        http: &'static Http,
    ) -> Rc<Connection> {
        let server = &http.servers[tls_server.unwrap_or(incoming.addr.default)];
        let conn = Rc::new(Connection {
            number: incoming.number,
            buffer: RefCell::new(Buffer::default()),
            deadline: Deadline::never(),
            client_text: RefCell::new(incoming.client.host()),
            client: RefCell::new(incoming.client),
            realip: RefCell::new(None),
            local: incoming.local.map(OnceCell::from).unwrap_or_default(),
            port: incoming.port,
            addr: incoming.addr,
            proxy_protocol: incoming.proxy_protocol,
            nodelay: Cell::new(tls.is_some()),
            tls,
            tls_server,
            requests: Cell::new(0),
            start_ms: incoming.start_ms,
            sent: Cell::new(0),
            idle: Cell::new(false),
            waiting: Cell::new(None),
            keepalive: Cell::new(75_000),
            log: RefCell::new(server.root.error_log().clone()),
            _slot: incoming.slot,
            io,
        });
        OPEN.with(|open| open.borrow_mut().insert(conn.number, Rc::downgrade(&conn)));
        conn
    }

    /// The client's IP address, where it has one.
    pub fn client_ip(&self) -> Option<IpAddr> {
        match &*self.client.borrow() {
            Address::Inet(addr) => Some(addr.ip()),
            Address::Unix(_) => None,
        }
    }

    /// The address it came to.
    pub fn local(&self) -> &Address {
        self.local.get_or_init(|| self.io.with_socket(|s| s.local_address()))
    }

    /// The server that requests begin with: the TLS name's, or the address's default.
    pub fn default_server(&self, http: &'static Http) -> &'static Server {
        &http.servers[self.tls_server.unwrap_or(self.addr.default)]
    }

    /// Whether it is TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether it is between two requests and may be closed.
    pub fn set_resting(&self, resting: bool) {
        self.idle.set(resting);
        self.set_waiting(resting);
    }

    /// Counts it, for stub_status, among those that wait for a request.
    pub fn set_waiting(&self, waiting: bool) {
        self.waiting.set(waiting.then(|| Counted::new(&stats().waiting)));
    }

    /// Small writes leave at once from now on.
    pub fn set_nodelay(&self) {
        if !self.nodelay.replace(true) {
            // A unix socket has no such option.
            let _ = self.io.with_socket(|s| s.set_nodelay());
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = OPEN.try_with(|open| {
            if let Ok(mut open) = open.try_borrow_mut() {
                open.remove(&self.number);
            }
        });
    }
}

fn for_each_open(mut each: impl FnMut(&Connection)) {
    let all: Vec<_> = OPEN.with(|open| open.borrow().values().filter_map(Weak::upgrade).collect());
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
