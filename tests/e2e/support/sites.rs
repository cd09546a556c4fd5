//! The two documents of `fixtures/documents` on free ports and with backends of this machine.

use super::backend::Backend;
use super::server::{Server, foreground};
use super::tls::{self, Tls};
use super::{fixture, free_port};
use std::fs;

/// The certificate that nxr presents in both.
pub const OWN: &str = "cloud.home.test";

/// `text` with each first replaced by its second; each must be there. What was put in is not looked at again: a port may
/// have the digits of another one.
pub fn replace(text: String, pairs: &[(&str, String)]) -> String {
    for (from, _) in pairs {
        assert!(text.contains(from), "{from:?} in {text}");
    }
    let (mut done, mut rest) = (String::new(), &text[..]);
    let found = |rest: &str| {
        let places = pairs.iter().filter_map(|(from, to)| rest.find(from).map(|at| (at, from.len(), to)));
        places.min_by_key(|place| place.0)
    };
    while let Some((at, len, to)) = found(rest) {
        done.extend([&rest[..at], to]);
        rest = &rest[at + len..];
    }
    done + rest
}

/// A document with its certificates where they are, and each pair of `pairs` replaced.
pub fn document(name: &str, pairs: &[(&str, String)]) -> String {
    let text = fs::read_to_string(fixture(&format!("documents/{name}.conf"))).unwrap();
    let certs = format!("{}/", fixture("documents/certs").display());
    replace(replace(text, pairs), &[("certs/", certs)])
}

/// A running document.
pub struct Site {
    pub server: Server,
    pub plain: u16,
    pub tls: u16,
    /// What it passes on to.
    pub backends: Vec<Backend>,
}

impl Site {
    /// TLS with the document's own server, whose certificate must be nxr's.
    pub fn connect(&self, name: &str) -> Tls {
        tls::connect(&format!("127.0.0.1:{}", self.tls), Some(name), OWN)
    }
}

/// TLS passthrough to `pbx`, everything else terminated and sent to `cloud`.
pub fn passthrough(name: &str, pbx: Backend, cloud: Backend) -> Site {
    let (plain, tls, inner) = (free_port(), free_port(), free_port());
    let pairs = [
        ("server 10.1.2.3:443;", format!("server 127.0.0.1:{};", pbx.port)),
        ("127.0.0.1:1443;", format!("127.0.0.1:{inner};")),
        ("listen 1443 ", format!("listen 127.0.0.1:{inner} ")),
        ("listen 443;", format!("listen 127.0.0.1:{tls};")),
        ("listen [::]:443;", format!("listen [::1]:{tls};")),
        ("listen          80;", format!("listen 127.0.0.1:{plain};")),
        ("http://10.1.2.3:80/", format!("http://127.0.0.1:{}/", cloud.port)),
        ("http://10.2.3.4/", format!("http://127.0.0.1:{}/", cloud.port)),
    ];
    let text = foreground(&document("tls-passthrough", &pairs));
    Site { server: Server::start(name, &text), plain, tls, backends: vec![pbx, cloud] }
}

/// The single sign-on document as text with its two ports.
pub fn sso_text(authentik: u16, plain: u16, tls: u16) -> String {
    let pairs = [
        ("server 127.0.0.1:9443;", format!("server 127.0.0.1:{authentik};")),
        ("listen 80;", format!("listen 127.0.0.1:{plain};")),
        ("listen [::]:80;", format!("listen [::1]:{plain};")),
        ("listen 443 ", format!("listen 127.0.0.1:{tls} ")),
        ("listen [::]:443 ", format!("listen [::1]:{tls} ")),
        ("http {\n", "http { access_log logs/access.log; client_max_body_size 0;\n".into()),
    ];
    foreground(&document("sso", &pairs))
}

/// The single sign-on in front of `authentik`, with `main` before everything.
pub fn sso(name: &str, authentik: Backend, main: &str) -> Site {
    let (plain, tls) = (free_port(), free_port());
    let text = format!("{main}\n{}", sso_text(authentik.port, plain, tls));
    Site { server: Server::start(name, &text), plain, tls, backends: vec![authentik] }
}

#[test]
fn what_was_put_in_stays() {
    let pairs = [("80", "1443".to_owned()), ("1443", "80".to_owned())];
    assert_eq!(replace("listen 80; listen 1443;".to_owned(), &pairs), "listen 1443; listen 80;");
}
