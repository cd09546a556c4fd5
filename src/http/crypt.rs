//! Checking a password against an entry of a password file: `{PLAIN}`, `{SHA}`, `{SSHA}`, `$apr1$`, and of crypt(3)
//! `$1$`, `$2a$`/`$2b$`/`$2y$`, `$5$`, `$6$` and DES.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{self, Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA512};
use md5::{Digest as _, Md5};

use super::{basic, des_crypt};

/// The entry's format is none that is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsupported;

/// crypt(3) takes passwords up to this many bytes; the time of its algorithms grows with the square.
const LONGEST: usize = 512;
/// The digits of crypt(3).
pub(super) const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Whether `password` is the one that `entry` was made of.
pub fn verify(password: &[u8], entry: &[u8]) -> Result<bool, Unsupported> {
    // Passwords end at a NUL, as in C.
    let password = &password[..memchr::memchr(0, password).unwrap_or(password.len())];
    if let Some(plain) = entry.strip_prefix(b"{PLAIN}") {
        return Ok(same(password, plain));
    }
    if let Some(text) = entry.strip_prefix(b"{SSHA}") {
        return Ok(salted_sha(password, text));
    }
    if let Some(text) = entry.strip_prefix(b"{SHA}") {
        let sum = digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, password);
        return Ok(basic::decode(text).is_some_and(|stored| same(sum.as_ref(), &stored)));
    }
    for magic in [&b"$apr1$"[..], b"$1$"] {
        if let Some(rest) = entry.strip_prefix(magic) {
            return Ok(password.len() <= LONGEST && same(&md5_crypt(password, magic, rest), entry));
        }
    }
    for (magic, algorithm) in [(&b"$5$"[..], &SHA256), (b"$6$", &SHA512)] {
        if let Some(rest) = entry.strip_prefix(magic) {
            return Ok(password.len() <= LONGEST && same(&sha_crypt(password, magic, rest, algorithm), entry));
        }
    }
    if [b"$2a$", b"$2b$", b"$2y$"].iter().any(|magic| entry.starts_with(*magic)) {
        let text = std::str::from_utf8(entry).map_err(|_| Unsupported)?;
        return Ok(bcrypt::verify(password, text).unwrap_or(false));
    }
    if entry.len() == 13 {
        let made = des_crypt::crypt(password, entry);
        return Ok(made.is_some_and(|made| same(&made, entry)));
    }
    if is_other(entry) { Err(Unsupported) } else { Ok(false) }
}

/// Formats of crypt(3) that are not known here: yescrypt, scrypt, extended DES.
fn is_other(entry: &[u8]) -> bool {
    ["$y$", "$gy$", "$7$", "_"].iter().any(|magic| entry.starts_with(magic.as_bytes()))
}

fn same(one: &[u8], other: &[u8]) -> bool {
    verify_slices_are_equal(one, other).is_ok()
}

/// Base64 of SHA-1 of password and salt, and the salt.
fn salted_sha(password: &[u8], text: &[u8]) -> bool {
    let Some(decoded) = basic::decode(text) else { return false };
    let Some((stored, salt)) = decoded.split_at_checked(20) else { return false };
    let sum = digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, &[password, salt].concat());
    same(sum.as_ref(), stored)
}

/// Up to `most` bytes of salt, which a `$` ends.
fn salt_of(rest: &[u8], most: usize) -> &[u8] {
    let end = memchr::memchr(b'$', rest).unwrap_or(rest.len());
    &rest[..end.min(most)]
}

/// Three bytes as four digits (or fewer), lowest bits first.
fn digits(bytes: [u8; 3], count: usize, out: &mut Vec<u8>) {
    let mut value = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
    for _ in 0..count {
        out.push(DIGITS[(value & 63) as usize]);
        value >>= 6;
    }
}

/// Poul-Henning Kamp's MD5 crypt, Apache's variety of it with another magic.
fn md5_crypt(key: &[u8], magic: &[u8], rest: &[u8]) -> Vec<u8> {
    let salt = salt_of(rest, 8);
    let mut sum = Md5::new();
    sum.update(key);
    sum.update(magic);
    sum.update(salt);
    let inner = Md5::digest([key, salt, key].concat());
    (0..key.len()).step_by(16).for_each(|at| sum.update(&inner[..(key.len() - at).min(16)]));
    let mut bits = key.len();
    while bits > 0 {
        sum.update(if bits & 1 == 1 { &[0][..] } else { &key[..1] });
        bits >>= 1;
    }
    let mut last = sum.finalize();
    for round in 0..1000 {
        let mut sum = Md5::new();
        sum.update(if round % 2 == 1 { key } else { &last[..] });
        if round % 3 != 0 {
            sum.update(salt);
        }
        if round % 7 != 0 {
            sum.update(key);
        }
        sum.update(if round % 2 == 1 { &last[..] } else { key });
        last = sum.finalize();
    }
    let mut out = [magic, salt, b"$"].concat();
    for (a, b, c) in [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)] {
        digits([last[a], last[b], last[c]], 4, &mut out);
    }
    digits([0, 0, last[11]], 2, &mut out);
    out
}

/// `what` repeated to `length` bytes.
fn repeated(what: &[u8], length: usize) -> Vec<u8> {
    what.iter().copied().cycle().take(length).collect()
}

