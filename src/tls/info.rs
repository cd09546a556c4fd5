//! TLS facts.
/// x
#[derive(Debug)]
pub struct TlsInfo {}
