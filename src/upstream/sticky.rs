//! `sticky`: a client stays with the server its cookie or route names.

use std::io::Write;

use bytes::Bytes;

use super::pick::KeySource;
use crate::net::clock;
use crate::value::{Template, VarId};

/// What a `sticky` directive says.
#[derive(Clone, Debug)]
pub struct Sticky {
    /// The first of these with a value names the server.
    pub lookup: Vec<VarId>,
    /// The cookie that is set (`sticky cookie`).
    pub cookie: Option<Cookie>,
}

/// The cookie of `sticky cookie`.
#[derive(Clone, Debug, Default)]
pub struct Cookie {
    /// Its name.
    pub name: Bytes,
    /// `domain=`
    pub domain: Option<Template>,
    /// `path=`, without attribute name.
    pub path: Option<Bytes>,
    /// `expires=`
    pub expires: Option<Expires>,
    /// `samesite=`
    pub samesite: Option<Template>,
    /// `httponly`
    pub httponly: bool,
    /// `secure`
    pub secure: bool,
}

/// How long a cookie lives.
#[derive(Clone, Copy, Debug)]
pub enum Expires {
    /// Seconds.
    After(i64),
    /// To the end of 2037.
    Max,
}

/// Whether it is a value of `samesite`.
pub fn is_samesite(value: &[u8]) -> bool {
    ["strict", "lax", "none"].iter().any(|word| word.as_bytes().eq_ignore_ascii_case(value))
}

impl Sticky {
    pub(super) fn hint(&self, source: &impl KeySource) -> Option<Bytes> {
        let mut value = Vec::new();
        for id in &self.lookup {
            if source.variable(*id, &mut value) && !value.is_empty() {
                return Some(value.into());
            }
            value.clear();
        }
        None
    }

    pub(super) fn cookie(&self, source: &impl KeySource, sid: &str, wall: i64) -> Option<Vec<u8>> {
        let cookie = self.cookie.as_ref()?;
        let mut out = Vec::with_capacity(128);
        out.extend_from_slice(&cookie.name);
        out.push(b'=');
        out.extend_from_slice(sid.as_bytes());
        match cookie.expires {
            Some(Expires::Max) => {
                out.extend_from_slice(b"; expires=Thu, 31-Dec-37 23:55:55 GMT; max-age=315360000");
            }
            Some(Expires::After(seconds)) => {
                out.extend_from_slice(b"; expires=");
                cookie_time(wall.saturating_add(seconds), &mut out);
                // Writing to memory does not fail.
                let _ = write!(out, "; max-age={seconds}");
            }
            None => {}
        }
        let mut attribute = |name: &str, value: &[u8]| {
            if !value.is_empty() {
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(value);
            }
        };
        if let Some(domain) = &cookie.domain {
            attribute("; domain=", &source.value(domain));
        }
        if cookie.httponly {
            attribute("; ", b"httponly");
        }
        if cookie.secure {
            attribute("; ", b"secure");
        }
        if let Some(samesite) = &cookie.samesite {
            let value = source.value(samesite);
            attribute(
                "; samesite=",
                if is_samesite(&value) || value.is_empty() { &value } else { b"strict" },
            );
        }
        if let Some(path) = &cookie.path {
            attribute("; path=", path);
        }
        Some(out)
    }
}

/// `Thu, 01-Jan-70 00:00:00 GMT`; from 2038 on the year has four digits.
fn cookie_time(sec: i64, out: &mut Vec<u8>) {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let t = clock::gmt(sec);
    let (day, month) = (DAYS[t.weekday as usize % 7], MONTHS[(t.month as usize + 11) % 12]);
    let year = if t.year > 2037 { t.year } else { t.year % 100 };
    // Writing to memory does not fail.
    let _ = write!(
        out,
        "{day}, {:02}-{month}-{year:02} {:02}:{:02}:{:02} GMT",
        t.day, t.hour, t.minute, t.second
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookie_times_have_two_digits_until_2037() {
        let text = |sec| {
            let mut out = Vec::new();
            cookie_time(sec, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(2_145_916_555), "Thu, 31-Dec-37 23:55:55 GMT");
        assert_eq!(text(2_145_916_555 + 3600), "Fri, 01-Jan-2038 00:55:55 GMT");
    }

    #[test]
    fn samesite_words() {
        assert!(is_samesite(b"Lax") && is_samesite(b"none") && !is_samesite(b"") && !is_samesite(b"x"));
    }
}
