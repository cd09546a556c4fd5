//! Reading a request's head over HTTP/1: within nginx's buffers, refusing what nginx refuses, with its words.

use std::task::{Poll, ready};

use bytes::Bytes;

use super::headers;
use super::method::Method;
use super::modules::ssl;
use super::parse::{self, FieldLine};
use super::request::{BodyLength, Request, Version};
use super::{Server, uri};
use crate::log::Level;

/// Why a head was not read to its end.
pub(super) enum Refusal {
    /// Answer with this status.
    Status(u16),
    /// Close without an answer, but log this status.
    Silent(u16),
}

/// Where in the buffers that nginx would have used the head is; see `large_client_header_buffers`.
struct Room {
    /// Bytes of the head that were taken out of the connection's buffer.
    taken: usize,
    /// Offset in the head at which the present buffer ends.
    end: usize,
    /// Large buffers used.
    large: usize,
}

impl Room {
    /// A line that began at `start` does not end within the present buffer: takes another. False: there is none.
    fn grow(&mut self, srv: &super::modules::core::Srv, start: usize, at: usize) -> bool {
        let (number, size) = *srv.large_client_header_buffers;
        if at - start >= size || self.large >= number {
            return false;
        }
        self.large += 1;
        self.end = start + size;
        true
    }
}

pub(super) async fn read_head(req: &mut Request) -> Result<(), Refusal> {
    req.action.set("reading client request line");
    let srv = &req.server.srv.core;
    let mut room = Room { taken: 0, end: *srv.client_header_buffer_size, large: 0 };
    req.conn.deadline.set(*srv.client_header_timeout);
    read_line(req, &mut room).await?;
    if req.version >= Version::Http10 {
        req.action.set("reading client request headers");
        read_fields(req, &mut room).await?;
    } else if req.host.is_empty() {
        choose_server(req, b"");
    }
    req.conn.deadline.clear();
    check_head(req)?;
    req.action.set("");
    Ok(())
}

async fn read_line(req: &mut Request, room: &mut Room) -> Result<(), Refusal> {
    loop {
        let parsed = {
            let mut buffer = req.conn.buffer.borrow_mut();
            let empty = buffer.bytes().iter().take_while(|c| matches!(c, b'\r' | b'\n')).count();
            buffer.consume(empty);
            parse::request_line(buffer.bytes())
        };
        match parsed {
            Ok(Some(line))
                if line.total <= room.end || {
                    room.grow(&req.server.srv.core, 0, room.end) && line.total <= room.end
                } =>
            {
                return take_line(req, room, line);
            }
            Ok(None) if req.conn.buffer.borrow().len() < room.end => {}
            Ok(None) if room.grow(&req.server.srv.core, 0, room.end) => {}
            Ok(_) => {
                let most = room.end;
                let line: Vec<u8> = req.conn.buffer.borrow().bytes().iter().take(most).copied().collect();
                req.head.line = line;
                req.log(Level::Info, None, format_args!("client sent too long URI"));
                return Err(Refusal::Status(414));
            }
            Err(error) => {
                let end = |c: &u8| !matches!(c, b'\r' | b'\n');
                req.head.line = req.conn.buffer.borrow().bytes().iter().copied().take_while(end).collect();
                req.log(Level::Info, None, format_args!("{}", error.text()));
                let version = error == parse::LineError::Version;
                return Err(Refusal::Status(if version { 505 } else { 400 }));
            }
        }
        if parsed_more(req, room.end).await? == 0 {
            return Err(premature(req));
        }
    }
}

/// Reads more of the head; 0 at the client's end.
async fn parsed_more(req: &mut Request, want: usize) -> Result<usize, Refusal> {
    let conn = req.conn.clone();
    let read = conn
        .deadline
        .limit(std::future::poll_fn(|cx| {
            let mut buffer = conn.buffer.borrow_mut();
            if buffer.spare().is_empty() {
                let size = (buffer.len() + want).max(8 << 10).next_power_of_two();
                buffer.grow(size);
            }
            let n = ready!(conn.io.poll_read(cx, buffer.spare()))?;
            buffer.filled(n);
            Poll::Ready(Ok::<usize, std::io::Error>(n))
        }))
        .await;
    match read {
        Some(Ok(n)) => Ok(n),
        Some(Err(e)) => {
            req.log(Level::Info, Some(&e), format_args!("recv() failed"));
            Err(Refusal::Silent(400))
        }
        None => {
            let reason = std::io::Error::from_raw_os_error(libc::ETIMEDOUT);
            req.log(Level::Info, Some(&reason), format_args!("client timed out"));
            Err(Refusal::Silent(408))
        }
    }
}

