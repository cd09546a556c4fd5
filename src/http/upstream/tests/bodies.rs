//! Bodies of responses, long ones and those of slow clients, and tunnels.

use super::*;

/// Bytes that differ wherever one looks.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect()
}

fn same(answer: &Answer, whole: &[u8]) {
    assert_eq!(answer.body.len(), whole.len());
    assert!(answer.body == whole);
}

#[test]
fn long_bodies_arrive_whole() {
    let whole = pattern(3_000_001);
    let sent = whole.clone();
    let backend = Backend::new(move |request, stream| {
        if request.contains("/chunked") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
            for piece in sent.chunks(77_777) {
                stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).unwrap();
                stream.write_all(piece).unwrap();
                stream.write_all(b"\r\n").unwrap();
            }
            return stream.write_all(b"0\r\n\r\n").is_ok();
        }
        let close = request.contains("/close");
        let length = if close { String::new() } else { format!("Content-Length: {}\r\n", sent.len()) };
        stream.write_all(format!("HTTP/1.1 200 OK\r\n{length}\r\n").as_bytes()).unwrap();
        stream.write_all(&sent).is_ok() && !close
    });
    for more in [
        "proxy_max_temp_file_size 0;",
        "proxy_buffering off;",
        "proxy_buffers 2 8k; proxy_buffer_size 8k; proxy_busy_buffers_size 8k; proxy_max_temp_file_size 0;",
    ] {
        let site = backend.site(more);
        for path in ["/length", "/chunked", "/close"] {
            same(&site.get(path), &whole);
        }
    }
}

#[test]
fn what_a_slow_client_does_not_take_waits_in_a_file() {
    let whole = pattern(24 << 20);
    let sent = whole.clone();
    let done = Arc::new(AtomicUsize::new(0));
    let finished = done.clone();
    let backend = Backend::new(move |_, stream| {
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").unwrap();
        stream.write_all(&sent).unwrap();
        finished.store(1, Ordering::SeqCst);
        false
    });
    let site = backend.site("");
    // A process that starts makes this folder.
    std::fs::create_dir(site.folder.path().join("proxy_temp")).unwrap();
    let mut client = TcpStream::connect(site.addr).unwrap();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    // The upstream is done while the client has not read a byte.
    wait("the upstream's end", || done.load(Ordering::SeqCst) == 1);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    let at = memchr::memmem::find(&answer, b"\r\n\r\n").unwrap() + 4;
    assert!(answer[at..] == whole[..]);
    assert!(site.log().contains("an upstream response is buffered to a temporary file"), "{}", site.log());
}

#[test]
fn a_client_that_leaves_ends_the_upstreams_work() {
    let (left, leaving) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (gone, asked) = (left.clone(), leaving.clone());
    let backend = Backend::new(move |_, stream| {
        asked.store(1, Ordering::SeqCst);
        let _ = stream.read(&mut [0]);
        gone.store(1, Ordering::SeqCst);
        false
    });
    let site = backend.site("");
    let mut client = TcpStream::connect(site.addr).unwrap();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    wait("the request", || leaving.load(Ordering::SeqCst) == 1);
    drop(client);
    wait("the upstream's connection to close", || left.load(Ordering::SeqCst) == 1);
    wait("the log", || site.log().contains("so upstream connection is closed too"));
}

#[test]
fn an_upgraded_connection_is_a_tunnel() {
    let backend = Backend::new(|request, stream| {
        assert!(request.contains("Connection: upgrade\r\n") && request.contains("Upgrade: echo\r\n"));
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\nhi ").unwrap();
        let mut bytes = [0; 64];
        loop {
            match stream.read(&mut bytes) {
                Ok(n) if n > 0 => stream.write_all(&bytes[..n]).unwrap(),
                _ => return false,
            }
        }
    });
    let site = backend.site("proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;");
    let mut client = TcpStream::connect(site.addr).unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nearly ")
        .unwrap();
    let mut seen = String::new();
    let mut byte = [0];
    while !seen.ends_with("hi early ") {
        client.read_exact(&mut byte).unwrap();
        seen.push(byte[0] as char);
    }
    assert!(
        seen.starts_with("HTTP/1.1 101 Switching Protocols\r\n") && seen.contains("Connection: upgrade\r\n")
    );
    client.write_all(b"late").unwrap();
    let mut late = [0; 4];
    client.read_exact(&mut late).unwrap();
    assert_eq!(&late, b"late");
}

#[test]
fn a_switch_that_nobody_asked_for_brings_nothing_along_until_it_ends() {
    for (ends, body) in [(false, ""), (true, "hi ")] {
        let backend = Backend::new(move |_, stream| {
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\nhi ").unwrap();
            if !ends {
                let _ = stream.read(&mut [0; 64]);
            }
            false
        });
        let site = backend.site("proxy_read_timeout 100ms;");
        let mut client = TcpStream::connect(site.addr).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut seen = String::new();
        client.read_to_string(&mut seen).unwrap();
        assert!(seen.ends_with(&format!("\r\n\r\n{body}")), "{seen}");
    }
}
