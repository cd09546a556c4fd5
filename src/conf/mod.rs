//! The `conf` room.