fn premature(req: &Request) -> Refusal {
    req.log(Level::Info, None, format_args!("client prematurely closed connection"));
    Refusal::Silent(400)
}

fn take_line(req: &mut Request, room: &mut Room, line: parse::Line) -> Result<(), Refusal> {
    {
        let mut buffer = req.conn.buffer.borrow_mut();
        req.head.line = buffer.bytes()[..line.len].to_vec();
        buffer.consume(line.total);
    }
    room.taken = line.total;
    req.head.size = line.total as u64;
    req.method = Method::of(&req.head.line[line.method.clone()]);
    req.head.method_name = line.method;
    req.head.protocol = line.protocol;
    req.head.unparsed_uri = line.uri;
    req.version = match line.version {
        (1, 0) => Version::Http10,
        (1, _) => Version::Http11,
        _ => Version::Http09,
    };
    req.keepalive = req.version == Version::Http11;
    req.valid_unparsed_uri = !line.empty_path;
    let merge = *req.server.srv.core.merge_slashes;
    if set_uri(req, merge, line.empty_path).is_err() {
        req.log(Level::Info, None, format_args!("client sent invalid request"));
        return Err(Refusal::Status(400));
    }
    if let Some(host) = line.host {
        let text = req.head.line[host].to_vec();
        match parse::validate_host(&text) {
            Ok((host, port)) => {
                choose_server(req, &host);
                req.host = host;
                req.host_port = port;
            }
            Err(_) => {
                req.log(Level::Info, None, format_args!("client sent invalid host in request line"));
                return Err(Refusal::Status(400));
            }
        }
    }
    Ok(())
}

/// Sets path and arguments from the URI as it came.
pub fn set_uri(req: &mut Request, merge_slashes: bool, empty_path: bool) -> Result<(), uri::Invalid> {
    let raw = &req.head.line[req.head.unparsed_uri.clone()];
    match uri::simple_path(raw).filter(|_| !empty_path) {
        Some(end) => {
            req.uri = Bytes::copy_from_slice(&raw[..end]);
            req.args = raw.get(end + 1..).map(Bytes::copy_from_slice).unwrap_or_default();
        }
        None => {
            let (path, args) = uri::normalise(raw, merge_slashes)?;
            req.args = Bytes::copy_from_slice(args);
            req.uri = path.into();
            req.complex_uri = true;
        }
    }
    Ok(())
}

/// How far the fields of a head were taken.
enum Fields {
    Done,
    /// More has to be read.
    More,
    /// No buffer has room for the next line.
    Full,
}

async fn read_fields(req: &mut Request, room: &mut Room) -> Result<(), Refusal> {
    let mut count = 0;
    loop {
        let conn = req.conn.clone();
        let (mut at, fields);
        {
            let buffer = conn.buffer.borrow();
            at = 0;
            fields = take_fields(req, room, buffer.bytes(), &mut at, &mut count);
        }
        conn.buffer.borrow_mut().consume(at);
        match fields? {
            Fields::Done => return Ok(()),
            Fields::Full => return Err(too_large(req, room.end.saturating_sub(room.taken))),
            Fields::More => {
                if parsed_more(req, room.end).await? == 0 {
                    return Err(premature(req));
                }
            }
        }
    }
}

/// Takes the lines that are complete in `bytes`; `at` says how far.
fn take_fields(
    req: &mut Request,
    room: &mut Room,
    bytes: &[u8],
    at: &mut usize,
    count: &mut usize,
) -> Result<Fields, Refusal> {
    loop {
        if let Some(field) = parse::usual_field(bytes, *at)
            && room.taken + field.next - *at <= room.end
        {
            let size = field.next - *at;
            req.head.size += size as u64;
            add_field(req, &bytes[field.name], &bytes[field.value], count)?;
            *at += size;
            room.taken += size;
            continue;
        }
        let rest = &bytes[*at..];
        let Some(end) = line_end(rest) else {
            let have = room.taken + rest.len();
            let full = have >= room.end && !room.grow(&req.server.srv.core, room.taken, have);
            return Ok(if full { Fields::Full } else { Fields::More });
        };
        while room.taken + end + 1 > room.end {
            if !room.grow(&req.server.srv.core, room.taken, room.end.max(room.taken)) {
                return Ok(Fields::Full);
            }
        }
        let done = take_field(req, &rest[..end], count)?;
        *at += end + 1;
        room.taken += end + 1;
        if done {
            req.head.size += end as u64 + 1;
            return Ok(Fields::Done);
        }
    }
}

