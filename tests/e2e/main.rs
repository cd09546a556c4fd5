//! The binary as people run it: started on a configuration, asked over sockets, told by signals.
//!
//! Every test has a directory, free ports and a server of its own; nothing leaves loopback.

mod bad_input;
mod disappearing;
mod documents;
mod forwarding;
mod home_lab;
mod ocsp;
mod passthrough;
mod process;
mod reload;
mod sessions;
mod soak;
mod sticky;
mod support;
mod websocket;
