//! The order in which nginx finds what is wrong while it merges: module by module, each over all blocks. Here a block
//! is merged for all modules at once; its faults are kept until every block is done, and the one is told that nginx
//! would have met first.

use super::{Build, Fault, Outcome};

/// nginx's modules that merge settings, in its order (`auto/modules`).
const ORDER: &[&str] = &[
    "ngx_http_core",
    "ngx_http_log",
    "ngx_http_upstream",
    "ngx_http_v2",
    "ngx_http_v3",
    "ngx_http_static",
    "ngx_http_gzip_static",
    "ngx_http_dav",
    "ngx_http_autoindex",
    "ngx_http_index",
    "ngx_http_random_index",
    "ngx_http_mirror",
    "ngx_http_try_files",
    "ngx_http_auth_request",
    "ngx_http_auth_basic",
    "ngx_http_access",
    "ngx_http_limit_conn",
    "ngx_http_limit_req",
    "ngx_http_realip",
    "ngx_http_status",
    "ngx_http_geo",
    "ngx_http_map",
    "ngx_http_split_clients",
    "ngx_http_referer",
    "ngx_http_rewrite",
    "ngx_http_ssl",
    "ngx_http_proxy",
    "ngx_http_fastcgi",
    "ngx_http_uwsgi",
    "ngx_http_scgi",
    // What is only checked: caches, gRPC and what comes after it.
    "",
    "ngx_http_memcached",
    "ngx_http_empty_gif",
    "ngx_http_browser",
    "ngx_http_secure_link",
    "ngx_http_upstream_hash",
    "ngx_http_upstream_ip_hash",
    "ngx_http_upstream_least_conn",
    "ngx_http_upstream_least_time",
    "ngx_http_upstream_random",
    "ngx_http_upstream_keepalive",
    "ngx_http_upstream_zone",
    "ngx_http_upstream_sticky",
    "ngx_http_stub_status",
    "ngx_http_range_header_filter",
    "ngx_http_gzip_filter",
    "ngx_http_charset_filter",
    "ngx_http_sub_filter",
    "ngx_http_addition",
    "ngx_http_gunzip_filter",
    "ngx_http_userid",
    "ngx_http_headers_filter",
    "ngx_http_copy_filter",
    "ngx_http_not_modified_filter",
    "ngx_stream_core",
    "ngx_stream_log",
    "ngx_stream_proxy",
    "ngx_stream_upstream",
    "ngx_stream_ssl",
    "ngx_stream_realip",
    "ngx_stream_limit_conn",
    "ngx_stream_access",
    "ngx_stream_geo",
    "ngx_stream_map",
    "ngx_stream_split_clients",
    "ngx_stream_return",
    "ngx_stream_pass",
    "ngx_stream_set",
    "ngx_stream_upstream_hash",
    "ngx_stream_upstream_least_conn",
    "ngx_stream_upstream_least_time",
    "ngx_stream_upstream_random",
    "ngx_stream_upstream_zone",
    "ngx_stream_ssl_preread",
];

fn rank(module: &str) -> usize {
    ORDER.iter().position(|name| *name == module).unwrap_or(ORDER.len())
}

/// Faults of modules, in the order of blocks.
#[derive(Debug, Default)]
pub struct Faults(Vec<(&'static str, Fault)>);

impl Build {
    /// What merging gave, or what takes its place while the other blocks are merged.
    pub fn merged<T>(&mut self, module: &'static str, merged: Outcome<T>, instead: impl FnOnce() -> T) -> T {
        merged.unwrap_or_else(|fault| {
            self.merging.0.push((module, fault));
            instead()
        })
    }

    /// All blocks are merged: the fault that nginx finds first, if there is any.
    pub fn end_merging(&mut self) -> Outcome {
        let faults = std::mem::take(&mut self.merging.0);
        match faults.into_iter().min_by_key(|(module, _)| rank(module)) {
            Some((_, fault)) => Err(fault),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::build::Commands;
    use crate::http::testing::{emerg, loads};

    #[test]
    fn modules_with_settings_have_a_place() {
        let all = crate::http::modules::COMMANDS.iter().chain(crate::stream::modules::COMMANDS);
        let missing: Vec<&str> =
            all.map(|c: &Commands| c.module).filter(|name| rank(name) == ORDER.len()).collect();
        assert_eq!(missing, [""; 0]);
    }

    #[test]
    fn faults_come_in_the_order_of_modules() {
        let proxy = "location /a { proxy_pass http://127.0.0.1:9; proxy_buffers 1 4k; }";
        let core = "location /b { limit_except GET { deny all; } } large_client_header_buffers 1 1k;
             client_header_buffer_size 1k; connection_pool_size 2k;";
        for text in [
            format!("server {{ {proxy} }} server {{ {core} }}"),
            format!("server {{ {core} }} server {{ {proxy} }}"),
        ] {
            assert!(emerg(&text).starts_with("the \"large_client_header_buffers\" size"), "{}", emerg(&text));
        }
        let second = "server { location /a { proxy_buffers 1 4k; } } server { location /b { proxy_busy_buffers_size 1k; } }";
        assert!(emerg(second).starts_with("there must be at least 2 \"proxy_buffers\""), "{}", emerg(second));
    }

    #[test]
    fn without_servers_nothing_is_merged() {
        assert!(loads("proxy_set_header A $nothing; proxy_set_body $nothing; proxy_buffers 1 4k;"));
    }
}
