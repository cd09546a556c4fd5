//! From an accepted socket to a connection: PROXY protocol, TLS, and which protocol is spoken on top.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};

use super::connection::{Connection, Incoming};
use super::listen::Addr;
use super::request::Request;
use super::{Http, http2, parse, serve};
use crate::log::{self, Level};
use crate::net::proxied::NoHeader;
use crate::net::{Address, Deadline, Io, Socket, proxy_protocol};
use crate::process::Slot;
use crate::process::memory::boxed;
use crate::tls::{self, Asking, CertifiedKey, Choice, Peer};
use crate::value::Scope;
use crate::value::certificates::Certificates;

/// Serves an accepted socket until it closes. `port` is its place in [`Http::ports`].
pub fn accepted(http: &'static Http, port: usize, socket: Socket, peer: Address, number: u64, slot: Slot) {
    passed(http, port, Io::Plain(socket), peer, number, slot);
}

/// The same for a connection that stream passes here, and that may speak TLS already.
pub fn passed(http: &'static Http, port: usize, io: Io, peer: Address, number: u64, slot: Slot) {
    let Some(port) = http.ports.get(port) else { return };
    let start_ms = crate::net::clock::now();
    let local = (!port.specific.is_empty()).then(|| io.with_socket(Socket::local_address));
    let addr = local.as_ref().map_or(&port.addr, |local| port.addr_of(local));
    let incoming = Incoming {
        number,
        client: peer,
        port,
        addr,
        local,
        proxy_protocol: None,
        slot: Some(slot),
        start_ms,
    };
    match io {
        Io::Plain(socket) if addr.ssl || addr.proxy_protocol => shake_hands(http, incoming, socket),
        io => begin(Connection::new(incoming, io, None, http), http),
    }
}

/// Serves a connection that has handshakes before it. These have a room of their own, which is gone when they are done:
/// then the same task serves the connection at once, not after all that other tasks have to do by then.
fn shake_hands(http: &'static Http, incoming: Incoming, socket: Socket) {
    let hands = boxed(|| handshakes(http, incoming, socket));
    tokio::task::spawn_local(async move {
        let Some(conn) = hands.await else { return };
        match speaks(&conn, http) {
            Speaks::Http2 => boxed(|| http2::serve(conn, http)).await,
            Speaks::Either => boxed(|| either(conn, http)).await,
            Speaks::Http1 => serve::http1(conn, http).await,
        }
    });
}

/// Serves a connection that has no handshakes before it, in a task that has room for no more than it needs.
fn begin(conn: Rc<Connection>, http: &'static Http) {
    match speaks(&conn, http) {
        Speaks::Http2 => drop(tokio::task::spawn_local(http2::serve(conn, http))),
        Speaks::Either => drop(tokio::task::spawn_local(either(conn, http))),
        Speaks::Http1 => drop(tokio::task::spawn_local(serve::http1(conn, http))),
    }
}

/// What a connection speaks.
enum Speaks {
    /// Its handshake agreed on HTTP/2.
    Http2,
    Http1,
    /// Its first bytes will tell: it is plain, and HTTP/2 is allowed.
    Either,
}

fn speaks(conn: &Connection, http: &'static Http) -> Speaks {
    match conn.io.tls_info() {
        Some(info) if info.alpn.as_deref() == Some(b"h2") => Speaks::Http2,
        None if http2::enabled(conn, http) => Speaks::Either,
        _ => Speaks::Http1,
    }
}

/// Serves a plain connection over what its first bytes are: HTTP/2's preface, or a request of HTTP/1.
async fn either(conn: Rc<Connection>, http: &'static Http) {
    if http2::has_preface(&conn, http).await {
        Box::pin(http2::serve(conn, http)).await;
    } else {
        serve::http1(conn, http).await;
    }
}

