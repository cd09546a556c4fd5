//! Long transfers whose events are moderated: nothing that follows may wait for more.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::harness::{Running, expect, rest, run};
use crate::net::moderation;

/// A server that sends 16 KiB of zeros five times a millisecond until told to stop, and then does `end`.
struct Source {
    address: SocketAddr,
    enough: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Source {
    fn start(end: impl FnOnce(std::net::TcpStream) + Send + 'static) -> Source {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let enough = Arc::new(AtomicBool::new(false));
        let told = enough.clone();
        let thread = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            while !told.load(Ordering::Relaxed) {
                let next = Instant::now() + Duration::from_micros(200);
                socket.write_all(&[0; 16 << 10]).unwrap();
                while Instant::now() < next {
                    std::thread::yield_now();
                }
            }
            end(socket);
        });
        Source { address, enough, thread }
    }

    /// Reads until the pump moderates, has the source stop, and returns how much was read till then.
    async fn moderated(&self, client: &mut TcpStream) {
        let mut buffer = vec![0; 256 << 10];
        while moderation::begun() == 0 {
            assert!(client.read(&mut buffer).await.unwrap() > 0);
        }
        self.enough.store(true, Ordering::Relaxed);
    }
}

/// Reads what is left of the zeros, and what follows up to `text`.
async fn up_to(client: &mut TcpStream, text: &str) {
    let mut byte = [0];
    while byte[0] == 0 {
        client.read_exact(&mut byte).await.unwrap();
    }
    assert_eq!(byte[0], text.as_bytes()[0]);
    expect(client, &text[1..]).await;
}

#[test]
fn messages_after_a_long_transfer_arrive() {
    run(async {
        let (ask, asked) = mpsc::channel();
        let source = Source::start(move |mut socket| {
            socket.write_all(b"that was it").unwrap();
            for text in asked {
                let mut word = [0; 4];
                socket.read_exact(&mut word).unwrap();
                assert_eq!(&word, b"more");
                socket.write_all(text).unwrap();
            }
        });
        let running = Running::start(&format!("server {{ listen LISTEN0; proxy_pass {}; }}", source.address));
        let mut client = running.connect(0).await;
        source.moderated(&mut client).await;
        up_to(&mut client, "that was it").await;
        for text in ["one", "two", "three"] {
            ask.send(text.as_bytes()).unwrap();
            client.write_all(b"more").await.unwrap();
            expect(&mut client, text).await;
        }
        drop(ask);
        assert_eq!(rest(&mut client).await, "");
        source.thread.join().unwrap();
        running.line("error.log", "upstream disconnected").await;
    });
}

#[test]
fn a_reset_in_a_long_transfer_ends_it() {
    run(async {
        let source = Source::start(|socket| {
            socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
        });
        let running = Running::start(&format!("server {{ listen LISTEN0; proxy_pass {}; }}", source.address));
        let mut client = running.connect(0).await;
        source.moderated(&mut client).await;
        rest(&mut client).await;
        source.thread.join().unwrap();
        running.line("error.log", "recv() failed (104: Connection reset by peer)").await;
    });
}

#[test]
fn silence_after_a_long_transfer_is_timed_out() {
    run(async {
        let (done, wait) = mpsc::channel::<()>();
        let source = Source::start(move |socket| {
            // Until the other end has seen its end.
            let _ = wait.recv();
            drop(socket);
        });
        let running = Running::start(&format!(
            "server {{ listen LISTEN0; proxy_pass {}; proxy_timeout 200ms; }}",
            source.address
        ));
        let mut client = running.connect(0).await;
        source.moderated(&mut client).await;
        rest(&mut client).await;
        running.line("error.log", "connection timed out").await;
        drop(done);
        source.thread.join().unwrap();
    });
}
