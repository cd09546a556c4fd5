//! Ranges of IPv4 addresses with values, as `geo` in `ranges` mode has them.
//!
//! While they are added, ranges are kept by the upper half of their addresses, as nginx does, which decides what
//! overlaps and what is a duplicate. Closed, they are one sorted list.

use std::fmt;
use std::net::Ipv4Addr;

use super::geo::ValueId;

/// Ranges, first while they are added, then to be searched.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    /// By upper half of the address; 65536 lists, or none at all.
    parts: Vec<Vec<Part>>,
    /// First and last address and value, sorted and disjoint.
    closed: Vec<(u32, u32, ValueId)>,
}

/// A piece of a range: the lower halves of its addresses.
#[derive(Clone, Copy, Debug)]
struct Part {
    start: u16,
    end: u16,
    value: ValueId,
}

/// The range, or piece of one, that another overlaps.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overlap(u32, u32);

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", Ipv4Addr::from_bits(self.0), Ipv4Addr::from_bits(self.1))
    }
}

/// The pieces of a range by upper half.
fn pieces(start: u32, end: u32) -> impl Iterator<Item = (usize, u16, u16)> {
    (start >> 16..=end >> 16).map(move |high| {
        let low = if high == start >> 16 { start as u16 } else { 0 };
        let top = if high == end >> 16 { end as u16 } else { u16::MAX };
        (high as usize, low, top)
    })
}

impl Ranges {
    /// Adds a range. `duplicate` hears of a value that is replaced.
    pub fn add(
        &mut self,
        start: u32,
        end: u32,
        value: ValueId,
        mut duplicate: impl FnMut(ValueId),
    ) -> Result<(), Overlap> {
        if self.parts.is_empty() {
            self.parts.resize_with(1 << 16, Vec::new);
        }
        for (high, start, end) in pieces(start, end) {
            let part = Part { start, end, value };
            if let Some(old) = insert(&mut self.parts[high], part).map_err(|other| {
                let base = (high as u32) << 16;
                Overlap(base | u32::from(other.start), base | u32::from(other.end))
            })? {
                duplicate(old);
            }
        }
        Ok(())
    }

    /// Deletes a range that was added as such; false where a piece of it was not found.
    pub fn delete(&mut self, start: u32, end: u32) -> bool {
        let mut found = true;
        for (high, start, end) in pieces(start, end) {
            let list = self.parts.get_mut(high);
            let at = list.as_ref().and_then(|l| l.iter().position(|p| p.start == start && p.end == end));
            match (list, at) {
                (Some(list), Some(at)) => drop(list.remove(at)),
                _ => found = false,
            }
        }
        found
    }

    /// Makes the list that is searched.
    pub fn close(&mut self) {
        for (high, list) in std::mem::take(&mut self.parts).into_iter().enumerate() {
            for part in list {
                let base = (high as u32) << 16;
                let (start, end) = (base | u32::from(part.start), base | u32::from(part.end));
                match self.closed.last_mut() {
                    Some((_, last, value)) if *value == part.value && last.checked_add(1) == Some(start) => {
                        *last = end;
                    }
                    _ => self.closed.push((start, end, part.value)),
                }
            }
        }
        self.closed.shrink_to_fit();
    }

    /// The value of the range that has `address` in it.
    pub fn find(&self, address: u32) -> Option<ValueId> {
        let after = self.closed.partition_point(|(start, ..)| *start <= address);
        let (_, end, value) = self.closed.get(after.checked_sub(1)?)?;
        (address <= *end).then_some(*value)
    }
}

/// Puts a piece into a sorted list: between others, or within one, which is then split. The value it replaced
/// where it was there already; the error is the piece it overlaps.
fn insert(list: &mut Vec<Part>, new: Part) -> Result<Option<ValueId>, Part> {
    // Looked at from the end: entries mostly come in order.
    let Some(at) = list.iter().rposition(|part| part.start <= new.end) else {
        list.insert(0, new);
        return Ok(None);
    };
    let old = list[at];
    if new.start > old.end {
        list.insert(at + 1, new);
        return Ok(None);
    }
    if new.start == old.start && new.end == old.end {
        list[at].value = new.value;
        return Ok(Some(old.value));
    }
    if new.start < old.start || new.end > old.end {
        return Err(old);
    }
    let before = (new.start > old.start).then(|| Part { end: new.start - 1, ..old });
    let after = (new.end < old.end).then(|| Part { start: new.end + 1, ..old });
    list.splice(at..=at, [before, Some(new), after].into_iter().flatten());
    Ok(None)
}
