//! An HTTP/2 client over TLS.

use super::tls;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use std::future::Future;
use std::sync::Arc;
use tokio::net::TcpStream;

pub type Sender = SendRequest<Full<Bytes>>;

/// Runs `work` to its end.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(super::PATIENCE, work).await.unwrap() })
}

/// A connection to `port` for `name` on which HTTP/2 was agreed on.
pub async fn connect(port: u16, name: &'static str) -> Sender {
    let config = tls::client_config(name, &["h2", "http/1.1"]);
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(ServerName::try_from(name).unwrap(), stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Sends a request and reads the answer with its body.
pub async fn request(
    sender: &mut Sender,
    method: &str,
    url: &str,
    body: Vec<u8>,
) -> hyper::Result<(http::response::Parts, Bytes)> {
    let request = http::Request::builder().method(method).uri(url).body(Full::from(body)).unwrap();
    sender.ready().await?;
    let (parts, body) = sender.send_request(request).await?.into_parts();
    Ok((parts, body.collect().await?.to_bytes()))
}
