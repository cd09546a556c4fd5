//! The `tls` room.
