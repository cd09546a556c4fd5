//! The values that one request or session owns: captures and set variables.

use std::cell::RefCell;

use bytes::Bytes;

use super::VarId;

/// A value kept for one variable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Slot {
    /// Never set nor computed.
    #[default]
    Unset,
    /// Computed, and found to have no value.
    NotFound,
    /// Its value.
    Value(Bytes),
}

#[derive(Debug, Default)]
struct Captures {
    subject: Bytes,
    /// Start and end of `$0`, `$1`, ...; `(usize::MAX, _)` where a group took no part.
    groups: Vec<(usize, usize)>,
}

/// The changing values of one context. Interior mutability, since reading a variable may compute and keep it.
#[derive(Debug, Default)]
pub struct Scope {
    /// Few variables are kept of many.
    slots: RefCell<Vec<(VarId, Slot)>>,
    captures: RefCell<Captures>,
}

impl Scope {
    /// What is kept for `id`.
    pub fn slot(&self, id: VarId) -> Slot {
        let slots = self.slots.borrow();
        slots.iter().find(|(kept, _)| *kept == id).map_or(Slot::Unset, |(_, slot)| slot.clone())
    }

    /// Keeps `value` for `id`.
    pub fn set(&self, id: VarId, value: Slot) {
        let mut slots = self.slots.borrow_mut();
        match slots.iter_mut().find(|(kept, _)| *kept == id) {
            Some((_, slot)) => *slot = value,
            None => slots.push((id, value)),
        }
    }

    /// Forgets every computed value, as an internal redirect does with nginx's variables that may change.
    pub fn clear(&self) {
        self.slots.borrow_mut().clear();
    }

    /// Keeps the groups of a match for `$1` to `$9`.
    pub fn set_captures(&self, subject: Bytes, groups: Vec<(usize, usize)>) {
        *self.captures.borrow_mut() = Captures { subject, groups };
    }

    /// Appends capture `n` (0 is the whole match); false where it took no part.
    pub fn capture(&self, n: usize, out: &mut Vec<u8>) -> bool {
        let captures = self.captures.borrow();
        match captures.groups.get(n).and_then(|&(start, end)| captures.subject.get(start..end)) {
            Some(text) => {
                out.extend_from_slice(text);
                true
            }
            None => false,
        }
    }

    /// A copy of slots and captures, for a subrequest that begins with its parent's values.
    pub fn fork(&self) -> Scope {
        let captures = self.captures.borrow();
        Scope {
            slots: RefCell::new(self.slots.borrow().clone()),
            captures: RefCell::new(Captures {
                subject: captures.subject.clone(),
                groups: captures.groups.clone(),
            }),
        }
    }

    /// Takes over the slots of a subrequest that is done: nginx has one set of variables for both.
    pub fn adopt(&self, child: &Scope) {
        self.slots.borrow_mut().clone_from(&child.slots.borrow());
    }
}
