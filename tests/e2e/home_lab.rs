//! `fixtures/home-lab` as the README starts it, and each of the README's requests.

use crate::support::client::{Client, get};
use crate::support::server::{CONF, Server};
use crate::support::sites::replace;
use crate::support::{fixture, free_port, http2, tls};
use std::fs;
use std::process::{Command, Output};

struct HomeLab {
    server: Server,
    plain: u16,
    tls: u16,
}

/// The configuration with a free port for each of its own.
fn home_lab(name: &str) -> HomeLab {
    let ports = ["8080", "8443", "8444", "1443", "9443", "8081", "8082"].map(|port| (port, free_port()));
    let pairs: Vec<(&str, String)> = ports.iter().map(|(old, new)| (*old, new.to_string())).collect();
    let text = fs::read_to_string(fixture("home-lab/nginx.conf")).unwrap();
    let text = replace(text, &pairs);
    HomeLab { server: Server::start(name, &text), plain: ports[0].1, tls: ports[1].1 }
}

/// The lines of the README that start with `at `, each with its comment's first word.
fn lines_of_readme() -> Vec<String> {
    let readme = fs::read_to_string(fixture("../README.md")).unwrap();
    readme
        .lines()
        .filter(|line| line.starts_with("at ") || line.starts_with("at() "))
        .map(str::to_owned)
        .collect()
}

impl HomeLab {
    /// Runs a line of the README as its shell would, on this server's ports.
    fn shell(&self, function: &str, line: &str) -> Output {
        let script = format!("{function}\n{line}\n");
        let script =
            script.replace(":8443", &format!(":{}", self.tls)).replace(":8080", &format!(":{}", self.plain));
        Command::new("bash").arg("-c").arg(script).current_dir(&self.server.directory).output().unwrap()
    }
}

#[test]
fn the_readme_lines_do_what_they_say() {
    if Command::new("curl").arg("--version").output().is_err() {
        return; // The outcomes are held without curl below.
    }
    let lines = lines_of_readme();
    let [function, passthrough, termination, redirect, sso, renewal] = &lines[..] else {
        panic!("the README's lines have changed: {lines:?}");
    };
    let lab = home_lab("readme");
    let say = |line: &str| {
        let output = lab.shell(function, line);
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap().replace('\r', "")
    };
    assert_eq!(say(passthrough), "pbx: my own certificate, my own TLS\n");
    assert_eq!(say(termination), "cloud: /files?page=2\n2\n");
    let head = say(redirect);
    assert!(head.starts_with("HTTP/1.1 301 Moved Permanently\n"), "{head}");
    assert!(head.contains("\nLocation: https://sso.home.test/a/b?c=%20d\n"), "{head}");
    let answer = say(sso);
    assert!(answer.starts_with("HTTP/2 200 \n"), "{answer}");
    assert!(answer.contains("\nstrict-transport-security: max-age=63072000\n"), "{answer}");
    assert!(
        answer.ends_with("\n\nsso: host=sso.home.test proto=https for=127.0.0.1 connection= upgrade=\n"),
        "{answer}"
    );
    assert_eq!(say(renewal), "pbx renewal: /.well-known/acme-challenge/token\n");
}

#[test]
fn the_home_server_serves_and_quits() {
    let mut lab = home_lab("home");
    let answer = Client::new(tls::to(lab.tls, "pbx.home.test")).get("pbx.home.test", "/").unwrap();
    assert_eq!(answer.text(), "pbx: my own certificate, my own TLS\n");
    let (head, body) = http2::run(async {
        let mut sender = http2::connect(lab.tls, "cloud.home.test").await;
        let url = "https://cloud.home.test/files?page=2";
        http2::request(&mut sender, "GET", url, Vec::new()).await.unwrap()
    });
    assert_eq!((head.status.as_u16(), &body[..]), (200, &b"cloud: /files?page=2\n"[..]));
    let answer = get(lab.plain, "sso.home.test", "/a/b?c=%20d").unwrap();
    assert_eq!((answer.status(), answer.header("Location")), (301, Some("https://sso.home.test/a/b?c=%20d")));
    let answer = Client::new(tls::to(lab.tls, "sso.home.test")).get("sso.home.test", "/").unwrap();
    assert_eq!(answer.header("Strict-Transport-Security"), Some("max-age=63072000"));
    assert_eq!(answer.text(), "sso: host=sso.home.test proto=https for=127.0.0.1 connection= upgrade=\n");
    let answer = get(lab.plain, "pbx.home.test", "/.well-known/acme-challenge/token").unwrap();
    assert_eq!(answer.text(), "pbx renewal: /.well-known/acme-challenge/token\n");

    assert!(lab.server.run(&["-s", "quit"]).status.success());
    assert_eq!(lab.server.ended().code(), Some(0));
    assert!(!lab.server.pid_file().exists());
    let log = lab.server.access_log();
    assert!(log.contains("\"GET /a/b?c=%20d HTTP/1.1\" 301 "), "{log}");
    assert!(log.contains("\"GET /files?page=2 HTTP/2.0\" 200 "), "{log}");
}

#[test]
fn the_configuration_of_the_readme_is_accepted() {
    let lab = home_lab("accepted");
    let output = lab.server.run(&["-t"]);
    let path = lab.server.path(CONF);
    let path = path.display();
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        format!(
            "nxr: the configuration file {path} syntax is ok\nnxr: configuration file {path} test is successful\n"
        )
    );
}
