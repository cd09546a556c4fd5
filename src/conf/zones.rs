//! Names and sizes of shared memory zones. nxr's threads share memory anyway; what stays is that a name means one
//! zone, of one kind, with a size.

use super::{Fault, Outcome, units};
use crate::syntax::Directive;

#[derive(Clone, Debug)]
struct Zone {
    name: Box<[u8]>,
    size: usize,
    /// The module whose zone it is.
    kind: &'static str,
}

/// The zones of one configuration.
#[derive(Clone, Debug, Default)]
pub struct Zones(Vec<Zone>);

/// The least size of a zone: eight pages.
const LEAST: usize = 8 * 4096;

fn shown(text: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(text)
}

impl Zones {
    /// Declares a zone, or (`size` 0) uses one, declared before or later.
    pub fn add(&mut self, name: &[u8], size: usize, kind: &'static str) -> Outcome {
        let Some(zone) = self.0.iter_mut().find(|zone| *zone.name == *name) else {
            self.0.push(Zone { name: name.into(), size, kind });
            return Ok(());
        };
        let shown = shown(name);
        if zone.kind != kind {
            return Err(Fault::here(format!(
                "the shared memory zone \"{shown}\" is already declared for a different use"
            )));
        }
        if zone.size == 0 {
            zone.size = size;
        }
        if size != 0 && size != zone.size {
            let known = zone.size;
            return Err(Fault::here(format!(
                "the size {size} of shared memory zone \"{shown}\" conflicts with already declared size {known}"
            )));
        }
        Ok(())
    }

    /// Once all is read: a zone that was only used has no size.
    pub fn check(&self) -> Outcome {
        match self.0.iter().find(|zone| zone.size == 0) {
            Some(zone) => {
                Err(Fault::Whole(format!("zero size shared memory zone \"{}\"", shown(&zone.name))))
            }
            None => Ok(()),
        }
    }
}

/// Reads the `name:size` of `word`, which is `zone=name:size`.
pub fn name_and_size<'w>(word: &'w [u8], value: &'w [u8]) -> Outcome<(&'w [u8], usize)> {
    let invalid = || Fault::here(format!("invalid zone size \"{}\"", shown(word)));
    let colon = memchr::memchr(b':', value).ok_or_else(invalid)?;
    let size = units::size(&value[colon + 1..]).ok_or_else(invalid)?;
    if size < LEAST {
        return Err(Fault::here(format!("zone \"{}\" is too small", shown(word))));
    }
    Ok((&value[..colon], size))
}

/// `"limit_req" must have "zone" parameter`
pub fn missing(d: &Directive<'_>) -> Fault {
    Fault::here(format!("\"{}\" must have \"zone\" parameter", shown(d.name())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(fault: Fault) -> String {
        fault.text(b"x", "")
    }

    #[test]
    fn a_name_is_one_zone() {
        let mut zones = Zones::default();
        zones.add(b"a", 0, "limit_req").unwrap();
        assert_eq!(words(zones.check().unwrap_err()), "zero size shared memory zone \"a\"");
        zones.add(b"a", 65536, "limit_req").unwrap();
        assert!(zones.check().is_ok());
        assert_eq!(
            words(zones.add(b"a", 65537, "limit_req").unwrap_err()),
            "the size 65537 of shared memory zone \"a\" conflicts with already declared size 65536"
        );
        assert_eq!(
            words(zones.add(b"a", 0, "limit_conn").unwrap_err()),
            "the shared memory zone \"a\" is already declared for a different use"
        );
    }

    #[test]
    fn sizes() {
        let read = |value: &'static str| name_and_size(b"zone=w", value.as_bytes()).map_err(words);
        assert_eq!(read("a:1m"), Ok((&b"a"[..], 1 << 20)));
        assert_eq!(read("a").unwrap_err(), "invalid zone size \"zone=w\"");
        assert_eq!(read("a:x").unwrap_err(), "invalid zone size \"zone=w\"");
        assert_eq!(read("a:32767").unwrap_err(), "zone \"zone=w\" is too small");
    }
}
