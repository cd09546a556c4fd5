//! Tree to IR: every directive checked against the grammar, set into its module's settings, merged, closed.

pub mod build;
pub mod core;
pub mod fault;
pub mod finding;
pub mod grammar;
pub mod listen;
pub mod load;
pub mod merging;
pub mod names;
pub mod resolver;
pub mod set;
pub mod setting;
mod suggest;
#[cfg(test)]
mod support;
pub mod tls_settings;
pub mod units;
pub mod upstream_tls;
pub mod url;
pub mod zones;

pub use build::{Build, Setter};
pub use fault::{Fault, Outcome};
pub use setting::{Conf, Setting};
