//! Websockets through `fixtures/documents/sso.conf`: the upgrade and what follows.

use crate::support::backend::{Backend, mirror};
use crate::support::client::{Client, Message, Stream, read_head};
use crate::support::sites::{Site, sso};
use crate::support::{bytes, tls};
use std::io::{self, Read, Write};

pub const SSO: &str = "sso.domain.tld";
const BACKEND: &str = "authentik.internal";

/// A backend that echoes the frames of websockets and mirrors all other requests.
pub fn backend() -> Backend {
    Backend::https(BACKEND, |request, stream| {
        if request.header("Upgrade") != Some("websocket") {
            return mirror(request, stream);
        }
        assert_eq!(request.header("Connection"), Some("upgrade"));
        let key = request.header("Sec-WebSocket-Key").unwrap_or("");
        let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
        stream.write_all(format!("{answer}Sec-WebSocket-Accept: {key}\r\n\r\n").as_bytes())?;
        loop {
            let payload = read_frame(stream)?;
            write_frame(stream, &payload, None)?;
        }
    })
}

/// Reads a frame (RFC 6455, section 5.2) and takes its mask off.
fn read_frame(stream: &mut dyn Stream) -> io::Result<Vec<u8>> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    let length = match head[1] & 0x7f {
        126 => {
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            u64::from(u16::from_be_bytes(length))
        }
        127 => {
            let mut length = [0; 8];
            stream.read_exact(&mut length)?;
            u64::from_be_bytes(length)
        }
        length => u64::from(length),
    };
    let mut mask = [0; 4];
    if head[1] & 0x80 != 0 {
        stream.read_exact(&mut mask)?;
    }
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload)?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Ok(payload)
}

fn write_frame(stream: &mut dyn Stream, payload: &[u8], mask: Option<[u8; 4]>) -> io::Result<()> {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut frame = vec![0x82];
    match payload.len() {
        0..126 => frame.push(masked | payload.len() as u8),
        126..=0xffff => {
            frame.push(masked | 126);
            frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        }
        length => {
            frame.push(masked | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    let mask = mask.unwrap_or_else(|| {
        frame.extend_from_slice(payload);
        [0; 4]
    });
    if masked != 0 {
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
    stream.write_all(&frame)?;
    stream.flush()
}

/// An open websocket.
pub struct WebSocket {
    client: Client<tls::Tls>,
}

impl WebSocket {
    pub fn open(site: &Site) -> WebSocket {
        let mut client = Client::new(site.connect(SSO));
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: {SSO}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        client.send(request.as_bytes()).unwrap();
        let answer: Message = read_head(&mut client.stream).unwrap();
        assert_eq!(answer.line, "HTTP/1.1 101 Switching Protocols");
        assert_eq!(answer.header("Upgrade"), Some("websocket"));
        assert_eq!(answer.header("Connection").map(str::to_lowercase).as_deref(), Some("upgrade"));
        assert_eq!(answer.header("Sec-WebSocket-Accept"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
        WebSocket { client }
    }

    pub fn echo(&mut self, payload: &[u8]) -> io::Result<Vec<u8>> {
        write_frame(self.client.stream.get_mut(), payload, Some([1, 2, 3, 4]))?;
        let mut stream = Reader(&mut self.client.stream);
        read_frame(&mut stream)
    }

    /// What comes until the connection ends.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.client.stream.read_to_end(&mut rest);
        rest
    }
}

/// A buffered reader as the stream that `read_frame` takes.
struct Reader<'a, S: Stream>(&'a mut io::BufReader<S>);

impl<S: Stream> Read for Reader<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<S: Stream> Write for Reader<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.get_mut().flush()
    }
}

#[test]
fn a_websocket_echoes_70000_bytes() {
    let site = sso("websocket", backend(), "");
    let mut socket = WebSocket::open(&site);
    for length in [0, 5, 200, 70_000, 1 << 20, 3] {
        let payload = bytes(length as u64, length);
        assert!(socket.echo(&payload).unwrap() == payload, "{length} bytes come back");
    }
    assert_eq!(site.server.faults(), [""; 0]);
}

#[test]
fn many_websockets_are_open_at_once() {
    let site = sso("websockets", backend(), "worker_processes 2;");
    let mut sockets: Vec<_> = (0..40).map(|_| WebSocket::open(&site)).collect();
    for round in 0..3 {
        for (number, socket) in sockets.iter_mut().enumerate() {
            let payload = bytes(number as u64, 1000 * round + number);
            assert_eq!(socket.echo(&payload).unwrap(), payload);
        }
    }
}

#[test]
fn a_request_without_an_upgrade_has_no_connection_header_upstream() {
    let site = sso("no-upgrade", backend(), "");
    let mut client = Client::new(site.connect(SSO));
    for connection in ["", "Connection: keep-alive\r\n", "Connection: Upgrade\r\n"] {
        client.send(format!("GET / HTTP/1.1\r\nHost: {SSO}\r\n{connection}\r\n").as_bytes()).unwrap();
        let seen = client.receive().unwrap().text();
        assert!(!seen.contains("Connection:") && !seen.contains("Upgrade:"), "{seen}");
    }
}
