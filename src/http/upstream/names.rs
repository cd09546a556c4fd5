//! Sets of field names, asked for each field of each response and request.

use super::head::{Field, Known};
use crate::http::headers::{hash, same};

/// Names in any case. Most names that are not in the set are told by one bit.
#[derive(Clone, Debug, Default)]
pub struct NameSet {
    bits: u64,
    /// A bit for each [`Known`] in the set.
    known: u32,
    names: Vec<(u32, Box<[u8]>)>,
}

impl NameSet {
    /// Adds a name.
    pub fn add(&mut self, name: &[u8]) {
        let hash = hash(name);
        if !self.contains(hash, name) {
            self.bits |= bit(hash);
            self.known |= match Known::of(name, hash) {
                Known::Other => 0,
                known => known.bit(),
            };
            self.names.push((hash, name.into()));
        }
    }

    /// Whether `name`, whose [`hash`] is given, is in the set.
    #[inline(always)]
    pub fn contains(&self, hash: u32, name: &[u8]) -> bool {
        self.bits & bit(hash) != 0 && self.names.iter().any(|(h, n)| *h == hash && same(n, name))
    }

    /// Whether the name of a response's field is in the set.
    #[inline(always)]
    pub fn has(&self, field: &Field, buffer: &[u8]) -> bool {
        match field.known {
            Known::Other => self.contains(field.hash, field.name(buffer)),
            known => self.known & known.bit() != 0,
        }
    }
}

/// The lowest bit of a hash is always set.
fn bit(hash: u32) -> u64 {
    1 << ((hash >> 1) & 63)
}

impl<'a> FromIterator<&'a [u8]> for NameSet {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(names: I) -> Self {
        let mut set = NameSet::default();
        names.into_iter().for_each(|name| set.add(name));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Head, http1};
    use super::*;

    #[test]
    fn case_does_not_matter() {
        let set: NameSet = [&b"X-Accel-Expires"[..], b"Date"].into_iter().collect();
        let has = |name: &str| set.contains(hash(name.as_bytes()), name.as_bytes());
        assert!(has("date") && has("x-accel-expires") && !has("Dat") && !has(""));
    }

    #[test]
    fn fields_are_told_as_their_names_are() {
        let set: NameSet = [&b"x-accel-expires"[..], b"DATE", b"X-Own"].into_iter().collect();
        let buffer = b"Date: a\r\nX-Accel-Expires: b\r\nServer: c\r\nx-own: d\r\nX-Other: e\r\n\r\n";
        let mut head = Head::default();
        assert!(http1::fields(&|_, _| {}, buffer, &mut head).unwrap());
        let told: Vec<_> = head.fields.iter().map(|f| set.has(f, buffer)).collect();
        assert_eq!(told, [true, true, false, true, false]);
    }
}
