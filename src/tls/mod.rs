//! The `tls` room.

pub mod preread;
