//! x
/// x
#[derive(Default)]
pub struct Core {}
