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

/// Letters, digits and hyphens.
const NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut c = 0;
    while c < 128 {
        table[c] = (c as u8).is_ascii_alphanumeric() || c as u8 == b'-';
        c += 1;
    }
    table
};

/// The field that `text` begins with. None where it is not complete, or [`super::field_line`] has to look at it: other
/// bytes in the name, more than one space before the value, spaces behind it, control characters in it.
#[inline(always)]
pub fn usual_field(text: &[u8]) -> Option<UsualField> {
    let name = text.iter().position(|c| !NAME[*c as usize])?;
    if name == 0 || text[name] != b':' {
        return None;
    }
    let start = name + 1 + usize::from(text.get(name + 1) == Some(&b' '));
    let end = start + first_control(text.get(start..)?)?;
    let total = match &text[end..] {
        [b'\r', b'\n', ..] => end + 2,
        [b'\n', ..] => end + 1,
        _ => return None,
    };
    let spaces = end > start && (text[start] == b' ' || text[end - 1] == b' ');
    (!spaces).then_some(UsualField { name, start, end, total })
}

/// Place of the first byte below 0x20.
#[inline]
fn first_control(text: &[u8]) -> Option<usize> {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let (words, rest) = text.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        // Eight bytes at a time: the lowest mark is right, those above it may be carried over.
        let word = u64::from_le_bytes(*word);
        let marks = word.wrapping_sub(EACH * 0x20) & !word & (EACH * 0x80);
        if marks != 0 {
            return Some(i * 8 + marks.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(|c| *c < 0x20).map(|at| words.len() * 8 + at)
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
