//! Sixteen bytes of a text at a time, with the instructions that every processor of the kind has.

/// Bytes looked at together.
pub const LANES: usize = 16;

/// A class of bytes.
pub trait Class {
    /// A bit for each byte in the class, the first byte's lowest.
    fn marks(bytes: &[u8; LANES]) -> u32;
}

/// Place of the first byte in the class at `at` or behind it.
#[inline(always)]
pub fn first<C: Class>(text: &[u8], mut at: usize) -> Option<usize> {
    while let Some(bytes) = text.get(at..)?.first_chunk() {
        let marks = C::marks(bytes);
        if marks != 0 {
            return Some(at + marks.trailing_zeros() as usize);
        }
        at += LANES;
    }
    match text.last_chunk() {
        // What is before `at` was seen.
        Some(bytes) => {
            let seen = at + LANES - text.len();
            let marks = C::marks(bytes) >> seen;
            (marks != 0).then(|| at + marks.trailing_zeros() as usize)
        }
        None => {
            let marks = C::marks(&padded(text)) >> at & ((1 << (text.len() - at)) - 1);
            (marks != 0).then(|| at + marks.trailing_zeros() as usize)
        }
    }
}

/// A text of less than sixteen bytes, and nothing behind it.
#[inline(always)]
fn padded(text: &[u8]) -> [u8; LANES] {
    // Two loads that overlap, which a copy of an unknown length is not.
    let all = if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        u128::from(u64::from_le_bytes(*first))
            | u128::from(u64::from_le_bytes(*last)) << (8 * (text.len() - 8))
    } else {
        text.iter().rev().fold(0, |all, byte| all << 8 | u128::from(*byte))
    };
    all.to_le_bytes()
}

macro_rules! classes {
    ($($(#[$doc:meta])* $class:ident = $marks:ident;)*) => {
        $($(#[$doc])*
        pub struct $class;

        impl Class for $class {
            #[inline(always)]
            fn marks(bytes: &[u8; LANES]) -> u32 {
                // SAFETY: x86-64 has SSE2 always.
                #[cfg(target_arch = "x86_64")]
                return unsafe { sse2::$marks(bytes) };
                #[cfg(not(target_arch = "x86_64"))]
                return one_by_one(bytes, single::$marks);
            }
        })*
    };
}

classes! {
    /// All but letters, digits and hyphens: what ends the name of a usual field.
    NotInNames = not_in_names;
    /// All but small letters, digits, hyphens and dots: what ends a usual host.
    NotInHosts = not_in_hosts;
    /// Control characters: what ends a usual value.
    Controls = controls;
    /// Control characters, the space and DEL: what ends a URI.
    NotInUris = not_in_uris;
}

/// The same of any bytes, for processors without such instructions, and to hold those against.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn one_by_one(bytes: &[u8; LANES], has: impl Fn(u8) -> bool) -> u32 {
    bytes.iter().rev().fold(0, |marks, byte| marks << 1 | u32::from(has(*byte)))
}

#[cfg(any(test, not(target_arch = "x86_64")))]
mod single {
    pub fn not_in_names(byte: u8) -> bool {
        !byte.is_ascii_alphanumeric() && byte != b'-'
    }

    pub fn not_in_hosts(byte: u8) -> bool {
        !matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.')
    }

    pub fn controls(byte: u8) -> bool {
        byte < b' '
    }

    pub fn not_in_uris(byte: u8) -> bool {
        byte <= b' ' || byte == 0x7f
    }
}

#[cfg(target_arch = "x86_64")]
mod sse2 {
    use std::arch::x86_64::{
        __m128i, _mm_and_si128, _mm_cmpeq_epi8, _mm_cmpgt_epi8, _mm_min_epu8, _mm_movemask_epi8,
        _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8,
    };

    use super::LANES;

    #[inline]
    #[target_feature(enable = "sse2")]
    fn load(bytes: &[u8; LANES]) -> __m128i {
        // One load, which the compiler makes of it.
        let both = u128::from_le_bytes(*bytes);
        _mm_set_epi64x((both >> 64) as i64, both as i64)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn each(byte: u8) -> __m128i {
        _mm_set1_epi8(byte as i8)
    }

    /// Bytes from `least` to `most`, both ASCII. Bytes that are not are negative here, and below all.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn range(bytes: __m128i, least: u8, most: u8) -> __m128i {
        _mm_and_si128(_mm_cmpgt_epi8(bytes, each(least - 1)), _mm_cmpgt_epi8(each(most + 1), bytes))
    }

    /// A bit for each byte that is in none of three sets.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn none(sets: [__m128i; 3]) -> u32 {
        let any = _mm_or_si128(_mm_or_si128(sets[0], sets[1]), sets[2]);
        !_mm_movemask_epi8(any) as u32 & ((1 << LANES) - 1)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    pub fn not_in_names(bytes: &[u8; LANES]) -> u32 {
        let bytes = load(bytes);
        let small = _mm_or_si128(bytes, each(0x20));
        none([range(small, b'a', b'z'), range(bytes, b'0', b'9'), _mm_cmpeq_epi8(bytes, each(b'-'))])
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    pub fn not_in_hosts(bytes: &[u8; LANES]) -> u32 {
        let bytes = load(bytes);
        // The hyphen and the dot are neighbours.
        none([range(bytes, b'a', b'z'), range(bytes, b'0', b'9'), range(bytes, b'-', b'.')])
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn up_to(bytes: __m128i, most: u8) -> __m128i {
        _mm_cmpeq_epi8(_mm_min_epu8(bytes, each(most)), bytes)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    pub fn controls(bytes: &[u8; LANES]) -> u32 {
        _mm_movemask_epi8(up_to(load(bytes), b' ' - 1)) as u32
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    pub fn not_in_uris(bytes: &[u8; LANES]) -> u32 {
        let bytes = load(bytes);
        _mm_movemask_epi8(_mm_or_si128(up_to(bytes, b' '), _mm_cmpeq_epi8(bytes, each(0x7f)))) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn every_byte_in_every_lane<C: Class>(has: fn(u8) -> bool) {
        for byte in 0..=255 {
            for lane in 0..LANES {
                for other in [b'a', b':'] {
                    let mut bytes = [other; LANES];
                    bytes[lane] = byte;
                    assert_eq!(C::marks(&bytes), one_by_one(&bytes, has), "{byte} at {lane}");
                }
            }
        }
    }

    #[test]
    fn lanes_are_told_as_bytes_are() {
        every_byte_in_every_lane::<NotInNames>(single::not_in_names);
        every_byte_in_every_lane::<NotInHosts>(single::not_in_hosts);
        every_byte_in_every_lane::<Controls>(single::controls);
        every_byte_in_every_lane::<NotInUris>(single::not_in_uris);
    }

    proptest! {
        #[test]
        fn the_first_is_found(text in "[a-z.:]{0,50}", at in 0usize..52) {
            let text = text.as_bytes();
            let slow = text.get(at..).and_then(|rest| rest.iter().position(|c| single::not_in_names(*c)));
            prop_assert_eq!(first::<NotInNames>(text, at), slow.map(|n| at + n));
            if text.len() < LANES {
                let mut all = [0; LANES];
                all[..text.len()].copy_from_slice(text);
                prop_assert_eq!(padded(text), all);
            }
        }
    }
}
