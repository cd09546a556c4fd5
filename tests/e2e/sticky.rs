//! `sticky learn`: sessions stay with the server that began them, over a reload too.

use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::server::{Server, connect, http};
use crate::support::{free_port, wait};
use nix::sys::signal::SIGHUP;

/// A backend that begins the session its path names.
fn backend(name: &'static str) -> Backend {
    Backend::http(move |request, stream| {
        let session = request.path().trim_start_matches('/');
        let length = name.len();
        stream.write_all(
            format!("HTTP/1.1 200 OK\r\nSet-Cookie: sid={session}; path=/\r\nContent-Length: {length}\r\n\r\n{name}")
                .as_bytes(),
        )
    })
}

/// Who answers a request of a session.
fn asked(port: u16, path: &str, session: &str) -> String {
    let mut client = Client::new(connect(port));
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nCookie: a=b; sid={session}\r\n\r\n");
    client.send(head.as_bytes()).unwrap();
    client.receive().unwrap().text()
}

fn text(port: u16, backends: [&Backend; 2], upstream: &str) -> String {
    let [one, two] = backends.map(|backend| backend.port);
    http(&format!(
        "upstream {upstream} {{
             server 127.0.0.1:{one}; server 127.0.0.1:{two};
             sticky learn create=$upstream_cookie_sid lookup=$cookie_sid zone=sessions:1m;
         }}
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://{upstream}; }} }}"
    ))
}

#[test]
fn sessions_stay_where_they_began() {
    let (one, two) = (backend("one"), backend("two"));
    let port = free_port();
    let server = Server::start("sticky-learn", &text(port, [&one, &two], "u"));
    let mut homes = Vec::new();
    for number in 0..20 {
        let session = format!("s{number}");
        let home = asked(port, &format!("/{session}"), "");
        homes.push((session, home));
    }
    assert!(homes.iter().any(|(_, home)| home == "one") && homes.iter().any(|(_, home)| home == "two"));
    let all_at_home = || {
        for _ in 0..3 {
            for (session, home) in &homes {
                assert_eq!(asked(port, &format!("/{session}"), session), *home, "{session}");
            }
        }
    };
    all_at_home();
    let worker = server.worker();
    server.signal(SIGHUP);
    wait("the next worker", || (!server.workers().contains(&worker)).then_some(()));
    all_at_home();
    assert_eq!(server.faults(), [""; 0]);

    // The zone is this upstream's; the old configuration goes on.
    server.configure(&text(port, [&one, &two], "v"));
    server.signal(SIGHUP);
    server.wait_for_log(
        "sticky zone \"sessions\" is used in upstream \"v\" while previously it was used in upstream \"u\"",
    );
    all_at_home();
}
