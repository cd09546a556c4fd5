//! Setters for the common kinds of value. Each reads a directive's arguments into one [`Setting`].

use bytes::Bytes;

use super::{Build, Fault, Outcome, Setting, units};
use crate::net::access::Rule;
use crate::syntax::Directive;

fn shown(text: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(text)
}

/// `on` or `off`.
pub fn flag(to: &mut Setting<bool>, d: &Directive<'_>) -> Outcome {
    to.once()?;
    to.set(parse_flag(d, d.arg(1))?)
}

/// Reads `on` or `off` with nginx's complaint.
pub fn parse_flag(d: &Directive<'_>, value: &[u8]) -> Outcome<bool> {
    if value.eq_ignore_ascii_case(b"on") {
        Ok(true)
    } else if value.eq_ignore_ascii_case(b"off") {
        Ok(false)
    } else {
        Err(Fault::here(format!(
            "invalid value \"{}\" in \"{}\" directive, it must be \"on\" or \"off\"",
            shown(value),
            shown(d.name())
        )))
    }
}

/// `allow` or `deny` of an address, a network, `unix:` or `all`.
pub fn access_rule(cf: &mut Build, d: &Directive<'_>) -> Outcome<Rule> {
    let word = d.arg(1);
    let (rule, low_bits) =
        Rule::parse(word, d.name() == b"deny").ok_or_else(|| Fault::invalid_parameter(word))?;
    if low_bits {
        cf.warn(d.at(), format!("low address bits of {} are meaningless", shown(word)));
    }
    Ok(rule)
}

/// A size in bytes: `512`, `8k`, `1m`.
pub fn size(to: &mut Setting<usize>, d: &Directive<'_>) -> Outcome {
    to.once()?;
    to.set(units::size(d.arg(1)).ok_or(Fault::directive("invalid value"))?)
}

/// An offset in bytes: a size that may also be in `g`.
pub fn offset(to: &mut Setting<u64>, d: &Directive<'_>) -> Outcome {
    to.once()?;
    to.set(units::offset(d.arg(1)).ok_or(Fault::directive("invalid value"))?)
}

/// A time in milliseconds: `30s`, `1h30m`, `500ms`.
pub fn msec(to: &mut Setting<u64>, d: &Directive<'_>) -> Outcome {
    to.once()?;
    to.set(units::milliseconds(d.arg(1)).ok_or(Fault::directive("invalid value"))?)
}

/// A time in seconds.
pub fn sec(to: &mut Setting<u64>, d: &Directive<'_>) -> Outcome {
    to.once()?;
    to.set(units::seconds(d.arg(1)).ok_or(Fault::directive("invalid value"))?)
}

/// A number.
pub fn number(to: &mut Setting<usize>, d: &Directive<'_>) -> Outcome {
    to.once()?;
    to.set(units::number(d.arg(1)).ok_or(Fault::directive("invalid number"))? as usize)
}

/// Text as it is.
pub fn text(to: &mut Setting<Bytes>, d: &Directive<'_>) -> Outcome {
    to.set(Bytes::copy_from_slice(d.arg(1)))
}

/// One of several words.
pub fn choice<T: Clone>(to: &mut Setting<T>, d: &Directive<'_>, among: &[(&str, T)]) -> Outcome {
    to.once()?;
    match among.iter().find(|(word, _)| word.as_bytes().eq_ignore_ascii_case(d.arg(1))) {
        Some((_, value)) => to.set(value.clone()),
        None => Err(Fault::invalid_value(d.arg(1))),
    }
}

/// Several of several words, as bits. A repeated word is warned about through `warn`.
pub fn bits(
    to: &mut Setting<u32>,
    d: &Directive<'_>,
    among: &[(&str, u32)],
    mut warn: impl FnMut(String),
) -> Outcome {
    let mut value = if to.is_set() { **to } else { 0 };
    for word in d.args() {
        let Some((_, bit)) = among.iter().find(|(w, _)| w.as_bytes().eq_ignore_ascii_case(word)) else {
            return Err(Fault::here(format!("invalid value \"{}\"", shown(word))));
        };
        if value & bit != 0 {
            warn(format!("duplicate value \"{}\"", shown(word)));
        }
        value |= bit;
    }
    to.put(value);
    Ok(())
}

/// Number and size of buffers: `4 8k`.
pub fn buffers(to: &mut Setting<(usize, usize)>, d: &Directive<'_>) -> Outcome {
    to.once()?;
    let count = units::number(d.arg(1)).filter(|n| *n > 0).ok_or(Fault::directive("invalid value"))? as usize;
    let size = units::size(d.arg(2)).filter(|n| *n > 0).ok_or(Fault::directive("invalid value"))?;
    to.set((count, size))
}

/// Who may read and write files: `user:rw group:r all:r`. The owner may do both unless it is said otherwise.
pub fn access(to: &mut Setting<u32>, d: &Directive<'_>) -> Outcome {
    to.once()?;
    to.set(parse_access(d)?)
}

/// Reads the arguments of [`access`] as mode bits.
pub fn parse_access(d: &Directive<'_>) -> Outcome<u32> {
    let (mut mode, mut user) = (0, 0o600);
    for word in d.args() {
        let who = [(&b"user:"[..], 6), (b"group:", 3), (b"all:", 0)];
        let found = who.iter().find_map(|(who, shift)| Some((word.strip_prefix(*who)?, shift)));
        let (shift, rights) = match found {
            Some((b"rw", shift)) => (shift, 6),
            Some((b"r", shift)) => (shift, 4),
            _ => return Err(Fault::invalid_value(word)),
        };
        if *shift == 6 {
            user = 0;
        }
        mode |= rights << shift;
    }
    Ok(mode | user)
}
