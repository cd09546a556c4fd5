//! nginx's command line. It is read by hand, since `-cFILE`, `-tq` and what nginx says of mistakes are part
//! of what scripts rely on.

mod check;
mod options;
mod paths;
mod version;

pub use options::{Given, UsageError};
pub use version::{NGINX_VERSION, VERSION};

use crate::log;
use crate::process::{self, Load, Options, Task};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

/// Does what `arguments`, the program's name first, ask for.
pub fn main(arguments: Vec<OsString>, load: Load<'_>) -> ExitCode {
    let name = arguments.first().and_then(|path| Path::new(path).file_name());
    log::set_program_name(if name.is_some_and(|name| name.as_bytes() == b"nginx") { "nginx" } else { "nxr" });
    let is_own = log::program_name() == "nxr";
    if is_own && arguments.get(1).is_some_and(|word| word == "check") {
        return check::main(arguments.get(2..).unwrap_or_default());
    }
    let given = match Given::parse(arguments.get(1..).unwrap_or_default()) {
        Ok(given) => given,
        Err(error) => {
            log::stderr(format_args!("{error}"));
            return ExitCode::FAILURE;
        }
    };
    if given.version {
        version::show(given.help, given.configure);
        if !given.test {
            return ExitCode::SUCCESS;
        }
    }
    process::run(&given.options(arguments), load)
}

impl Given {
    fn options(&self, arguments: Vec<OsString>) -> Options {
        let task = match (self.test, self.signal) {
            (true, _) => Task::Test { dump: self.dump },
            (false, Some(signal)) => Task::Signal(signal),
            (false, None) => Task::Serve,
        };
        let parameters = self.parameters.as_ref().map(|text| text.to_string_lossy().into_owned());
        Options { task, paths: paths::resolve(self), parameters, quiet: self.quiet, arguments }
    }
}
