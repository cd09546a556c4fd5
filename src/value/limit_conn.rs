//! `limit_conn_zone` and what it counts. Used by http and stream.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::map::VariablesOf;
use super::{Context, Template};
use crate::conf::{Build, Fault, Outcome, units, zones};
use crate::syntax::Directive;

/// Name of the kind of zone.
pub const KIND: &str = "limit_conn";
/// Bytes of a page of nginx's shared memory.
const PAGE: usize = 4096;
/// Bytes nginx's allocator needs to manage a page.
const PER_PAGE: usize = 24;
/// Bytes nginx's node takes besides the key.
const NODE: usize = 36;

/// A zone: how many connections (requests, for http) each key has now.
#[derive(Debug)]
pub struct ConnZone {
    /// As declared.
    pub name: Box<[u8]>,
    declared: OnceLock<Declared>,
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Declared {
    key: Template,
    key_text: Box<[u8]>,
    /// Bytes of the zone's pages: it holds as many keys as nginx's of the same size.
    bytes: usize,
}

#[derive(Debug, Default)]
struct Counts {
    keys: HashMap<Box<[u8]>, u32>,
    /// Bytes that nginx's zone would have in use.
    used: usize,
}

/// One more connection of a key, until it is dropped.
#[derive(Debug)]
pub struct Held {
    zone: Arc<ConnZone>,
    key: Box<[u8]>,
}

/// A value that is no key: it has more than 255 bytes.
#[derive(Debug)]
pub struct TooLong<'z> {
    /// The key as declared.
    pub key: &'z [u8],
    /// Its value.
    pub value: Box<[u8]>,
}

/// Why a connection is one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The key has as many as it may.
    Limit,
    /// The zone is full.
    Full,
}

/// The zones of a http or stream block by name, used or declared.
pub type ConnZones = Vec<Arc<ConnZone>>;

/// Pieces of memory have powers of two for sizes.
fn cost(key: &[u8]) -> usize {
    (NODE + key.len()).next_power_of_two()
}

/// Bytes of the pages of a zone.
fn pages(size: usize) -> usize {
    size.saturating_sub(PAGE) / (PAGE + PER_PAGE) * PAGE
}

/// The zone called `name`.
pub fn zone(zones: &mut ConnZones, name: &[u8]) -> Arc<ConnZone> {
    if let Some(known) = zones.iter().find(|zone| *zone.name == *name) {
        return known.clone();
    }
    let zone = ConnZone { name: name.into(), declared: OnceLock::new(), counts: Mutex::default() };
    let zone = Arc::new(zone);
    zones.push(zone.clone());
    zone
}

impl ConnZone {
    /// The key of a context; none where it is not counted.
    pub fn key<C: Context>(&self, ctx: &C) -> Result<Option<Box<[u8]>>, TooLong<'_>> {
        let Some(declared) = self.declared.get() else { return Ok(None) };
        let key = declared.key.eval(ctx);
        match key.len() {
            0 => Ok(None),
            1..=255 => Ok(Some((*key).into())),
            _ => Err(TooLong { key: &declared.key_text, value: (*key).into() }),
        }
    }

    /// Counts one more for `key`, at most `limit`.
    pub fn hold(self: &Arc<Self>, key: Box<[u8]>, limit: u32) -> Result<Held, Refused> {
        let bytes = self.declared.get().map_or(0, |declared| declared.bytes);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.keys.get_mut(&key) {
            Some(count) if *count >= limit => return Err(Refused::Limit),
            Some(count) => *count += 1,
            None => {
                if counts.used + cost(&key) > bytes {
                    return Err(Refused::Full);
                }
                counts.used += cost(&key);
                counts.keys.insert(key.clone(), 1);
            }
        }
        drop(counts);
        Ok(Held { zone: self.clone(), key })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.zone.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.keys.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.keys.remove(&self.key);
                counts.used -= cost(&self.key);
            }
        }
    }
}

