//! Certificates that are known in the middle of a handshake only.

use super::handshake_tests::{connector, exchange, fixture, leaf, meet_by, run};
use super::*;
use std::sync::Arc;
use std::time::Duration;

/// A server whose certificates are called `name`.
fn server(name: &str, keys: &Arc<TicketKeys>) -> Arc<Server> {
    let varying = vec![name.to_owned()];
    Server::new(&ServerTls { varying, tickets: Some(keys.clone()), ..ServerTls::default() }).unwrap()
}

fn certified(name: &str) -> CertifiedKey {
    let (cert, key) = (fixture(&format!("{name}.crt")), fixture(&format!("{name}.key")));
    ForConnection::new(None).certified_key(&cert, &key, &[]).unwrap()
}

fn keys() -> Arc<TicketKeys> {
    TicketKeys::random(Duration::from_secs(3600)).unwrap()
}

#[test]
fn a_handshake_shows_what_was_loaded_for_it() {
    run(async {
        let server = server("$name.crt", &keys());
        for name in ["ecdsa", "rsa"] {
            let client = connector(|_| {});
            let choose = |_: &Asking<'_, _>| Choice::Serve(server.showing(vec![certified(name)]));
            let (s, c) = meet_by(choose, &client, "localhost").await;
            assert_eq!(s.unwrap().info().server_name.as_deref(), Some("localhost"));
            let shown = leaf(&c.unwrap());
            let expected = certified(name).cert[0].clone();
            let (_, parsed) = x509_parser::parse_x509_certificate(&expected).unwrap();
            assert!(shown.ends_with(&format!(" {:X}", parsed.serial)), "{shown}");
        }
    });
}

#[test]
fn what_is_asked_is_known_before_the_handshake() {
    run(async {
        let server = server("x", &keys());
        let mut seen = None;
        let choose = |asking: &Asking<'_, _>| {
            assert_eq!(asking.name(), Some("a.example"));
            seen = Some(asking.info(&server));
            Choice::NoCertificate
        };
        let (s, c) = meet_by(choose, &connector(|_| {}), "a.example").await;
        let info = seen.unwrap();
        assert_eq!(info.server_name.as_deref(), Some("a.example"));
        assert_eq!((info.protocol(), info.cipher(), info.session_reused()), ("TLSv1.3", "", "."));
        assert_eq!(info.session_id(), "");
        assert!(info.ciphers().contains("TLS_AES_128_GCM_SHA256"), "{}", info.ciphers());
        let error = s.err().unwrap();
        assert_eq!(
            error.to_string(),
            "SSL_do_handshake() failed (SSL: error:0A000179:SSL routines::cert cb error)"
        );
        assert_eq!(error.level(Peer::Client), Level::Info);
        let alert = c.err().unwrap().to_string();
        assert!(alert.ends_with("tlsv1 alert internal error:SSL alert number 80)"), "{alert}");
    });
}

#[test]
fn sessions_belong_to_servers_of_the_same_names() {
    run(async {
        let keys = keys();
        let client = connector(|_| {});
        let visit = async |name: &str| {
            let server = server(name, &keys);
            let choose = |_: &Asking<'_, _>| Choice::Serve(server.showing(vec![certified("ecdsa")]));
            let (s, c) = meet_by(choose, &client, "localhost").await;
            let (mut s, mut c) = (s.unwrap(), c.unwrap());
            exchange(&mut s, &mut c).await;
            s.info().reused
        };
        assert!(!visit("$a.crt").await);
        assert!(visit("$a.crt").await);
        assert!(!visit("$b.crt").await);
    });
}
