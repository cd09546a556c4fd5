//! The `syntax` room.