/// `limit_conn_zone key zone=name:size`
pub fn zone_directive<C: Context>(
    cf: &mut Build,
    d: &Directive<'_>,
    vars: VariablesOf<C>,
    zones_of: fn(&mut Build) -> &mut ConnZones,
) -> Outcome {
    let key = Template::parse(d.arg(1), vars(cf))?;
    let mut found = None;
    for word in d.args().skip(1) {
        let value = word.strip_prefix(b"zone=").ok_or_else(|| Fault::invalid_parameter(word))?;
        found = Some(zones::name_and_size(word, value)?);
    }
    let (name, size) = found.filter(|(name, _)| !name.is_empty()).ok_or_else(|| zones::missing(d))?;
    cf.zones.add(name, size, KIND)?;
    let zone = zone(zones_of(cf), name);
    let declared = Declared { key, key_text: d.arg(1).into(), bytes: pages(size) };
    if zone.declared.set(declared).is_err() {
        let bound = zone.declared.get().map_or(&b""[..], |declared| &declared.key_text);
        let shown = |text| String::from_utf8_lossy(text).into_owned();
        return Err(Fault::here(format!(
            "{} \"{}\" is already bound to key \"{}\"",
            shown(d.name()),
            shown(name),
            shown(bound)
        )));
    }
    Ok(())
}

/// `limit_conn zone number`: the zone and the most connections of a key.
pub fn limit_directive(
    cf: &mut Build,
    d: &Directive<'_>,
    zones_of: fn(&mut Build) -> &mut ConnZones,
    known: &[(Arc<ConnZone>, u32)],
) -> Outcome<(Arc<ConnZone>, u32)> {
    cf.zones.add(d.arg(1), 0, KIND)?;
    let zone = zone(zones_of(cf), d.arg(1));
    if known.iter().any(|(other, _)| Arc::ptr_eq(other, &zone)) {
        return Err(Fault::directive("is duplicate"));
    }
    let number = units::number(d.arg(2)).filter(|number| *number > 0).ok_or_else(|| {
        Fault::here(format!("invalid number of connections \"{}\"", String::from_utf8_lossy(d.arg(2))))
    })?;
    if number > 65535 {
        return Err(Fault::here("connection limit must be less 65536"));
    }
    Ok((zone, number as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_so_many_at_once() {
        let mut zones = Vec::new();
        let one = zone(&mut zones, b"z");
        assert!(Arc::ptr_eq(&one, &zone(&mut zones, b"z")));
        let key = Template::constant(&b"k"[..]);
        one.declared.set(Declared { key, key_text: Box::default(), bytes: 2 * 64 }).unwrap();
        let first = one.hold((*b"k").into(), 2).unwrap();
        let second = one.hold((*b"k").into(), 2).unwrap();
        assert_eq!(one.hold((*b"k").into(), 2).unwrap_err(), Refused::Limit);
        drop(first);
        let third = one.hold((*b"k").into(), 2).unwrap();
        let other = one.hold((*b"other").into(), 1).unwrap();
        assert_eq!(one.hold((*b"more").into(), 1).unwrap_err(), Refused::Full);
        drop(other);
        assert!(one.hold((*b"more").into(), 1).is_ok());
        drop(second);
        drop(third);
        let counts = one.counts.lock().unwrap();
        assert_eq!((counts.keys.len(), counts.used), (0, 0));
    }

    #[test]
    fn a_zone_is_full_when_nginx_would_be() {
        let full = zone(&mut Vec::new(), b"z");
        let key = Template::constant(&b"k"[..]);
        full.declared.set(Declared { key, key_text: Box::default(), bytes: pages(32 << 10) }).unwrap();
        let held = (0..10_000u32).map_while(|n| full.hold(n.to_be_bytes().into(), 1).ok());
        // Six pages of 64 bytes a piece.
        assert_eq!(held.collect::<Vec<_>>().len(), 6 * 64);
    }
}
