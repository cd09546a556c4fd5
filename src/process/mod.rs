//! Master, worker and threads.

#[allow(dead_code)]
mod core;

pub use self::core::{Account, Affinity, Core, CoreError, CpuSet, EnvVariable};
