//! Backends: a listener with a thread for each connection.

use super::client::{Message, Stream, read_body, read_head};
use super::{PATIENCE, tls};
use std::io::{self, BufReader};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// A listener that ends with the value.
pub struct Backend {
    pub port: u16,
    connections: Arc<AtomicUsize>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Backend {
    /// Serves each connection with `serve`.
    pub fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let ending = Arc::new(AtomicBool::new(false));
        let (counter, end) = (connections.clone(), ending.clone());
        let serve = Arc::new(serve);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                counter.fetch_add(1, Ordering::SeqCst);
                let _ = stream.set_read_timeout(Some(PATIENCE));
                let _ = stream.set_nodelay(true);
                let serve = serve.clone();
                std::thread::spawn(move || serve(stream));
            }
        });
        Backend { port, connections, ending, thread: Some(thread) }
    }

    /// Answers the requests of each connection with what `answer` writes.
    pub fn http(
        answer: impl Fn(&Message, &mut dyn Stream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Backend {
        Backend::start(move |stream| {
            let _ = serve(stream, &answer);
        })
    }

    /// The same over TLS, with the certificate `name` of the fixtures.
    pub fn https(
        name: &str,
        answer: impl Fn(&Message, &mut dyn Stream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Backend {
        let config = tls::server_config(name);
        Backend::start(move |stream| {
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let _ = serve(rustls::StreamOwned::new(connection, stream), &answer);
        })
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    stream: impl Stream,
    answer: &impl Fn(&Message, &mut dyn Stream) -> io::Result<()>,
) -> io::Result<()> {
    let mut stream = BufReader::with_capacity(1 << 16, stream);
    loop {
        let mut request = read_head(&mut stream)?;
        read_body(&mut stream, &mut request, false)?;
        // The answer is written past the reader: what `answer` reads itself is what comes after the request.
        answer(&request, stream.get_mut())?;
        stream.get_mut().flush()?;
    }
}

/// A response of status 200 with a length.
pub fn ok(body: &[u8]) -> Vec<u8> {
    let mut response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    response.extend_from_slice(body);
    response
}

/// The request's line and headers, a line each, as a response: says what reached the backend.
pub fn mirror(request: &Message, stream: &mut dyn Stream) -> io::Result<()> {
    let mut text = request.line.clone() + "\n";
    for (name, value) in &request.headers {
        text += &format!("{name}: {value}\n");
    }
    stream.write_all(&ok(text.as_bytes()))
}
