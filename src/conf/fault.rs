//! Why a configuration is refused.

use std::fmt::Display;

/// Result of setting, merging or checking.
pub type Outcome<T = ()> = Result<T, Fault>;

/// One sentence of refusal, and where its position goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `"NAME" directive SENTENCE in FILE:LINE`.
    Directive(String),
    /// `SENTENCE in FILE:LINE`.
    Here(String),
    /// The sentence as it is: it has its position, or needs none.
    Whole(String),
}

impl Fault {
    /// The fault of a directive by name, e.g. `is duplicate`.
    pub fn directive(sentence: impl Display) -> Fault {
        Fault::Directive(sentence.to_string())
    }

    /// A sentence that the position follows.
    pub fn here(sentence: impl Display) -> Fault {
        Fault::Here(sentence.to_string())
    }

    /// A sentence that stands alone.
    pub fn whole(sentence: impl Display) -> Fault {
        Fault::Whole(sentence.to_string())
    }

    /// `invalid value "x"`, the commonest of all.
    pub fn invalid_value(value: &[u8]) -> Fault {
        Fault::Here(format!("invalid value \"{}\"", String::from_utf8_lossy(value)))
    }

    /// `invalid parameter "x"`.
    pub fn invalid_parameter(value: &[u8]) -> Fault {
        Fault::Here(format!("invalid parameter \"{}\"", String::from_utf8_lossy(value)))
    }

    /// The sentence, given the directive's name and its position (` in FILE:LINE`).
    pub fn text(&self, name: &[u8], at: impl Display) -> String {
        match self {
            Fault::Directive(s) => format!("\"{}\" directive {s}{at}", String::from_utf8_lossy(name)),
            Fault::Here(s) => format!("{s}{at}"),
            Fault::Whole(s) => s.clone(),
        }
    }
}

impl From<String> for Fault {
    fn from(sentence: String) -> Fault {
        Fault::Here(sentence)
    }
}

impl From<&str> for Fault {
    fn from(sentence: &str) -> Fault {
        Fault::Here(sentence.into())
    }
}
