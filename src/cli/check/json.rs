//! For programs: one object.

use std::fmt::Write;

use super::{line_of, refuses};
use crate::conf::finding::{Finding, Kind};
use crate::conf::load::Survey;

/// The whole report: `{"file", "starts", "findings": [{"kind", "message", "file", "line", "column", "length",
/// "text", "hint"}]}`; what is not known is `null`.
pub fn render(file: &str, survey: &Survey) -> String {
    let findings: Vec<String> = survey.findings.iter().map(|finding| one(finding, survey)).collect();
    let starts = !refuses(survey);
    let list = if findings.is_empty() { String::new() } else { format!("\n  {}\n", findings.join(",\n  ")) };
    format!("{{\"file\": {}, \"starts\": {starts}, \"findings\": [{list}]}}\n", string(file))
}

fn one(finding: &Finding, survey: &Survey) -> String {
    let place = &finding.place;
    let kind = match finding.kind {
        Kind::Error => "error",
        Kind::Lacking => "missing",
        Kind::Warning => "warning",
        Kind::Ignored => "ignored",
    };
    let text = |text: Option<&str>| text.map_or("null".to_string(), string);
    let number = |number: u32| if number > 0 { number.to_string() } else { "null".to_string() };
    let file = place.file.as_ref().map(|file| file.display().to_string());
    format!(
        "{{\"kind\": \"{kind}\", \"message\": {}, \"file\": {}, \"line\": {}, \"column\": {}, \"length\": {}, \
         \"text\": {}, \"hint\": {}}}",
        string(&finding.message),
        text(file.as_deref()),
        number(place.line),
        number(place.column),
        number(place.length),
        text(line_of(finding, survey).as_deref()),
        text(finding.hint.as_deref()),
    )
}

/// A string as RFC 8259, section 7 writes it.
fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn strings_are_escaped() {
        assert_eq!(super::string("a\"\\\n\t\u{1}ä"), "\"a\\\"\\\\\\n\\t\\u0001ä\"");
    }
}
