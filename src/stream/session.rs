//! One session, from the accepted socket to its log line.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt::{self, Arguments};
use std::io;
use std::mem::offset_of;
use std::sync::Arc;

use super::{Server, Stream};
use crate::conf::listen::{Addr, Port};
use crate::log::{self, Level};
use crate::net::clock::Wall;
use crate::net::{Address, Buffer, Deadline, Io, Socket, clock, proxy_protocol};
use crate::process::Slot;
use crate::tls::TlsInfo;
use crate::tls::preread::{Parser, Preread};
use crate::upstream::{End, Pick, UpstreamState};
use crate::value::{Context, Scope, Variables};

/// A session. What each message changes comes first, so that it is read together.
#[repr(C)]
pub struct Session {
    /// The connection; none while TLS takes it over.
    pub io: Option<Io>,
    /// The one deadline of whatever is waited for.
    pub deadline: Deadline,
    /// What is being done, for the error log.
    pub action: Cell<Option<&'static str>>,
    /// Bytes from the client.
    pub received: Cell<u64>,
    /// Bytes to the client.
    pub sent: Cell<u64>,
    /// The attempts at upstreams.
    pub upstream: Upstream,
    /// All stream settings.
    pub stream: &'static Stream,
    /// The server, chosen by address, then perhaps by name.
    pub server: &'static Server,
    /// The listening socket.
    pub port: &'static Port,
    /// The servers of the address.
    pub addr: &'static Addr,
    /// `$connection`
    pub number: u64,
    /// The client, or who it says it is once `set_real_ip_from` trusts it.
    pub client: Address,
    /// Who connected, where `client` is somebody else.
    pub realip: Option<Address>,
    /// The address that was connected to, once asked for.
    local: OnceCell<Address>,
    /// The client of a session of datagrams, which has no connection.
    pub udp: Option<super::udp::Client>,
    /// Counts the connection until it is closed.
    pub slot: Option<Slot>,
    /// How often the connection came here by `pass`.
    pub passes: u8,
    /// The connection is somebody else's now, and so is its log line.
    pub passed: bool,
    /// What was read of the client and belongs to the content, which else is to find it in the socket.
    pub read_ahead: Cell<Buffer>,
    /// `$status`; 0 until the session is over.
    pub status: u16,
    /// What came before everything else.
    pub proxy_protocol: Option<Box<proxy_protocol::Header>>,
    /// What `ssl_preread` found.
    pub preread: Option<Box<Preread>>,
    /// `ssl_preread` has seen bytes.
    pub preread_begun: bool,
    /// What `ssl_preread` has read so far.
    pub preread_parser: Option<Box<Parser>>,
    /// What is known of the client's TLS connection.
    pub tls: Option<Arc<TlsInfo>>,
    /// Places taken in `limit_conn` zones.
    pub limits: Vec<crate::value::limit_conn::Held>,
    /// `$limit_conn_status`
    pub limit_conn_status: Option<&'static str>,
    /// Values set and captured.
    pub scope: Scope,
    /// When it began.
    pub start: Wall,
}

// Two cache lines hold what a message changes.
const _: () = assert!(offset_of!(Session, upstream) + offset_of!(Upstream, proxied) < 128);

/// What a session knows of its upstream.
#[derive(Default)]
#[repr(C)]
pub struct Upstream {
    /// Bytes from the peer.
    pub received: Cell<u64>,
    /// Bytes to the peer.
    pub sent: Cell<u64>,
    /// The session is proxied: lines of the error log name the upstream and count bytes.
    pub proxied: Cell<bool>,
    /// The peer, as nginx shows it.
    pub peer: RefCell<Option<Arc<str>>>,
    /// All attempts in order, the current one last.
    pub attempts: RefCell<Vec<UpstreamState>>,
    /// When the current attempt began, in milliseconds of the monotonic clock.
    pub start: Cell<u64>,
}

impl Upstream {
    /// Changes the current attempt.
    pub fn attempt(&self, change: impl FnOnce(&mut UpstreamState)) {
        if let Some(last) = self.attempts.borrow_mut().last_mut() {
            change(last);
        }
    }

    /// Calls `f` with what is known of the current attempt.
    pub fn current<R>(&self, f: impl FnOnce(&UpstreamState) -> R) -> R {
        match self.attempts.borrow().last() {
            Some(state) => f(state),
            None => f(&UpstreamState::default()),
        }
    }
}

impl Context for Session {
    fn variables(&self) -> &'static Variables<Self> {
        &self.stream.variables
    }

    fn scope(&self) -> &Scope {
        &self.scope
    }
}

