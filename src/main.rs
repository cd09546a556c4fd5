//! The door: the command line to one call in the library.

use nxr::log::{self, Level};
use nxr::process::{LoadOptions, Loaded, NotLoaded};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    nxr::cli::main(std::env::args_os().collect(), &load)
}

fn load(options: &LoadOptions<'_>) -> Result<Loaded, NotLoaded> {
    let file = options.paths.conf_file.display();
    log::error(options.log, Level::Emerg, None, format_args!("reading \"{file}\" is not built in"));
    Err(NotLoaded)
}
