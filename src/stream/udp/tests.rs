use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::UdpSocket as Udp;

use super::*;
use crate::stream::tests::harness::{read, run, scratch};

/// A server of datagrams at work; `LISTEN` in the text is its address, `TO` that of its upstream.
struct Running {
    stream: &'static Stream,
    folder: std::path::PathBuf,
    address: SocketAddr,
    upstream: Udp,
}

impl Running {
    async fn start(body: &str) -> Running {
        let folder = scratch();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let upstream = Udp::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let body = body.replace("LISTEN", &format!("{address} udp")).replace("TO", &shown(&upstream));
        let log = "log_format f '$protocol $status $bytes_received/$bytes_sent $upstream_bytes_sent';";
        let text = format!(
            "error_log error.log info;\nevents {{}}\nstream {{ {log} access_log access.log f;\n{body}\n}}\n"
        );
        let ir = read(&folder, &text).unwrap_or_else(|said| panic!("{said}"));
        let stream: &'static Stream = Box::leak(Box::new(ir.stream.unwrap()));
        ir.files.open(&ir.core.error_log).unwrap();
        for server in &stream.servers {
            let _ = server.main_log.set(ir.core.error_log.clone());
        }
        datagrams(stream, 0, socket);
        Running { stream, folder, address, upstream }
    }

    async fn client(&self) -> Udp {
        let client = Udp::bind("127.0.0.1:0").await.unwrap();
        client.connect(self.address).await.unwrap();
        client
    }

    /// What comes to the upstream, and from where.
    async fn arrived(&self) -> (String, SocketAddr) {
        let mut room = [0; 100];
        let (n, from) = self.upstream.recv_from(&mut room).await.unwrap();
        (String::from_utf8_lossy(&room[..n]).into_owned(), from)
    }

    /// Waits until a file says `text`.
    async fn said(&self, file: &str, text: &str) {
        let mut turns = 0;
        loop {
            let all = std::fs::read_to_string(self.folder.join(file)).unwrap_or_default();
            if all.contains(text) {
                return;
            }
            turns += 1;
            assert!(turns < 5000, "no \"{text}\" in {file}:\n{all}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        close(self.stream);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn shown(socket: &Udp) -> String {
    socket.local_addr().unwrap().to_string()
}

async fn answer(client: &Udp) -> String {
    let mut room = [0; 100];
    let n = client.recv(&mut room).await.unwrap();
    String::from_utf8_lossy(&room[..n]).into_owned()
}

#[test]
fn a_session_ends_with_its_last_answer() {
    run(async {
        let running = Running::start("server { listen LISTEN; proxy_pass TO; proxy_responses 1; }").await;
        let client = running.client().await;
        client.send(b"one").await.unwrap();
        let (text, from) = running.arrived().await;
        assert_eq!(text, "one");
        running.upstream.send_to(b"first", from).await.unwrap();
        assert_eq!(answer(&client).await, "first");
        running.said("access.log", "UDP 200 3/5 3").await;
        running.said("error.log", "udp done, packets from/to client:1/1, bytes from/to client:3/5").await;
        // An empty datagram is one, too.
        client.send(b"").await.unwrap();
        let (text, other) = running.arrived().await;
        assert_eq!(text, "");
        assert_ne!(from, other);
        running.upstream.send_to(b"", other).await.unwrap();
        assert_eq!(answer(&client).await, "");
    });
}

#[test]
fn a_client_has_one_session_until_it_has_sent_all() {
    run(async {
        let running = Running::start("server { listen LISTEN; proxy_pass TO; proxy_requests 2; }").await;
        let (client, other) = (running.client().await, running.client().await);
        for _ in 0..3 {
            client.send(b"a").await.unwrap();
        }
        other.send(b"b").await.unwrap();
        let mut from = Vec::new();
        for _ in 0..4 {
            from.push(running.arrived().await);
        }
        from.sort();
        let same = from.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert_eq!((same, from[3].0.as_str()), (1, "b"));
        // Answers come to sessions that take no more, too.
        for (_, address) in &from {
            running.upstream.send_to(b"x", address).await.unwrap();
        }
        for _ in 0..3 {
            assert_eq!(answer(&client).await, "x");
        }
        assert_eq!(answer(&other).await, "x");
    });
}

#[test]
fn silence_ends_a_session_and_what_is_missing_is_told() {
    run(async {
        let running =
            Running::start("server { listen LISTEN; proxy_pass TO; proxy_timeout 50ms; proxy_responses 2; }")
                .await;
        let client = running.client().await;
        client.send(b"one").await.unwrap();
        let (_, from) = running.arrived().await;
        running.upstream.send_to(b"1", from).await.unwrap();
        assert_eq!(answer(&client).await, "1");
        running.said("error.log", "upstream timed out (110: Connection timed out) while proxying connection, udp client: 127.0.0.1").await;
        running.said("access.log", "UDP 502 3/1 3").await;
    });
}

#[test]
fn a_refused_datagram_is_a_failure() {
    run(async {
        let gone = Udp::bind("127.0.0.1:0").await.unwrap();
        let text = format!("server {{ listen LISTEN; proxy_pass {}; proxy_responses 1; }}", shown(&gone));
        drop(gone);
        let running = Running::start(&text).await;
        running.client().await.send(b"one").await.unwrap();
        running.said("error.log", "recv() failed (111: Connection refused) while proxying and reading").await;
        running.said("access.log", "UDP 200 3/0 3").await;
    });
}

#[test]
fn texts_are_returned_and_a_shutdown_ends_sessions() {
    run(async {
        let running = Running::start("server { listen LISTEN; return \"$protocol $server_port\"; }").await;
        let client = running.client().await;
        client.send(b"x").await.unwrap();
        assert_eq!(answer(&client).await, format!("UDP {}", running.address.port()));
        let running = Running::start("server { listen LISTEN; proxy_pass TO; }").await;
        running.client().await.send(b"x").await.unwrap();
        running.arrived().await;
        close(running.stream);
        running.said("error.log", "disconnected on shutdown").await;
        running.said("access.log", "UDP 200 1/0 1").await;
    });
}
