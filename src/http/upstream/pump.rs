//! The body on its way: read from the upstream, ahead of the client as far as the settings let, and written out.

mod piped;

use std::task::{Context, Poll, ready};

use super::converse::log_io;
use super::exchange::Exchange;
use super::spill::Queue;
use super::{Protocol, ResponseFraming};
use crate::http::module::Verdict;
use crate::http::output::Gone;
use crate::http::request::Request;
use crate::log::Level;
use crate::net::splice::Pipe;
use crate::net::{Buffer, Deadline, clock, turn};
use crate::process::memory::rare;

/// Bodies with as much to come go through a pipe, where sockets allow.
const SPLICE: u64 = 64 << 10;
/// Bytes read at a time.
const READ: usize = 16 << 10;
/// The same, once much is known to come.
const READ_LONG: usize = 64 << 10;
/// Milliseconds that a client may keep the upstream waiting before the response is read ahead of it.
const PATIENCE: u64 = 500;
/// Reads and writes after which others get their turn, however little they moved.
const TURN: u32 = 32;

/// How the upstream's side ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Open,
    Complete,
    Broken,
    /// What came cannot be understood.
    Malformed,
}

/// Why the pump stopped early.
enum Stop {
    /// The client is gone, which was noticed by writing to it.
    Lost,
    /// The client closed its connection.
    Closed,
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Stop {
        Stop::Lost
    }
}

struct Pump {
    queue: Queue,
    pipe: Option<Pipe>,
    source: Source,
    /// Bytes to be held in memory.
    room: usize,
    /// `*_limit_rate`: bytes a second, and the seconds' beginning.
    rate: u64,
    since: u64,
    pause: Option<Deadline>,
    /// Bytes of body read.
    read: u64,
    /// Waits for the upstream since its last bytes.
    waiting: bool,
    /// Since when the client does not take what is held for it.
    blocked: Option<u64>,
    /// Milliseconds it did not, in all.
    blocked_for: u64,
    /// Nothing is sent to the client any more: the body is read only to be stored.
    unsent: bool,
    /// Nothing is sent before the body is complete.
    whole: bool,
    /// The time that a stored response bears.
    time: Option<i64>,
}

impl<P: Protocol> Exchange<P> {
    /// Passes the body on. One that is stored comes with the time it bears.
    pub(super) async fn pump(&mut self, req: &mut Request, stored: Option<Option<i64>>) -> Verdict {
        if stored.is_none()
            && !self.input.is_empty()
            && self.protocol.response().plain() == Some(self.input.len() as u64)
        {
            return self.pass_whole(req).await;
        }
        rare(|| self.pump_pieces(req, stored)).await
    }

    async fn pump_pieces(&mut self, req: &mut Request, stored: Option<Option<i64>>) -> Verdict {
        let rate = match (self.buffering, &*self.settings.limit_rate) {
            (true, Some(template)) => {
                crate::conf::units::size(&template.eval(req)).map_or(0, |size| size as u64)
            }
            _ => 0,
        };
        let (number, size) = *self.settings.buffers;
        let queue = match stored {
            None => Queue::default(),
            Some(_) => match Queue::storing(req, &self.settings.temp_path) {
                Ok(queue) => queue,
                Err(_) => return self.lost(req),
            },
        };
        let mut pump = Pump {
            queue,
            pipe: None,
            source: Source::Open,
            room: if self.buffering { number.saturating_mul(size) } else { 1 },
            rate,
            since: clock::now(),
            pause: None,
            read: 0,
            waiting: false,
            blocked: None,
            blocked_for: 0,
            unsent: req.response.header_only,
            // After a switch of protocols that nobody asked for, what comes may be no body at all.
            whole: self.head.status == 101,
            time: stored.flatten(),
        };
        let first = std::mem::take(&mut self.input);
        req.action.set("reading upstream");
        if !first.is_empty() || self.protocol.response().plain().is_none() {
            self.take(req, &mut pump, first);
        }
        let done = match pump.source {
            // The whole response came at once.
            Source::Complete => self.send_rest(req, &mut pump.queue).await.map_err(Stop::from),
            _ => std::future::poll_fn(|cx| self.poll_pump(req, &mut pump, cx)).await,
        };
        if done.is_err() && pump.queue.stores() && pump.source == Source::Open {
            (pump.unsent, pump.waiting) = (true, false);
            pump.queue.clear();
            // Its end is no matter of the client's.
            let _ = std::future::poll_fn(|cx| self.poll_pump(req, &mut pump, cx)).await;
        }
        match done {
            Err(Stop::Lost) => self.lost(req),
            Err(Stop::Closed) => self.gone(req),
            Ok(()) if pump.source == Source::Malformed => self.lost(req),
            Ok(()) if pump.source == Source::Broken => {
                self.close(req);
                req.keepalive = false;
                // What is there is sent, so that the client sees where it ends.
                let _ = req.flush_out().await;
                Verdict::Close
            }
            Ok(()) => {
                self.trailers(req);
                match req.finish().await {
                    Ok(()) => Verdict::Done,
                    Err(_) => self.lost(req),
                }
            }
        }
    }

