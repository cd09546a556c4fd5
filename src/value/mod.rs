//! "Text with $variables", compiled once; captures; regular expressions.
//!
//! A [`Template`] is made while the configuration is read and evaluated against a [`Context`]: an http request or a
//! stream session. This room knows neither; each brings its own table of variables.

pub mod certificates;
pub mod entries;
pub mod geo;
pub mod keys;
pub mod limit_conn;
pub mod limit_req;
pub mod log_format;
pub mod map;
mod ranges;
mod regex;
mod scope;
pub mod split_clients;
mod template;
#[cfg(test)]
mod testing;
pub mod texts;
mod variables;

pub use regex::Regex;
pub use scope::{Scope, Slot};
pub use template::{Part, Template, TemplatePart};
pub use variables::{Builtin, Flags, Get, Prefix, Variables, VariablesBuilder};

/// Index of a variable in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VarId(pub u32);

/// What templates are evaluated against: gives the table of variables and the values that belong to one request.
pub trait Context: Sized + 'static {
    /// The variables of the configuration this context runs under.
    fn variables(&self) -> &'static Variables<Self>;
    /// Captures and values set so far.
    fn scope(&self) -> &Scope;
}

/// Appends the value of `id` to `out`; false where the variable has no value.
pub fn variable<C: Context>(ctx: &C, id: VarId, out: &mut Vec<u8>) -> bool {
    ctx.variables().get(ctx, id, out)
}
