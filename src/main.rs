//! The door: the command line to one call in the library.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    nxr::cli::main(std::env::args_os().collect(), &nxr::serving::load)
}
