//! Header fields as nearly all are written: what is found here in one pass needs no second look.

/// A field at the beginning of a text: `Name: value`, and the line's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsualField {
    /// Length of the name.
    pub name: usize,
    /// Where the value begins.
    pub start: usize,
    /// Where the value ends.
    pub end: usize,
    /// Length of the line with its end.
    pub total: usize,
}

/// The field that `text` begins with. None where it is not complete, or [`super::field_line`] has to look at it: other
/// bytes in the name, more than one space before the value, spaces behind it, control characters in it.
#[inline(always)]
pub fn usual_field(text: &[u8]) -> Option<UsualField> {
    let name = first(text, not_in_names, |c| !c.is_ascii_alphanumeric() && c != b'-')?;
    if name == 0 || text[name] != b':' {
        return None;
    }
    let start = name + 1 + usize::from(text.get(name + 1) == Some(&b' '));
    let end = start + first(text.get(start..)?, controls, |c| c < 0x20)?;
    let total = match &text[end..] {
        [b'\r', b'\n', ..] => end + 2,
        [b'\n', ..] => end + 1,
        _ => return None,
    };
    let spaces = end > start && (text[start] == b' ' || text[end - 1] == b' ');
    (!spaces).then_some(UsualField { name, start, end, total })
}

/// One in each byte of a word.
const EACH: u64 = 0x0101_0101_0101_0101;
/// The bit that marks a byte.
const MARK: u64 = EACH * 0x80;

/// Place of the first byte that `is` tells. `marks` tells the same of eight bytes at a time: of the marked ones, the
/// lowest is right.
#[inline(always)]
fn first(text: &[u8], marks: impl Fn(u64) -> u64, is: impl Fn(u8) -> bool) -> Option<usize> {
    let (words, rest) = text.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let marks = marks(u64::from_le_bytes(*word));
        if marks != 0 {
            return Some(i * 8 + marks.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(|c| is(*c)).map(|at| words.len() * 8 + at)
}

/// Marks bytes below 0x20, and may mark some above the first.
#[inline(always)]
fn controls(word: u64) -> u64 {
    word.wrapping_sub(EACH * 0x20) & !word & MARK
}

/// Marks bytes other than letters, digits and hyphens.
#[inline(always)]
fn not_in_names(word: u64) -> u64 {
    let ascii = word & !MARK;
    // Nothing is carried from one byte to the next: both are below 0x80.
    let from = |least: u8, word: u64| word + EACH * u64::from(0x80 - least);
    let range = |least: u8, most: u8, word: u64| from(least, word) & !from(most + 1, word);
    let lower = ascii | (EACH * 0x20);
    let good = range(b'a', b'z', lower) | range(b'0', b'9', ascii) | range(b'-', b'-', ascii);
    (!good | word) & MARK
}

#[cfg(test)]
mod tests {
    use super::super::{FieldLine, field_line};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_usual() {
        let field = |text: &str| {
            usual_field(text.as_bytes())
                .map(|f| format!("{}={} {}", &text[..f.name], &text[f.start..f.end], &text[f.total..]))
        };
        assert_eq!(field("Host: a\r\nB: c\r\n").as_deref(), Some("Host=a B: c\r\n"));
        assert_eq!(field("Host:a\n").as_deref(), Some("Host=a "));
        assert_eq!(field("X-Long: 0123456789 abcdef\r\n").as_deref(), Some("X-Long=0123456789 abcdef "));
        assert_eq!(field("Empty:\r\n").as_deref(), Some("Empty= "));
        assert_eq!(field("Empty: \r\n").as_deref(), Some("Empty= "));
        for other in
            ["", "Host", "Host: a", "Host: a\r", "\r\n", ": a\r\n", "a b: c\r\n", "a_b: c\r\n", "a:  b\r\n"]
        {
            assert_eq!(field(other), None, "{other:?}");
        }
        for other in ["a: b \r\n", "a: b\tc\r\n", "a: b\0\r\n", "a: b\r\r\n", "a: b\rc\n"] {
            assert_eq!(field(other), None, "{other:?}");
        }
    }

    #[test]
    fn words_are_read_as_bytes_are() {
        for c in 0..=255u8 {
            for at in 0..8 {
                let mut bytes = *b"Az09-azZ";
                bytes[at] = c;
                let word = u64::from_le_bytes(bytes);
                let mark = 0x80u64 << (8 * at);
                let wrong = !c.is_ascii_alphanumeric() && c != b'-';
                assert_eq!(not_in_names(word), if wrong { mark } else { 0 }, "{c} at {at}");
                assert_eq!(controls(word).trailing_zeros() / 8, if c < 0x20 { at as u32 } else { 8 });
            }
        }
    }

    proptest! {
        #[test]
        fn the_whole_parser_agrees(text in "[A-Za-z_:\\- ]{0,12}[:]?[ -~\\t\\r\u{0}\u{e9}]{0,40}\\r?\\n[a-z]{0,3}") {
            let text = text.as_bytes();
            if let Some(f) = usual_field(text) {
                let line = &text[..f.total - 1];
                prop_assert!(!line.contains(&b'\n'));
                let found = FieldLine::Field { name: 0..f.name, value: f.start..f.end, valid: true };
                prop_assert_eq!(field_line(line, false), found);
            }
        }
    }
}