    /// The commonest of all: the whole body, and nothing else, came with the head.
    async fn pass_whole(&mut self, req: &mut Request) -> Verdict {
        let body = std::mem::take(&mut self.input);
        let len = body.len() as u64;
        if let Some(state) = req.upstream_states.last_mut() {
            state.response_length = len;
        }
        self.protocol.response_mut().passed(len);
        match self.protocol.response().keeps() && !self.head.close {
            true => self.keep(req),
            false => self.close(req),
        }
        if req.send(body.bytes()).await.is_err() {
            return self.lost(req);
        }
        self.trailers(req);
        match req.finish().await {
            Ok(()) => Verdict::Done,
            Err(_) => self.lost(req),
        }
    }

    async fn send_rest(&mut self, req: &mut Request, queue: &mut Queue) -> Result<(), Gone> {
        let mut sent = 0;
        loop {
            let bytes = queue.front().map_err(|_| Gone)?;
            if bytes.is_empty() {
                return Ok(());
            }
            req.send(bytes).await?;
            let n = bytes.len();
            queue.consume(n);
            sent += n;
            if sent >= turn::BYTES {
                sent = 0;
                turn::next().await;
            }
        }
    }

    fn trailers(&self, req: &mut Request) {
        if *self.settings.pass_trailers {
            let hidden = &**self.settings.hidden;
            for (name, value) in req.upstream_trailers.iter() {
                if !hidden.contains(crate::http::headers::hash(name), name) {
                    req.response.trailers.push(name, value);
                }
            }
        }
    }

    /// Takes a piece that came into the queue, without its framing.
    fn take(&mut self, req: &mut Request, pump: &mut Pump, mut piece: Buffer) {
        let len = piece.len() as u64;
        pump.read += len;
        if let Some(state) = req.upstream_states.last_mut() {
            state.response_length = pump.read;
        }
        match self.protocol.response_mut().decode(req, piece.bytes_mut()) {
            Ok(decoded) => {
                piece.truncate(decoded.data.end);
                piece.consume(decoded.data.start);
                if !pump.queue.stores() {
                    pump.queue.push(piece);
                } else if pump.queue.store(req, piece, !pump.unsent, pump.room).is_err() {
                    return self.end(req, pump, Source::Broken);
                }
                if decoded.end {
                    let cut = self.protocol.response().is_cut();
                    self.end(req, pump, if cut { Source::Broken } else { Source::Complete });
                }
            }
            Err(_) => self.end(req, pump, Source::Malformed),
        }
    }

    /// Nothing more is read: the connection goes to others, or away.
    fn end(&mut self, req: &mut Request, pump: &mut Pump, how: Source) {
        pump.source = how;
        let whole = |n: u64| self.head.length.is_none_or(|length| length == n);
        if how == Source::Complete
            && pump.queue.stores()
            && self.head.status == 200
            && whole(pump.queue.spilled())
        {
            let time = pump.time;
            pump.queue.place(|file| self.store(req, file, time));
        }
        if how == Source::Complete && self.protocol.response().keeps() && !self.head.close {
            self.keep(req);
        } else {
            self.close(req);
        }
    }

