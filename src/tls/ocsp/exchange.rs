//! One exchange with a responder over HTTP/1.0, and what nginx takes for an answer.

use crate::net::Address;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, UnixStream};

/// Most bytes of a response, its head included.
const MOST: usize = 16384;
const CONTENT_TYPE: &[u8] = b"application/ocsp-response";

/// Why there is no answer: what to log, with the system's reason if it is one of those.
#[derive(Debug)]
pub enum Failed {
    /// connect(2) said so at once.
    Connect(io::Error),
    Send(io::Error),
    /// recv(2) failed, or the connection could not be made after all.
    Receive(io::Error),
    Closed,
    Invalid,
    /// Another Content-Type.
    Type(Vec<u8>),
}

/// A response: its status and body.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// Sends a request and reads until the responder closes the connection, or until nginx's buffer would be full.
/// `tell` hears of a failure after which the answer may be there nevertheless.
///
/// # Errors
/// [`Failed`]: another address of the responder may be asked.
pub async fn exchange(
    to: &Address,
    request: &[u8],
    tell: &mut impl FnMut(&Failed),
) -> Result<Answer, Failed> {
    match to {
        Address::Inet(to) => converse(connect(*to).await?, request, tell).await,
        Address::Unix(path) => {
            converse(UnixStream::connect(path).await.map_err(Failed::Connect)?, request, tell).await
        }
    }
}

async fn connect(to: SocketAddr) -> Result<tokio::net::TcpStream, Failed> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let connected = socket.map_err(Failed::Connect)?.connect(to).await;
    connected.map_err(|e| match e.raw_os_error() {
        Some(libc::ECONNREFUSED | libc::ECONNRESET | libc::ETIMEDOUT) => Failed::Receive(e),
        _ => Failed::Connect(e),
    })
}

async fn converse(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    request: &[u8],
    tell: &mut impl FnMut(&Failed),
) -> Result<Answer, Failed> {
    io.write_all(request).await.map_err(Failed::Send)?;
    let mut bytes = Vec::new();
    let mut head = Head::default();
    loop {
        match (&mut io).take((MOST - bytes.len()) as u64).read_buf(&mut bytes).await {
            Ok(0) => break,
            Ok(_) => head.feed(&bytes)?,
            Err(e) => {
                tell(&Failed::Receive(e));
                break;
            }
        }
    }
    match head.body {
        Some(start) => Ok(Answer { status: head.status, body: bytes.split_off(start) }),
        None => Err(Failed::Closed),
    }
}

/// The head of a response, read line by line.
#[derive(Debug, Default)]
struct Head {
    status: u16,
    has_status: bool,
    /// Where the next line begins.
    at: usize,
    /// Where the body begins, once the head is complete.
    body: Option<usize>,
}

// === impl Head ===

impl Head {
    /// Goes on with all bytes that came so far.
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        while self.body.is_none() {
            let rest = bytes.get(self.at..).unwrap_or_default();
            let Some(end) = memchr::memchr(b'\n', rest) else {
                // What cannot become a response is not waited for.
                let known = rest.len().min(PROTOCOL.len());
                let hopeless = !self.has_status && rest.get(..known) != PROTOCOL.get(..known);
                return if hopeless { Err(Failed::Invalid) } else { Ok(()) };
            };
            let line = rest.get(..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            self.at += end + 1;
            if line.contains(&b'\r') {
                return Err(Failed::Invalid);
            } else if !self.has_status {
                self.status = status(line).ok_or(Failed::Invalid)?;
                self.has_status = true;
            } else if line.is_empty() {
                self.body = Some(self.at);
            } else {
                let (name, value) = field(line).ok_or(Failed::Invalid)?;
                if name.eq_ignore_ascii_case(b"content-type") && !value.eq_ignore_ascii_case(CONTENT_TYPE) {
                    return Err(Failed::Type(value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

const PROTOCOL: &[u8] = b"HTTP/";

/// The code of a status line.
fn status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(PROTOCOL)?;
    let space = memchr::memchr(b' ', rest)?;
    let (version, rest) = rest.split_at(space);
    let dot = memchr::memchr(b'.', version)?;
    let (major, minor) = (version.get(..dot)?, version.get(dot + 1..)?);
    let number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    if !number(major) || major.starts_with(b"0") || !number(minor) {
        return None;
    }
    let (code, after) = rest.trim_ascii_start().split_at_checked(3)?;
    if !number(code) || !matches!(after.first(), None | Some(b' ' | b'.')) {
        return None;
    }
    Some(code.iter().fold(0, |n, b| n * 10 + u16::from(b - b'0')))
}

/// Name and value of a header line.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line).unwrap_or(line.len());
    let (name, rest) = line.split_at(colon);
    let good =
        name.first()?.is_ascii_alphanumeric() && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-');
    let mut value = rest.strip_prefix(b":").unwrap_or(rest);
    while let Some(shorter) = value.strip_prefix(b" ") {
        value = shorter;
    }
    while let Some(shorter) = value.strip_suffix(b" ") {
        value = shorter;
    }
    good.then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is made of a response that comes in pieces of `step` bytes.
    fn read(text: &[u8], step: usize) -> Result<Option<Answer>, Failed> {
        let mut head = Head::default();
        for end in (0..text.len()).step_by(step).chain([text.len()]) {
            head.feed(&text[..end])?;
        }
        Ok(head.body.map(|start| Answer { status: head.status, body: text[start..].to_vec() }))
    }

    #[test]
    fn heads_are_read_in_any_pieces() {
        let text =
            b"HTTP/1.1 200 OK\r\nConnection: close\nContent-Type:  application/OCSP-response \r\n\r\nab\r\n";
        for step in 1..text.len() {
            let answer = read(text, step).unwrap().unwrap();
            assert_eq!(answer, Answer { status: 200, body: b"ab\r\n".to_vec() });
        }
        assert_eq!(read(b"HTTP/1.0 403.7\r\nX\r\n\n", 1).unwrap().unwrap().status, 403);
        assert!(read(b"HTTP/1.0 200 OK\r\nContent-Type: x", 1).unwrap().is_none());
    }

    #[test]
    fn what_is_no_response_is_refused_at_once() {
        for text in [
            &b"HTP"[..],
            b"<html>",
            b"HTTP/0.9 200\n",
            b"HTTP/1 200\n",
            b"HTTP/1.0 20\n",
            b"HTTP/1.0 2000\n",
            b"HTTP/1.0 200 a\rb\n",
            b"HTTP/1.0 200\n-a: b\n",
            b"HTTP/1.0 200\na_b: c\n",
        ] {
            assert!(matches!(read(text, 1), Err(Failed::Invalid)), "{}", String::from_utf8_lossy(text));
        }
        let other = read(b"HTTP/1.0 200\nContent-Type: text/html; a\n", 7);
        assert!(matches!(other, Err(Failed::Type(value)) if value == b"text/html; a"));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(text in "(HTTP/1\\.[01] [0-9]{2,4}|[A-Za-z: ]{0,5})(\r?\n[A-Za-z: \r-]{0,9}){0,4}\r?\n\n?",
                                step in 1usize..9) {
            let whole = read(text.as_bytes(), text.len() + 1);
            let pieces = read(text.as_bytes(), step);
            prop_assert_eq!(whole.ok(), pieces.ok());
        }
    }
}
