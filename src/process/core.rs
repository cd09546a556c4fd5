//! The settings of the main and events levels that processes and threads are made by.

use crate::log::ErrorLog;
use crate::net::host;
use nix::unistd::{Gid, Group, Uid, User};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Processors a CPU set can name (CPU_SETSIZE).
const CPUS: usize = 1024;

/// Settings of a process, with nginx's defaults.
#[derive(Clone, Debug)]
pub struct Core {
    pub daemon: bool,
    /// `master_process`.
    pub master: bool,
    pub pid: PathBuf,
    /// Who the worker runs as when the master is root.
    pub user: Option<Account>,
    /// Threads of the worker.
    pub worker_processes: usize,
    /// Connections a thread may have, on average over the worker.
    pub worker_connections: usize,
    /// Pause after descriptors ran out while accepting.
    pub accept_mutex_delay: Duration,
    /// A thread accepts all connections that wait, before it looks after those that it has.
    pub multi_accept: bool,
    pub rlimit_nofile: Option<u64>,
    /// Bytes.
    pub rlimit_core: Option<u64>,
    pub shutdown_timeout: Option<Duration>,
    pub priority: i32,
    pub cpu_affinity: Affinity,
    pub working_directory: Option<PathBuf>,
    pub env: Vec<EnvVariable>,
    pub error_log: ErrorLog,
    /// Some `error_log` is `stderr`, so standard error keeps where it goes.
    pub log_use_stderr: bool,
    /// Some `proxy_bind` is transparent, so the worker keeps CAP_NET_RAW.
    pub transparent: bool,
}

/// A user and group by number; the name is for initgroups(3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: Uid,
    pub gid: Gid,
}

/// One `env`: a name to keep from the environment, or a value to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvVariable {
    pub name: String,
    pub value: Option<String>,
}

/// `worker_cpu_affinity`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Affinity {
    #[default]
    None,
    /// Each thread its own processor out of the set.
    Auto(CpuSet),
    /// A set a thread; the last serves those that remain.
    Sets(Vec<CpuSet>),
}

/// Processors, bit by bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuSet([u64; CPUS / 64]);

/// What is wrong with a setting, in nginx's words; `reason` is the system's, if it gave one.
#[derive(Debug)]
pub struct CoreError {
    pub message: String,
    pub reason: Option<io::Error>,
}

// === impl Core ===

impl Core {
    /// nginx's defaults; `user` is to be filled in by [`Account::default_user`] when the process is root.
    pub fn new(pid: PathBuf, error_log: ErrorLog) -> Core {
        Core {
            daemon: true,
            master: true,
            pid,
            user: None,
            worker_processes: 1,
            worker_connections: 512,
            accept_mutex_delay: Duration::from_millis(500),
            multi_accept: false,
            rlimit_nofile: None,
            rlimit_core: None,
            shutdown_timeout: None,
            priority: 0,
            cpu_affinity: Affinity::None,
            working_directory: None,
            env: Vec::new(),
            error_log,
            log_use_stderr: false,
            transparent: false,
        }
    }

    /// The pid file while another binary takes over.
    pub(super) fn old_pid(&self) -> PathBuf {
        let mut path = self.pid.clone().into_os_string();
        path.push(".oldbin");
        path.into()
    }
}

// === impl Account ===

impl Account {
    /// The account of `user NAME [GROUP]`; the group is the user's name unless given.
    pub fn find(user: &str, group: Option<&str>) -> Result<Account, CoreError> {
        let failed = |call: &str, name: &str, reason: Option<io::Error>| CoreError {
            message: format!("{call}(\"{name}\") failed"),
            reason,
        };
        let entry = User::from_name(user)
            .map_err(|errno| failed("getpwnam", user, Some(errno.into())))?
            .ok_or_else(|| failed("getpwnam", user, None))?;
        let group = group.unwrap_or(user);
        let gid = Group::from_name(group)
            .map_err(|errno| failed("getgrnam", group, Some(errno.into())))?
            .ok_or_else(|| failed("getgrnam", group, None))?
            .gid;
        Ok(Account { name: user.to_owned(), uid: entry.uid, gid })
    }

    /// The account when no `user` is set: nobody, with its group, which some systems call nogroup.
    pub fn default_user() -> Result<Account, CoreError> {
        let group = if matches!(Group::from_name("nobody"), Ok(Some(_))) { "nobody" } else { "nogroup" };
        Account::find("nobody", Some(group))
    }
}

// === impl EnvVariable ===

impl EnvVariable {
    /// Reads `NAME` or `NAME=value`.
    pub fn parse(text: &str) -> EnvVariable {
        match text.split_once('=') {
            Some((name, value)) => EnvVariable { name: name.to_owned(), value: Some(value.to_owned()) },
            None => EnvVariable { name: text.to_owned(), value: None },
        }
    }
}

// === impl Affinity ===

