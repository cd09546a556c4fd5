//! The `tls` room.

mod cipher_table;
pub mod ciphers;
mod der;
mod encrypted;
pub mod error;
pub mod groups;
pub mod keys;
mod pem;
pub mod preread;

pub use error::Error;
