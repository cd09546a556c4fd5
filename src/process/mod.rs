//! The `process` room.
