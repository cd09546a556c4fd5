//! One query, from the first packet to the answer: servers in turn, UDP first, TCP for what does not fit.

use std::fmt::Arguments;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UdpSocket};

use super::keep::{Flight, Found, Keep};
use super::message::{self, Invalid, Kind, Records, Response};
use super::{Failure, HOST_NOT_FOUND, now};
use crate::log::{self, Level};
use crate::net::Deadline;

/// Milliseconds after which another server is asked.
const RESEND: u64 = 5000;
/// Milliseconds for connecting, or for sending a query, over TCP.
const TCP_TIMEOUT: u64 = 5000;
/// Bytes of a response over UDP.
const UDP_SIZE: usize = 4096;

/// A query and what is done for it.
pub struct Exchange {
    keep: Rc<Keep>,
    name: Vec<u8>,
    questions: Vec<Question>,
    /// The server asked last.
    server: usize,
    /// One for each server that was asked.
    sockets: Vec<Option<UdpSocket>>,
    tcp: Option<Tcp>,
    resend: Deadline,
}

/// One of the types asked for.
struct Question {
    kind: Kind,
    id: u16,
    packet: Vec<u8>,
    /// The answer does not fit a datagram.
    tcp: bool,
    answer: Option<Result<Records, u16>>,
}

/// A connection to a server.
struct Tcp {
    server: usize,
    state: TcpState,
    out: Vec<u8>,
    input: Vec<u8>,
    deadline: Deadline,
}

enum TcpState {
    Connecting(Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>),
    Open(TcpStream),
}

impl Exchange {
    /// Makes the query; it is not sent yet.
    ///
    /// # Errors
    /// The name cannot exist.
    pub fn new(keep: Rc<Keep>, services: bool, name: &[u8]) -> Result<Exchange, Failure> {
        let kinds: &[(Kind, bool)] = match services {
            true => &[(Kind::Srv, true)],
            false => &[(Kind::A, keep.ipv4), (Kind::Aaaa, keep.ipv6)],
        };
        let mut questions = Vec::with_capacity(kinds.len());
        for (kind, _) in kinds.iter().filter(|(_, wanted)| *wanted) {
            let mut id = [0; 2];
            aws_lc_rs::rand::fill(&mut id).map_err(|_| Failure(2))?;
            let id = u16::from_be_bytes(id);
            let packet = message::query(id, name, *kind).ok_or(HOST_NOT_FOUND)?;
            questions.push(Question { kind: *kind, id, packet, tcp: false, answer: None });
        }
        let sockets = keep.servers.iter().map(|_| None).collect();
        let server = keep.next_server();
        let resend = Deadline::never();
        Ok(Exchange { keep, name: name.to_vec(), questions, server, sockets, tcp: None, resend })
    }

    /// Asks until there is an answer; none once nobody waits for it any more.
    pub async fn run(mut self, flight: &Flight) -> Option<Result<Found, Failure>> {
        if !self.send() {
            self.turn();
            self.send();
        }
        self.resend.set(RESEND);
        let mut buffer = vec![0; UDP_SIZE];
        std::future::poll_fn(|cx| self.poll(flight, &mut buffer, cx)).await
    }

    fn turn(&mut self) {
        self.server = (self.server + 1) % self.keep.servers.len().max(1);
    }

