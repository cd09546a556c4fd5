//! The levels of the error log.

use std::fmt;

/// How grave a message is. A log set to a level takes that level and the graver ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    Stderr = 0,
    Emerg,
    Alert,
    Crit,
    Error,
    Warn,
    Notice,
    Info,
    Debug,
}

/// The levels `error_log` can name, gravest first.
const NAMED: [Level; 8] = [
    Level::Emerg,
    Level::Alert,
    Level::Crit,
    Level::Error,
    Level::Warn,
    Level::Notice,
    Level::Info,
    Level::Debug,
];

/// Parts of nginx whose debug messages can be chosen; here each means `debug`.
const DEBUG_PARTS: [&str; 7] =
    ["debug_core", "debug_alloc", "debug_mutex", "debug_event", "debug_http", "debug_mail", "debug_stream"];

/// What is wrong with the levels of an `error_log`, in nginx's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LevelError {
    Invalid(String),
    Duplicate(String),
}

// === impl Level ===

impl Level {
    /// The name in log lines and in `error_log`; none for `Stderr`.
    pub fn name(self) -> &'static str {
        match self {
            Level::Stderr => "",
            Level::Emerg => "emerg",
            Level::Alert => "alert",
            Level::Crit => "crit",
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Notice => "notice",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }

    /// The level called `name`.
    pub fn parse(name: &str) -> Option<Level> {
        NAMED.into_iter().find(|level| level.name() == name)
    }

    /// The level that the arguments of `error_log` after the file set; `error` when there are none.
    pub fn parse_arguments<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<Level, LevelError> {
        let mut level = None;
        let mut parts = false;
        for argument in arguments {
            if let Some(named) = Level::parse(argument) {
                if level.is_some() || parts {
                    return Err(LevelError::Duplicate(argument.to_owned()));
                }
                level = Some(named);
            } else if DEBUG_PARTS.contains(&argument) && level.is_none() {
                parts = true;
            } else {
                return Err(LevelError::Invalid(argument.to_owned()));
            }
        }
        Ok(if parts { Level::Debug } else { level.unwrap_or(Level::Error) })
    }
}

impl fmt::Display for LevelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LevelError::Invalid(level) => write!(f, "invalid log level \"{level}\""),
            LevelError::Duplicate(level) => write!(f, "duplicate log level \"{level}\""),
        }
    }
}

impl std::error::Error for LevelError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_set_a_level() {
        assert_eq!(Level::parse_arguments([]), Ok(Level::Error));
        assert_eq!(Level::parse_arguments(["info"]), Ok(Level::Info));
        assert_eq!(Level::parse_arguments(["debug_http", "debug_core"]), Ok(Level::Debug));
    }

    #[test]
    fn wrong_levels_are_refused_in_nginx_words() {
        let words =
            |arguments: &[&str]| Level::parse_arguments(arguments.iter().copied()).unwrap_err().to_string();
        assert_eq!(words(&["loud"]), "invalid log level \"loud\"");
        assert_eq!(words(&["json"]), "invalid log level \"json\"");
        assert_eq!(words(&["info", "error"]), "duplicate log level \"error\"");
        assert_eq!(words(&["info", "debug_http"]), "invalid log level \"debug_http\"");
        assert_eq!(words(&["debug_http", "info"]), "duplicate log level \"info\"");
    }
}
