//! `charset_map`: how characters of one charset become those of another.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::conf::{Fault, Outcome, units};
use crate::syntax::{Directive, Item};

/// A map between two charsets, to be used both ways.
#[derive(Debug)]
pub struct Map {
    from: Bytes,
    to: Bytes,
    table: Arc<Table>,
}

#[derive(Debug)]
enum Table {
    /// Byte for byte, there and back.
    Bytes(Box<[u8; 256]>, Box<[u8; 256]>),
    /// The second charset is UTF-8.
    Utf8 { to: Vec<Vec<u8>>, from: HashMap<u32, u8> },
}

impl Map {
    /// Reads the block.
    pub fn read(from: Bytes, to: Bytes, d: &Directive<'_>) -> Outcome<Map> {
        let mut table = Table::new(to.eq_ignore_ascii_case(b"utf-8"));
        if let Some(items) = d.block() {
            for item in items {
                let entry = match item {
                    Item::Directive(entry) => entry,
                    Item::Error(error) => return Err(Fault::whole(error)),
                };
                table.entry(&entry).map_err(|fault| Fault::Whole(fault.text(entry.name(), entry.at())))?;
            }
        }
        Ok(Map { from, to, table: Arc::new(table) })
    }

    /// Whether it leads from one charset to another: `true` forwards, `false` backwards.
    pub fn direction(&self, from: &[u8], to: &[u8]) -> Option<bool> {
        let same = |a: &[u8], b: &[u8]| a.eq_ignore_ascii_case(b);
        if same(&self.from, from) && same(&self.to, to) {
            Some(true)
        } else if same(&self.from, to) && same(&self.to, from) {
            Some(false)
        } else {
            None
        }
    }

    /// A recoder in one direction.
    pub fn recode(&self, forward: bool) -> Recode {
        Recode { table: self.table.clone(), forward, held: Vec::new() }
    }
}

impl Table {
    fn new(utf8: bool) -> Table {
        let identity = |c: usize| if c < 128 { c as u8 } else { b'?' };
        if utf8 {
            let to = (0..256).map(|c| vec![identity(c)]).collect();
            return Table::Utf8 { to, from: (0..128).map(|c| (c, c as u8)).collect() };
        }
        let table: [u8; 256] = std::array::from_fn(identity);
        Table::Bytes(Box::new(table), Box::new(table))
    }

    fn entry(&mut self, entry: &Directive<'_>) -> Outcome {
        if entry.len() != 2 || entry.block().is_some() {
            return Err(Fault::here("invalid parameters number"));
        }
        let byte = |text: &[u8], whole: &[u8]| {
            units::hex(text).and_then(|n| u8::try_from(n).ok()).ok_or_else(|| Fault::invalid_value(whole))
        };
        let source = byte(entry.name(), entry.name())?;
        let word = entry.arg(1);
        match self {
            Table::Bytes(there, back) => {
                let target = byte(word, word)?;
                there[usize::from(source)] = target;
                back[usize::from(target)] = source;
            }
            Table::Utf8 { to, from } => {
                if word.len() / 2 > 3 {
                    return Err(Fault::invalid_value(word));
                }
                let bytes: Vec<u8> = word.chunks(2).map(|pair| byte(pair, word)).collect::<Outcome<_>>()?;
                let character = match decode(&bytes) {
                    (Decoded::Character(c), _) if c <= 0xffff => c,
                    _ => return Err(Fault::invalid_value(word)),
                };
                to[usize::from(source)] = bytes;
                from.insert(character, source);
            }
        }
        Ok(())
    }
}

enum Decoded {
    Character(u32),
    Invalid,
    /// The text ends within the character.
    Incomplete,
}

