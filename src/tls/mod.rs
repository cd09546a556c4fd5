//! TLS.
mod info;
pub use info::TlsInfo;
