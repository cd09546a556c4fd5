//! The main and events contexts: `ngx_core`, `ngx_errlog`, `ngx_event_core`.

use std::path::PathBuf;

use super::build::Commands;
use super::{Build, Fault, Outcome};
use crate::log::ErrorLogBuilder;
use crate::syntax::Directive;

/// Directives outside of http, stream and mail.
pub static COMMANDS: &[Commands] = &[];

/// Adds one `error_log` to those of its level.
pub fn add_error_log(_cf: &mut Build, _d: &Directive<'_>, _log: &mut ErrorLogBuilder) -> Outcome {
    Err(Fault::here("not yet"))
}

/// `*_temp_path`: the folder; levels are taken and have no effect, files are made without names.
pub fn temp_path(cf: &mut Build, d: &Directive<'_>) -> Outcome<PathBuf> {
    Ok(cf.full_path(d.arg(1)))
}
