//! TLS clients and servers with the certificates of `fixtures/home-lab`.

use super::fixture;
use super::server::connect_to;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, ServerConfig, StreamOwned,
};
use std::net::TcpStream;
use std::sync::Arc;

pub type Tls = StreamOwned<ClientConnection, TcpStream>;

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

pub fn server_config(name: &str) -> Arc<ServerConfig> {
    let path = |end: &str| fixture(&format!("home-lab/certs/{name}.{end}"));
    let chain = CertificateDer::pem_file_iter(path("crt")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(path("key")).unwrap();
    let config =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap())
}

/// Accepts the certificate of one name, whatever name was asked for.
#[derive(Debug)]
struct Presents {
    name: ServerName<'static>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Presents {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verifier.verify_server_cert(end_entity, intermediates, &self.name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// A client's settings that accept only the certificate of `presented`.
pub fn client_config(presented: &str, alpn: &[&str]) -> ClientConfig {
    client_config_of(rustls::DEFAULT_VERSIONS, presented, alpn)
}

/// The same for these versions alone.
pub fn client_config_of(
    versions: &[&'static rustls::SupportedProtocolVersion],
    presented: &str,
    alpn: &[&str],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(fixture("home-lab/certs/ca.crt")).unwrap();
    roots.add(ca).unwrap();
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
    let name = ServerName::try_from(presented.to_owned()).unwrap();
    let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
    let verifier = Arc::new(Presents { name, verifier });
    let mut config = config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// A client's side of a handshake that asks for `sni` and accepts only the certificate of `presented`.
pub fn client(sni: Option<&str>, presented: &str) -> ClientConnection {
    let mut config = client_config(presented, &[]);
    config.enable_sni = sni.is_some();
    let name = ServerName::try_from(sni.unwrap_or(presented).to_owned()).unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap()
}

/// Connects to `address`; reading or writing fails unless the certificate is that of `presented`.
pub fn connect(address: &str, sni: Option<&str>, presented: &str) -> Tls {
    StreamOwned::new(client(sni, presented), connect_to(address))
}

/// Connects to `port` of this machine and asks for `name`.
pub fn to(port: u16, name: &str) -> Tls {
    connect(&format!("127.0.0.1:{port}"), Some(name), name)
}
