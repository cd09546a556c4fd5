//! What this machine says of itself.

use std::ffi::CStr;
use std::io;

/// The host name in lower case, as `$hostname` and syslog show it.
pub fn name() -> io::Result<String> {
    let mut buffer = [0u8; 256];
    // SAFETY: the length given leaves the last byte zero even if the name is cut.
    let done = unsafe { libc::gethostname(buffer.as_mut_ptr().cast(), buffer.len() - 1) };
    if done == -1 {
        return Err(io::Error::last_os_error());
    }
    let name = CStr::from_bytes_until_nul(&buffer).unwrap_or_default();
    Ok(name.to_string_lossy().to_ascii_lowercase())
}

/// Processors that are on line; at least one.
pub fn processors() -> usize {
    // SAFETY: sysconf takes a number and returns one.
    let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(count).unwrap_or(1).max(1)
}

/// The system's name and release, as `Linux 6.1.0`.
pub fn system() -> String {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
    format!("{} {}", read("ostype").trim(), read("osrelease").trim())
}
