//! The door: the command line to one call in the library.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: nxr::process::memory::Allocator = nxr::process::memory::Allocator;

fn main() -> ExitCode {
    nxr::cli::main(std::env::args_os().collect(), &nxr::serving::load)
}
