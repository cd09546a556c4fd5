//! The oldest kind of crypt(3): DES (FIPS 46-3) over a block of zeros, 25 times, with two digits of salt that swap
//! bits of its expansion. Old password files still have such entries; nothing else may use it.

use super::crypt::DIGITS;

/// Bits are counted from 1 at the left, as the standard does.
const INITIAL: [u8; 64] = [
    58, 50, 42, 34, 26, 18, 10, 2, 60, 52, 44, 36, 28, 20, 12, 4, 62, 54, 46, 38, 30, 22, 14, 6, 64, 56, 48,
    40, 32, 24, 16, 8, 57, 49, 41, 33, 25, 17, 9, 1, 59, 51, 43, 35, 27, 19, 11, 3, 61, 53, 45, 37, 29, 21,
    13, 5, 63, 55, 47, 39, 31, 23, 15, 7,
];
const KEY_CHOICE: [u8; 56] = [
    57, 49, 41, 33, 25, 17, 9, 1, 58, 50, 42, 34, 26, 18, 10, 2, 59, 51, 43, 35, 27, 19, 11, 3, 60, 52, 44,
    36, 63, 55, 47, 39, 31, 23, 15, 7, 62, 54, 46, 38, 30, 22, 14, 6, 61, 53, 45, 37, 29, 21, 13, 5, 28, 20,
    12, 4,
];
const ROUND_KEY: [u8; 48] = [
    14, 17, 11, 24, 1, 5, 3, 28, 15, 6, 21, 10, 23, 19, 12, 4, 26, 8, 16, 7, 27, 20, 13, 2, 41, 52, 31, 37,
    47, 55, 30, 40, 51, 45, 33, 48, 44, 49, 39, 56, 34, 53, 46, 42, 50, 36, 29, 32,
];
const MIX: [u8; 32] = [
    16, 7, 20, 21, 29, 12, 28, 17, 1, 15, 23, 26, 5, 18, 31, 10, 2, 8, 24, 14, 32, 27, 3, 9, 19, 13, 30, 6,
    22, 11, 4, 25,
];
const SHIFTS: [u32; 16] = [1, 1, 2, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2, 2, 2, 1];
/// The substitutions S1 to S8, each row by row.
const BOXES: [[u8; 64]; 8] = [
    [
        14, 4, 13, 1, 2, 15, 11, 8, 3, 10, 6, 12, 5, 9, 0, 7, 0, 15, 7, 4, 14, 2, 13, 1, 10, 6, 12, 11, 9, 5,
        3, 8, 4, 1, 14, 8, 13, 6, 2, 11, 15, 12, 9, 7, 3, 10, 5, 0, 15, 12, 8, 2, 4, 9, 1, 7, 5, 11, 3, 14,
        10, 0, 6, 13,
    ],
    [
        15, 1, 8, 14, 6, 11, 3, 4, 9, 7, 2, 13, 12, 0, 5, 10, 3, 13, 4, 7, 15, 2, 8, 14, 12, 0, 1, 10, 6, 9,
        11, 5, 0, 14, 7, 11, 10, 4, 13, 1, 5, 8, 12, 6, 9, 3, 2, 15, 13, 8, 10, 1, 3, 15, 4, 2, 11, 6, 7, 12,
        0, 5, 14, 9,
    ],
    [
        10, 0, 9, 14, 6, 3, 15, 5, 1, 13, 12, 7, 11, 4, 2, 8, 13, 7, 0, 9, 3, 4, 6, 10, 2, 8, 5, 14, 12, 11,
        15, 1, 13, 6, 4, 9, 8, 15, 3, 0, 11, 1, 2, 12, 5, 10, 14, 7, 1, 10, 13, 0, 6, 9, 8, 7, 4, 15, 14, 3,
        11, 5, 2, 12,
    ],
    [
        7, 13, 14, 3, 0, 6, 9, 10, 1, 2, 8, 5, 11, 12, 4, 15, 13, 8, 11, 5, 6, 15, 0, 3, 4, 7, 2, 12, 1, 10,
        14, 9, 10, 6, 9, 0, 12, 11, 7, 13, 15, 1, 3, 14, 5, 2, 8, 4, 3, 15, 0, 6, 10, 1, 13, 8, 9, 4, 5, 11,
        12, 7, 2, 14,
    ],
    [
        2, 12, 4, 1, 7, 10, 11, 6, 8, 5, 3, 15, 13, 0, 14, 9, 14, 11, 2, 12, 4, 7, 13, 1, 5, 0, 15, 10, 3, 9,
        8, 6, 4, 2, 1, 11, 10, 13, 7, 8, 15, 9, 12, 5, 6, 3, 0, 14, 11, 8, 12, 7, 1, 14, 2, 13, 6, 15, 0, 9,
        10, 4, 5, 3,
    ],
    [
        12, 1, 10, 15, 9, 2, 6, 8, 0, 13, 3, 4, 14, 7, 5, 11, 10, 15, 4, 2, 7, 12, 9, 5, 6, 1, 13, 14, 0, 11,
        3, 8, 9, 14, 15, 5, 2, 8, 12, 3, 7, 0, 4, 10, 1, 13, 11, 6, 4, 3, 2, 12, 9, 5, 15, 10, 11, 14, 1, 7,
        6, 0, 8, 13,
    ],
    [
        4, 11, 2, 14, 15, 0, 8, 13, 3, 12, 9, 7, 5, 10, 6, 1, 13, 0, 11, 7, 4, 9, 1, 10, 14, 3, 5, 12, 2, 15,
        8, 6, 1, 4, 11, 13, 12, 3, 7, 14, 10, 15, 6, 8, 0, 5, 9, 2, 6, 11, 13, 8, 1, 4, 10, 7, 9, 5, 0, 15,
        14, 2, 3, 12,
    ],
    [
        13, 2, 8, 4, 6, 15, 11, 1, 10, 9, 3, 14, 5, 0, 12, 7, 1, 15, 13, 8, 10, 3, 7, 4, 12, 5, 6, 11, 0, 14,
        9, 2, 7, 11, 4, 1, 9, 12, 14, 2, 0, 6, 10, 13, 15, 3, 5, 8, 2, 1, 14, 7, 4, 10, 8, 13, 15, 12, 9, 0,
        3, 5, 6, 11,
    ],
];