impl Affinity {
    /// Reads the arguments of `worker_cpu_affinity`.
    pub fn parse(arguments: &[&str]) -> Result<Affinity, CoreError> {
        let error = |message: String| CoreError { message, reason: None };
        match arguments {
            ["auto"] => Ok(Affinity::Auto(CpuSet::first(host::processors()))),
            ["auto", set] => CpuSet::parse(set).map(Affinity::Auto),
            ["auto", ..] => {
                Err(error("invalid number of arguments in \"worker_cpu_affinity\" directive".to_owned()))
            }
            sets => sets.iter().map(|set| CpuSet::parse(set)).collect::<Result<_, _>>().map(Affinity::Sets),
        }
    }

    /// Whether nginx warns that the sets are fewer or more than `threads`.
    pub fn differs_from(&self, threads: usize) -> bool {
        matches!(self, Affinity::Sets(sets) if sets.len() > 1 && sets.len() != threads)
    }

    /// The processors of thread `thread`; `None` leaves it where it is.
    pub fn of_thread(&self, thread: usize) -> Option<CpuSet> {
        match self {
            Affinity::None => None,
            Affinity::Auto(set) => {
                let count = set.iter().count();
                let cpu = set.iter().nth(thread.checked_rem(count)?)?;
                let mut single = CpuSet::EMPTY;
                single.insert(cpu);
                Some(single)
            }
            Affinity::Sets(sets) => sets.get(thread).or(sets.last()).copied(),
        }
    }
}

// === impl CpuSet ===

impl CpuSet {
    const EMPTY: CpuSet = CpuSet([0; CPUS / 64]);

    /// The first `count` processors.
    pub fn first(count: usize) -> CpuSet {
        let mut set = CpuSet::EMPTY;
        (0..count.min(CPUS)).for_each(|cpu| set.insert(cpu));
        set
    }

    /// Reads zeros and ones, processor 0 last.
    pub fn parse(text: &str) -> Result<CpuSet, CoreError> {
        let error = |message: String| CoreError { message, reason: None };
        if text.len() > CPUS {
            return Err(error(format!("\"worker_cpu_affinity\" supports up to {CPUS} CPUs only")));
        }
        let mut set = CpuSet::EMPTY;
        for (cpu, bit) in text.chars().rev().filter(|bit| *bit != ' ').enumerate() {
            match bit {
                '0' => {}
                '1' => set.insert(cpu),
                other => {
                    let message = format!("invalid character \"{other}\" in \"worker_cpu_affinity\"");
                    return Err(error(message));
                }
            }
        }
        Ok(set)
    }

    /// The processors in the set.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        (0..CPUS).filter(|cpu| self.0[cpu / 64] & (1 << (cpu % 64)) != 0)
    }

    fn insert(&mut self, cpu: usize) {
        self.0[cpu / 64] |= 1 << (cpu % 64);
    }
}

impl fmt::Display for CoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Some(reason) => write!(f, "{} {}", self.message, crate::log::os_error(reason)),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for CoreError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus(set: Option<CpuSet>) -> Vec<usize> {
        set.map(|set| set.iter().collect()).unwrap_or_default()
    }

    #[test]
    fn affinity_gives_each_thread_its_processors() {
        let sets = Affinity::parse(&["0001", "1010"]).unwrap();
        assert_eq!(cpus(sets.of_thread(0)), [0]);
        assert_eq!(cpus(sets.of_thread(1)), [1, 3]);
        assert_eq!(cpus(sets.of_thread(7)), [1, 3]);
        assert!(sets.differs_from(3) && !sets.differs_from(2));

        let auto = Affinity::parse(&["auto", "0101"]).unwrap();
        assert_eq!(cpus(auto.of_thread(1)), [2]);
        assert_eq!(cpus(auto.of_thread(2)), [0]);
        assert_eq!(Affinity::parse(&["auto", "0"]).unwrap().of_thread(0), None);
    }

    #[test]
    fn wrong_affinity_is_refused_in_nginx_words() {
        let words = |arguments: &[&str]| Affinity::parse(arguments).unwrap_err().to_string();
        assert_eq!(words(&["012"]), "invalid character \"2\" in \"worker_cpu_affinity\"");
        assert_eq!(
            words(&["auto", "1", "1"]),
            "invalid number of arguments in \"worker_cpu_affinity\" directive"
        );
        assert_eq!(words(&[&"0".repeat(1025)]), "\"worker_cpu_affinity\" supports up to 1024 CPUs only");
    }

    #[test]
    fn accounts_are_found_by_name() {
        assert_eq!(Account::find("root", None).unwrap().uid, Uid::from_raw(0));
        let missing = Account::find("no-such-user-here", None).unwrap_err();
        assert_eq!(missing.message, "getpwnam(\"no-such-user-here\") failed");
        let missing = Account::find("root", Some("no-such-group-here")).unwrap_err();
        assert_eq!(missing.message, "getgrnam(\"no-such-group-here\") failed");
    }
}
