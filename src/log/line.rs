//! One line of the error log, built in place.

use super::Level;
use crate::net::clock;
use std::fmt::{self, Write};
use std::io;

/// The longest line, its end included (NGX_MAX_ERROR_STR).
const LINE: usize = 2048;
/// Room kept for a system error at the end of a long message.
const REASON: usize = 50;
/// Bytes that are not UTF-8 travel through `fmt` as characters from here on, one a byte.
const RAW: u32 = 0x10_FF00;

pub(super) struct Line {
    buffer: [u8; LINE],
    length: usize,
}

/// Shows bytes that may not be UTF-8; the error log writes them as they are.
pub struct Bytes<'a>(&'a [u8]);

/// See [`Bytes`].
pub fn bytes(bytes: &[u8]) -> Bytes<'_> {
    Bytes(bytes)
}

/// A system error as nginx prints it: `(111: Connection refused)`.
pub fn os_error(error: &io::Error) -> String {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(number) => {
            let text = text.strip_suffix(&format!(" (os error {number})")).unwrap_or(&text);
            format!("({number}: {text})")
        }
        None => format!("({text})"),
    }
}

// === impl Line ===

impl Line {
    pub(super) fn new() -> Line {
        Line { buffer: [0; LINE], length: 0 }
    }

    /// Time, level, process and connection; returns where the message starts, which is all of a line that
    /// standard error gets.
    pub(super) fn head(&mut self, level: Level, connection: Option<u64>) -> usize {
        clock::with_texts(|texts| self.push_bytes(&texts.error_log));
        let (pid, tid) = (nix::unistd::getpid(), nix::unistd::gettid());
        self.push(format_args!(" [{}] {pid}#{tid}: ", level.name()));
        if let Some(number) = connection {
            self.push(format_args!("*{number} "));
        }
        self.length
    }

    pub(super) fn push(&mut self, text: fmt::Arguments<'_>) {
        // It fails only when the line is full, and a full line is cut.
        let _ = self.write_fmt(text);
    }

    pub(super) fn push_reason(&mut self, reason: &io::Error) {
        if self.length > LINE - REASON {
            self.length = LINE - REASON;
            self.push_bytes(b"...");
        }
        let _ = write!(self, " {}", os_error(reason));
    }

    pub(super) fn push_bytes(&mut self, bytes: &[u8]) {
        let count = bytes.len().min(LINE - self.length);
        self.buffer[self.length..self.length + count].copy_from_slice(&bytes[..count]);
        self.length += count;
    }

    /// The line with its end.
    pub(super) fn finish(&mut self) -> &[u8] {
        self.length = self.length.min(LINE - 1);
        self.buffer[self.length] = b'\n';
        &self.buffer[..self.length + 1]
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        // The first byte of every character from U+10FF00 on; rare enough to look no closer before it is met.
        while let Some(at) = memchr::memchr(0xF4, rest.as_bytes()) {
            let (before, from) = rest.split_at(at);
            self.push_bytes(before.as_bytes());
            let Some(character) = from.chars().next() else { break };
            let (whole, after) = from.split_at(character.len_utf8());
            match u32::from(character).checked_sub(RAW) {
                Some(byte) => self.push_bytes(&[byte as u8]),
                None => self.push_bytes(whole.as_bytes()),
            }
            rest = after;
        }
        self.push_bytes(rest.as_bytes());
        if self.length == LINE { Err(fmt::Error) } else { Ok(()) }
    }
}

impl fmt::Display for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let raw = |f: &mut fmt::Formatter<'_>, bytes: &[u8]| {
            bytes
                .iter()
                .try_for_each(|byte| f.write_char(char::from_u32(RAW + u32::from(*byte)).unwrap_or('?')))
        };
        for chunk in self.0.utf8_chunks() {
            let mut rest = chunk.valid();
            while let Some(at) = rest.find(|character| u32::from(character) >= RAW) {
                f.write_str(&rest[..at])?;
                raw(f, &rest.as_bytes()[at..at + 4])?;
                rest = &rest[at + 4..];
            }
            f.write_str(rest)?;
            raw(f, chunk.invalid())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_long_line_is_cut_and_keeps_its_reason() {
        let mut line = Line::new();
        line.push(format_args!("{}", "x".repeat(5000)));
        line.push_reason(&io::Error::from_raw_os_error(libc::ENOENT));
        let bytes = line.finish();
        assert!(bytes.ends_with(b"x... (2: No such file or directory)\n"));
        assert!(bytes.len() <= LINE);

        let mut line = Line::new();
        line.push(format_args!("{}", "x".repeat(5000)));
        assert_eq!(line.finish().len(), LINE);
    }

    #[test]
    fn errors_without_a_number_keep_their_words() {
        assert_eq!(os_error(&io::Error::other("it broke")), "(it broke)");
        assert_eq!(os_error(&io::Error::from_raw_os_error(98)), "(98: Address already in use)");
    }

    proptest! {
        #[test]
        fn any_bytes_pass_unchanged(given in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut line = Line::new();
            line.push(format_args!("{}", bytes(&given)));
            let written = line.finish();
            prop_assert_eq!(&written[..written.len() - 1], &given[..]);
        }

        #[test]
        fn any_text_passes_unchanged(given in "\\PC{0,60}\u{10FF41}?\u{10FFFD}?") {
            let mut line = Line::new();
            line.push(format_args!("{}", bytes(given.as_bytes())));
            let written = line.finish();
            prop_assert_eq!(&written[..written.len() - 1], given.as_bytes());
        }
    }
}