impl Session {
    /// A session on a socket just accepted by `port`.
    pub fn new(
        stream: &'static Stream,
        port: &'static Port,
        io: Io,
        client: Address,
        number: u64,
    ) -> Session {
        let local = OnceCell::new();
        // A socket that serves one address needs no system call to know which.
        let addr = match port.specific.is_empty() {
            true => &port.addr,
            false => port.addr_of(local.get_or_init(|| local_address(&io, port))),
        };
        Session { io: Some(io), local, ..Session::with(stream, port, addr, client, number) }
    }

    /// A session of datagrams that came to the address `local` of `port`.
    pub fn of_datagrams(
        stream: &'static Stream,
        port: &'static Port,
        udp: super::udp::Client,
        client: Address,
        local: Address,
        number: u64,
    ) -> Session {
        let addr = port.addr_of(&local);
        Session {
            received: Cell::new(udp.first.len() as u64),
            udp: Some(udp),
            local: OnceCell::from(local),
            ..Session::with(stream, port, addr, client, number)
        }
    }

    fn with(
        stream: &'static Stream,
        port: &'static Port,
        addr: &'static Addr,
        client: Address,
        number: u64,
    ) -> Session {
        Session {
            stream,
            server: &stream.servers[addr.default],
            port,
            addr,
            number,
            client,
            realip: None,
            local: OnceCell::new(),
            io: None,
            udp: None,
            slot: None,
            passes: 0,
            passed: false,
            read_ahead: Cell::default(),
            status: 0,
            proxy_protocol: None,
            preread: None,
            preread_begun: false,
            preread_parser: None,
            tls: None,
            limits: Vec::new(),
            limit_conn_status: None,
            scope: Scope::default(),
            deadline: Deadline::never(),
            start: clock::wall(),
            received: Cell::new(0),
            sent: Cell::new(0),
            upstream: Upstream::default(),
            action: Cell::new(Some("initializing session")),
        }
    }

    /// The address that was connected to.
    pub fn local(&self) -> &Address {
        self.local.get_or_init(|| match &self.io {
            Some(io) => local_address(io, self.port),
            None => own_address(self.port),
        })
    }

    /// Counts bytes from the client.
    pub fn count_received(&self, n: usize) {
        self.received.set(self.received.get() + n as u64);
    }

    /// Counts bytes to the client.
    pub fn count_sent(&self, n: usize) {
        self.sent.set(self.sent.get() + n as u64);
    }

    /// Goes over to the server of a name that the client asked for (SNI), where there is one.
    pub fn choose_server(&mut self, name: &[u8]) {
        let Some(host) = valid_host(name) else { return };
        let stream = self.stream;
        let found = self.addr.names.find(&host, &self.scope, |server| {
            stream.servers.get(server).map_or(&[], |server| &server.names[..])
        });
        if let Some(server) = found.and_then(|index| stream.servers.get(index)) {
            self.server = server;
        }
    }

    /// Finds out the address that was connected to while TLS has the socket.
    pub fn find_local(&self, socket: &Socket) {
        self.local.get_or_init(|| address_of(socket, self.port));
    }

    /// Small writes to the client leave at once (TCP_NODELAY).
    pub fn no_delay(&self) -> io::Result<()> {
        let Some(io) = &self.io else { return Ok(()) };
        io.with_socket(Socket::set_nodelay).inspect_err(|reason| {
            self.connection_error(Level::Info, reason, "setsockopt(TCP_NODELAY) failed");
        })
    }

    /// Closes the current attempt and gives its peer back.
    pub fn release(&self, pick: &mut Pick, end: End) {
        let upstream = &self.upstream;
        let (now, start) = (clock::now(), upstream.start.get());
        upstream.attempt(|attempt| {
            attempt.response_time.get_or_insert(now - start);
            attempt.bytes_received = upstream.received.get();
            attempt.bytes_sent = upstream.sent.get();
        });
        if upstream.current(|state| pick.release(end, state, now)) {
            self.error(Level::Warn, format_args!("upstream server temporarily disabled"));
        }
    }

