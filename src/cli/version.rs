//! `-v`, `-V` and `-h`.

use super::paths::{CONF_FILE, ERROR_LOG, PID, PREFIX};
use crate::conf::grammar::{self, Support};
use std::io::{self, Write};

/// nxr's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The version of rustls it is built with.
const RUSTLS_VERSION: &str = env!("RUSTLS_VERSION");
/// The version of nginx that is followed.
pub const NGINX_VERSION: &str = "1.31.5";
/// Modules that nginx has only when `configure` is told so, as `--with-X_module`.
const ADDED: &[&str] = &[
    "http_addition",
    "http_auth_request",
    "http_dav",
    "http_flv",
    "http_geoip",
    "http_gunzip_filter",
    "http_gzip_static",
    "http_image_filter",
    "http_mp4",
    "http_random_index",
    "http_realip",
    "http_secure_link",
    "http_slice_filter",
    "http_ssl",
    "http_stub_status",
    "http_sub_filter",
    "http_v2",
    "http_v3",
    "http_xslt_filter",
    "stream_ssl",
    "stream_realip",
    "stream_ssl_preread",
];
/// Modules that nginx has unless `configure` is told otherwise, as `--without-X_module`.
const STANDARD: &[&str] = &[
    "http_access",
    "http_auth_basic",
    "http_autoindex",
    "http_browser",
    "http_charset_filter",
    "http_empty_gif",
    "http_fastcgi",
    "http_geo",
    "http_grpc",
    "http_gzip_filter",
    "http_limit_conn",
    "http_limit_req",
    "http_map",
    "http_memcached",
    "http_mirror",
    "http_proxy",
    "http_referer",
    "http_rewrite",
    "http_scgi",
    "http_split_clients",
    "http_ssi_filter",
    "http_tunnel",
    "http_upstream_hash",
    "http_upstream_ip_hash",
    "http_upstream_keepalive",
    "http_upstream_least_conn",
    "http_upstream_least_time",
    "http_upstream_random",
    "http_upstream_sticky",
    "http_upstream_zone",
    "http_userid",
    "http_uwsgi",
    "stream_access",
    "stream_geo",
    "stream_limit_conn",
    "stream_map",
    "stream_pass",
    "stream_return",
    "stream_set",
    "stream_split_clients",
    "stream_upstream_hash",
    "stream_upstream_least_conn",
    "stream_upstream_least_time",
    "stream_upstream_random",
    "stream_upstream_zone",
];

/// The arguments of nginx's `configure` that say which of its modules are there, and which that it has by default are
/// not: a module is there when the grammar's table supports any of its directives.
fn modules() -> Vec<String> {
    let there = |module: &str| {
        // The table names modules after their tables of directives.
        let name = match module {
            "http_stub_status" => "ngx_http_status".to_string(),
            _ => format!("ngx_{module}"),
        };
        grammar::all().any(|row| row.module == name && row.support == Support::Supported)
    };
    let argument = |module: &&str| module.trim_end_matches("_filter").to_string();
    let added = ADDED.iter().filter(|m| there(m)).map(|m| format!("--with-{}_module", argument(m)));
    let lacking = STANDARD.iter().filter(|m| !there(m)).map(|m| format!("--without-{}_module", argument(m)));
    std::iter::once("--with-stream".to_string()).chain(added).chain(lacking).collect()
}

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

/// The cryptography below rustls. AWS-LC calls itself `OpenSSL 1.1.1 (compatible; AWS-LC 1.2.3)`; scripts take that for
/// its TLS, which nxr has no part of.
fn cryptography() -> String {
    let text = String::from_utf8_lossy(aws_lc_sys::OPENSSL_VERSION_TEXT);
    let text = text.trim_end_matches('\0');
    match text.strip_suffix(')').and_then(|text| text.split_once(" (compatible; AWS-LC ")) {
        Some((like, version)) => format!("aws-lc {version} (compatible with {like})"),
        None => text.to_owned(),
    }
}

fn build() -> String {
    let paths = [
        ("prefix", PREFIX.trim_end_matches('/')),
        ("conf-path", CONF_FILE),
        ("error-log-path", ERROR_LOG),
        ("pid-path", PID),
    ];
    let mut text = format!(
        "nginx version: nginx/{NGINX_VERSION}\nbuilt with rustls {RUSTLS_VERSION} and {}\nTLS SNI support enabled\n\
         configure arguments:",
        cryptography()
    );
    for (name, path) in paths {
        text.push_str(&format!(" --{name}={path}"));
    }
    for module in modules() {
        text.push(' ');
        text.push_str(&module);
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
        assert!(lines[1].starts_with("built with rustls 0."), "{}", lines[1]);
        // Scripts look for the library by this name.
        assert!(lines[1].ends_with(" (compatible with OpenSSL 1.1.1)"), "{}", lines[1]);
        assert!(lines.contains(&"TLS SNI support enabled"));
        assert!(lines[3].starts_with("configure arguments: --prefix=/usr/share/nginx --conf-path="));
        assert!(lines[3].split(' ').any(|argument| argument == "--with-stream"));
    }
}
