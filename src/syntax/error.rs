//! Where something is wrong, and nginx's words for it.

use std::fmt;
use std::sync::Arc;

/// nginx cuts a configuration error at this many bytes, position excluded.
pub const MAX_MESSAGE: usize = 1024;

/// A place in the configuration, printed as nginx ends its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At<'t> {
    /// Outside of any text, as when the main file cannot be opened; prints nothing.
    Nowhere,
    /// In the text of `-g`.
    CommandLine,
    /// In a file; lines count from 1.
    File { path: &'t [u8], line: u32 },
}

impl At<'_> {
    /// The line, counted from 1; 0 outside of files.
    pub fn line(&self) -> u32 {
        match self {
            At::File { line, .. } => *line,
            At::Nowhere | At::CommandLine => 0,
        }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Nowhere => Ok(()),
            At::CommandLine => f.write_str(" in command line"),
            At::File { path, line } => write!(f, " in {}:{line}", String::from_utf8_lossy(path)),
        }
    }
}

/// The level nginx logs the error with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Emerg,
    Crit,
}

/// Text that is not the language, or a file that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// nginx's words without the position.
    pub message: String,
    pub level: Level,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Nowhere,
    CommandLine,
    File(Arc<[u8]>, u32),
}

impl SyntaxError {
    pub(super) fn new(message: &[u8], at: At<'_>) -> Self {
        let place = match at {
            At::Nowhere => Place::Nowhere,
            At::CommandLine => Place::CommandLine,
            At::File { path, line } => Place::File(path.into(), line),
        };
        let cut = &message[..message.len().min(MAX_MESSAGE)];
        SyntaxError { message: String::from_utf8_lossy(cut).into_owned(), level: Level::Emerg, place }
    }

    /// `call() "path" failed (2: No such file or directory)`.
    pub(super) fn io(call: &str, path: &[u8], error: &std::io::Error, at: At<'_>) -> Self {
        let mut message = format!("{call}() \"").into_bytes();
        message.extend_from_slice(path);
        message.extend_from_slice(format!("\" failed{}", errno_words(error)).as_bytes());
        SyntaxError::new(&message, at)
    }

    pub(super) fn with_level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    pub fn at(&self) -> At<'_> {
        match &self.place {
            Place::Nowhere => At::Nowhere,
            Place::CommandLine => At::CommandLine,
            Place::File(path, line) => At::File { path, line: *line },
        }
    }
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.message, self.at())
    }
}

impl std::error::Error for SyntaxError {}

/// ` (2: No such file or directory)`, the system's words as nginx shows them.
fn errno_words(error: &std::io::Error) -> String {
    let Some(code) = error.raw_os_error() else { return format!(" ({error})") };
    let text = error.to_string();
    let words = text.strip_suffix(&format!(" (os error {code})")).unwrap_or(&text);
    format!(" ({code}: {words})")
}