    fn poll(
        &mut self,
        flight: &Flight,
        buffer: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Found, Failure>>> {
        loop {
            self.receive(buffer, cx);
            let progress = self.poll_tcp(cx);
            if let Some(outcome) = self.outcome() {
                return Poll::Ready(Some(outcome));
            }
            if progress {
                continue;
            }
            ready!(self.resend.poll_expired(cx));
            if !flight.wanted() {
                return Poll::Ready(None);
            }
            self.turn();
            self.send();
            self.resend.set(RESEND);
        }
    }

    /// Sends what is not answered; false where it could not be sent.
    fn send(&mut self) -> bool {
        let server = self.server;
        let Some(address) = self.keep.servers.get(server).copied() else { return false };
        for at in 0..self.questions.len() {
            let question = &self.questions[at];
            if question.answer.is_some() {
                continue;
            }
            if question.tcp {
                self.send_tcp(at);
                continue;
            }
            if let Err(reason) = self.send_udp(at, server, address) {
                self.sockets[server] = None;
                complain(address, &reason, "send() failed");
                return false;
            }
        }
        true
    }

    fn send_udp(&mut self, at: usize, server: usize, address: SocketAddr) -> io::Result<()> {
        if self.sockets[server].is_none() {
            self.sockets[server] = Some(udp(address)?);
        }
        let (Some(socket), packet) = (&self.sockets[server], &self.questions[at].packet) else {
            return Ok(());
        };
        SockRef::from(socket).send(packet).map(drop)
    }

    fn send_tcp(&mut self, at: usize) {
        let Some(address) = self.keep.servers.get(self.server).copied() else { return };
        if self.tcp.as_ref().is_none_or(|tcp| tcp.server != self.server) {
            self.tcp = Some(Tcp::new(self.server, address));
        }
        let packet = &self.questions[at].packet;
        if let Some(tcp) = &mut self.tcp {
            tcp.out.extend_from_slice(&(packet.len() as u16).to_be_bytes());
            tcp.out.extend_from_slice(packet);
            tcp.deadline.set(TCP_TIMEOUT);
        }
    }

    fn receive(&mut self, buffer: &mut [u8], cx: &mut Context<'_>) {
        for server in 0..self.sockets.len() {
            while let Some(socket) = &self.sockets[server] {
                let mut into = ReadBuf::new(buffer);
                match socket.poll_recv(cx, &mut into) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(())) => {
                        let packet = into.filled().to_vec();
                        self.take(&packet, false);
                    }
                    Poll::Ready(Err(reason)) => {
                        self.sockets[server] = None;
                        complain(self.keep.servers[server], &reason, "recv() failed");
                    }
                }
            }
        }
    }

    /// Whether there is something new.
    fn poll_tcp(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(tcp) = &mut self.tcp else { return false };
        let address = self.keep.servers[tcp.server];
        let packets = match tcp.poll(cx) {
            Poll::Pending => return false,
            Poll::Ready(Ok(packets)) => packets,
            Poll::Ready(Err(reason)) => {
                self.tcp = None;
                if let Some((reason, what)) = reason {
                    complain(address, &reason, what);
                }
                return false;
            }
        };
        packets.iter().for_each(|packet| self.take(packet, true));
        true
    }

    /// Takes a response, unless it is none to this query.
    fn take(&mut self, packet: &[u8], tcp: bool) {
        let response = match Response::read(packet, tcp) {
            Ok(response) => response,
            Err(invalid) => return self.refuse(&invalid),
        };
        let shown = log::bytes(&response.name);
        let asked = self.questions.iter_mut().find(|q| q.kind == response.kind && q.answer.is_none());
        let Some(question) = asked.filter(|_| response.name == self.name) else {
            return tell(format_args!("unexpected DNS response for {shown}"));
        };
        if response.id != question.id {
            let (id, expected) = (response.id, question.id);
            return tell(format_args!("wrong ident {id} in DNS response for {shown}, expect {expected}"));
        }
        if response.truncated {
            if !question.tcp {
                question.tcp = true;
                let kind = question.kind;
                if let Some(at) = self.questions.iter().position(|q| q.kind == kind) {
                    self.send_tcp(at);
                }
                self.resend.set(RESEND);
            }
            return;
        }
        if response.code != 0 {
            question.answer = Some(Err(response.code));
            return;
        }
        match response.records(packet) {
            Ok(records) => {
                for kind in &records.strange {
                    tell(format_args!("unexpected RR type {kind} in DNS response"));
                }
                let something = records.alias.is_some()
                    || !(records.v4.is_empty() && records.v6.is_empty() && records.services.is_empty());
                if something || response.count == 0 {
                    question.answer = Some(Ok(records));
                } else if response.kind == Kind::Srv {
                    tell(format_args!("no SRV type in DNS response"));
                } else {
                    tell(format_args!("no A or CNAME types in DNS response"));
                }
            }
            Err(invalid) => tell(format_args!("{invalid}")),
        }
    }

    fn refuse(&self, invalid: &Invalid) {
        match invalid {
            Invalid::Error { code: 1, id } if self.questions.iter().any(|q| q.id == *id) => {
                tell(format_args!("{invalid}, name:\"{}\"", log::bytes(&self.name)));
            }
            _ => tell(format_args!("{invalid}")),
        }
    }

    /// What all answers come to, once they are there.
    fn outcome(&mut self) -> Option<Result<Found, Failure>> {
        if self.questions.iter().any(|question| question.answer.is_none()) {
            return None;
        }
        let mut found = Found::default();
        let mut ttl = u32::MAX;
        for question in &mut self.questions {
            match question.answer.take() {
                Some(Ok(records)) => {
                    found.v4.extend(records.v4);
                    found.v6.extend(records.v6);
                    found.services.extend(records.services);
                    // Those of both families should agree; nginx follows the one it learns last.
                    found.alias = records.alias;
                    ttl = ttl.min(records.ttl);
                }
                Some(Err(code)) => return Some(Err(Failure(code))),
                None => {}
            }
        }
        if !(found.v4.is_empty() && found.v6.is_empty() && found.services.is_empty()) {
            found.alias = None;
        } else if found.alias.is_none() {
            return Some(Err(HOST_NOT_FOUND));
        }
        found.valid = now() + i64::from(self.keep.valid.unwrap_or(ttl));
        Some(Ok(found))
    }
}

