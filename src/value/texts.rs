//! Many texts, each once, numbered in the order they came: what the blocks with entries keep keys and values in.

/// Distinct texts in one piece of memory, found by hash.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    arena: Vec<u8>,
    /// Where each text ends in the arena, and its hash.
    entries: Vec<(u32, u32)>,
    /// Number of the text + 1, or 0; the length is a power of two, more than half of it free.
    slots: Vec<u32>,
}

/// More text than positions of 32 bits can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

/// What [`Texts::insert`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is there now, with this number.
    New(u32),
    /// It was there before.
    Old(u32),
}

/// A hash that does not depend on letters' case. Only the configuration's author chooses what collides.
fn hash(text: &[u8]) -> u32 {
    const FOLD: u64 = 0x2020_2020_2020_2020;
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut h = (text.len() as u64).wrapping_mul(FACTOR);
    let mut chunks = text.chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        h = (h ^ (u64::from_le_bytes(word) | FOLD)).wrapping_mul(FACTOR);
        h ^= h >> 32;
    }
    let rest = chunks.remainder();
    let mut word = [0; 8];
    word[..rest.len()].copy_from_slice(rest);
    h = (h ^ (u64::from_le_bytes(word) | FOLD)).wrapping_mul(FACTOR);
    (h >> 32) as u32
}

impl Texts {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Text number `index`; empty where there is none.
    pub fn get(&self, index: u32) -> &[u8] {
        let index = index as usize;
        let start = match index.checked_sub(1) {
            Some(before) => self.entries.get(before).map_or(0, |(end, _)| *end),
            None => 0,
        };
        let end = self.entries.get(index).map_or(start, |(end, _)| *end);
        self.arena.get(start as usize..end as usize).unwrap_or_default()
    }

    /// The number of `text`, which is added unless it is there.
    pub fn insert(&mut self, text: &[u8]) -> Result<Inserted, TooLarge> {
        if (self.entries.len() + 1) * 2 > self.slots.len() {
            self.grow();
        }
        let hash = hash(text);
        let at = match self.probe(hash, |known| known == text) {
            Ok(index) => return Ok(Inserted::Old(index)),
            Err(at) => at,
        };
        let end = u32::try_from(self.arena.len() + text.len()).map_err(|_| TooLarge)?;
        let index = u32::try_from(self.entries.len()).map_err(|_| TooLarge)?;
        self.arena.extend_from_slice(text);
        self.entries.push((end, hash));
        self.slots[at] = index + 1;
        Ok(Inserted::New(index))
    }

    /// The number of `text`.
    pub fn find(&self, text: &[u8]) -> Option<u32> {
        if self.entries.is_empty() {
            return None;
        }
        self.probe(hash(text), |known| known == text).ok()
    }

    /// The number of `text`, where the texts are lower-case and the letters' case of `text` does not matter.
    pub fn find_caseless(&self, text: &[u8]) -> Option<u32> {
        if self.entries.is_empty() {
            return None;
        }
        self.probe(hash(text), |known| known.eq_ignore_ascii_case(text)).ok()
    }

    /// Gives back memory that was kept for more.
    pub fn shrink(&mut self) {
        self.arena.shrink_to_fit();
        self.entries.shrink_to_fit();
    }

    /// Number of the text, or the slot where it belongs. There must be a free slot.
    fn probe(&self, hash: u32, same: impl Fn(&[u8]) -> bool) -> Result<u32, usize> {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            match self.slots[at].checked_sub(1) {
                None => return Err(at),
                Some(index) => {
                    if self.entries[index as usize].1 == hash && same(self.get(index)) {
                        return Ok(index);
                    }
                }
            }
            at = (at + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(8);
        let mut slots = vec![0; size];
        for (index, (_, hash)) in self.entries.iter().enumerate() {
            let mut at = *hash as usize & (size - 1);
            while slots[at] != 0 {
                at = (at + 1) & (size - 1);
            }
            slots[at] = index as u32 + 1;
        }
        self.slots = slots;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_are_numbered_and_found() {
        let mut texts = Texts::default();
        assert_eq!(texts.find(b"a"), None);
        for i in 0..1000u32 {
            assert_eq!(texts.insert(format!("text number {i}").as_bytes()), Ok(Inserted::New(i)));
        }
        assert_eq!(texts.insert(b"text number 7"), Ok(Inserted::Old(7)));
        assert_eq!(texts.find(b"text number 999"), Some(999));
        assert_eq!(texts.find(b"TEXT number 999"), None);
        assert_eq!(texts.find_caseless(b"TEXT Number 999"), Some(999));
        assert_eq!(texts.get(12), b"text number 12");
        assert_eq!(texts.insert(b""), Ok(Inserted::New(1000)));
        assert_eq!((texts.get(1000), texts.find(b"")), (&b""[..], Some(1000)));
    }

    proptest! {
        #[test]
        fn whatever_was_inserted_is_found(list in proptest::collection::vec("[a-c]{0,20}", 0..60)) {
            let mut texts = Texts::default();
            for text in &list {
                texts.insert(text.as_bytes()).unwrap();
            }
            for text in &list {
                let index = texts.find_caseless(text.to_uppercase().as_bytes()).unwrap();
                prop_assert_eq!(texts.get(index), text.as_bytes());
            }
        }
    }
}