/// Ulrich Drepper's SHA crypt.
fn sha_crypt(key: &[u8], magic: &[u8], mut rest: &[u8], algorithm: &'static Algorithm) -> Vec<u8> {
    let (mut rounds, mut told) = (5000, false);
    if let Some(tail) = rest.strip_prefix(b"rounds=")
        && let Some(end) = memchr::memchr(b'$', tail)
        && let Some(number) = crate::conf::units::number(&tail[..end])
    {
        (rounds, told) = (number.clamp(1000, 999_999_999), true);
        rest = &tail[end + 1..];
    }
    let salt = salt_of(rest, 16);
    let inner = digest::digest(algorithm, &[key, salt, key].concat());
    let mut outer = digest::Context::new(algorithm);
    outer.update(key);
    outer.update(salt);
    outer.update(&repeated(inner.as_ref(), key.len()));
    let mut bits = key.len();
    while bits > 0 {
        outer.update(if bits & 1 == 1 { inner.as_ref() } else { key });
        bits >>= 1;
    }
    let mut last = outer.finish();
    let keys = digest::digest(algorithm, &repeated(key, key.len() * key.len()));
    let p = repeated(keys.as_ref(), key.len());
    let salts = 16 + usize::from(last.as_ref()[0]);
    let s = repeated(digest::digest(algorithm, &repeated(salt, salt.len() * salts)).as_ref(), salt.len());
    for round in 0..rounds {
        let mut sum = digest::Context::new(algorithm);
        sum.update(if round % 2 == 1 { &p } else { last.as_ref() });
        if round % 3 != 0 {
            sum.update(&s);
        }
        if round % 7 != 0 {
            sum.update(&p);
        }
        sum.update(if round % 2 == 1 { last.as_ref() } else { &p });
        last = sum.finish();
    }
    let mut out = magic.to_vec();
    if told {
        out.extend_from_slice(format!("rounds={rounds}$").as_bytes());
    }
    out.extend_from_slice(salt);
    out.push(b'$');
    sha_digits(last.as_ref(), &mut out);
    out
}

/// The digest in the order the format prescribes.
fn sha_digits(sum: &[u8], out: &mut Vec<u8>) {
    let wide = sum.len() == 64;
    let third = sum.len() / 3;
    let (mut a, mut b, mut c) = (0, third, 2 * third);
    for _ in 0..third {
        digits([sum[a], sum[b], sum[c]], 4, out);
        (a, b, c) = if wide { (b + 1, c + 1, a + 1) } else { (c + 1, a + 1, b + 1) };
    }
    if wide { digits([0, 0, sum[63]], 2, out) } else { digits([0, sum[31], sum[30]], 3, out) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Made by openssl-passwd(1), crypt(3) and Python's hashlib.
    const ENTRIES: [&str; 8] = [
        "{PLAIN}pass word",
        "{SHA}2oguq15ANCGsJCWKX31fllwpyEk=",
        "{SSHA}UFAL1Y6rU6p3E9OM0Q51KWVEkV1zYWx0",
        "$apr1$saltsalt$qYpLAVWkBvXFyDme7.oc1/",
        "$1$saltsalt$1K7dkhtbTNVUwUicA5kOT1",
        "$5$saltsalt$9Wp9Qw4Ze8Jxq5F1Z3UnS47KFhc8AqhCRyxFDa8e660",
        "$6$saltsalt$cc1KsgmlKYtCcnNH8.sv7Fe8mca8fAso5fHlNrb1VZa5WYQ.L3ChTcx06ID.LoaXZAf9CZNraK43XCp7LxKHl1",
        "$2y$04$abcdefghijklmnopqrstuuFcV8WPKEefLKdOWfX8pW1yTVya21P7a",
    ];

    #[test]
    fn every_format() {
        for entry in ENTRIES {
            assert_eq!(verify(b"pass word", entry.as_bytes()), Ok(true), "{entry}");
            assert_eq!(verify(b"pass wore", entry.as_bytes()), Ok(false), "{entry}");
        }
        assert_eq!(verify(b"x", b"$y$j9T$abc$def"), Err(Unsupported));
        assert_eq!(verify(b"password", b"abJnggxhB/yWI"), Ok(true));
        assert_eq!(verify(b"passwort", b"abJnggxhB/yWI"), Ok(false));
        assert_eq!(verify(b"x", b""), Ok(false));
    }

    #[test]
    fn rounds_and_long_salts() {
        let entry =
            b"$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZe\
            HBy/YTBmSK6H9qs/y3RnOaw5v.";
        assert_eq!(verify(b"Hello world!", entry), Ok(true));
        let entry = b"$5$rounds=77777$short$Wqo5/kKFne9a8pQ5xk6i8.UVLPh5.EU/7uaBaJus1/8";
        assert_eq!(verify(&[b'x'; 20], entry), Ok(true));
    }

    proptest! {
        #[test]
        fn any_entry_is_read(entry in "(\\$(apr1|1|5)\\$|\\{S?SHA\\}|\\$2y\\$)?[a-z0-9$=/]{0,20}", key in "\\PC{0,8}") {
            let _ = verify(key.as_bytes(), entry.as_bytes());
        }
    }
}
