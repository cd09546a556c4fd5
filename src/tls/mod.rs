//! The `tls` room.

mod cipher_table;
pub mod ciphers;
mod constraints;
mod der;
mod dn;
mod encrypted;
pub mod error;
pub mod groups;
pub mod keys;
mod pem;
pub mod preread;
pub mod sessions;
pub mod verify;

pub use error::Error;
