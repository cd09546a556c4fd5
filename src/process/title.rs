//! The title of a process, as ps(1) shows it, written over the command line and environment it was born with.

use crate::log;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;

/// Where the command line lies in memory, and how long it is with the environment behind it.
static AREA: OnceLock<Option<(usize, usize)>> = OnceLock::new();

/// Makes room for titles by moving the environment away. Called while the process has one thread; the
/// command line must have been copied.
pub(super) fn prepare() {
    AREA.get_or_init(|| {
        let (start, end) = area()?;
        let named = |name: &OsString| !name.is_empty() && !name.as_bytes().contains(&b'=');
        for (name, value) in std::env::vars_os().filter(|(name, _)| named(name)) {
            // SAFETY: the process has one thread. setenv(3) keeps a copy of its own.
            unsafe { std::env::set_var(name, value) };
        }
        Some((start, end.checked_sub(start)?))
    });
}

/// Sets the title: `nxr: worker process`.
pub(super) fn set(title: &str) {
    let Some((start, length)) = AREA.get().copied().flatten() else { return };
    let mut text = format!("{}: {title}", log::program_name()).into_bytes();
    text.resize(length.saturating_sub(1), 0);
    text.push(0);
    // SAFETY: the area is this process's stack, writable and `length` bytes long; after `prepare` nothing
    // reads strings there but those who ask for the title.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), start as *mut u8, length) };
}

/// Start of the arguments and end of the environment: fields 48 and 51 of proc(5)'s stat.
fn area() -> Option<(usize, usize)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<usize>().ok();
    let (start, args_end, env_start, end) = (field(48)?, field(49)?, field(50)?, field(51)?);
    (start > 0 && start < args_end && args_end <= env_start && env_start <= end).then_some((start, end))
}
