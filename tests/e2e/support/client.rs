//! A plain HTTP/1 client, and the messages of HTTP/1 as backends and clients read them.

use super::server::connect;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};

pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A message of HTTP/1: a request or a response.
#[derive(Debug, Default, Clone)]
pub struct Message {
    /// The request line or the status line.
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Message {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
    }

    pub fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or("")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 || !line.ends_with('\n') {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Reads line and headers.
pub fn read_head(from: &mut impl BufRead) -> io::Result<Message> {
    let mut message = Message { line: line(from)?, ..Message::default() };
    loop {
        let field = line(from)?;
        if field.is_empty() {
            return Ok(message);
        }
        let (name, value) = field.split_once(':').ok_or(ErrorKind::InvalidData)?;
        message.headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

/// Reads the body that belongs to a head; a response without a length ends with the connection.
pub fn read_body(from: &mut impl BufRead, message: &mut Message, response: bool) -> io::Result<()> {
    if message.header("Transfer-Encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        loop {
            let size = line(from)?;
            let size = usize::from_str_radix(size.split(';').next().unwrap_or(""), 16);
            let size = size.map_err(|_| ErrorKind::InvalidData)?;
            if size == 0 {
                while !line(from)?.is_empty() {}
                return Ok(());
            }
            let start = message.body.len();
            message.body.resize(start + size, 0);
            from.read_exact(&mut message.body[start..])?;
            line(from)?;
        }
    }
    if let Some(length) = message.header("Content-Length") {
        let length = length.parse().map_err(|_| ErrorKind::InvalidData)?;
        message.body.resize(length, 0);
        return from.read_exact(&mut message.body);
    }
    if response && !matches!(message.status(), 100..=199 | 204 | 304) {
        from.read_to_end(&mut message.body)?;
    }
    Ok(())
}

/// A connection on which requests follow each other.
pub struct Client<S: Stream> {
    pub stream: BufReader<S>,
}

impl<S: Stream> Client<S> {
    pub fn new(stream: S) -> Client<S> {
        Client { stream: BufReader::with_capacity(1 << 16, stream) }
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(bytes)?;
        stream.flush()
    }

    pub fn receive(&mut self) -> io::Result<Message> {
        let mut answer = read_head(&mut self.stream)?;
        read_body(&mut self.stream, &mut answer, true)?;
        Ok(answer)
    }

    /// Sends `GET path` for `host` and reads the answer.
    pub fn get(&mut self, host: &str, path: &str) -> io::Result<Message> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())?;
        self.receive()
    }

    /// Sends a body with `POST` and reads the answer.
    pub fn post(&mut self, host: &str, path: &str, body: &[u8]) -> io::Result<Message> {
        let head = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n", body.len());
        self.send(head.as_bytes())?;
        self.send(body)?;
        self.receive()
    }
}

/// One request on a connection of its own to `port`.
pub fn get(port: u16, host: &str, path: &str) -> io::Result<Message> {
    Client::new(connect(port)).get(host, path)
}

/// Sends `bytes` and returns all that comes until the connection ends.
pub fn exchange(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(port);
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}
