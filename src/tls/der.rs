//! Just enough of DER (X.690) to walk through structures that no crate here reads for us.

pub const INTEGER: u8 = 0x02;
pub const BIT_STRING: u8 = 0x03;
pub const OCTET_STRING: u8 = 0x04;
pub const OID: u8 = 0x06;
pub const ENUMERATED: u8 = 0x0a;
pub const GENERALIZED_TIME: u8 = 0x18;
pub const SEQUENCE: u8 = 0x30;

/// The first element: its tag, its content and what comes after it.
pub fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (len, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (len.iter().fold(0, |n, b| n << 8 | usize::from(*b)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((*tag, content, rest))
}

/// The first element when it has the tag: its content and what comes after it.
pub fn tagged(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    element(der).filter(|(t, ..)| *t == tag).map(|(_, content, rest)| (content, rest))
}

/// The first element whole, without what comes after it.
pub fn first(der: &[u8]) -> Option<&[u8]> {
    let (_, _, rest) = element(der)?;
    der.get(..der.len() - rest.len())
}

/// A small non-negative INTEGER's content as a number.
pub fn small(content: &[u8]) -> Option<u32> {
    if content.is_empty() || content.len() > 5 || content[0] & 0x80 != 0 {
        return None;
    }
    u32::try_from(content.iter().fold(0u64, |n, b| n << 8 | u64::from(*b))).ok()
}

/// Walks through elements strictly: the shortest form of every length, no tag number past 30 (X.690 section 10.1).
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(&'a [u8]);

/// An element: its tag, its content, and all of it.
#[derive(Debug, Clone, Copy)]
pub struct Element<'a> {
    pub tag: u8,
    pub content: &'a [u8],
    pub whole: &'a [u8],
}

// === impl Reader ===

impl<'a> Reader<'a> {
    pub fn new(der: &'a [u8]) -> Self {
        Reader(der)
    }

    /// The next element.
    pub fn any(&mut self) -> Option<Element<'a>> {
        let (tag, content, rest) = element(self.0)?;
        let whole = self.0.get(..self.0.len() - rest.len())?;
        let shortest = match content.len() {
            0..=0x7f => 2,
            0x80..=0xff => 3,
            0x100..=0xffff => 4,
            0x1_0000..=0xff_ffff => 5,
            _ => 6,
        };
        if tag & 0x1f == 0x1f || whole.len() - content.len() != shortest {
            return None;
        }
        self.0 = rest;
        Some(Element { tag, content, whole })
    }

    /// The content of the next element, which has to have the tag.
    pub fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.any().filter(|e| e.tag == tag).map(|e| e.content)
    }

    /// The content of the next element if it has the tag.
    pub fn optional(&mut self, tag: u8) -> Option<Option<&'a [u8]>> {
        match self.0.first() {
            Some(first) if *first == tag => self.take(tag).map(Some),
            _ => Some(None),
        }
    }

    /// What is in the next element, which has to be a SEQUENCE.
    pub fn sequence(&mut self) -> Option<Reader<'a>> {
        self.take(SEQUENCE).map(Reader)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing may follow.
    pub fn end(self) -> Option<()> {
        self.is_empty().then_some(())
    }
}

/// An element of these parts.
pub fn encode(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len: usize = parts.iter().map(|p| p.len()).sum();
    let bytes = len.to_be_bytes();
    let significant = bytes.iter().position(|b| *b != 0).map_or(&[][..], |at| &bytes[at..]);
    let mut out = vec![tag];
    match len {
        0..=0x7f => out.push(len as u8),
        _ => {
            out.push(0x80 | significant.len() as u8);
            out.extend(significant);
        }
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_have_one_form() {
        assert_eq!(Reader::new(&[4, 1, 9]).take(OCTET_STRING), Some(&[9][..]));
        assert_eq!(Reader::new(&[4, 0x81, 1, 9]).take(OCTET_STRING).map(<[u8]>::len), None);
        assert_eq!(Reader::new(&[0x1f, 1, 9]).any().map(|e| e.tag), None);
        assert!(Reader::new(&[4, 0x80, 0, 0]).any().is_none());
        assert_eq!(Reader::new(&[4, 1, 9]).optional(SEQUENCE), Some(None));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read(content in prop::collection::vec(any::<u8>(), 0..70_000)) {
            let der = encode(OCTET_STRING, &[&content]);
            let mut reader = Reader::new(&der);
            prop_assert_eq!(reader.take(OCTET_STRING), Some(&content[..]));
            prop_assert!(reader.end().is_some());
        }
    }
}
