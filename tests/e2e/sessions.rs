//! TLS sessions: taken up again by any thread, and after a reload.

use crate::support::client::Client;
use crate::support::server::{Server, connect, foreground};
use crate::support::{free_port, tls, wait};
use nix::sys::signal::Signal;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};
use std::io::{Read, Write};
use std::sync::Arc;

const NAME: &str = "sso.home.test";

type Tls = StreamOwned<ClientConnection, std::net::TcpStream>;

/// A handshake with what `config` remembers of those before.
fn open(config: &Arc<ClientConfig>, port: u16) -> Tls {
    let name = ServerName::try_from(NAME).unwrap();
    let mut stream = StreamOwned::new(ClientConnection::new(config.clone(), name).unwrap(), connect(port));
    stream.conn.complete_io(&mut stream.sock).unwrap();
    stream
}

/// Asks whether the session was known, and takes new tickets; the connection stays.
fn ask(config: &Arc<ClientConfig>, port: u16) -> (HandshakeKind, String, Client<Tls>) {
    let mut client = Client::new(open(config, port));
    let text = client.get(NAME, "/").unwrap().text();
    (client.stream.get_ref().conn.handshake_kind().unwrap(), text, client)
}

fn text(http: u16, stream: u16) -> String {
    let certificate = "ssl_certificate certs/sso.home.test.crt; ssl_certificate_key certs/sso.home.test.key;";
    foreground(&format!(
        "worker_processes 3;
         events {{ }}
         http {{ access_log off; {certificate}
             server {{ listen 127.0.0.1:{http} ssl; return 200 $ssl_session_reused; }} }}
         stream {{ {certificate}
             server {{ listen 127.0.0.1:{stream} ssl; return $ssl_session_reused; }} }}"
    ))
}

fn reload(server: &Server) {
    let old = server.worker();
    server.signal(Signal::SIGHUP);
    wait("a new worker alone", || {
        (!server.workers().contains(&old) && server.workers().len() == 1).then_some(())
    });
}

fn configs() -> [(&'static str, Arc<ClientConfig>); 2] {
    let config = |version| Arc::new(tls::client_config_of(&[version], NAME, &[]));
    [("TLS 1.3", config(&rustls::version::TLS13)), ("TLS 1.2", config(&rustls::version::TLS12))]
}

#[test]
fn sessions_are_taken_up_by_every_thread_and_after_reloads() {
    let (http, stream) = (free_port(), free_port());
    let server = Server::start("sessions", &text(http, stream));
    for (version, config) in configs() {
        let (first, said, _) = ask(&config, http);
        assert_ne!(first, HandshakeKind::Resumed, "{version}");
        assert_eq!(said, ".", "{version}");
        for round in 0..3 {
            // More connections at once than there are threads: every thread gets some.
            let held: Vec<_> = (0..9).map(|_| ask(&config, http)).collect();
            for (kind, said, _) in &held {
                assert_eq!((*kind, said.as_str()), (HandshakeKind::Resumed, "r"), "{version}, round {round}");
            }
            drop(held);
            reload(&server);
        }
    }
    assert_eq!(server.faults(), [""; 0]);
}

#[test]
fn sessions_of_stream_outlive_a_reload() {
    let (http, stream) = (free_port(), free_port());
    let server = Server::start("stream-sessions", &text(http, stream));
    for (version, config) in configs() {
        let mut told = Vec::new();
        for _ in 0..2 {
            let mut tls = open(&config, stream);
            let mut text = String::new();
            let _ = tls.read_to_string(&mut text);
            let _ = tls.flush();
            told.push(text);
            reload(&server);
        }
        assert_eq!(told, [".", "r"], "{version}");
    }
}
