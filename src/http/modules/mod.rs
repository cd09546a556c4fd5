//! The http modules, one file each. To add one: its file, its line below, its rows in `grammar/`.

pub mod core;
pub mod tuning;

use std::sync::Arc;

use super::conf::LocationBuild;
use super::module::{Handlers, Module, merged};
use super::request::Request;
use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Outcome};
use crate::value::{Builtin, Prefix};

crate::http_modules! {
    core: core::Core,
    tuning: tuning::Tuning,
}