    /// What the log says before `client` where there are datagrams.
    pub fn datagram_word(&self) -> &'static str {
        if self.udp.is_some() { "udp " } else { "" }
    }

    // === the error log ===

    /// Logs a message and what was being done.
    pub fn error(&self, level: Level, message: Arguments<'_>) {
        self.log(level, None, message);
    }

    /// Logs a message, the system's reason, and what was being done.
    pub fn errno(&self, level: Level, reason: &io::Error, message: Arguments<'_>) {
        self.log(level, Some(reason), message);
    }

    /// Logs a failure of a connection: the peer's doings are `quiet`, anything else is an alert.
    pub fn connection_error(&self, quiet: Level, reason: &io::Error, message: &str) {
        let level = if is_peers_doing(reason) { quiet } else { Level::Alert };
        self.log(level, Some(reason), format_args!("{message}"));
    }

    /// Logs a message that stands alone.
    pub fn note(&self, message: Arguments<'_>) {
        log::error(self.server.log(), Level::Info, Some(self.number), message);
    }

    fn log(&self, level: Level, reason: Option<&io::Error>, message: Arguments<'_>) {
        let log = self.server.log();
        if log.enabled(level) {
            let context = format_args!("{}", Doing(self));
            log::error_context(log, level, Some(self.number), reason, message, context);
        }
    }

    /// What stands behind a message: ` while proxying connection, client: ...`.
    pub fn doing(&self) -> impl fmt::Display {
        Doing(self)
    }

    /// `, bytes from/to client:..., bytes from/to upstream:...`
    pub fn byte_counts(&self) -> impl fmt::Display {
        Counts(self.received.get(), self.sent.get(), self.upstream.received.get(), self.upstream.sent.get())
    }
}

struct Counts(u64, u64, u64, u64);

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts(from_client, to_client, from_upstream, to_upstream) = self;
        write!(f, ", bytes from/to client:{from_client}/{to_client}")?;
        write!(f, ", bytes from/to upstream:{from_upstream}/{to_upstream}")
    }
}

/// What is being done, for whom.
struct Doing<'a>(&'a Session);

impl fmt::Display for Doing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.0;
        if let Some(action) = s.action.get() {
            write!(f, " while {action}")?;
        }
        write!(f, ", {}client: {}, server: {}", s.datagram_word(), s.client.host(), s.port.listen.address)?;
        if s.upstream.proxied.get() {
            if let Some(peer) = &*s.upstream.peer.borrow() {
                write!(f, ", upstream: \"{peer}\"")?;
            }
            write!(f, "{}", s.byte_counts())?;
        }
        Ok(())
    }
}

/// Errors that a peer or the network brings about (`ngx_connection_error`).
fn is_peers_doing(reason: &io::Error) -> bool {
    matches!(
        reason.raw_os_error(),
        Some(
            libc::ECONNRESET
                | libc::EPIPE
                | libc::ENOTCONN
                | libc::ETIMEDOUT
                | libc::ECONNREFUSED
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
        )
    )
}

fn local_address(io: &Io, port: &Port) -> Address {
    io.with_socket(|socket| address_of(socket, port))
}

fn address_of(socket: &Socket, port: &Port) -> Address {
    match socket2::SockRef::from(socket).local_addr().map(|address| address.as_socket()) {
        Ok(Some(inet)) => Address::Inet(inet),
        _ => own_address(port),
    }
}

fn own_address(port: &Port) -> Address {
    match &port.listen.address {
        crate::net::listen::Address::Inet(address) => Address::Inet(*address),
        crate::net::listen::Address::Unix(path) => Address::Unix(path.clone()),
    }
}

/// A host as nginx would look it up: lower case, without port and last dot; none where it is no host.
pub fn valid_host(name: &[u8]) -> Option<Vec<u8>> {
    let literal = name.first() == Some(&b'[');
    let (mut host, after) = match literal {
        true => name.split_at(memchr::memchr(b']', name)? + 1),
        false => name.split_at(memchr::memchr(b':', name).unwrap_or(name.len())),
    };
    let port = match after {
        [] => after,
        [b':', port @ ..] => port,
        _ => return None,
    };
    let number = port.iter().try_fold(0u32, |n, c| {
        c.is_ascii_digit().then(|| n * 10 + u32::from(c - b'0')).filter(|n| *n <= 65535)
    });
    number?;
    let inner = if literal { &host[1..host.len() - 1] } else { host };
    let allowed = |c: &u8| {
        c.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(c) || *c == if literal { b':' } else { b'%' }
    };
    if !inner.iter().all(allowed) || memchr::memmem::find(host, b"..").is_some() {
        return None;
    }
    host = host.strip_suffix(b".").unwrap_or(host);
    (!host.is_empty()).then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let host = |name: &str| valid_host(name.as_bytes()).map(|h| String::from_utf8(h).unwrap());
        assert_eq!(host("Example.COM.").as_deref(), Some("example.com"));
        assert_eq!(host("a:80").as_deref(), Some("a"));
        assert_eq!(host("[::1]:80").as_deref(), Some("[::1]"));
        for bad in ["", ".", "a..b", "a/b", "a b", "a:x", "a:65536", "[::1", "[::1]x", "a\0b"] {
            assert_eq!(host(bad), None, "{bad:?}");
        }
    }
}