/// The connection, once its handshakes are done. What went wrong is in the log.
async fn handshakes(http: &'static Http, mut incoming: Incoming, socket: Socket) -> Option<Rc<Connection>> {
    let server = &http.servers[incoming.addr.default];
    let deadline = Deadline::never();
    deadline.set(*server.srv.core.client_header_timeout);
    if incoming.addr.proxy_protocol {
        match deadline.limit(socket.read_proxy_protocol()).await {
            Some(Ok(header)) => incoming.proxy_protocol = header.map(Box::new),
            Some(Err(NoHeader::Wrong(proxy_protocol::Error::Short))) => return None,
            Some(Err(NoHeader::Wrong(error))) => {
                return refuse(http, &incoming, Level::Error, "reading PROXY protocol", &error.to_string());
            }
            Some(Err(NoHeader::Failed(error))) => {
                let (text, level) = tls::io_failure("recv()", &error, Peer::Client);
                return refuse(http, &incoming, level.into(), "reading PROXY protocol", &text);
            }
            None => return timed_out(http, &incoming, "reading PROXY protocol"),
        }
    }
    if !incoming.addr.ssl {
        return Some(Connection::new(incoming, Io::Plain(socket), None, http));
    }
    match deadline.limit(first_byte(&socket)).await {
        Some(Ok(Some(byte))) if tls::looks_like_tls(byte) => {}
        Some(Ok(Some(_))) => {
            let conn = Connection::new(incoming, Io::Plain(socket), None, http);
            serve::plain_on_tls(conn, http).await;
            return None;
        }
        Some(Ok(None)) => {
            return refuse(http, &incoming, Level::Info, "SSL handshaking", "client closed connection");
        }
        Some(Err(error)) => {
            let (text, level) = tls::io_failure("recv()", &error, Peer::Client);
            return refuse(http, &incoming, level.into(), "SSL handshaking", &text);
        }
        None => return timed_out(http, &incoming, "SSL handshaking"),
    }
    let mut chosen = None;
    let addr = incoming.addr;
    let accept = tls::accept(socket, |asking| {
        chosen = asking.name().and_then(|name| named(http, addr, name));
        choice(http, &incoming, chosen, asking)
    });
    let done = deadline.limit(accept).await;
    match done {
        Some(Ok(mut stream)) => {
            let asked = deadline.limit(stream.check_status(|| status_log(http, &incoming, chosen))).await;
            if asked.is_none() {
                return timed_out(http, &incoming, "SSL handshaking");
            }
            stream.io().set_nodelay().unwrap_or(());
            Some(Connection::new(incoming, Io::tls(stream), chosen, http))
        }
        Some(Err(e)) => {
            refuse(http, &incoming, e.level(Peer::Client).into(), "SSL handshaking", &e.to_string())
        }
        None => timed_out(http, &incoming, "SSL handshaking"),
    }
}

/// The server that a name in a handshake chooses.
fn named(http: &'static Http, addr: &Addr, name: &str) -> Option<usize> {
    let (name, _) = parse::validate_host(name.as_bytes()).ok()?;
    let names = |server: usize| http.servers.get(server).map_or(&[][..], |s| &s.names[..]);
    addr.names.find(&name, &Scope::default(), names)
}

/// What the server chosen by name shows, or the default one: a server without certificates borrows the default's.
fn choice(
    http: &'static Http,
    incoming: &Incoming,
    chosen: Option<usize>,
    asking: &Asking<'_, Socket>,
) -> Choice {
    let addr = incoming.addr;
    let default = &http.servers[addr.default];
    let server = chosen.map_or(default, |index| &http.servers[index]);
    if *server.srv.ssl.settings.reject_handshake {
        return Choice::Reject;
    }
    let http2 = addr.http2 || *server.srv.v2.enable;
    let Some(loaded) = server.tls().or_else(|| default.tls()) else { return Choice::Reject };
    let Some(certificates) = loaded.varying() else { return Choice::Serve(loaded.server(http2).clone()) };
    let server = loaded.server(http2);
    match shown(http, incoming, chosen, asking, server, certificates) {
        Ok(keys) => Choice::Serve(server.showing(keys)),
        Err(error) => {
            tell(http, incoming, Level::Error, "SSL handshaking", &error);
            Choice::NoCertificate
        }
    }
}

