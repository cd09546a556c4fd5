//! The life of a session: what comes before the phases, the phases, and the end.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::task::{Poll, Waker, ready};

use super::Stream;
use super::module::{BAD_REQUEST, Content, Handler, INTERNAL_ERROR, OK, Verdict};
use super::modules::pass::Passed;
use super::session::Session;
use crate::log::Level;
use crate::net::{Address, Buffer, Deadline, Io, Socket, proxy_protocol};
use crate::net::{peek::Peeked, proxied::NoHeader};
use crate::process::Slot;
use crate::process::memory::boxed;

/// Serves a connection that was accepted on port number `port` of `stream.ports`, as a task of this thread. `slot` is
/// dropped when the connection is closed.
pub fn accepted(
    stream: &'static Stream,
    port: usize,
    socket: Socket,
    peer: Address,
    number: u64,
    slot: Slot,
) {
    let io = Io::Plain(socket);
    passed(stream, port, Passed { io, client: peer, number, slot: Some(slot), passes: 0, tls: None });
}

/// The same for a connection that `pass` gives to this port.
pub fn passed(stream: &'static Stream, port: usize, connection: Passed) {
    let Some(port) = stream.ports.get(port) else { return };
    let Passed { io, client, number, slot, passes, tls } = connection;
    let mut session = Box::new(Session::new(stream, port, io, client, number));
    session.slot = slot;
    session.passes = passes;
    session.tls = tls;
    tokio::task::spawn_local(serve(session));
}

/// Serves a session to its end, its log lines included. The future is small, and little is between it and a pump, since
/// each event has the processor read all of that anew.
pub(super) async fn serve(mut s: Box<Session>) {
    let status = match boxed(|| find_content(&mut s)).await {
        Content::Served(status) => status,
        Content::Pump(mut pump) => {
            let end = poll_fn(|cx| pump.poll(&s, cx)).await;
            pump.finish(&s, end)
        }
    };
    finish(&mut s, status);
}

/// Runs the phases up to the content.
async fn find_content(s: &mut Session) -> Content {
    s.note(format_args!("{}client {} connected to {}", s.datagram_word(), s.client, s.port.listen.address));
    run(s).await.unwrap_or_else(Content::Served)
}

fn finish(s: &mut Session, status: u16) {
    s.status = status;
    if !s.passed {
        for handler in &s.server.handlers.log {
            handler(s);
        }
    }
    s.limits.clear();
    if let Some(io) = s.io.take().filter(Io::is_tls) {
        // close_notify, where there is room for it; nobody waits for an answer.
        let _ = io.poll_shutdown(&mut std::task::Context::from_waker(Waker::noop()));
    }
}

/// Runs the phases; a status where one of them ends the session.
async fn run(s: &mut Session) -> Result<Content, u16> {
    if s.addr.proxy_protocol {
        read_proxy_protocol(s).await?;
    }
    s.action.set(Some("initializing session"));
    let handlers = &s.server.handlers;
    phase(s, &handlers.post_accept)?;
    phase(s, &handlers.preaccess)?;
    phase(s, &handlers.access)?;
    if s.addr.ssl {
        for handler in &s.server.handlers.ssl {
            match handler(s).await {
                Verdict::End(status) => return Err(status),
                Verdict::Done => break,
                Verdict::Next | Verdict::More => {}
            }
        }
    }
    if !s.server.handlers.preread.is_empty() {
        preread(s).await?;
    }
    s.action.set(None);
    if s.server.srv.core.tcp_nodelay.then(|| s.no_delay()).is_some_and(|set| set.is_err()) {
        return Err(INTERNAL_ERROR);
    }
    match s.server.handlers.content {
        Some(content) => Ok(content(s).await),
        None => Err(INTERNAL_ERROR),
    }
}

fn phase(s: &mut Session, handlers: &[Handler]) -> Result<(), u16> {
    for handler in handlers {
        match handler(s) {
            Verdict::Next | Verdict::More => {}
            Verdict::Done => break,
            Verdict::End(status) => return Err(status),
        }
    }
    Ok(())
}

/// Reads the header that `listen ... proxy_protocol` promises.
async fn read_proxy_protocol(s: &mut Session) -> Result<(), u16> {
    s.action.set(Some("reading PROXY protocol"));
    let Some(socket) = s.io.as_ref().and_then(Io::plain) else { return Err(INTERNAL_ERROR) };
    let deadline = Deadline::never();
    deadline.set(*s.server.srv.core.proxy_protocol_timeout);
    match deadline.limit(socket.read_proxy_protocol()).await {
        Some(Ok(header)) => {
            s.proxy_protocol = header.map(Box::new);
            Ok(())
        }
        Some(Err(NoHeader::Wrong(proxy_protocol::Error::Short))) => Err(BAD_REQUEST),
        Some(Err(NoHeader::Wrong(error))) => {
            s.error(Level::Error, format_args!("{error}"));
            Err(BAD_REQUEST)
        }
        Some(Err(NoHeader::Failed(reason))) => {
            s.connection_error(Level::Info, &reason, "recv() failed");
            Err(OK)
        }
        None => {
            let reason = io::Error::from_raw_os_error(libc::ETIMEDOUT);
            s.errno(Level::Info, &reason, format_args!("client timed out"));
            Err(OK)
        }
    }
}

