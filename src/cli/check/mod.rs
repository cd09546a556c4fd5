//! `nxr check`: everything between a configuration and running it, not only the first thing.

mod json;
mod text;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Arg, Command, value_parser};

use super::{Given, paths};
use crate::conf::finding::{Finding, Kind};
use crate::conf::load::{Options, Survey, survey};

fn command() -> Command {
    let path = |name: &'static str, short, what: &'static str, help: &'static str| {
        Arg::new(name).short(short).value_name(what).value_parser(value_parser!(OsString)).help(help)
    };
    Command::new("nxr check")
        .about("Reads a whole configuration and tells everything that keeps it from running on nxr")
        .arg(path("prefix", 'p', "PREFIX", "Prefix path, as of nxr -p"))
        .arg(path("conf", 'c', "FILE", "Configuration file, as of nxr -c"))
        .arg(Arg::new("global").short('g').value_name("DIRECTIVES").help("Directives in front of the file's"))
        .arg(
            Arg::new("format")
                .long("format")
                .value_name("FORMAT")
                .default_value("text")
                .value_parser(PossibleValuesParser::new(["text", "json"]))
                .help("How to print it: text or json"),
        )
}

/// Does what `arguments`, those behind `check`, ask for. Exits with 1 where nxr would not start, with 2 where the
/// arguments are wrong.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let name = std::iter::once(OsString::from("nxr check"));
    let matches = match command().try_get_matches_from(name.chain(arguments.iter().cloned())) {
        Ok(matches) => matches,
        Err(error) => {
            // Nowhere is left to tell that printing failed.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let given = Given {
        prefix: matches.get_one("prefix").cloned(),
        conf_file: matches.get_one("conf").cloned(),
        ..Given::default()
    };
    let paths = paths::resolve(&given);
    let survey = survey(&Options {
        conf_file: paths.conf_file.clone(),
        conf_prefix: paths.conf_prefix,
        prefix: paths.prefix,
        parameters: matches.get_one::<String>("global").map(String::as_str),
        testing: true,
        error_log: paths.error_log,
        pid: paths.pid,
    });
    let file = paths.conf_file.display().to_string();
    let out = match matches.get_one::<String>("format").map(String::as_str) {
        Some("json") => json::render(&file, &survey),
        _ => {
            let colour =
                io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
            text::render(&file, &survey, colour)
        }
    };
    // A reader that is gone has seen enough.
    let _ = io::stdout().write_all(out.as_bytes());
    if refuses(&survey) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Whether nxr would not start.
fn refuses(survey: &Survey) -> bool {
    survey.findings.iter().any(|finding| matches!(finding.kind, Kind::Error | Kind::Lacking))
}

/// The line a finding is on.
fn line_of<'s>(finding: &Finding, survey: &'s Survey) -> Option<std::borrow::Cow<'s, str>> {
    let file = finding.place.file.as_ref()?;
    let (_, text) = survey.sources.iter().find(|(name, _)| name == file)?;
    let index = usize::try_from(finding.place.line).ok()?.checked_sub(1)?;
    let line = text.split(|byte| *byte == b'\n').nth(index)?;
    Some(String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)))
}

#[cfg(test)]
mod tests;
