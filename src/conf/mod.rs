//! The `conf` room.

pub mod grammar;
pub mod units;