    fn poll_pump(
        &mut self,
        req: &mut Request,
        pump: &mut Pump,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Stop>> {
        let end = pump.read + turn::BYTES as u64;
        for _ in 0..TURN {
            let written = match pump.unsent || pump.whole && pump.source != Source::Complete {
                true => Poll::Ready(()),
                false => self.poll_write(req, pump, cx)?,
            };
            if written.is_ready() && pump.source != Source::Open {
                return Poll::Ready(Ok(()));
            }
            if pump.source == Source::Open && pump.read >= end {
                break;
            }
            if pump.source != Source::Open || self.poll_source(req, pump, cx).is_pending() {
                return self.poll_idle(req, pump, cx, written.is_ready());
            }
        }
        turn::over(cx);
        Poll::Pending
    }

    /// Nothing can be done now. What is held back for the client goes out, if it is time.
    fn poll_idle(
        &mut self,
        req: &mut Request,
        pump: &mut Pump,
        cx: &mut Context<'_>,
        written: bool,
    ) -> Poll<Result<(), Stop>> {
        if pump.unsent {
            return Poll::Pending;
        }
        if written {
            let held = req.held();
            let due = held > 0 && (!self.buffering || held >= *req.conf.core.postpone_output);
            if due && let Poll::Ready(Err(gone)) = req.poll_flush_out(cx) {
                return Poll::Ready(Err(gone.into()));
            }
            if req.is_http1() && !req.conn.io.is_flushed() {
                // Records that the client had no room for. Should it be gone, the next write tells.
                let _ = req.conn.io.poll_flush(cx);
            }
        }
        if pump.source == Source::Open && self.watch.poll_gone(req, cx, true).is_ready() {
            return Poll::Ready(Err(Stop::Closed));
        }
        Poll::Pending
    }

    /// Writes what waits; ready once nothing does.
    fn poll_write(
        &mut self,
        req: &mut Request,
        pump: &mut Pump,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Gone>> {
        if let Some(pipe) = &mut pump.pipe {
            ready!(piped::poll_drain(req, pipe, cx))?;
        }
        let mut sent = 0;
        loop {
            let bytes = match pump.queue.front() {
                Ok([]) => break,
                Ok(_) if sent >= turn::BYTES => {
                    turn::over(cx);
                    return Poll::Pending;
                }
                Ok(bytes) => bytes,
                Err(e) => {
                    req.log(Level::Crit, Some(&e), format_args!("pread() failed"));
                    return Poll::Ready(Err(Gone));
                }
            };
            let n = ready!(req.poll_send(cx, bytes))?;
            pump.queue.consume(n);
            sent += n;
        }
        if !self.buffering && req.held() > 0 {
            return req.poll_flush_out(cx);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads from the upstream; pending where nothing comes, or there is no room.
    fn poll_source(&mut self, req: &mut Request, pump: &mut Pump, cx: &mut Context<'_>) -> Poll<()> {
        if !pump.poll_patience(cx) || !self.make_room(req, pump) {
            if pump.waiting {
                pump.waiting = false;
                self.deadline.clear();
            }
            return if pump.source == Source::Open { Poll::Pending } else { Poll::Ready(()) };
        }
        ready!(poll_rate(pump, cx));
        let read = match self.poll_splice(req, pump, cx) {
            Some(read) => read,
            None => self.poll_copy(req, pump, cx),
        };
        match read {
            Poll::Ready(()) => {
                pump.waiting = false;
                Poll::Ready(())
            }
            Poll::Pending => self.poll_late(req, pump, cx),
        }
    }

    /// Whether more may be read; what waits may go to a file for that.
    fn make_room(&mut self, req: &mut Request, pump: &mut Pump) -> bool {
        if !self.buffering {
            return pump.queue.is_empty() && req.held() == 0 && pump.pipe.as_ref().is_none_or(Pipe::is_empty);
        }
        if pump.queue.stores() || pump.queue.held() < pump.room || pump.queue.len() < 2 {
            return true;
        }
        if pump.queue.spilled() >= *self.settings.max_temp_file_size as u64 {
            return false;
        }
        if pump.queue.spill(req, &self.settings.temp_path).is_err() {
            self.end(req, pump, Source::Broken);
            return false;
        }
        true
    }

    /// The upstream is silent: for too long?
    fn poll_late(&mut self, req: &mut Request, pump: &mut Pump, cx: &mut Context<'_>) -> Poll<()> {
        if !pump.waiting {
            pump.waiting = true;
            self.deadline.set(*self.settings.read_timeout);
        }
        ready!(self.deadline.poll_expired(cx));
        let reason = std::io::Error::from_raw_os_error(libc::ETIMEDOUT);
        req.log(Level::Error, Some(&reason), format_args!("upstream timed out"));
        self.end(req, pump, Source::Broken);
        Poll::Ready(())
    }

    fn poll_copy(&mut self, req: &mut Request, pump: &mut Pump, cx: &mut Context<'_>) -> Poll<()> {
        let Some(link) = &self.link else {
            pump.source = Source::Broken;
            return Poll::Ready(());
        };
        let long = pump.read > READ as u64 && self.buffering;
        let mut size = if long { READ_LONG } else { READ };
        if pump.rate > 0 {
            size = size.min(usize::try_from(allowed(pump)).unwrap_or(size)).max(1);
        }
        let mut piece = Buffer::with_capacity(size);
        let room = piece.spare();
        let room = if pump.rate > 0 { &mut room[..size] } else { room };
        let n = match ready!(link.io().poll_read(cx, room)) {
            Ok(n) => n,
            Err(e) => {
                log_io(req, &e, "readv()", "SSL_read()");
                self.end(req, pump, Source::Broken);
                return Poll::Ready(());
            }
        };
        if n == 0 {
            let complete = self.protocol.response().complete_at_end();
            if !complete {
                req.log(Level::Error, None, format_args!("upstream prematurely closed connection"));
            }
            self.head.close = true;
            self.end(req, pump, if complete { Source::Complete } else { Source::Broken });
            return Poll::Ready(());
        }
        piece.filled(n);
        if let Some(state) = req.upstream_states.last_mut() {
            state.bytes_received += n as u64;
        }
        self.take(req, pump, piece);
        Poll::Ready(())
    }
}

impl Pump {
    /// Whether to read while the pipe, or the room in memory, is full: a slow client shall not hold the upstream for
    /// long, but for one that is only busy at times, what comes is best left in the sockets.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> bool {
        let full = self.pipe.as_ref().is_some_and(|pipe| !pipe.is_empty()) || self.queue.held() >= self.room;
        if !full {
            if let Some(since) = self.blocked.take() {
                self.blocked_for += clock::now().saturating_sub(since);
            }
            return true;
        }
        let now = clock::now();
        let since = *self.blocked.get_or_insert(now);
        let waited = self.blocked_for + now.saturating_sub(since);
        if waited >= PATIENCE {
            return true;
        }
        let pause = self.pause.get_or_insert_with(Deadline::never);
        pause.set(PATIENCE - waited);
        pause.poll_expired(cx).is_ready()
    }
}

/// Bytes that `*_limit_rate` lets be read now; 0 where it is time to pause.
fn allowed(pump: &Pump) -> u64 {
    let seconds = clock::now().saturating_sub(pump.since) / 1000 + 1;
    pump.rate.saturating_mul(seconds).saturating_sub(pump.read)
}

fn poll_rate(pump: &mut Pump, cx: &mut Context<'_>) -> Poll<()> {
    if pump.rate == 0 || allowed(pump) > 0 {
        return Poll::Ready(());
    }
    let over = pump.read
        - pump.rate * (clock::now().saturating_sub(pump.since) / 1000 + 1).min(pump.read / pump.rate);
    let pause = pump.pause.get_or_insert_with(Deadline::never);
    pause.set(over * 1000 / pump.rate + 1);
    ready!(pause.poll_expired(cx));
    Poll::Ready(())
}