/// Shows the client's first bytes to the handlers of the preread phase.
async fn preread(s: &mut Session) -> Result<(), u16> {
    s.action.set(Some("prereading client data"));
    let server = s.server;
    let mut handlers = server.handlers.preread.iter();
    let Some(mut handler) = handlers.next() else { return Ok(()) };
    if let Some(first) = s.udp.as_ref().map(|udp| udp.first.clone()) {
        return preread_datagram(s, &first);
    }
    let mut verdict = handler(s, &[]);
    if verdict == Verdict::Next && handlers.len() == 0 {
        return Ok(());
    }
    let core = &server.srv.core;
    s.deadline.set(*core.preread_timeout);
    let size = *core.preread_buffer_size;
    let mut buffer = Buffer::default();
    loop {
        match verdict {
            Verdict::Done => break,
            Verdict::End(status) => return Err(status),
            Verdict::Next => match handlers.next() {
                Some(next) => {
                    handler = next;
                    verdict = handler(s, buffer.bytes());
                }
                None => break,
            },
            Verdict::More if buffer.len() == size => {
                s.error(Level::Error, format_args!("preread buffer full"));
                return Err(BAD_REQUEST);
            }
            Verdict::More => {
                let end = more_bytes(s, &mut buffer, size).await?;
                verdict = handler(s, buffer.bytes());
                if verdict == Verdict::More && end && buffer.len() < size {
                    return Err(OK);
                }
            }
        }
    }
    s.deadline.clear();
    if reads_ahead(s) {
        s.read_ahead.set(buffer);
    }
    Ok(())
}

/// Shows a datagram to the handlers of the preread phase: there will be no more of it.
fn preread_datagram(s: &mut Session, first: &[u8]) -> Result<(), u16> {
    for handler in &s.server.handlers.preread {
        match handler(s, first) {
            Verdict::Next => {}
            Verdict::Done => break,
            Verdict::End(status) => return Err(status),
            Verdict::More => {
                s.error(Level::Error, format_args!("preread buffer full"));
                return Err(BAD_REQUEST);
            }
        }
    }
    Ok(())
}

/// Whether the first bytes are read, not peeked at: under TLS, and where whatever serves the session takes them.
fn reads_ahead(s: &Session) -> bool {
    s.stream.reads_ahead || s.io.as_ref().is_some_and(Io::is_tls)
}

/// Waits for more bytes than `buffer` has, up to `size`. Peeks at them where they have to stay for whoever gets the
/// connection. True: no more will come.
async fn more_bytes(s: &Session, buffer: &mut Buffer, size: usize) -> Result<bool, u16> {
    let Some(io) = &s.io else { return Err(INTERNAL_ERROR) };
    let (reads, seen) = (reads_ahead(s), buffer.len());
    let work = poll_fn(|cx| {
        // Nobody who waits owns a buffer.
        ready!(io.poll_worth_reading(cx))?;
        if buffer.capacity() == 0 {
            *buffer = Buffer::with_capacity(size);
        }
        let peeked = match io.plain().filter(|_| !reads) {
            Some(socket) => {
                buffer.truncate(0);
                ready!(socket.poll_peek(cx, &mut buffer.spare()[..size], seen))?
            }
            None => {
                let len = ready!(io.poll_read(cx, &mut buffer.spare()[..size - seen]))?;
                Peeked { len, end: len == 0 }
            }
        };
        buffer.filled(peeked.len);
        Poll::Ready(Ok::<bool, io::Error>(peeked.end))
    });
    match s.deadline.limit(work).await {
        Some(Err(reason)) if !io.is_tls() => {
            s.connection_error(Level::Info, &reason, "recv() failed");
            Err(OK)
        }
        Some(Ok(end)) if !(buffer.is_empty() || (end && reads)) => Ok(end),
        // nginx says nothing of a preread that takes too long.
        _ => Err(OK),
    }
}

// === closing all sessions of a thread ===

/// The tasks of proxied sessions.
#[derive(Default)]
struct Waiting {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

thread_local! {
    static CLOSING: Cell<bool> = const { Cell::new(false) };
    static WAITING: RefCell<Waiting> = RefCell::default();
}

/// Ends all proxied sessions of this thread, as `worker_shutdown_timeout` does. New ones end at once. True: they will.
pub fn close_all() -> bool {
    CLOSING.set(true);
    WAITING.with(|waiting| {
        waiting.borrow_mut().wakers.iter_mut().filter_map(Option::take).for_each(Waker::wake);
    });
    true
}

/// A session's place among those that [`close_all`] wakes.
#[derive(Default)]
pub(super) struct Watch(Option<usize>);

impl Watch {
    /// Whether the session is to end; else its task will be woken then.
    pub(super) fn closing(&mut self, waker: &Waker) -> bool {
        if self.0.is_none() {
            let place = WAITING.with(|waiting| {
                let mut waiting = waiting.borrow_mut();
                let place = waiting.free.pop().unwrap_or(waiting.wakers.len());
                match waiting.wakers.get_mut(place) {
                    Some(free) => *free = Some(waker.clone()),
                    None => waiting.wakers.push(Some(waker.clone())),
                }
                place
            });
            self.0 = Some(place);
        }
        CLOSING.get()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(place) = self.0 else { return };
        // Past the thread's end there is nobody to wake.
        let _ = WAITING.try_with(|waiting| {
            let mut waiting = waiting.borrow_mut();
            if let Some(waker) = waiting.wakers.get_mut(place) {
                *waker = None;
            }
            waiting.free.push(place);
        });
    }
}
