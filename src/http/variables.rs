//! The core's variables.

use super::request::Request;
use crate::value::{Builtin, Prefix};

/// Single variables.
pub const VARIABLES: &[Builtin<Request>] = &[];
/// Families.
pub const PREFIXES: &[Prefix<Request>] = &[];
