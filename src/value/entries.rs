//! Blocks with entries in place of directives: `map`, `geo`, `split_clients`.

use crate::conf::{Fault, Outcome};
use crate::syntax::{Directive, Item, Items};

/// Reads one entry.
pub type EachEntry<'a> = dyn FnMut(&Directive<'_>) -> Outcome + 'a;

/// Hands every entry to `each`, those of included files in their place. Faults come back with their position.
pub fn entries(items: Items<'_>, each: &mut EachEntry<'_>) -> Outcome {
    for item in items {
        let d = match item {
            Item::Directive(d) => d,
            Item::Error(error) => return Err(Fault::whole(error)),
        };
        let read = match (d.has_block(), d.included()) {
            (true, _) => Err(Fault::here("unexpected \"{\"")),
            (false, Some(items)) => entries(items, each),
            (false, None) => each(&d),
        };
        read.map_err(|fault| Fault::Whole(fault.text(d.name(), d.at())))?;
    }
    Ok(())
}

/// As [`entries`], for blocks where nginx does not know `include`: it comes as an entry.
pub fn plain_entries(items: Items<'_>, each: &mut EachEntry<'_>) -> Outcome {
    for item in items {
        let d = match item {
            Item::Directive(d) => d,
            Item::Error(error) => return Err(Fault::whole(error)),
        };
        let read = if d.has_block() { Err(Fault::here("unexpected \"{\"")) } else { each(&d) };
        read.map_err(|fault| Fault::Whole(fault.text(d.name(), d.at())))?;
    }
    Ok(())
}

/// The name in `$name`, which a block defines.
pub fn variable_name(word: &[u8]) -> Outcome<&[u8]> {
    match word.strip_prefix(b"$") {
        Some(name) if !name.is_empty() => Ok(name),
        _ => Err(Fault::here(format!("invalid variable name \"{}\"", String::from_utf8_lossy(word)))),
    }
}
