//! What stands between a configuration and running it: all of it, where `nxr -t` tells the first.

use std::path::PathBuf;

use super::build::path;
use super::grammar::{self, Context, Row};
use super::{Fault, suggest};
use crate::syntax::{At, Directive, SyntaxError};

/// What a finding means for the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// nginx would refuse it too.
    Error,
    /// It needs something that nxr does not have.
    Lacking,
    /// It runs, though perhaps not as meant.
    Warning,
    /// Taken without effect, for the reason given.
    Ignored,
}

/// One thing found, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub kind: Kind,
    /// nginx's words where nginx has some, without the position.
    pub message: String,
    pub place: Place,
    /// What might have been meant.
    pub hint: Option<String>,
}

/// A place in the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// None for what concerns no line, or the text of `-g`.
    pub file: Option<PathBuf>,
    /// Counted from 1; 0 where there is none.
    pub line: u32,
    /// Byte of the line, counted from 1; 0 where only the line is known.
    pub column: u32,
    /// Bytes.
    pub length: u32,
}

impl Place {
    /// A directive's word.
    pub fn word(d: &Directive<'_>, number: usize) -> Place {
        let word = d.word(number);
        let mut place = Place::at(word.at());
        place.column = word.column();
        place.length = (word.text.len() + 2 * usize::from(word.quoted)) as u32;
        place
    }

    /// A line.
    pub fn at(at: At<'_>) -> Place {
        match at {
            At::File { path: file, line } => Place { file: Some(path(file)), line, ..Place::default() },
            At::Nowhere | At::CommandLine => Place::default(),
        }
    }

    /// Takes ` in FILE:LINE` off the end of a message.
    fn split(text: &str) -> (String, Place) {
        let found = text.rsplit_once(" in ").and_then(|(message, place)| {
            let (file, line) = place.rsplit_once(':')?;
            let line = line.parse().ok()?;
            Some((message, Place { file: Some(file.into()), line, ..Place::default() }))
        });
        match found {
            Some((message, place)) => (message.to_string(), place),
            None => (text.to_string(), Place::default()),
        }
    }
}

impl Finding {
    /// A directive that is refused.
    pub fn fault(d: &Directive<'_>, context: Context, fault: &Fault) -> Finding {
        let (message, mut place) = Place::split(&fault.text(d.name(), d.at()));
        if place == Place::at(d.at()) {
            place = Place::word(d, blamed(d, &message));
        }
        let hint = hint(d, context, &message).or_else(|| suggested_variable(&message));
        Finding { kind: Kind::Error, message, place, hint }
    }

    /// Whether it stands whatever else is wrong in the block.
    pub fn is_its_own(&self) -> bool {
        unknown_variable(&self.message).is_some()
    }

    /// Text that is not the language.
    pub fn syntax(error: &SyntaxError) -> Finding {
        let (message, place) = (error.message.clone(), Place::at(error.at()));
        Finding { kind: Kind::Error, message, place, hint: None }
    }

    /// A message that may end in its place.
    pub fn message(kind: Kind, text: &str) -> Finding {
        let (message, place) = Place::split(text);
        let hint = suggested_variable(&message);
        Finding { kind, message, place, hint }
    }

    /// A directive of a module that is not there.
    pub fn lacking(d: &Directive<'_>, module: &str) -> Finding {
        let message = grammar::lacks(d.name(), module);
        Finding { kind: Kind::Lacking, message, place: Place::word(d, 0), hint: None }
    }

    /// A directive without effect.
    pub fn ignored(d: &Directive<'_>, why: &str) -> Finding {
        let message = format!("\"{}\" has no effect: {why}", String::from_utf8_lossy(d.name()));
        Finding { kind: Kind::Ignored, message, place: Place::word(d, 0), hint: None }
    }

    /// Looks for the place of a variable that nobody defines: nginx names none.
    pub fn look_for_place(&mut self, sources: &[(PathBuf, Vec<u8>)]) {
        if self.place.file.is_some() {
            return;
        }
        let Some(name) = unknown_variable(&self.message) else { return };
        let found = sources.iter().find_map(|(file, text)| Some((file, find_variable(text, name)?)));
        if let Some((file, (line, column, length))) = found {
            self.place = Place { file: Some(file.clone()), line, column, length };
        }
    }
}

/// The word that a message is about: one it quotes, or the only argument of a wrong value, or the name.
fn blamed(d: &Directive<'_>, message: &str) -> usize {
    let quoted = (1..d.len()).find(|number| {
        let word = String::from_utf8_lossy(d.arg(*number));
        !word.is_empty() && message.contains(&format!("\"{word}\""))
    });
    let only = (d.len() == 2 && (message.ends_with("invalid value") || message.ends_with("invalid number")))
        .then_some(1);
    quoted.or(only).unwrap_or(0)
}

fn hint(d: &Directive<'_>, context: Context, message: &str) -> Option<String> {
    let name = d.name();
    if message.starts_with("unknown directive") {
        return suggest::directive(name, context);
    }
    if message.ends_with("directive is not allowed here") {
        let places: Vec<&str> = grammar::rows(name).iter().flat_map(|row| row.contexts.names()).collect();
        return Some(format!("it may stand in {}", places.join(", ")));
    }
    let is_count = message.starts_with("invalid number of arguments");
    let row = grammar::row(context, name).filter(|_| is_count)?;
    syntax(row)
}

fn syntax(row: &Row) -> Option<String> {
    (!row.syntax.is_empty()).then(|| format!("syntax: {} {}", row.name, row.syntax))
}

fn suggested_variable(message: &str) -> Option<String> {
    suggest::variable(unknown_variable(message)?)
}

fn unknown_variable(message: &str) -> Option<&str> {
    message.strip_prefix("unknown \"")?.strip_suffix("\" variable")
}

/// Line, column and length of the first `$name` or `${name}` that is not in a comment of its own line.
fn find_variable(text: &[u8], name: &str) -> Option<(u32, u32, u32)> {
    let lines = text.split(|byte| *byte == b'\n').enumerate();
    lines.filter(|(_, line)| !line.trim_ascii_start().starts_with(b"#")).find_map(|(number, line)| {
        let (column, length) = memchr::memchr_iter(b'$', line).find_map(|at| {
            let rest = &line[at + 1..];
            if let Some(rest) = rest.strip_prefix(b"{") {
                let inside = rest.strip_prefix(name.as_bytes())?;
                return inside.starts_with(b"}").then_some((at, name.len() + 3));
            }
            let after = rest.strip_prefix(name.as_bytes())?;
            let goes_on = after.first().is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
            (!goes_on).then_some((at, name.len() + 1))
        })?;
        Some((number as u32 + 1, column as u32 + 1, length as u32))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_taken_off_messages() {
        let (message, place) = Place::split("invalid value \"in a:b\" in /etc/x y.conf:12");
        assert_eq!(message, "invalid value \"in a:b\"");
        assert_eq!((place.file, place.line), (Some("/etc/x y.conf".into()), 12));
        assert_eq!(Place::split("no \"events\" section in configuration").1, Place::default());
    }

    #[test]
    fn variables_are_found_in_the_text() {
        let text = b"# $abc\nset $abcd ${abc};\nreturn 200 a$abc;";
        assert_eq!(find_variable(text, "abc"), Some((2, 11, 6)));
        assert_eq!(find_variable(b"a $abc_ b$abc", "abc"), Some((1, 10, 4)));
        assert_eq!(find_variable(text, "x"), None);
    }
}
