//! The `value` room.
