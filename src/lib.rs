//! nxr: a proxy that runs the nginx.conf people already have.

pub mod cli;
pub mod conf;
pub mod http;
pub mod log;
pub mod net;
pub mod process;
pub mod serving;
pub mod stream;
pub mod syntax;
pub mod tls;
pub mod upstream;
pub mod value;
