//! Caches and stored responses: `*_cache_path`, `*_cache`, `*_cache_valid`, `*_store`.

use bytes::Bytes;

use super::Value;
use super::check::own;
use super::paths::{self, Path};
use crate::conf::grammar::Row;
use crate::conf::{Build, Fault, Outcome, units};
use crate::syntax::Directive;

/// Levels of directories at most.
pub const LEVELS: usize = 3;
/// The least size of a zone of keys: two pages.
const LEAST_ZONE: usize = 2 * 4096;

fn shown(text: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(text)
}

/// `*_cache_path PATH [levels=..] keys_zone=NAME:SIZE ...`
pub fn path(cf: &mut Build, d: &Directive<'_>, row: &'static Row) -> Outcome {
    let mut zone = None;
    let mut levels = Vec::new();
    for word in d.args().skip(1) {
        if let Some(text) = word.strip_prefix(b"levels=") {
            levels = levels_of(text)
                .ok_or_else(|| Fault::here(format!("invalid \"levels\" \"{}\"", shown(word))))?;
        } else if let Some(text) = word.strip_prefix(b"keys_zone=") {
            zone = Some(keys_zone(word, text)?);
        } else {
            parameter(word)?;
        }
    }
    let Some((name, size)) = zone.filter(|(name, size)| !name.is_empty() && *size != 0) else {
        let directive = shown(d.name());
        return Err(Fault::here(format!("\"{directive}\" must have \"keys_zone\" parameter")));
    };
    paths::add(cf, Path::new(d, levels, true))?;
    cf.zones.add(name, size, row.module)?;
    if !cf.checked.caches.insert((row.module, name.to_vec())) {
        return Err(Fault::here(format!("duplicate zone \"{}\"", shown(name))));
    }
    Ok(())
}

/// `1:2:2`
fn levels_of(text: &[u8]) -> Option<Vec<u64>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let levels: Vec<&[u8]> = text.split(|byte| *byte == b':').collect();
    if levels.len() > LEVELS {
        return None;
    }
    levels
        .into_iter()
        .map(|level| match level {
            b"1" => Some(1),
            b"2" => Some(2),
            _ => None,
        })
        .collect()
}

fn keys_zone<'w>(word: &[u8], text: &'w [u8]) -> Outcome<(&'w [u8], usize)> {
    let invalid = || Fault::here(format!("invalid keys zone size \"{}\"", shown(word)));
    let colon = memchr::memchr(b':', text).ok_or_else(invalid)?;
    let size = units::size(&text[colon + 1..]).ok_or_else(invalid)?;
    match size < LEAST_ZONE {
        true => Err(Fault::here(format!("keys zone \"{}\" is too small", shown(word)))),
        false => Ok((&text[..colon], size)),
    }
}

/// The parameters that only need a value of the right kind.
fn parameter(word: &[u8]) -> Outcome {
    let Some(equals) = memchr::memchr(b'=', word) else { return Err(Fault::invalid_parameter(word)) };
    let (name, value) = (&word[..equals], &word[equals + 1..]);
    let is_right = match name {
        b"use_temp_path" => match value {
            b"on" | b"off" => true,
            _ => {
                let shown = shown(word);
                return Err(Fault::here(format!(
                    "invalid use_temp_path value \"{shown}\", it must be \"on\" or \"off\""
                )));
            }
        },
        b"inactive" => units::seconds(value).is_some(),
        b"max_size" | b"min_free" => units::offset(value).is_some(),
        b"loader_files" | b"manager_files" => units::number(value).is_some(),
        b"loader_sleep" | b"loader_threshold" | b"manager_sleep" | b"manager_threshold" => {
            units::milliseconds(value).is_some()
        }
        _ => return Err(Fault::invalid_parameter(word)),
    };
    match is_right {
        true => Ok(()),
        false => Err(Fault::here(format!("invalid {} value \"{}\"", shown(name), shown(word)))),
    }
}

/// `*_cache_valid [STATUS ...] TIME`
pub fn valid(d: &Directive<'_>) -> Outcome {
    let last = d.len() - 1;
    if units::seconds(d.arg(last)).is_none() {
        return Err(Fault::here(format!("invalid time value \"{}\"", shown(d.arg(last)))));
    }
    for word in d.args().take(last - 1) {
        let is_status = units::number(word).is_some_and(|status| (100..=599).contains(&status));
        if word != b"any" && !is_status {
            return Err(Fault::here(format!("invalid status \"{}\"", shown(word))));
        }
    }
    Ok(())
}

/// The name of a directive of the same module.
pub fn sibling(name: &str, from: &str, to: &str) -> String {
    format!("{}{to}", name.strip_suffix(from).unwrap_or(name))
}

/// `*_store on | off | PATH`
pub fn store(cf: &mut Build, d: &Directive<'_>, name: &'static str) -> Outcome<Value> {
    let text = d.arg(1);
    if text == b"off" {
        return Ok(Value::Flag(false));
    }
    if text.is_empty() {
        return Err(Fault::here("empty path"));
    }
    let cache = sibling(name, "store", "cache");
    if own(cf).flag(&cache) {
        return Err(Fault::directive(format!("is incompatible with \"{cache}\"")));
    }
    if text != b"on" {
        cf.http.template(text)?;
    }
    Ok(Value::Flag(true))
}

/// `*_cache off | ZONE`
pub fn cache(cf: &mut Build, d: &Directive<'_>, row: &'static Row) -> Outcome<Value> {
    let text = d.arg(1);
    if text == b"off" {
        return Ok(Value::Flag(false));
    }
    let store = sibling(row.name, "cache", "store");
    if own(cf).flag(&store) {
        return Err(Fault::directive(format!("is incompatible with \"{store}\"")));
    }
    if cf.http.template(text)?.as_constant().is_some() {
        cf.zones.add(text, 0, row.module)?;
        own(cf).zones.insert(row.name, Bytes::copy_from_slice(text));
    }
    Ok(Value::Flag(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_one_or_two_digits_three_times_at_most() {
        let read = |text: &str| levels_of(text.as_bytes());
        assert_eq!(read("1:2"), Some(vec![1, 2]));
        assert_eq!(read("2:2:2"), Some(vec![2, 2, 2]));
        assert_eq!(read(""), Some(vec![]));
        for wrong in ["3", "0", "1:", "1:2:2:1", "12", "a", ":1"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