/// Where the first line's LF is.
fn line_end(text: &[u8]) -> Option<usize> {
    if text.starts_with(b"\r\n") { Some(1) } else { memchr::memchr(b'\n', text) }
}

fn too_large(req: &mut Request, have: usize) -> Refusal {
    req.lingering_close = true;
    if have == 0 {
        req.log(Level::Info, None, format_args!("client sent too large request"));
    } else {
        let line: Vec<u8> = req.conn.buffer.borrow().bytes().iter().take(have.min(1748)).copied().collect();
        req.log(
            Level::Info,
            None,
            format_args!("client sent too long header line: \"{}...\"", crate::log::bytes(&line)),
        );
    }
    Refusal::Status(494)
}

/// Takes one line of the head; true at its end.
fn take_field(req: &mut Request, line: &[u8], count: &mut usize) -> Result<bool, Refusal> {
    let srv = &req.server.srv.core;
    let parsed = parse::field_line(line, *srv.underscores_in_headers);
    if matches!(parsed, FieldLine::Field { .. }) {
        req.head.size += line.len() as u64 + 1;
    }
    match parsed {
        FieldLine::End => Ok(true),
        FieldLine::Invalid(at) => {
            req.log(
                Level::Info,
                None,
                format_args!(
                    "client sent invalid header line: \"{}\\x{:02x}...\"",
                    crate::log::bytes(&line[..at]),
                    line.get(at).copied().unwrap_or(b'\r')
                ),
            );
            Err(Refusal::Status(400))
        }
        FieldLine::Field { valid: false, value, .. } if *srv.ignore_invalid_headers => {
            req.log(
                Level::Info,
                None,
                format_args!(
                    "client sent invalid header line: \"{}\"",
                    crate::log::bytes(&line[..value.end])
                ),
            );
            Ok(false)
        }
        FieldLine::Field { name, value, .. } => {
            add_field(req, &line[name], &line[value], count)?;
            Ok(false)
        }
    }
}

/// Adds a field to the list, and does what its name asks for.
fn add_field(req: &mut Request, name: &[u8], value: &[u8], count: &mut usize) -> Result<(), Refusal> {
    if *count >= *req.server.srv.core.max_headers {
        req.lingering_close = true;
        req.log(Level::Info, None, format_args!("client sent too many header lines"));
        return Err(Refusal::Status(494));
    }
    *count += 1;
    let hash = headers::hash(name);
    req.head.headers.push_hashed(name, hash, value);
    known_field(req, name, hash, value)
}

