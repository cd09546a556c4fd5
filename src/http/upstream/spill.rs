//! What was read ahead of the client: in memory, and past that in a temporary file.

use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::http::body::TempFile;
use crate::http::body_reader::create_temp;
use crate::http::request::Request;
use crate::log::Level;
use crate::net::Buffer;

/// Bytes of the file read at a time.
const PIECE: usize = 32 << 10;

enum Piece {
    Memory(Buffer),
    File { offset: u64, len: u64 },
}

/// Body bytes in order, on their way to the client.
#[derive(Default)]
pub struct Queue {
    pieces: VecDeque<Piece>,
    /// Bytes of the memory in `pieces`.
    held: usize,
    file: Option<TempFile>,
    /// End of what the file holds.
    end: u64,
}

/// The temporary file could not be made or written; it was logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpillFailed;

impl Queue {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Number of pieces.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Bytes in memory.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Bytes written to the file.
    pub fn spilled(&self) -> u64 {
        self.end
    }

    /// Appends bytes.
    pub fn push(&mut self, buffer: Buffer) {
        if !buffer.is_empty() {
            self.held += buffer.len();
            self.pieces.push_back(Piece::Memory(buffer));
        }
    }

    /// The bytes that are next; empty where nothing waits. Those in the file are read into memory now.
    pub fn front(&mut self) -> io::Result<&[u8]> {
        if let Some(Piece::File { offset, len }) = self.pieces.front_mut() {
            let mut buffer = Buffer::with_capacity(PIECE);
            let want = PIECE.min(usize::try_from(*len).unwrap_or(PIECE)).min(buffer.capacity());
            let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
            let n = file.file.read_at(&mut buffer.spare()[..want], *offset)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buffer.filled(n);
            *offset += n as u64;
            *len -= n as u64;
            if *len == 0 {
                self.pieces.pop_front();
            }
            self.held += buffer.len();
            self.pieces.push_front(Piece::Memory(buffer));
        }
        match self.pieces.front() {
            Some(Piece::Memory(buffer)) => Ok(buffer.bytes()),
            _ => Ok(&[]),
        }
    }

    /// `n` bytes of [`Queue::front`] are gone.
    pub fn consume(&mut self, n: usize) {
        if let Some(Piece::Memory(buffer)) = self.pieces.front_mut() {
            let n = n.min(buffer.len());
            buffer.consume(n);
            self.held -= n;
            if buffer.is_empty() {
                self.pieces.pop_front();
            }
        }
    }

    /// Moves what waits behind the first piece from memory to a file in `folder`.
    pub fn spill(&mut self, req: &Request, folder: &Path) -> Result<(), SpillFailed> {
        let mut from = self.pieces.len();
        while from > 1 && matches!(self.pieces[from - 1], Piece::Memory(_)) {
            from -= 1;
        }
        if from == self.pieces.len() {
            return Ok(());
        }
        if self.file.is_none() {
            self.file = Some(open(req, folder)?);
        }
        let Some(temp) = &self.file else { return Err(SpillFailed) };
        let start = self.end;
        let tail: Vec<Piece> = self.pieces.drain(from..).collect();
        for piece in tail {
            let Piece::Memory(buffer) = piece else { continue };
            if let Err(e) = temp.file.write_all_at(buffer.bytes(), self.end) {
                let path = temp.path.display();
                req.log(Level::Crit, Some(&e), format_args!("pwrite() \"{path}\" failed"));
                return Err(SpillFailed);
            }
            self.end += buffer.len() as u64;
            self.held -= buffer.len();
        }
        match self.pieces.back_mut() {
            Some(Piece::File { offset, len }) if *offset + *len == start => *len += self.end - start,
            _ => self.pieces.push_back(Piece::File { offset: start, len: self.end - start }),
        }
        Ok(())
    }
}

fn open(req: &Request, folder: &Path) -> Result<TempFile, SpillFailed> {
    match create_temp(folder, false) {
        Ok(file) => {
            let path = file.path.display();
            req.log(
                Level::Warn,
                None,
                format_args!("an upstream response is buffered to a temporary file {path}"),
            );
            Ok(file)
        }
        Err((path, e)) => {
            let path: PathBuf = path;
            req.log(Level::Crit, Some(&e), format_args!("open() \"{}\" failed", path.display()));
            Err(SpillFailed)
        }
    }
}
