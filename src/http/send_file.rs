//! Sending files: sendfile(2) where nothing stands between file and socket, else reading and writing.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::task::{Context, Poll, ready};

use tokio::io::Interest;

use super::output::Gone;
use super::request::Request;
use crate::log::Level;
use crate::net::{Buffer, turn};

/// Below this, head and file leave in one write instead.
const LONG: u64 = 32 << 10;

impl Request {
    /// Sends a part of a file as body. Ranges that the client asked for are counted from `offset`.
    pub async fn send_file(&mut self, file: &File, offset: u64, length: u64) -> Result<(), Gone> {
        if self.response.header_only {
            return Ok(());
        }
        let Some(ranges) = self.out.take_ranges() else {
            return self.send_part(file, offset, length).await;
        };
        for part in ranges.parts() {
            self.send(&part.head).await?;
            let end = part.end.min(length);
            self.send_part(file, offset + part.start, end.saturating_sub(part.start)).await?;
        }
        self.send(ranges.tail()).await
    }

    async fn send_part(&mut self, file: &File, offset: u64, length: u64) -> Result<(), Gone> {
        if length == 0 {
            return Ok(());
        }
        let direct =
            *self.conf.core.sendfile && self.is_http1() && !self.has_body_filters() && !self.is_paced();
        if length >= LONG && direct {
            self.flush_out().await?;
            if self.splice_target().is_some() {
                return self.sendfile(file, offset, length).await;
            }
        }
        self.copy(file, offset, length).await
    }

    async fn copy(&mut self, file: &File, mut offset: u64, mut length: u64) -> Result<(), Gone> {
        let mut buffer = Buffer::with_capacity(64 << 10);
        let mut sent = 0;
        while length > 0 {
            let want = buffer.capacity().min(usize::try_from(length).unwrap_or(usize::MAX));
            let n = match file.read_at(&mut buffer.spare()[..want], offset) {
                Ok(0) => return Err(self.truncated()),
                Ok(n) => n,
                Err(e) => {
                    self.log(Level::Crit, Some(&e), format_args!("pread() failed"));
                    return Err(Gone);
                }
            };
            buffer.filled(n);
            self.send(buffer.bytes()).await?;
            buffer.consume(n);
            offset += n as u64;
            length -= n as u64;
            sent += n;
            if sent >= turn::BYTES {
                sent = 0;
                turn::next().await;
            }
        }
        Ok(())
    }

    fn truncated(&self) -> Gone {
        self.log(Level::Alert, None, format_args!("file was truncated while sending response"));
        Gone
    }

    async fn sendfile(&mut self, file: &File, mut offset: u64, mut length: u64) -> Result<(), Gone> {
        let chunk = match *self.conf.core.sendfile_max_chunk {
            0 => u64::MAX,
            chunk => chunk as u64,
        };
        while length > 0 {
            let want = length.min(chunk);
            let n = std::future::poll_fn(|cx| self.poll_sendfile(cx, file, offset, want)).await?;
            if n == 0 {
                return Err(self.truncated());
            }
            offset += n;
            length -= n;
            if length > 0 && n == want {
                // A fast client must not keep the others of this thread waiting.
                turn::next().await;
            }
        }
        Ok(())
    }

    fn poll_sendfile(
        &mut self,
        cx: &mut Context<'_>,
        file: &File,
        offset: u64,
        length: u64,
    ) -> Poll<Result<u64, Gone>> {
        let conn = self.conn.clone();
        let Some(socket) = conn.io.plain() else { return Poll::Ready(Err(Gone)) };
        let count = usize::try_from(length.min(1 << 30)).unwrap_or(1 << 30);
        loop {
            let sent = socket.try_io(Interest::WRITABLE, || {
                let mut at = offset as libc::off_t;
                Ok(nix::sys::sendfile::sendfile(socket.as_fd(), file, Some(&mut at), count)?)
            });
            match sent {
                Ok(n) => {
                    self.spliced(n);
                    return Poll::Ready(Ok(n as u64));
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => match socket.poll_write_ready(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Gone)),
                    Poll::Pending => return Poll::Ready(Err(ready!(self.poll_send_timeout(cx)))),
                },
                Err(e) => {
                    conn.log_io(&e, "sendfile() failed");
                    return Poll::Ready(Err(Gone));
                }
            }
        }
    }
}
