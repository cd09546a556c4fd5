//! The `http` room.
pub mod headers;
