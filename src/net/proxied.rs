//! Reading the PROXY protocol's header from a socket.

use std::future::poll_fn;
use std::io;

use super::{Buffer, Socket, proxy_protocol};

/// Why there is no header of the PROXY protocol.
#[derive(Debug)]
pub enum NoHeader {
    /// What came is none.
    Wrong(proxy_protocol::Error),
    /// Reading failed.
    Failed(io::Error),
}

impl From<io::Error> for NoHeader {
    fn from(reason: io::Error) -> NoHeader {
        NoHeader::Failed(reason)
    }
}

impl From<proxy_protocol::Error> for NoHeader {
    fn from(error: proxy_protocol::Error) -> NoHeader {
        NoHeader::Wrong(error)
    }
}

impl Socket {
    /// Reads the PROXY protocol's header and not a byte more; none where it names no addresses.
    ///
    /// # Errors
    /// What to log, before "while reading PROXY protocol".
    pub async fn read_proxy_protocol(&self) -> Result<Option<proxy_protocol::Header>, NoHeader> {
        let mut bytes = Buffer::with_capacity(proxy_protocol::MAX_HEADER);
        let mut seen = 0;
        let read = loop {
            let peeked = poll_fn(|cx| self.poll_peek(cx, bytes.spare(), seen)).await?;
            let there = &bytes.spare()[..peeked.len];
            match proxy_protocol::read(there)? {
                Some(read) => break read,
                None if peeked.end => return Err(proxy_protocol::broken(there).into()),
                None => seen = peeked.len,
            }
        };
        let mut left = read.len;
        while left > 0 {
            match poll_fn(|cx| self.poll_read(cx, &mut bytes.spare()[..left])).await? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                n => left -= n,
            }
        }
        Ok(read.header)
    }
}
