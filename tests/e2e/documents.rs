//! The two documents as they are written: what `-t` says of them.

use crate::support::server::{CONF, Server};
use crate::support::sites::document;
use crate::support::{fixture, free_port};
use std::fs;

/// What `-t` says of a document on free ports: exit code and lines, without the path of the configuration.
fn tested(name: &str, pairs: &[(&str, String)]) -> (Option<i32>, Vec<String>) {
    let server = Server::new(&format!("document-{name}"), "");
    server.configure(&document(name, pairs));
    let output = server.run(&["-t"]);
    let path = server.path(CONF).display().to_string();
    let text = String::from_utf8(output.stderr).unwrap().replace(&path, "CONF");
    (output.status.code(), text.lines().map(str::to_owned).collect())
}

const HTTP2: &str = "the \"listen ... http2\" directive is deprecated, use the \"http2\" directive instead";
const SSL: &str = "the \"ssl\" directive is deprecated, use the \"listen ... ssl\" directive instead";
const GOOD: [&str; 2] =
    ["nxr: the configuration file CONF syntax is ok", "nxr: configuration file CONF test is successful"];

/// The line of a document's text that contains `part`, counted from 1.
fn line_of(name: &str, part: &str, nth: usize) -> usize {
    let text = fs::read_to_string(fixture(&format!("documents/{name}.conf"))).unwrap();
    text.lines().enumerate().filter(|(_, line)| line.contains(part)).nth(nth).unwrap().0 + 1
}

#[test]
fn passthrough_is_accepted_with_nginx_warnings() {
    let ports = [
        ("listen 443;", format!("listen {};", free_port())),
        ("[::]:443;", format!("[::]:{};", free_port())),
        ("listen 1443 ", format!("listen {} ", free_port())),
        ("listen          80;", format!("listen {};", free_port())),
    ];
    let (code, lines) = tested("tls-passthrough", &ports);
    let warnings = [
        format!("nxr: [warn] {HTTP2} in CONF:{}", line_of("tls-passthrough", "ssl http2;", 0)),
        format!("nxr: [warn] {SSL} in CONF:{}", line_of("tls-passthrough", "ssl on;", 0)),
    ];
    assert_eq!(lines, [&warnings[0], &warnings[1], GOOD[0], GOOD[1]]);
    assert_eq!(code, Some(0));
}

#[test]
fn single_sign_on_is_accepted_with_nginx_warnings() {
    let (plain, tls) = (free_port(), free_port());
    let ports = [
        ("listen 80;", format!("listen {plain};")),
        ("[::]:80;", format!("[::]:{plain};")),
        ("listen 443 ", format!("listen {tls} ")),
        ("[::]:443 ", format!("[::]:{tls} ")),
    ];
    let (code, lines) = tested("sso", &ports);
    let warning = |nth| format!("nxr: [warn] {HTTP2} in CONF:{}", line_of("sso", "ssl http2;", nth));
    assert_eq!(lines, [&warning(0), &warning(1), GOOD[0], GOOD[1]]);
    assert_eq!(code, Some(0));
}

#[test]
fn only_addresses_that_resolve_are_accepted_as_upstreams() {
    let server = Server::new(
        "unresolved",
        "events {}\nhttp {\n    server {\n        location / { proxy_pass http://nobody.invalid/; }\n    }\n}\n",
    );
    let output = server.run(&["-t"]);
    let path = server.path(CONF);
    let path = path.display();
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        format!(
            "nxr: [emerg] host not found in upstream \"nobody.invalid\" in {path}:4\n\
             nxr: configuration file {path} test failed\n"
        )
    );
    assert_eq!(output.status.code(), Some(1));
}
