//! The `tls` room: all of TLS that http and stream share, on rustls with aws-lc-rs.
//!
//! It knows nothing of directives, requests or sessions. Callers fill plain settings and get what shakes hands:
//!
//! ```text
//! ServerTls --Server::new()--> Arc<Server> --+
//!                                            |  accept(io, |name| Choice::Serve(server))
//! TicketKeys, SessionCache (shared) ---------+---------------------------> TlsStream --info()--> TlsInfo
//!                                                                             ^
//! ClientTls --Connector::new()--> Arc<Connector> --connect(io, name)----------+
//! ```
//!
//! - [`Server`] and [`Connector`] load files when they are made: make them as root, before workers are forked. Their
//!   `warnings` name what was asked for and is lacking here; [`Error`] prints nginx's words.
//! - [`TicketKeys::random`] is made once in the master and given to every [`ServerTls`]: all processes that inherit it
//!   rotate alike. Call [`TicketKeys::advance`] before a fork.
//! - [`accept`] chooses the server by name in the middle of the handshake. A client's certificate never fails a
//!   handshake: [`TlsInfo::verdict`] says what is wrong with it, for the request to be refused by.
//! - [`HandshakeError`] and [`io_failure`] give the error log's words and level; [`looks_like_tls`] tells a hello from
//!   plain HTTP by its first byte; [`preread`] reads a hello that is not answered here.

mod certificate_cache;
mod cipher_table;
pub mod ciphers;
mod client;
mod conf_command;
mod constraints;
mod crl;
mod der;
mod dn;
mod encrypted;
mod error;
mod failure;
pub mod groups;
mod handshake;
mod handshake_signature;
mod info;
mod key_schedule;
mod key_store;
pub mod keys;
mod objects;
pub mod ocsp;
mod pem;
pub mod preread;
#[cfg(fuzzing)]
pub mod record;
#[cfg(not(fuzzing))]
mod record;
mod server;
mod sessions;
mod signed;
mod stream;
mod verdict;
mod verify;

#[cfg(test)]
mod handshake_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod varying_tests;
#[cfg(test)]
mod verify_tests;

pub use certificate_cache::{CertificateCache, ForConnection};
pub use ciphers::Protocol;
pub use client::{ClientTls, Connector, UpstreamRefused};
pub use conf_command::{ConfCommand, conf_command};
pub use error::Error;
pub use failure::{HandshakeError, Level, Peer, io_failure, looks_like_tls};
pub use info::{PeerCertificate, TlsInfo};
pub use objects::{Objects, Reading};
pub use rustls::sign::CertifiedKey;
pub use server::{CertificatePair, Server, ServerTls, VerifyMode};
pub use sessions::{SessionCache, TicketKeys};
pub use stream::{Asking, Choice, TlsStream, accept};
pub use verdict::VerifyError;
