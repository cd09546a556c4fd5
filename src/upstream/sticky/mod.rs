//! `sticky`: a client stays with the server that its cookie or route names, or that its session was learnt to belong to.

pub mod directive;
mod sessions;

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;

use super::pick::KeySource;
use crate::conf::Outcome;
use crate::net::clock;
use crate::value::{Template, VarId};

/// What a `sticky` directive says.
#[derive(Clone, Debug)]
pub struct Sticky {
    /// The first of these with a value names the server; with `learn`, the session.
    pub lookup: Vec<VarId>,
    /// The cookie that is set (`sticky cookie`).
    pub cookie: Option<Cookie>,
    /// `sticky learn`
    pub learn: Option<Learn>,
}

/// `sticky learn`: the server that answered a session is the session's.
#[derive(Clone, Debug)]
pub struct Learn {
    /// The name of its zone.
    pub zone: Box<str>,
    /// Bytes of the zone.
    pub size: usize,
    /// Milliseconds that a session lasts unused.
    pub timeout: u64,
    /// The first of these with a value is the name of a session.
    pub create: Vec<VarId>,
    /// Learn once the response's header is there, not at its end.
    pub at_header: bool,
    sessions: Option<Arc<sessions::Sessions>>,
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
    /// Opens the zone of an upstream's sessions, once all is read.
    pub(super) fn open(mut self, upstream: &str) -> Outcome<Sticky> {
        if let Some(learn) = &mut self.learn {
            let sessions = sessions::Sessions::open(&learn.zone, learn.size, learn.timeout, upstream)?;
            learn.sessions = Some(Arc::new(sessions));
        }
        Ok(self)
    }

    /// What a request says of where it belongs.
    pub(super) fn bond(&self, source: &impl KeySource) -> Bond {
        let Some(id) = first(&self.lookup, source) else { return Bond::default() };
        match &self.learn {
            None => Bond { hint: Some(id), session: None },
            Some(learn) => Bond { hint: learn.find(&id), session: Some(id) },
        }
    }

    /// `server` answered a request of this session.
    pub(super) fn learn(
        &self,
        source: &impl KeySource,
        session: Option<&Bytes>,
        server: &str,
        at_header: bool,
    ) {
        let Some(learn) = self.learn.as_ref().filter(|learn| learn.at_header == at_header) else { return };
        let Some(sessions) = &learn.sessions else { return };
        match (first(&learn.create, source), session) {
            (Some(id), _) => sessions.used(&id, server.as_bytes(), true),
            (None, Some(id)) => sessions.used(id, server.as_bytes(), false),
            (None, None) => {}
        }
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

impl Learn {
    fn find(&self, session: &[u8]) -> Option<Bytes> {
        Some(self.sessions.as_ref()?.find(session)?.into())
    }
}

/// Where a request belongs.
#[derive(Debug, Default)]
pub(super) struct Bond {
    /// The server.
    pub hint: Option<Bytes>,
    /// The session, with `sticky learn`.
    pub session: Option<Bytes>,
}

/// The first value there is.
fn first(variables: &[VarId], source: &impl KeySource) -> Option<Bytes> {
    let mut value = Vec::new();
    for id in variables {
        if source.variable(*id, &mut value) && !value.is_empty() {
            return Some(value.into());
        }
        value.clear();
    }
    None
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