/// The first character of UTF-8 text, and how many bytes it takes; not more strict than nginx.
fn decode(text: &[u8]) -> (Decoded, usize) {
    let Some((&first, rest)) = text.split_first() else { return (Decoded::Incomplete, 0) };
    let (mut value, least, len) = match first {
        0..=0x7f => return (Decoded::Character(first.into()), 1),
        0xf0..=0xf7 => (u32::from(first & 7), 0x1_0000, 3),
        0xe0..=0xef => (u32::from(first & 15), 0x800, 2),
        0xc2..=0xdf => (u32::from(first & 31), 0x80, 1),
        _ => return (Decoded::Invalid, 1),
    };
    if rest.len() < len {
        return (Decoded::Incomplete, 0);
    }
    for (i, &c) in rest[..len].iter().enumerate() {
        if c < 0x80 {
            return (Decoded::Invalid, i + 2);
        }
        value = value << 6 | u32::from(c & 0x3f);
    }
    (if value >= least { Decoded::Character(value) } else { Decoded::Invalid }, len + 1)
}

/// Recodes a body piece by piece.
pub struct Recode {
    table: Arc<Table>,
    forward: bool,
    /// The beginning of a character whose rest has not come.
    held: Vec<u8>,
}

impl Recode {
    /// Whether the result may be of another length.
    pub fn changes_length(&self) -> bool {
        matches!(*self.table, Table::Utf8 { .. })
    }

    /// Appends a piece, recoded.
    pub fn run(&mut self, input: &[u8], out: &mut Vec<u8>) {
        let table = self.table.clone();
        match (&*table, self.forward) {
            (Table::Bytes(there, _), true) => out.extend(input.iter().map(|c| there[usize::from(*c)])),
            (Table::Bytes(_, back), false) => out.extend(input.iter().map(|c| back[usize::from(*c)])),
            (Table::Utf8 { to, .. }, true) => {
                input.iter().for_each(|c| out.extend_from_slice(&to[usize::from(*c)]));
            }
            (Table::Utf8 { from, .. }, false) => self.out_of_utf8(from, input, out),
        }
    }

    fn out_of_utf8(&mut self, table: &HashMap<u32, u8>, input: &[u8], out: &mut Vec<u8>) {
        let joined;
        let mut text = input;
        if !self.held.is_empty() {
            joined = [&std::mem::take(&mut self.held)[..], input].concat();
            text = &joined;
        }
        while let Some(&c) = text.first() {
            if c < 0x80 {
                out.push(c);
                text = &text[1..];
                continue;
            }
            match decode(text) {
                (Decoded::Incomplete, _) => {
                    self.held = text.to_vec();
                    return;
                }
                (Decoded::Character(c), len) if c <= 0x10_ffff => {
                    match table.get(&c) {
                        Some(byte) if *byte != 0 => out.push(*byte),
                        _ => out.extend(format!("&#{c};").into_bytes()),
                    }
                    text = &text[len..];
                }
                (_, len) => {
                    out.push(b'?');
                    text = &text[len..];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn characters() {
        for (text, want) in [("é", 0xe9), ("€", 0x20ac), ("𝄞", 0x1d11e), ("a", 0x61)] {
            let (decoded, len) = decode(text.as_bytes());
            assert!(matches!(decoded, Decoded::Character(c) if c == want), "{text}");
            assert_eq!(len, text.len());
        }
        assert!(matches!(decode(b"\xc0\xaf"), (Decoded::Invalid, 1)));
        assert!(matches!(decode(b"\xe2\x82"), (Decoded::Incomplete, 0)));
        assert!(matches!(decode(b"\xe0\x80\xaf"), (Decoded::Invalid, 3)));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(bytes in proptest::collection::vec(any::<u8>(), 0..40), cut in 0usize..40) {
            let map = Map { from: "a".into(), to: "utf-8".into(), table: Arc::new(Table::new(true)) };
            let cut = cut.min(bytes.len());
            let run = |pieces: &[&[u8]]| {
                let (mut recode, mut out) = (map.recode(false), Vec::new());
                pieces.iter().for_each(|p| recode.run(p, &mut out));
                out
            };
            prop_assert_eq!(run(&[&bytes]), run(&[&bytes[..cut], &bytes[cut..]]));
        }
    }
}
