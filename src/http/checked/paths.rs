//! Directories that directives name: each is made at start, and means one thing.

use std::path::PathBuf;

use super::Value;
use super::cache::LEVELS;
use super::check::{own, put};
use crate::conf::{Build, Fault, Outcome, units};
use crate::syntax::Directive;

/// A directory.
#[derive(Debug)]
pub struct Path {
    path: Vec<u8>,
    levels: Vec<u64>,
    /// ` in FILE:LINE`
    at: String,
    /// A cache's; no two caches share a directory, nor does a cache one with temporary files.
    cache: bool,
}

impl Path {
    /// The first argument of a directive, without a slash at its end.
    pub fn new(d: &Directive<'_>, levels: Vec<u64>, cache: bool) -> Path {
        let text = d.arg(1);
        let path = text.strip_suffix(b"/").unwrap_or(text).to_vec();
        Path { path, levels, at: d.at().to_string(), cache }
    }
}

/// The directories of a configuration.
#[derive(Debug, Default)]
pub struct Paths(Vec<(PathBuf, Path)>);

/// Adds a directory.
///
/// # Errors
/// It is there already for something else, or divided otherwise.
pub fn add(cf: &mut Build, path: Path) -> Outcome {
    let whole = cf.full_path(&path.path);
    let shown = whole.display();
    if let Some((_, known)) = cf.checked.paths.0.iter().find(|(other, _)| *other == whole) {
        let at = &known.at;
        if known.cache || path.cache {
            return Err(Fault::here(format!("the same path name \"{shown}\" used{at} and")));
        }
        if known.levels != path.levels {
            return Err(Fault::here(format!(
                "the same path name \"{shown}\"{at} has the different levels than"
            )));
        }
        return Ok(());
    }
    cf.add_directory(whole.clone());
    cf.checked.paths.0.push((whole, path));
    Ok(())
}

/// `*_temp_path PATH [LEVEL [LEVEL [LEVEL]]]`
pub fn directive(cf: &mut Build, d: &Directive<'_>, name: &'static str) -> Outcome<PathBuf> {
    own(cf).once(name)?;
    let invalid = || Fault::directive("invalid value");
    let mut levels = Vec::new();
    for word in d.args().skip(1).take(LEVELS) {
        levels.push(units::number(word).filter(|level| *level > 0).ok_or_else(invalid)?);
    }
    let length = levels.iter().try_fold(0u64, |sum, level| sum.checked_add(*level)?.checked_add(1));
    if length.is_none_or(|length| length > 10 + levels.len() as u64) {
        return Err(invalid());
    }
    let path = Path::new(d, levels, false);
    let whole = cf.full_path(&path.path);
    add(cf, path)?;
    put(cf, name, Value::Mark)?;
    Ok(whole)
}