/// Loads certificates whose names have variables: for these there is a request, though none was made yet.
fn shown(
    http: &'static Http,
    incoming: &Incoming,
    chosen: Option<usize>,
    asking: &Asking<'_, Socket>,
    server: &tls::Server,
    certificates: &Certificates,
) -> Result<Vec<CertifiedKey>, String> {
    let socket = asking.io().duplicate().map_err(|e| format!("dup() failed {e}"))?;
    let incoming = Incoming {
        client: incoming.client.clone(),
        local: incoming.local.clone(),
        proxy_protocol: incoming.proxy_protocol.clone(),
        slot: None,
        ..*incoming
    };
    let info = Arc::new(asking.info(server));
    let conn = Connection::with_tls(incoming, Io::Plain(socket), Some(info), chosen, http);
    certificates.load(&Request::new(conn, http)).map_err(|e| e.to_string())
}

/// The first byte that came, left where it is; none at the client's end.
async fn first_byte(socket: &Socket) -> io::Result<Option<u8>> {
    std::future::poll_fn(|cx| {
        loop {
            match socket.peek_byte() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(socket.poll_read_ready(cx))?,
                done => return Poll::Ready(done),
            }
        }
    })
    .await
}

/// Where questions about a client's certificate are logged: the server chosen by name has a log of its own.
fn status_log(http: &'static Http, incoming: &Incoming, chosen: Option<usize>) -> tls::ocsp::Log {
    let server = &http.servers[chosen.unwrap_or(incoming.addr.default)];
    let (client, listen) = (incoming.client.host(), incoming.port.text());
    tls::ocsp::Log {
        log: server.root.error_log().clone(),
        connection: Some(incoming.number),
        context: format!(" while SSL handshaking, client: {client}, server: {listen}"),
    }
}

fn tell(http: &'static Http, incoming: &Incoming, level: Level, action: &str, text: &str) {
    let log = http.servers[incoming.addr.default].root.error_log();
    let listen = incoming.port.text();
    let tail = format!(" while {action}, client: {}, server: {listen}", incoming.client.host());
    log::error_context(
        log,
        level,
        Some(incoming.number),
        None,
        format_args!("{text}"),
        format_args!("{tail}"),
    );
}

/// Tells why there will be no connection.
fn refuse(
    http: &'static Http,
    incoming: &Incoming,
    level: Level,
    action: &str,
    text: &str,
) -> Option<Rc<Connection>> {
    tell(http, incoming, level, action, text);
    None
}

fn timed_out(http: &'static Http, incoming: &Incoming, action: &str) -> Option<Rc<Connection>> {
    let reason = io::Error::from_raw_os_error(libc::ETIMEDOUT);
    let log = http.servers[incoming.addr.default].root.error_log();
    let tail =
        format!(" while {action}, client: {}, server: {}", incoming.client.host(), incoming.port.text());
    let text = format_args!("client timed out");
    log::error_context(log, Level::Info, Some(incoming.number), Some(&reason), text, format_args!("{tail}"));
    None
}

/// Serves an accepted socket that no worker counts.
#[cfg(test)]
pub fn serve_for_test(http: &'static Http, socket: Socket, client: Address, number: u64) {
    let Some(port) = http.ports.first() else { return };
    let incoming = Incoming {
        number,
        client,
        port,
        addr: &port.addr,
        local: None,
        proxy_protocol: None,
        slot: None,
        start_ms: crate::net::clock::now(),
    };
    if incoming.addr.ssl {
        shake_hands(http, incoming, socket);
    } else {
        begin(Connection::new(incoming, Io::Plain(socket), None, http), http);
    }
}
