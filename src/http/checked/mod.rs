//! Directives of modules that nxr does not have: their arguments are checked as nginx checks them.
//!
//! A directive that only prepares what nothing in the file can use is taken. One that would switch its module on is
//! noted, and the configuration refused once all the rest of it is known to be right: whatever else nginx would
//! refuse is told first.

mod cache;
mod check;
mod kind;
mod merge;
mod paths;
mod upstream;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use bytes::Bytes;

use crate::conf::build::Commands;
use crate::conf::finding::{self, Finding};
use crate::conf::grammar::{self, Context, Row};
use crate::conf::{Build, Conf, Fault, Outcome, Setting};
use crate::http::module::Module;
use crate::http::types::TypeSet;
use crate::syntax::Directive;

pub use kind::{Kind, kind};

/// What a block said in one directive.
#[derive(Clone, Debug)]
enum Value {
    /// It was there.
    Mark,
    Flag(bool),
    Bits(u32),
    Text(Bytes),
    /// Names and values that are compiled once the blocks are merged.
    Pairs(Vec<(Bytes, Bytes)>),
}

/// What a block said in directives that are only checked, by name.
#[derive(Clone, Debug)]
pub struct Values {
    said: BTreeMap<&'static str, Value>,
    /// Of `fastcgi_cache` and its like that name a zone without variables.
    zones: BTreeMap<&'static str, Bytes>,
    types: Setting<TypeSet>,
}

impl Default for Values {
    fn default() -> Values {
        Values { said: BTreeMap::new(), zones: BTreeMap::new(), types: Setting::unset(TypeSet::html()) }
    }
}

impl Values {
    fn once(&self, name: &str) -> Outcome {
        match self.said.contains_key(name) {
            true => Err(Fault::directive("is duplicate")),
            false => Ok(()),
        }
    }

    fn flag(&self, name: &str) -> bool {
        matches!(self.said.get(name), Some(Value::Flag(true)))
    }
}

impl Conf for Values {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        merge::merge(self, parent);
        Ok(())
    }

    fn check(&self, cf: &mut Build) -> Outcome {
        merge::check(self, cf)
    }
}

/// Keeps the values of each block.
pub struct Checked;

impl Module for Checked {
    type Main = ();
    type Srv = ();
    type Loc = Values;
    const COMMANDS: Commands = Commands { module: "", setters: &[] };
}

/// What is known of all such directives while the configuration is read.
#[derive(Debug, Default)]
pub struct Known {
    refusals: Vec<Refusal>,
    /// Module and name of the zones that a `*_cache_path` declares.
    caches: HashSet<(&'static str, Vec<u8>)>,
    paths: paths::Paths,
    /// Modules that pass requests on (`proxy` and the like).
    passing: HashSet<&'static str>,
}

#[derive(Debug)]
struct Refusal {
    /// A warning before it.
    note: Option<String>,
    sentence: String,
    /// Only that module could make use of it, where it passes requests on.
    only_for: Option<&'static str>,
    /// The same where all that is wrong is told.
    finding: Finding,
}

impl Known {
    /// What this configuration would need.
    fn refusals(&self) -> impl Iterator<Item = &Refusal> {
        self.refusals
            .iter()
            .filter(|refusal| refusal.only_for.is_none_or(|family| self.passing.contains(family)))
    }

    /// What this configuration would need, as findings.
    pub fn findings(&self) -> impl Iterator<Item = Finding> {
        self.refusals().map(|refusal| refusal.finding.clone())
    }

    /// A `*_pass` of that module was read.
    pub fn passes(&mut self, family: &'static str) {
        self.passing.insert(family);
    }

    /// Notes that the configuration is to be refused if nothing else is wrong with it.
    pub fn refuse_later(&mut self, fault: &Fault, d: &Directive<'_>) {
        let sentence = fault.text(d.name(), d.at());
        let finding = Finding::fault(d, Context::ANY, fault);
        let finding = Finding { kind: finding::Kind::Lacking, ..finding };
        self.refusals.push(Refusal { note: None, sentence, only_for: None, finding });
    }

    fn lacks(&mut self, d: &Directive<'_>, row: &Row, only_for: Option<&'static str>) {
        let note = format!("{}{}", grammar::lacks(d.name(), row.module), d.at());
        let sentence = format!("{}{}", grammar::unknown(d.name()), d.at());
        let finding = Finding::lacking(d, row.module);
        self.refusals.push(Refusal { note: Some(note), sentence, only_for, finding });
    }
}

/// Checks a directive that has no setter.
pub fn directive(cf: &mut Build, d: &Directive<'_>, row: &'static Row) -> Outcome {
    let Some(kind) = kind(row) else { return Ok(()) };
    check::check(cf, d, row, kind)?;
    match kind::effect(row.name, d) {
        kind::Effect::Prepares => {}
        kind::Effect::SwitchesOn => cf.checked.lacks(d, row, None),
        kind::Effect::WherePassed(family) => cf.checked.lacks(d, row, Some(family)),
    }
    Ok(())
}

/// `*_store on | off | PATH` of a module that has it: looks for what does not go together with it. Whether it is on.
pub fn store(cf: &mut Build, d: &Directive<'_>, name: &'static str) -> Outcome<bool> {
    check::own(cf).once(name)?;
    let value = cache::store(cf, d, name)?;
    let on = matches!(value, Value::Flag(true));
    check::put(cf, name, value)?;
    Ok(on)
}

/// `*_temp_path` of a module that has it: the directory, once it is known to be for nothing else.
pub fn temp_path(cf: &mut Build, d: &Directive<'_>, name: &'static str) -> Outcome<PathBuf> {
    paths::directive(cf, d, name)
}

/// Once all is read and right: fails where a module is needed that is not there.
///
/// # Errors
/// nginx's words for a directive of a module that was not built in, after warnings that name the modules.
pub fn refuse(cf: &mut Build) -> Outcome {
    let Some(first) = cf.checked.refusals().next() else { return Ok(()) };
    let fault = Fault::Whole(first.sentence.clone());
    let notes: Vec<String> = cf.checked.refusals().filter_map(|refusal| refusal.note.clone()).collect();
    notes.into_iter().for_each(|note| cf.warn("", note));
    Err(fault)
}

#[cfg(test)]
mod tests;
