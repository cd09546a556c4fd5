//! Buffers from a pool that each thread owns: taken when bytes arrive, given back when they are gone.

use std::cell::RefCell;
use std::fmt;

/// The least size, as a power of two; smaller ones get this one.
const LEAST: u32 = 10;
/// Sizes kept in the pool: the powers of two from [`LEAST`] on. The largest takes
/// 64 KiB sealed as records of TLS. Larger ones are made to measure.
const CLASSES: usize = 8;
/// Bytes a thread keeps at most in each class.
const KEEP: usize = 1 << 20;

thread_local! {
    static POOL: RefCell<[Vec<Box<[u8]>>; CLASSES]> = RefCell::new(Default::default());
}

/// Bytes `start..end` of a fixed piece of memory. Goes back to the pool when dropped.
#[derive(Default)]
pub struct Buffer {
    data: Box<[u8]>,
    start: usize,
    end: usize,
}

/// Where pieces of that size are kept.
fn class(size: usize) -> Option<usize> {
    let class = size.trailing_zeros().checked_sub(LEAST)? as usize;
    (size.is_power_of_two() && class < CLASSES).then_some(class)
}

impl Buffer {
    /// At least `size` bytes of room.
    pub fn with_capacity(size: usize) -> Buffer {
        let rounded = size.max(1 << LEAST).next_power_of_two();
        let data = match class(rounded) {
            Some(class) => POOL
                .try_with(|pool| pool.borrow_mut()[class].pop())
                .ok()
                .flatten()
                .unwrap_or_else(|| vec![0; rounded].into()),
            None => vec![0; size].into(),
        };
        Buffer { data, start: 0, end: 0 }
    }

    /// The bytes not consumed yet.
    pub fn bytes(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    /// The same, to be changed in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.data[self.start..self.end]
    }

    /// Forgets all but the first `len` bytes not consumed yet.
    pub fn truncate(&mut self, len: usize) {
        self.end = self.end.min(self.start + len);
        self.consume(0);
    }

    /// Number of bytes not consumed yet.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing is left to consume.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Room for all bytes, consumed ones included.
    pub fn capacity(&self) -> usize {
        self.data.len()
    }

    /// Where bytes can be written; [`Buffer::filled`] says how many were.
    pub fn spare(&mut self) -> &mut [u8] {
        &mut self.data[self.end..]
    }

    /// `n` bytes were written to [`Buffer::spare`].
    pub fn filled(&mut self, n: usize) {
        self.end = (self.end + n).min(self.data.len());
    }

    /// Takes `n` bytes off the front.
    pub fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Moves what is left to the front, so that the spare room is one piece.
    pub fn compact(&mut self) {
        if self.start > 0 {
            self.data.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }

    /// Appends as much of `bytes` as there is room for, and returns how much that was.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.data.len() - self.end);
        self.data[self.end..self.end + n].copy_from_slice(&bytes[..n]);
        self.end += n;
        n
    }

    /// Moves the bytes left to a buffer with more room.
    pub fn grow(&mut self, size: usize) {
        let mut larger = Buffer::with_capacity(size.max(self.len()));
        if self.is_empty() {
            *self = larger;
            return;
        }
        larger.push(self.bytes());
        *self = larger;
    }

    /// Gives the memory back, leaving an empty buffer without room.
    pub fn release(&mut self) {
        *self = Buffer::default();
    }
}

impl From<&[u8]> for Buffer {
    /// A copy, with no more room than it needs and none for nothing.
    fn from(bytes: &[u8]) -> Buffer {
        let mut buffer = Buffer::default();
        if !bytes.is_empty() {
            buffer = Buffer::with_capacity(bytes.len());
            buffer.push(bytes);
        }
        buffer
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl Drop for Buffer {
    #[inline]
    fn drop(&mut self) {
        if !self.data.is_empty() {
            self.give_back();
        }
    }
}

impl Buffer {
    #[inline(never)]
    fn give_back(&mut self) {
        let Some(class) = class(self.data.len()) else { return };
        let data = std::mem::take(&mut self.data);
        // Past the thread's end the pool is gone and the memory is simply freed.
        let _ = POOL.try_with(|pool| {
            let list = &mut pool.borrow_mut()[class];
            if list.len() < KEEP >> (LEAST as usize + class) {
                list.push(data);
            }
        });
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({}..{} of {})", self.start, self.end, self.data.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again() {
        let first = Buffer::with_capacity(4000);
        let at = first.data.as_ptr();
        drop(first);
        assert_eq!(Buffer::with_capacity(4096).data.as_ptr(), at);
    }

    #[test]
    fn bytes_pass_in_order_and_room_comes_back() {
        let mut b = Buffer::with_capacity(1024);
        assert_eq!(b.push(b"hello world"), 11);
        b.consume(6);
        assert_eq!(b.bytes(), b"world");
        b.compact();
        assert_eq!(b.bytes(), b"world");
        assert_eq!(b.spare().len(), 1019);
        b.grow(5000);
        assert_eq!((b.bytes(), b.capacity()), (&b"world"[..], 8192));
        b.consume(5);
        assert_eq!(b.spare().len(), 8192);
    }
}
