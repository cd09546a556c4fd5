//! Where things are. Without `-p` this is Debian's layout of nginx; with it, that of nginx's own build below
//! the prefix.

use super::Given;
use crate::process::Paths;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub(super) const PREFIX: &str = "/usr/share/nginx/";
pub(super) const CONF_FILE: &str = "/etc/nginx/nginx.conf";
pub(super) const ERROR_LOG: &str = "/var/log/nginx/error.log";
pub(super) const PID: &str = "/run/nginx.pid";

/// The paths of the options given.
pub(super) fn resolve(given: &Given) -> Paths {
    let defaults = match given.prefix {
        Some(_) => ["conf/nginx.conf", "logs/error.log", "logs/nginx.pid"],
        None => [CONF_FILE, ERROR_LOG, PID],
    };
    let prefix = given.prefix.as_ref().map_or_else(|| PathBuf::from(PREFIX), directory);
    let [conf_file, error_log, pid] = defaults.map(Path::new);
    let conf_file = prefix.join(given.conf_file.as_ref().map_or(conf_file, Path::new));
    let error_log = match &given.error_log {
        Some(name) if name.is_empty() || name == "stderr" => None,
        Some(name) => Some(prefix.join(name)),
        None => Some(prefix.join(error_log)),
    };
    let conf_prefix = match conf_file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.join(""),
        _ => prefix.clone(),
    };
    let pid = prefix.join(pid);
    Paths { conf_prefix, conf_file, error_log, pid, prefix }
}

/// Ends in a slash unless it is empty.
fn directory(name: &OsString) -> PathBuf {
    let mut name = name.clone();
    if !name.is_empty() && !name.as_bytes().ends_with(b"/") {
        name.push("/");
    }
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(prefix: Option<&str>, conf_file: Option<&str>, error_log: Option<&str>) -> Paths {
        resolve(&Given {
            prefix: prefix.map(OsString::from),
            conf_file: conf_file.map(OsString::from),
            error_log: error_log.map(OsString::from),
            ..Given::default()
        })
    }

    #[test]
    fn paths_are_the_systems_without_a_prefix() {
        let paths = resolved(None, None, Some("stderr"));
        assert_eq!(paths.conf_file, Path::new(CONF_FILE));
        assert_eq!(paths.conf_prefix.as_os_str(), "/etc/nginx/");
        assert_eq!(paths.error_log, None);
        assert_eq!(resolved(None, Some("a.conf"), None).conf_file, Path::new("/usr/share/nginx/a.conf"));
    }

    #[test]
    fn paths_are_below_a_prefix() {
        let paths = resolved(Some("/srv/x"), None, None);
        assert_eq!(paths.prefix.as_os_str(), "/srv/x/");
        assert_eq!(paths.conf_file, Path::new("/srv/x/conf/nginx.conf"));
        assert_eq!(paths.error_log.as_deref(), Some(Path::new("/srv/x/logs/error.log")));
        assert_eq!(paths.pid, Path::new("/srv/x/logs/nginx.pid"));
        let paths = resolved(Some("/srv/x/"), Some("nginx.conf"), Some("error.log"));
        assert_eq!(paths.conf_file.as_os_str(), "/srv/x/nginx.conf");
        assert_eq!(paths.conf_prefix.as_os_str(), "/srv/x/");
        assert_eq!(paths.error_log.as_deref(), Some(Path::new("/srv/x/error.log")));
        assert_eq!(resolved(Some("/srv/x"), Some("/a/b.conf"), None).conf_prefix.as_os_str(), "/a/");
    }
}
