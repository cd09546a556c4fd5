//! PROXY protocol.
/// x
#[derive(Debug)]
pub struct Header {}