impl Tcp {
    fn new(server: usize, address: SocketAddr) -> Tcp {
        let deadline = Deadline::never();
        deadline.set(TCP_TIMEOUT);
        let state = TcpState::Connecting(Box::pin(TcpStream::connect(address)));
        Tcp { server, state, out: Vec::new(), input: Vec::new(), deadline }
    }

    /// Sends and receives; ready with whole messages, or with why the connection is of no use any more.
    #[allow(clippy::type_complexity)]
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Vec<Vec<u8>>, Option<(io::Error, &'static str)>>> {
        if let TcpState::Connecting(connecting) = &mut self.state {
            match connecting.as_mut().poll(cx) {
                Poll::Ready(Ok(stream)) => self.state = TcpState::Open(stream),
                Poll::Ready(Err(reason)) => return Poll::Ready(Err(Some((reason, "connect() failed")))),
                Poll::Pending => return self.deadline.poll_expired(cx).map(|()| Err(None)),
            }
        }
        let TcpState::Open(stream) = &mut self.state else { return Poll::Pending };
        let mut stream = Pin::new(stream);
        while !self.out.is_empty() {
            match stream.as_mut().poll_write(cx, &self.out) {
                Poll::Ready(Ok(n)) => {
                    self.out.drain(..n);
                    self.deadline.clear();
                }
                Poll::Ready(Err(reason)) => return Poll::Ready(Err(Some((reason, "send() failed")))),
                Poll::Pending if self.deadline.poll_expired(cx).is_ready() => return Poll::Ready(Err(None)),
                Poll::Pending => break,
            }
        }
        let mut room = [0; UDP_SIZE];
        loop {
            let mut into = ReadBuf::new(&mut room);
            match ready!(stream.as_mut().poll_read(cx, &mut into)) {
                Ok(()) if into.filled().is_empty() => return Poll::Ready(Err(None)),
                Ok(()) => self.input.extend_from_slice(into.filled()),
                Err(reason) => return Poll::Ready(Err(Some((reason, "recv() failed")))),
            }
            let packets = whole(&mut self.input);
            if !packets.is_empty() {
                return Poll::Ready(Ok(packets));
            }
        }
    }
}

/// Takes the complete messages, each behind its length (RFC 1035, section 4.2.2).
fn whole(input: &mut Vec<u8>) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let mut at = 0;
    while let Some((length, rest)) = input[at..].split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length));
        let Some(packet) = rest.get(..length) else { break };
        packets.push(packet.to_vec());
        at += 2 + length;
    }
    input.drain(..at);
    packets
}

/// A socket that hears only this server.
fn udp(server: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.connect(server)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

fn tell(message: Arguments<'_>) {
    log::error(&log::main(), Level::Error, None, message);
}

fn complain(server: SocketAddr, reason: &io::Error, what: &str) {
    let context = format_args!(" while resolving, resolver: {server}");
    log::error_context(&log::main(), Level::Error, None, Some(reason), format_args!("{what}"), context);
}
