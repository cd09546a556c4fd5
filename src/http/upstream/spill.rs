//! What was read ahead of the client: in memory, and past that in a temporary file.

use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

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
    /// All bytes go to the file, which is kept.
    stores: bool,
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

    /// One that writes all bytes to a file with a name, in `folder`.
    pub fn storing(req: &Request, folder: &Path) -> Result<Queue, SpillFailed> {
        Ok(Queue { file: Some(create(req, folder, true)?), stores: true, ..Queue::default() })
    }

    /// Whether all bytes go to a file that is kept.
    pub fn stores(&self) -> bool {
        self.stores
    }

    /// The file that is kept, complete: what `place` makes of it. What waits is still read from it.
    pub fn place(&mut self, place: impl FnOnce(TempFile) -> TempFile) {
        self.file = self.file.take().map(place);
    }

    /// Forgets what waits.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.held = 0;
    }

    /// Appends bytes to the file, and to what waits for the client if `wanted`: in memory where there is `room`.
    pub fn store(
        &mut self,
        req: &Request,
        buffer: Buffer,
        wanted: bool,
        room: usize,
    ) -> Result<(), SpillFailed> {
        let (offset, len) = (self.end, buffer.len() as u64);
        self.write(req, buffer.bytes())?;
        if !wanted {
            return Ok(());
        }
        if self.held < room {
            self.push(buffer);
        } else if len > 0 {
            self.pieces.push_back(Piece::File { offset, len });
        }
        Ok(())
    }

    fn write(&mut self, req: &Request, bytes: &[u8]) -> Result<(), SpillFailed> {
        let Some(temp) = &self.file else { return Err(SpillFailed) };
        if let Err(e) = temp.file.write_all_at(bytes, self.end) {
            let path = temp.path.display();
            req.log(Level::Crit, Some(&e), format_args!("pwrite() \"{path}\" failed"));
            return Err(SpillFailed);
        }
        self.end += bytes.len() as u64;
        Ok(())
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
            let file = create(req, folder, false)?;
            let path = file.path.display();
            let text = format_args!("an upstream response is buffered to a temporary file {path}");
            req.log(Level::Warn, None, text);
            self.file = Some(file);
        }
        let start = self.end;
        let tail: Vec<Piece> = self.pieces.drain(from..).collect();
        for piece in tail {
            let Piece::Memory(buffer) = piece else { continue };
            self.write(req, buffer.bytes())?;
            self.held -= buffer.len();
        }
        match self.pieces.back_mut() {
            Some(Piece::File { offset, len }) if *offset + *len == start => *len += self.end - start,
            _ => self.pieces.push_back(Piece::File { offset: start, len: self.end - start }),
        }
        Ok(())
    }
}

fn create(req: &Request, folder: &Path, named: bool) -> Result<TempFile, SpillFailed> {
    create_temp(folder, named).map_err(|(path, e)| {
        req.log(Level::Crit, Some(&e), format_args!("open() \"{}\" failed", path.display()));
        SpillFailed
    })
}
