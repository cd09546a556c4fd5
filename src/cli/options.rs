//! Reading the options.

use crate::log;
use crate::process::Signal;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;

/// The options given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    pub help: bool,
    pub version: bool,
    pub configure: bool,
    pub test: bool,
    pub dump: bool,
    pub quiet: bool,
    pub prefix: Option<OsString>,
    pub error_log: Option<OsString>,
    pub conf_file: Option<OsString>,
    pub parameters: Option<OsString>,
    pub signal: Option<Signal>,
}

/// What is wrong with the command line, in nginx's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsageError {
    Invalid(Vec<u8>),
    Missing { option: char, what: &'static str },
}

// === impl Given ===

impl Given {
    /// Reads arguments, without the program's name. An option's value is the rest of its argument or, if
    /// nothing is left of it, the next argument.
    pub fn parse(arguments: &[OsString]) -> Result<Given, UsageError> {
        let mut given = Given::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let Some(letters) = argument.as_bytes().strip_prefix(b"-") else {
                return Err(UsageError::Invalid(argument.as_bytes().to_vec()));
            };
            for (index, letter) in letters.iter().enumerate() {
                let mut value = |option: char, what: &'static str| {
                    let rest = &letters[index + 1..];
                    let value = if rest.is_empty() {
                        arguments.next().map(OsString::as_os_str)
                    } else {
                        Some(OsStr::from_bytes(rest))
                    };
                    value.map(OsStr::to_owned).ok_or(UsageError::Missing { option, what })
                };
                match letter {
                    b'?' | b'h' => (given.version, given.help) = (true, true),
                    b'v' => given.version = true,
                    b'V' => (given.version, given.configure) = (true, true),
                    b't' => given.test = true,
                    b'T' => (given.test, given.dump) = (true, true),
                    b'q' => given.quiet = true,
                    b'p' => given.prefix = Some(value('p', "directory name")?),
                    b'e' => given.error_log = Some(value('e', "file name")?),
                    b'c' => given.conf_file = Some(value('c', "file name")?),
                    b'g' => given.parameters = Some(value('g', "parameter")?),
                    b's' => given.signal = Some(signal(&value('s', "parameter")?)?),
                    other => return Err(UsageError::Invalid(vec![*other])),
                }
                if matches!(letter, b'p' | b'e' | b'c' | b'g' | b's') {
                    break;
                }
            }
        }
        Ok(given)
    }
}

fn signal(name: &OsStr) -> Result<Signal, UsageError> {
    let signal = name.to_str().and_then(Signal::parse);
    signal.ok_or_else(|| UsageError::Invalid([b"-s ", name.as_bytes()].concat()))
}

// === impl UsageError ===

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UsageError::Invalid(option) => write!(f, "invalid option: \"{}\"", log::bytes(option)),
            UsageError::Missing { option, what } => write!(f, "option \"-{option}\" requires {what}"),
        }
    }
}

impl std::error::Error for UsageError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<Given, String> {
        let arguments: Vec<OsString> = line.iter().map(OsString::from).collect();
        Given::parse(&arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn values_follow_or_are_attached() {
        let expected = Given { conf_file: Some("a.conf".into()), test: true, ..Given::default() };
        assert_eq!(parse(&["-t", "-c", "a.conf"]), Ok(expected.clone()));
        assert_eq!(parse(&["-ca.conf", "-t"]), Ok(expected.clone()));
        assert_eq!(parse(&["-tca.conf"]), Ok(expected.clone()));
        assert_eq!(parse(&["-tc", "a.conf"]), Ok(expected));
    }

    #[test]
    fn letters_combine() {
        let given = parse(&["-Tq", "-sreload", "-p", "/x", "-g", "daemon off;", "-e", "stderr"]).unwrap();
        assert!(given.test && given.dump && given.quiet && !given.version);
        assert_eq!(given.signal, Some(Signal::Reload));
        assert_eq!(given.parameters, Some("daemon off;".into()));
        assert!(parse(&["-?"]).unwrap().help && parse(&["-V"]).unwrap().configure);
        assert_eq!(parse(&["-"]), Ok(Given::default()));
    }

    #[test]
    fn mistakes_are_told_in_nginx_words() {
        assert_eq!(parse(&["start"]).unwrap_err(), "invalid option: \"start\"");
        assert_eq!(parse(&["-tx"]).unwrap_err(), "invalid option: \"x\"");
        assert_eq!(parse(&["--help"]).unwrap_err(), "invalid option: \"-\"");
        assert_eq!(parse(&["-c"]).unwrap_err(), "option \"-c\" requires file name");
        assert_eq!(parse(&["-p"]).unwrap_err(), "option \"-p\" requires directory name");
        assert_eq!(parse(&["-g"]).unwrap_err(), "option \"-g\" requires parameter");
        assert_eq!(parse(&["-s", "x"]).unwrap_err(), "invalid option: \"-s x\"");
    }
}
