//! Credentials of basic authentication (RFC 7617), for `$remote_user` and `auth_basic`.

use super::headers::AUTHORIZATION;
use super::request::Request;

/// User and password that the client sent; none where it sent none, or nonsense.
pub fn credentials(req: &Request) -> Option<(Vec<u8>, Vec<u8>)> {
    let value = req.header(AUTHORIZATION)?;
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let decoded = decode(rest.trim_ascii_start())?;
    let colon = memchr::memchr(b':', &decoded)?;
    Some((decoded[..colon].to_vec(), decoded[colon + 1..].to_vec()))
}

/// Decodes base64 as nginx does: up to the first padding, anything else is an error.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let text = &text[..text.iter().position(|c| *c == b'=').unwrap_or(text.len())];
    if text.len() % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for c in text {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64() {
        assert_eq!(super::decode(b"dXNlcjpwYXNz").as_deref(), Some(&b"user:pass"[..]));
        assert_eq!(super::decode(b"dTpw").as_deref(), Some(&b"u:p"[..]));
        assert_eq!(super::decode(b"YQ==").as_deref(), Some(&b"a"[..]));
        assert_eq!(super::decode(b"a"), None);
        assert_eq!(super::decode(b"a*bc"), None);
    }
}
