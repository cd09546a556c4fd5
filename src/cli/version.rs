//! `-v`, `-V` and `-h`.

use super::paths::{CONF_FILE, ERROR_LOG, PID, PREFIX};
use std::io::{self, Write};

/// nxr's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The version of nginx that is followed.
pub const NGINX_VERSION: &str = "1.31.5";
/// The arguments of nginx's `configure` that say which of its modules are there, and which that it has by
/// default are not.
pub const MODULES: &[&str] = &[
    "--with-http_ssl_module",
    "--with-http_v2_module",
    "--with-stream",
    "--with-stream_ssl_module",
    "--with-stream_ssl_preread_module",
];

/// Writes the version to standard error, and more if asked to.
pub(super) fn show(help: bool, configure: bool) {
    let mut text = format!("nxr version: nxr/{VERSION}\n");
    if help {
        text.push_str(&usage());
    }
    if configure {
        text.push_str(&build());
    }
    // Nowhere is left to tell that this failed.
    let _ = io::stderr().write_all(text.as_bytes());
}

fn usage() -> String {
    format!(
        "Usage: nxr [-?hvVtTq] [-s signal] [-p prefix]
           [-e filename] [-c filename] [-g directives]

Options:
  -?,-h         : this help
  -v            : show version and exit
  -V            : show version and configure options then exit
  -t            : test configuration and exit
  -T            : test configuration, dump it and exit
  -q            : suppress non-error messages during configuration testing
  -s signal     : send signal to a master process: stop, quit, reopen, reload
  -p prefix     : set prefix path (default: {PREFIX})
  -e filename   : set error log file (default: {ERROR_LOG})
  -c filename   : set configuration file (default: {CONF_FILE})
  -g directives : set global directives out of configuration file

"
    )
}

fn build() -> String {
    let paths = [
        ("prefix", PREFIX.trim_end_matches('/')),
        ("conf-path", CONF_FILE),
        ("error-log-path", ERROR_LOG),
        ("pid-path", PID),
    ];
    let mut text = format!(
        "nginx version: nginx/{NGINX_VERSION}\nbuilt with rustls and aws-lc-rs\nTLS SNI support enabled\n\
         configure arguments:"
    );
    for (name, path) in paths {
        text.push_str(&format!(" --{name}={path}"));
    }
    for module in MODULES {
        text.push(' ');
        text.push_str(module);
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_is_read_by_scripts() {
        let text = build();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "nginx version: nginx/1.31.5");
        assert!(lines.contains(&"TLS SNI support enabled"));
        assert!(lines[3].starts_with("configure arguments: --prefix=/usr/share/nginx --conf-path="));
        assert!(lines[3].split(' ').any(|argument| argument == "--with-stream"));
    }
}
