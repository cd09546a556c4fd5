//! What a peer may say once a TLS handshake is done, in records that are sealed as they should be, and in others.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| nxr::tls::record::hostile::converse(bytes));