/// What nginx does at once with some fields.
pub(super) fn known_field(req: &mut Request, name: &[u8], hash: u32, value: &[u8]) -> Result<(), Refusal> {
    let is = |known: headers::Name| headers::same(name, known.text);
    match name.len() {
        4 if is(headers::HOST) => host_field(req, name, value),
        10 if is(headers::CONNECTION) => {
            if headers::contains_word(value, b"close") {
                req.keepalive = false;
            } else if headers::contains_word(value, b"keep-alive") {
                req.keepalive = true;
            }
            Ok(())
        }
        _ if unique(name, hash) => match req.head.headers.repeated(name).map(<[u8]>::to_vec) {
            Some(previous) => duplicate(req, "header line", name, value, &previous),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

fn duplicate(req: &Request, what: &str, name: &[u8], value: &[u8], previous: &[u8]) -> Result<(), Refusal> {
    let (name, value, previous) =
        (crate::log::bytes(name), crate::log::bytes(value), crate::log::bytes(previous));
    req.log(
        Level::Info,
        None,
        format_args!(
            "client sent duplicate {what}: \"{name}: {value}\", previous value: \"{name}: {previous}\""
        ),
    );
    Err(Refusal::Status(400))
}

/// Fields that may come only once.
const UNIQUE: [headers::Name; 11] = [
    headers::IF_MODIFIED_SINCE,
    headers::IF_UNMODIFIED_SINCE,
    headers::IF_MATCH,
    headers::IF_NONE_MATCH,
    headers::CONTENT_LENGTH,
    headers::CONTENT_RANGE,
    headers::IF_RANGE,
    headers::TRANSFER_ENCODING,
    headers::EXPECT,
    headers::AUTHORIZATION,
    headers::PROXY_AUTHORIZATION,
];

/// A bit for each of their hashes: most names are none of them.
const UNIQUE_BITS: u64 = {
    let (mut bits, mut i) = (0, 0);
    while i < UNIQUE.len() {
        bits |= 1 << ((UNIQUE[i].hash >> 1) % 64);
        i += 1;
    }
    bits
};

fn unique(name: &[u8], hash: u32) -> bool {
    UNIQUE_BITS >> ((hash >> 1) % 64) & 1 != 0
        && UNIQUE.iter().any(|known| known.hash == hash && headers::same(known.text, name))
}

fn host_field(req: &mut Request, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
    if let Some(previous) = req.head.headers.repeated(name).map(<[u8]>::to_vec) {
        return duplicate(req, "host header", name, value, &previous);
    }
    match parse::validate_host(value) {
        Ok((host, port)) => {
            if req.host.is_empty() {
                choose_server(req, &host);
                req.host = host;
                req.host_port = port;
            }
            Ok(())
        }
        Err(_) => {
            req.log(Level::Info, None, format_args!("client sent invalid host header"));
            Err(Refusal::Status(400))
        }
    }
}

/// Chooses the virtual server by the request's host. A host that no server has leads to the address's default, even
/// where the TLS handshake chose another.
pub fn choose_server(req: &mut Request, host: &[u8]) {
    let addr = req.conn.addr;
    if addr.names.is_empty() {
        return;
    }
    let http = req.http;
    let names = |server: usize| http.servers.get(server).map_or(&[][..], |s: &Server| &s.names[..]);
    let found = addr.names.find(host, &req.scope, names);
    let otherwise = req.conn.tls_server.map(|_| addr.default);
    if let Some(server) = found.or(otherwise).and_then(|i| http.servers.get(i)) {
        req.server = server;
        req.leave();
        req.conn.log.set(server.root.error_log());
    }
}

/// What must hold of a complete head.
pub(super) fn check_head(req: &mut Request) -> Result<(), Refusal> {
    let refuse = |req: &Request, status: u16, text: &str| {
        req.log(Level::Info, None, format_args!("{text}"));
        Err(Refusal::Status(status))
    };
    if req.host.is_empty() {
        choose_server(req, b"");
    }
    if req.version > Version::Http10
        && req.version < Version::Http2
        && !req.head.headers.contains(headers::HOST)
    {
        return refuse(req, 400, "client sent HTTP/1.1 request without \"Host\" header");
    }
    let length = match req.header(headers::CONTENT_LENGTH).map(crate::conf::units::number) {
        None => None,
        Some(Some(n)) => Some(n),
        Some(None) => return refuse(req, 400, "client sent invalid \"Content-Length\" header"),
    };
    if let Some(length) = length {
        req.body_length = if length == 0 { BodyLength::None } else { BodyLength::Known(length) };
    }
    if let Some(coding) = req.header(headers::TRANSFER_ENCODING) {
        if req.version < Version::Http11 {
            return refuse(req, 400, "client sent HTTP/1.0 request with \"Transfer-Encoding\" header");
        }
        if !coding.eq_ignore_ascii_case(b"chunked") {
            let text =
                format!("client sent unknown \"Transfer-Encoding\": \"{}\"", String::from_utf8_lossy(coding));
            return refuse(req, 501, &text);
        }
        if length.is_some() {
            let text = "client sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time";
            return refuse(req, 400, text);
        }
        req.body_length = BodyLength::Chunked;
    }
    match req.method {
        Method::Connect => return refuse(req, 405, "client sent CONNECT method"),
        Method::Trace => return refuse(req, 405, "client sent TRACE method"),
        _ => {}
    }
    ssl::refusal(req).map_or(Ok(()), |status| Err(Refusal::Status(status)))
}
