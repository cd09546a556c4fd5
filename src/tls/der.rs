//! Just enough of DER (X.690) to walk through structures that no crate here reads for us.

pub const INTEGER: u8 = 0x02;
pub const OCTET_STRING: u8 = 0x04;
pub const OID: u8 = 0x06;
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
