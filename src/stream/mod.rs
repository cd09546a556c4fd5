//! The stream engine.
pub mod conf {
    use crate::conf::{Build, Outcome};
    use crate::syntax::Directive;

    /// x
    #[derive(Default)]
    pub struct StreamBuild {}

    /// x
    pub fn stream_block(_: &mut Build, _: &Directive<'_>) -> Outcome {
        Ok(())
    }

    /// x
    pub fn finish(_: &mut Build) -> Outcome<Option<super::Stream>> {
        Ok(None)
    }
}
pub mod modules {
    /// x
    pub static COMMANDS: &[crate::conf::build::Commands] = &[];
}
/// x
pub struct Stream {
    /// x
    pub ports: Vec<crate::conf::listen::Port>,
}

/// x
pub fn accepted(
    _: &'static Stream,
    _: usize,
    _: crate::net::Socket,
    _: crate::net::Address,
    _: u64,
    _: crate::process::Slot,
) {
}

/// x
pub fn close_all() -> bool {
    true
}
