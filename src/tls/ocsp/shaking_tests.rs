//! Handshakes with staples, and with certificates that responders are asked about.

use super::asking_tests::{Told, run, server};
use super::response::Status;
use super::tests::{Pki, pki, say};
use super::*;
use crate::tls::testing::Made;
use crate::tls::{self, CertificatePair, Choice, ServerTls, TlsStream, VerifyMode};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{DigitallySignedStruct, SignatureScheme};
use std::sync::Arc;
use tokio::io::{DuplexStream, duplex};

/// Takes any certificate, and keeps what is stapled to it.
#[derive(Debug, Default)]
struct Stapled(std::sync::Mutex<Vec<u8>>);

impl ServerCertVerifier for Stapled {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap() = ocsp.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// Shakes hands and returns the server's side with what was stapled. `client` is a certificate to show.
async fn shake(
    server: &Arc<tls::Server>,
    client: Option<&CertifiedKey>,
) -> (TlsStream<DuplexStream>, Vec<u8>) {
    let (side, stapled) = try_shake(server, client).await;
    (side.unwrap(), stapled)
}

type Side = Result<TlsStream<DuplexStream>, tls::HandshakeError>;

async fn try_shake(server: &Arc<tls::Server>, client: Option<&CertifiedKey>) -> (Side, Vec<u8>) {
    let seen = Arc::new(Stapled::default());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(seen.clone());
    let config = match client {
        None => config.with_no_client_auth(),
        Some(key) => config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone()))),
    };
    let (a, b) = duplex(1 << 16);
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").unwrap();
    let (server, client) =
        tokio::join!(tls::accept(a, |_| Choice::Serve(server.clone())), connector.connect(name, b));
    // Under TLSv1.3 a client has done its part before the server has checked it.
    client.unwrap();
    let stapled = seen.0.lock().unwrap().clone();
    (server, stapled)
}

fn settings(key: &Made, chain: &[&Made]) -> ServerTls {
    let (certificate, key) = key.pems(chain);
    let pair = CertificatePair { certificate: format!("data:{certificate}"), key: format!("data:{key}") };
    ServerTls { certificates: vec![pair], ..ServerTls::default() }
}

#[test]
fn a_staple_is_fetched_for_the_next_client() {
    run(async {
        let responder = server().await;
        let Pki { int, leaf, .. } = pki(Some(&format!("http://{}", responder.at)));
        let response = say(&[(&leaf, Status::Good)], &int, &int).response();
        // What comes after the response is not part of it.
        responder.says(&[&response[..], b"\r\n"].concat());
        let stapling = Some(Stapling { verify: true, ..Stapling::default() });
        let server = tls::Server::new(&ServerTls { stapling, ..settings(&leaf, &[&int]) }).unwrap();
        assert!(server.not_stapled.is_empty());
        assert_eq!(shake(&server, None).await.1, b"");
        while shake(&server, None).await.1.is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(shake(&server.with_alpn(Vec::new()), None).await.1, response);
        assert_eq!(responder.count.get(), 1);
    });
}

#[test]
fn a_revoked_certificate_is_none() {
    run(async {
        let responder = server().await;
        let Pki { root, int, leaf } = pki(Some(&format!("http://{}", responder.at)));
        let client_status = Some(ClientStatus { leaf: true, responder: None, cache: None });
        let trusted = root.pems(&[]).0;
        let server = tls::Server::new(&ServerTls {
            client_status,
            verify: VerifyMode::On,
            client_certificate: Some(format!("data:{trusted}")),
            ..settings(&leaf, &[&int])
        });
        let server = server.unwrap();
        let client = leaf.certified(&[&int]);
        let (_told, log) = Told::new("revoked");
        for (status, words) in [
            (Status::Good, "SUCCESS"),
            (Status::Revoked, "FAILED:certificate revoked"),
            (Status::Unknown, "FAILED:certificate status unknown"),
        ] {
            responder.says(&say(&[(&leaf, status)], &int, &int).response());
            let (mut stream, _) = shake(&server, Some(&client)).await;
            stream.check_status(|| log.clone()).await;
            assert_eq!(stream.info().client_verify(), words);
        }
        // Nobody is asked about a client without a certificate, or with a bad one.
        let before = responder.count.get();
        let other = pki(None);
        let stranger = other.leaf.certified(&[&other.int]);
        for (client, words) in [(None, "NONE"), (Some(&stranger), "FAILED:certificate signature failure")] {
            let (mut stream, _) = shake(&server, client).await;
            stream.check_status(|| log.clone()).await;
            assert_eq!(stream.info().client_verify(), words);
        }
        assert_eq!(responder.count.get(), before);
    });
}

#[test]
fn nothing_may_stand_behind_a_certificate() {
    run(async {
        let Pki { root, int, leaf } = pki(None);
        let server = tls::Server::new(&ServerTls {
            verify: VerifyMode::On,
            client_certificate: Some(format!("data:{}", root.pems(&[]).0)),
            ..settings(&leaf, &[&int])
        });
        let mut client = leaf.certified(&[&int]);
        assert_eq!(
            shake(&server.as_ref().unwrap().clone(), Some(&client)).await.0.info().client_verify(),
            "SUCCESS"
        );
        let mut longer = client.cert[0].to_vec();
        longer.push(0);
        client.cert[0] = longer.into();
        assert!(try_shake(&server.unwrap(), Some(&client)).await.0.is_err());
    });
}
