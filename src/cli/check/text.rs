//! For people: groups, each finding with its line and a caret.

use std::fmt::Write;

use super::line_of;
use crate::conf::finding::{Finding, Kind};
use crate::conf::load::Survey;

/// A group: its kind, its title, the word before each finding, the colour of both.
const GROUPS: [(Kind, &str, &str, &str); 4] = [
    (Kind::Error, "What nginx would refuse too", "error", "31"),
    (Kind::Lacking, "What needs something that nxr does not have", "missing", "35"),
    (Kind::Warning, "What may not do what is meant", "warning", "33"),
    (Kind::Ignored, "What is taken without effect", "note", "36"),
];

struct Ink(bool);

impl Ink {
    fn paint(&self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

/// The whole report.
pub fn render(file: &str, survey: &Survey, colour: bool) -> String {
    let ink = Ink(colour);
    let mut out = String::new();
    for (kind, title, word, code) in GROUPS {
        let group: Vec<&Finding> = survey.findings.iter().filter(|finding| finding.kind == kind).collect();
        if group.is_empty() {
            continue;
        }
        let _ = writeln!(out, "{}\n", ink.paint("1", &format!("{title} ({})", group.len())));
        for finding in group {
            one(&mut out, finding, survey, &ink, (word, code));
        }
    }
    let count = |kind| survey.findings.iter().filter(|finding| finding.kind == kind).count();
    let (errors, lacking) = (count(Kind::Error), count(Kind::Lacking));
    let verdict = match errors + lacking {
        0 => ink.paint("32", "runs on nxr"),
        _ => ink.paint("31", &format!("does not run on nxr: {errors} to correct, {lacking} missing in nxr")),
    };
    let _ = writeln!(out, "{file} {verdict}");
    out
}

fn one(out: &mut String, finding: &Finding, survey: &Survey, ink: &Ink, (word, code): (&str, &str)) {
    let place = &finding.place;
    let _ = writeln!(out, "{}: {}", ink.paint(code, word), finding.message);
    let Some(file) = &place.file else {
        let _ = writeln!(out);
        return;
    };
    let column = if place.column > 0 { format!(":{}", place.column) } else { String::new() };
    let number = place.line.to_string();
    let margin = " ".repeat(number.len());
    let _ = writeln!(out, "{margin}{} {}:{number}{column}", ink.paint("34", "-->"), file.display());
    if let Some(line) = line_of(finding, survey) {
        let bar = ink.paint("34", "|");
        let line = line.replace('\t', " ");
        let _ = writeln!(out, "{margin} {bar}\n{} {bar} {line}", ink.paint("34", &number));
        if place.column > 0 {
            let before = width(&line, place.column.saturating_sub(1) as usize);
            let carets = "^".repeat(place.length.clamp(1, 200) as usize);
            let _ = writeln!(out, "{margin} {bar} {}{}", " ".repeat(before), ink.paint(code, &carets));
        }
    }
    if let Some(hint) = &finding.hint {
        let _ = writeln!(out, "{margin} {} {hint}", ink.paint("34", "="));
    }
    let _ = writeln!(out);
}

/// How many characters the first `bytes` bytes are.
fn width(line: &str, bytes: usize) -> usize {
    line.char_indices().take_while(|(at, _)| *at < bytes).count()
}
