//! Sockets and their options, clocks, and what stands next to a system call.

pub mod accept;
pub mod clock;
pub mod fd;
pub mod host;
pub mod listen;
