//! PEM (RFC 7468), read as OpenSSL reads it: text around blocks is skipped, headers inside them are kept.

/// Why a block cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PemError {
    BadEndLine,
    BadBase64,
}

/// One block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What stands after BEGIN.
    pub label: String,
    /// RFC 1421 headers (`Proc-Type`, `DEK-Info`) with their values.
    pub headers: Vec<(String, String)>,
    pub der: Vec<u8>,
}

/// Reads the blocks of a text one after another.
pub struct Blocks<'a> {
    rest: &'a [u8],
}

/// The blocks of `text`, in order. An error ends the iteration.
pub fn blocks(text: &[u8]) -> Blocks<'_> {
    Blocks { rest: text }
}

// === impl Blocks ===

impl<'a> Blocks<'a> {
    fn line(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', self.rest);
        let (line, rest) = match end {
            Some(end) => (&self.rest[..end], &self.rest[end + 1..]),
            None => (self.rest, &self.rest[self.rest.len()..]),
        };
        self.rest = rest;
        Some(line.trim_ascii_end())
    }

    fn body(&mut self, label: String) -> Result<Block, PemError> {
        let mut headers = Vec::new();
        let mut text = Vec::new();
        loop {
            let line = self.line().ok_or(PemError::BadEndLine)?;
            if let Some(end) = line.strip_prefix(b"-----END ") {
                if end.strip_suffix(b"-----") != Some(label.as_bytes()) {
                    return Err(PemError::BadEndLine);
                }
                let der = decode(&text).ok_or(PemError::BadBase64)?;
                return Ok(Block { label, headers, der });
            }
            if line.starts_with(b"-----") {
                return Err(PemError::BadEndLine);
            }
            match memchr::memchr(b':', line) {
                Some(colon) => {
                    let part = |bytes: &[u8]| String::from_utf8_lossy(bytes.trim_ascii()).into_owned();
                    headers.push((part(&line[..colon]), part(&line[colon + 1..])));
                }
                None => text.extend_from_slice(line),
            }
        }
    }
}

impl Iterator for Blocks<'_> {
    type Item = Result<Block, PemError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = self.line()?;
            let Some(label) = line.strip_prefix(b"-----BEGIN ").and_then(|l| l.strip_suffix(b"-----")) else {
                continue;
            };
            let block = self.body(String::from_utf8_lossy(label).into_owned());
            if block.is_err() {
                self.rest = &[];
            }
            return Some(block);
        }
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 (RFC 4648 section 4) to bytes; `None` for anything else.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    for chunk in digits.chunks(4) {
        let mut bits = 0u32;
        for c in chunk {
            let value = match c {
                b'A'..=b'Z' => c - b'A',
                b'a'..=b'z' => c - b'a' + 26,
                b'0'..=b'9' => c - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        bits <<= 6 * (4 - chunk.len());
        out.extend_from_slice(&bits.to_be_bytes()[1..chunk.len()]);
    }
    Some(out)
}

/// One block as text, lines of 64 characters, with the line feed at the end.
pub fn encode(label: &str, der: &[u8]) -> String {
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in der.chunks(48) {
        out.push_str(&base64(line));
        out.push('\n');
    }
    out + &format!("-----END {label}-----\n")
}

/// Base64 (RFC 4648 section 4), padded, on one line.
pub fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut quad = [0; 4];
        quad[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(quad);
        for i in 0..4 {
            match i <= chunk.len() {
                true => out.push(ALPHABET[(bits >> (18 - 6 * i)) as usize & 63] as char),
                false => out.push('='),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn skips_text_and_keeps_headers() {
        let text =
            b"Certificate:\n  x\n-----BEGIN A B-----\r\nDEK-Info: AES-128-CBC,00\r\n\r\nAQID\r\nBA==\r\n\
            -----END A B-----\n-----BEGIN C-----\n-----END C-----";
        let all: Vec<_> = blocks(text).map(Result::unwrap).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].label, "A B");
        assert_eq!(all[0].headers, [("DEK-Info".to_owned(), "AES-128-CBC,00".to_owned())]);
        assert_eq!(all[0].der, [1, 2, 3, 4]);
        assert!(all[1].der.is_empty());
    }

    #[test]
    fn tells_what_is_wrong() {
        let first = |text: &[u8]| blocks(text).next();
        assert_eq!(first(b"nothing here"), None);
        assert_eq!(first(b"-----BEGIN A-----\nAQID\n"), Some(Err(PemError::BadEndLine)));
        assert_eq!(first(b"-----BEGIN A-----\nAQID\n-----END B-----\n"), Some(Err(PemError::BadEndLine)));
        assert_eq!(first(b"-----BEGIN A-----\nA!ID\n-----END A-----\n"), Some(Err(PemError::BadBase64)));
        assert_eq!(first(b"-----BEGIN A-----\nAQI\n-----END A-----\n"), Some(Err(PemError::BadBase64)));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(der in prop::collection::vec(any::<u8>(), 0..200)) {
            let text = encode("X", &der);
            prop_assert!(text.lines().all(|l| l.len() <= 64));
            prop_assert_eq!(blocks(text.as_bytes()).next().unwrap().unwrap().der, der);
        }

        #[test]
        fn arbitrary_text_never_panics(text in "(-----BEGIN A-----\n|-----END A-----\n|[A=:\r\n]){0,20}") {
            let _ = blocks(text.as_bytes()).count();
        }
    }
}
