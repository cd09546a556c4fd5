//! What a worker changes about itself before it serves: limits, user, directory, environment.

use super::{Account, Core, CpuSet, EnvVariable};
use crate::log::{self, ErrorLog, Level};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{chdir, geteuid, initgroups, setgid, setuid};
use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;

/// The worker cannot run and is not to be started again (exit code 2).
#[derive(Debug)]
pub(super) struct Fatal;

/// Sets environment, limits, user and directory as `core` says.
pub(super) fn apply(core: &Core) -> Result<(), Fatal> {
    let log = &core.error_log;
    set_environment(&core.env);
    set_limits(core, log);
    if geteuid().is_root()
        && let Some(account) = &core.user
    {
        become_user(account, core.transparent, log)?;
    }
    // SAFETY: prctl with these arguments touches no memory. A core file stays possible after setuid.
    if unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) } == -1 {
        alert(log, io::Error::last_os_error(), format_args!("prctl(PR_SET_DUMPABLE) failed"));
    }
    if let Some(directory) = &core.working_directory
        && let Err(errno) = chdir(directory)
    {
        alert(log, errno.into(), format_args!("chdir(\"{}\") failed", directory.display()));
        return Err(Fatal);
    }
    Ok(())
}

/// Binds the calling thread to processors.
pub(super) fn bind_thread(set: CpuSet, log: &ErrorLog) {
    // SAFETY: an all-zero cpu_set_t is the empty set; CPU_SET stays within it, as CpuSet is as large.
    let done = unsafe {
        let mut mask: libc::cpu_set_t = std::mem::zeroed();
        set.iter().for_each(|cpu| libc::CPU_SET(cpu, &mut mask));
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &mask)
    };
    if done == -1 {
        alert(log, io::Error::last_os_error(), format_args!("sched_setaffinity() failed"));
    }
}

/// The environment that `env` leaves: `TZ` and what is named.
pub(super) fn environment(env: &[EnvVariable]) -> Vec<(OsString, OsString)> {
    let zone = EnvVariable { name: "TZ".to_owned(), value: None };
    let zone = (!env.iter().any(|variable| variable.name == "TZ")).then_some(zone);
    env.iter()
        .chain(&zone)
        .filter_map(|variable| {
            let value = match &variable.value {
                Some(value) => value.into(),
                None => std::env::var_os(&variable.name)?,
            };
            Some((OsString::from(&variable.name), value))
        })
        .collect()
}

/// Leaves in the environment what `env` says.
pub(super) fn set_environment(env: &[EnvVariable]) {
    let usable =
        |name: &OsString| !name.is_empty() && !name.as_bytes().iter().any(|byte| matches!(byte, b'=' | 0));
    let keep = environment(env);
    let all: Vec<OsString> = std::env::vars_os().map(|(name, _)| name).filter(usable).collect();
    // SAFETY: the process has one thread.
    unsafe {
        all.into_iter().for_each(|name| std::env::remove_var(name));
        for (name, value) in keep.into_iter().filter(|(name, _)| usable(name)) {
            if !value.as_bytes().contains(&0) {
                std::env::set_var(name, value);
            }
        }
    }
}

fn set_limits(core: &Core, log: &ErrorLog) {
    if core.priority != 0 {
        // SAFETY: setpriority takes numbers only; threads started later inherit it.
        if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, core.priority) } == -1 {
            let what = format_args!("setpriority({}) failed", core.priority);
            alert(log, io::Error::last_os_error(), what);
        }
    }
    set_open_files(core, log);
    if let Some(size) = core.rlimit_core
        && let Err(errno) = setrlimit(Resource::RLIMIT_CORE, size, size)
    {
        alert(log, errno.into(), format_args!("setrlimit(RLIMIT_CORE, {size}) failed"));
    }
}

/// A limit is meant for each of nginx's workers; one process has the threads of all of them, so it gets as
/// much for each as the system allows.
fn set_open_files(core: &Core, log: &ErrorLog) {
    let threads = core.worker_processes.max(1) as u64;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    match core.rlimit_nofile {
        Some(limit) => {
            let all = limit.saturating_mul(threads);
            if setrlimit(Resource::RLIMIT_NOFILE, all, all.max(hard)).is_ok() {
                return;
            }
            let within = all.min(hard).max(limit);
            if let Err(errno) = setrlimit(Resource::RLIMIT_NOFILE, within, hard.max(limit)) {
                alert(log, errno.into(), format_args!("setrlimit(RLIMIT_NOFILE, {limit}) failed"));
            }
        }
        None => {
            let all = soft.saturating_mul(threads).min(hard);
            // If it fails, the limit is what it was.
            let _ = setrlimit(Resource::RLIMIT_NOFILE, all, hard);
        }
    }
}

fn become_user(account: &Account, transparent: bool, log: &ErrorLog) -> Result<(), Fatal> {
    let (uid, gid) = (account.uid, account.gid);
    let emerg = |reason: io::Error, what: std::fmt::Arguments<'_>| {
        log::error_errno(log, Level::Emerg, None, &reason, what);
        Fatal
    };
    setgid(gid).map_err(|errno| emerg(errno.into(), format_args!("setgid({gid}) failed")))?;
    let name = CString::new(account.name.as_str()).unwrap_or_default();
    if let Err(errno) = initgroups(&name, gid) {
        let _ = emerg(errno.into(), format_args!("initgroups({}, {gid}) failed", account.name));
    }
    let keep = transparent && !uid.is_root();
    // SAFETY: prctl with these arguments touches no memory.
    if keep && unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) } == -1 {
        return Err(emerg(io::Error::last_os_error(), format_args!("prctl(PR_SET_KEEPCAPS, 1) failed")));
    }
    setuid(uid).map_err(|errno| emerg(errno.into(), format_args!("setuid({uid}) failed")))?;
    if keep {
        keep_raw_sockets().map_err(|reason| emerg(reason, format_args!("capset() failed")))?;
    }
    Ok(())
}

/// Keeps CAP_NET_RAW alone, for `proxy_bind ... transparent`.
fn keep_raw_sockets() -> io::Result<()> {
    /// _LINUX_CAPABILITY_VERSION_1: one word of capabilities.
    const VERSION: u32 = 0x1998_0330;
    const CAP_NET_RAW: u32 = 13;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let mask = 1 << CAP_NET_RAW;
    let mut header = Header { version: VERSION, pid: 0 };
    let data = Data { effective: mask, permitted: mask, inheritable: 0 };
    // SAFETY: both structures have the layout capset(2) gives for this version.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, &raw const data) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn alert(log: &ErrorLog, reason: io::Error, what: std::fmt::Arguments<'_>) {
    log::error_errno(log, Level::Alert, None, &reason, what);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn env_keeps_what_is_named() {
        let kept = environment(&[
            EnvVariable::parse("PATH"),
            EnvVariable::parse("NXR=a=b"),
            EnvVariable::parse("?"),
        ]);
        let names: Vec<_> = kept.iter().map(|(name, _)| name.to_str().unwrap()).collect();
        assert!(names.contains(&"PATH") && !names.contains(&"?") && !names.contains(&"HOME"));
        assert_eq!(kept[1], ("NXR".into(), "a=b".into()));
    }
}
