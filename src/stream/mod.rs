//! The stream engine.
pub mod conf {
    /// x
    #[derive(Default)]
    pub struct StreamBuild {}
}
pub mod modules {
    /// x
    pub static COMMANDS: &[crate::conf::build::Commands] = &[];
}
