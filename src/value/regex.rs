//! PCRE patterns whose named groups are variables.

use bytes::Bytes;
use pcre2::bytes::{Regex as Pcre, RegexBuilder};

use super::{Context, Scope, Slot, VarId, VariablesBuilder};

/// A compiled pattern. A match sets `$1` to `$9` and the variables named in the pattern.
#[derive(Debug)]
pub struct Regex {
    pcre: Pcre,
    /// Group number and variable of each named group.
    named: Vec<(usize, VarId)>,
}

impl Regex {
    /// Compiles `pattern`, defining its named groups in `vars`. The error is nginx's sentence without a position.
    pub fn new<C: Context>(
        pattern: &[u8],
        caseless: bool,
        vars: &mut VariablesBuilder<C>,
    ) -> Result<Regex, String> {
        let mut regex = Regex::anonymous(pattern, caseless)?;
        for (group, name) in regex.pcre.capture_names().iter().enumerate() {
            if let Some(name) = name {
                regex.named.push((group, vars.define_capture(name.as_bytes())?));
            }
        }
        Ok(regex)
    }

    /// Compiles `pattern`; its named groups are plain groups.
    pub fn anonymous(pattern: &[u8], caseless: bool) -> Result<Regex, String> {
        let shown = String::from_utf8_lossy(pattern);
        // Bytes that are no UTF-8 are escaped: outside of UTF mode they mean the same.
        let text = match std::str::from_utf8(pattern) {
            Ok(text) => text.to_string(),
            Err(_) => escape_bytes(pattern),
        };
        let pcre = RegexBuilder::new()
            .caseless(caseless)
            .jit_if_available(true)
            .build(&text)
            .map_err(|e| compile_error(&shown, &e))?;
        Ok(Regex { pcre, named: Vec::new() })
    }

    /// Number of groups, the whole match not counted.
    pub fn groups(&self) -> usize {
        self.pcre.captures_len().saturating_sub(1)
    }

    /// Whether the pattern has named groups.
    pub fn has_named(&self) -> bool {
        !self.named.is_empty()
    }

    /// Whether `subject` matches, nothing captured. A match limit that is reached counts as no match.
    pub fn is_match(&self, subject: &[u8]) -> bool {
        self.pcre.is_match(subject).unwrap_or(false)
    }

    /// Where groups matched in `subject`, by number; none where the pattern does not match.
    pub fn find_groups(&self, subject: &[u8]) -> Option<Vec<Option<(usize, usize)>>> {
        let mut found = self.pcre.capture_locations();
        matches!(self.pcre.captures_read(&mut found, subject), Ok(Some(_)))
            .then(|| (0..found.len()).map(|group| found.get(group)).collect())
    }

    /// Matches `subject` and keeps captures and named groups in `scope`.
    pub fn exec(&self, scope: &Scope, subject: &[u8]) -> bool {
        if self.groups() == 0 {
            let mut hit = false;
            if let Ok(Some(m)) = self.pcre.find(subject) {
                scope.set_captures(Bytes::copy_from_slice(subject), vec![(m.start(), m.end())]);
                hit = true;
            }
            return hit;
        }
        let mut found = self.pcre.capture_locations();
        if !matches!(self.pcre.captures_read(&mut found, subject), Ok(Some(_))) {
            return false;
        }
        let subject = Bytes::copy_from_slice(subject);
        let groups: Vec<(usize, usize)> =
            (0..found.len()).map(|i| found.get(i).unwrap_or((usize::MAX, usize::MAX))).collect();
        for &(group, id) in &self.named {
            let slot = match found.get(group) {
                Some((start, end)) => Slot::Value(subject.slice(start..end)),
                None => Slot::NotFound,
            };
            scope.set(id, slot);
        }
        scope.set_captures(subject, groups);
        true
    }
}

fn escape_bytes(pattern: &[u8]) -> String {
    pattern
        .iter()
        .map(|&b| if b.is_ascii() { char::from(b).to_string() } else { format!("\\x{b:02x}") })
        .collect()
}

fn compile_error(pattern: &str, error: &pcre2::Error) -> String {
    // The crate's text ends in PCRE2's own words; nginx gives them with the rest of the pattern from the fault on.
    let text = error.to_string();
    let words = text.rsplit_once(": ").map_or(text.as_str(), |(_, words)| words);
    match error.offset() {
        Some(offset) if offset >= pattern.len() => {
            format!("pcre2_compile() failed: {words} in \"{pattern}\"")
        }
        Some(offset) => {
            let rest = String::from_utf8_lossy(&pattern.as_bytes()[offset..]);
            format!("pcre2_compile() failed: {words} in \"{pattern}\" at \"{rest}\"")
        }
        None => format!("pcre2_compile() failed: {words} in \"{pattern}\""),
    }
}