/// The bits of `value`, which has `width` of them, that `table` names, in its order.
fn permute(value: u64, width: u32, table: &[u8]) -> u64 {
    table.iter().fold(0, |out, &bit| out << 1 | (value >> (width - u32::from(bit)) & 1))
}

/// The inverse of the initial permutation.
fn last_permutation(value: u64) -> u64 {
    INITIAL
        .iter()
        .enumerate()
        .fold(0, |out, (at, &bit)| out | (value >> (63 - at) & 1) << (64 - u32::from(bit)))
}

fn round_keys(key: u64) -> [u64; 16] {
    let chosen = permute(key, 64, &KEY_CHOICE);
    let (mut c, mut d) = (chosen >> 28, chosen & 0x0fff_ffff);
    let turn = |half: u64, by: u32| (half << by | half >> (28 - by)) & 0x0fff_ffff;
    SHIFTS.map(|by| {
        (c, d) = (turn(c, by), turn(d, by));
        permute(c << 28 | d, 56, &ROUND_KEY)
    })
}

/// 32 bits as 48: eight groups of four, each with its neighbours' nearest bits.
fn expand(half: u32) -> u64 {
    (0..8).fold(0, |out, group| out << 6 | u64::from(half.rotate_left(4 * group + 5) & 0x3f))
}

/// Swaps bits of the two halves of an expansion where `salt` has its bits, the lowest first.
fn salted(expanded: u64, salt: u64) -> u64 {
    let (left, right) = (expanded >> 24, expanded & 0xff_ffff);
    let swap = (left ^ right) & salt;
    (left ^ swap) << 24 | (right ^ swap)
}

fn round(half: u32, key: u64, salt: u64) -> u32 {
    let mixed = salted(expand(half), salt) ^ key;
    let out = BOXES.iter().enumerate().fold(0u64, |out, (at, table)| {
        let six = (mixed >> (42 - 6 * at) & 0x3f) as usize;
        let (row, column) = (six >> 4 & 2 | six & 1, six >> 1 & 15);
        out << 4 | u64::from(table[row << 4 | column])
    });
    permute(out, 32, &MIX) as u32
}

/// What crypt(3) makes of a password with the first two digits of `entry` as salt; none where they are no digits.
pub fn crypt(password: &[u8], entry: &[u8]) -> Option<[u8; 13]> {
    let digit = |c: u8| DIGITS.iter().position(|d| *d == c).map(|at| at as u64);
    let [first, second, ..] = *entry else { return None };
    let bits = digit(second)? << 6 | digit(first)?;
    // The salt's lowest bit belongs to the expansion's first.
    let salt = bits.reverse_bits() >> 40;
    let key = (0..8).fold(0, |key, at| key << 8 | u64::from(password.get(at).copied().unwrap_or(0) << 1));
    let keys = round_keys(key);
    let mut block = 0u64;
    for _ in 0..25 {
        let begin = permute(block, 64, &INITIAL);
        let (mut left, mut right) = ((begin >> 32) as u32, begin as u32);
        for key in keys {
            (left, right) = (right, left ^ round(right, key, salt));
        }
        block = last_permutation(u64::from(right) << 32 | u64::from(left));
    }
    let mut out = [first; 13];
    out[1] = second;
    for (at, to) in out[2..].iter_mut().enumerate() {
        // Six bits each from the left; two zeros are behind the last.
        let six = if at < 10 { block >> (58 - 6 * at) } else { block << 2 };
        *to = DIGITS[(six & 63) as usize];
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_other_programs() {
        for (password, entry) in [
            ("foob", "arlEKn0OzVJn."),
            ("password", "abJnggxhB/yWI"),
            ("", "..X8NBuQ4l6uQ"),
            ("longer than eight", "zz.JiwC6aD7cA"),
        ] {
            let made = crypt(password.as_bytes(), entry.as_bytes()).unwrap();
            assert_eq!(String::from_utf8_lossy(&made), entry, "{password}");
        }
        assert_eq!(crypt(b"x", b"a!"), None);
        assert_eq!(crypt(b"x", b"a"), None);
    }
}
