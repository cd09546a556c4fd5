//! OCSP (RFC 6960): responses stapled to a server's certificates, and questions about clients' certificates.
//!
//! ```text
//! Staples::update() --+                  +-- request    OCSPRequest, as a GET
//!                     +--> Inquiry::ask()+-- exchange   HTTP/1.0 with one address of the responder
//! Checker::check() ---+                  +-- response   OCSPResponse, read strictly
//!                                        +-- judge      who signed it, and when
//! ```

#[cfg(test)]
mod asking_tests;
mod cache;
mod client;
mod exchange;
mod inquiry;
mod judge;
mod request;
mod responder;
pub mod response;
#[cfg(test)]
mod shaking_tests;
mod staple;
#[cfg(test)]
mod tests;

pub use cache::StatusCache;
pub use client::{ClientStatus, StatusError};
pub use inquiry::{Log, Resolving};
pub use responder::Responder;
pub use staple::Stapling;

pub(super) use client::Checker;
pub(super) use staple::{Staple, Staples};
