//! The `stream` room.
