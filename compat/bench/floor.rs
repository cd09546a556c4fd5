//! The least that a server over epoll(7) does: it reads, and sends what does not depend on what it read. What it costs,
//! no server that reads and sends as often can stay below.
//!
//! usage: floor answering PORT          answers each read with a redirect
//!        floor proxying PORT UPSTREAM  for each read sends a request over a kept-alive connection, passes on what comes
//!        floor passing PORT UPSTREAM   a connection to the upstream for each client's, and passes on what comes

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

const ANSWER: &[u8] = b"HTTP/1.1 301 Moved Permanently\r\nServer: floor\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
    Content-Type: text/html\r\nContent-Length: 162\r\nConnection: keep-alive\r\nLocation: https://127.0.0.1/\r\n\r\n";
const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-For: 127.0.0.1\r\nHost: 127.0.0.1\r\n\r\n";

#[cfg_attr(target_arch = "x86_64", repr(C, packed))]
#[cfg_attr(not(target_arch = "x86_64"), repr(C))]
#[derive(Clone, Copy)]
struct Event {
    events: u32,
    data: u64,
}

unsafe extern "C" {
    fn epoll_create1(flags: i32) -> i32;
    fn epoll_ctl(epoll: i32, op: i32, fd: i32, event: *mut Event) -> i32;
    fn epoll_wait(epoll: i32, events: *mut Event, room: i32, timeout: i32) -> i32;
}

const IN: u32 = 1;
const END: u32 = 0x2000;
const EDGE: u32 = 1 << 31;

#[derive(Clone, Copy, PartialEq)]
enum Work {
    Answering,
    Proxying,
    Passing,
}

struct Connection {
    stream: TcpStream,
    /// Where what comes goes to.
    other: Option<i32>,
}

fn watch(epoll: i32, fd: i32, events: u32) {
    let mut event = Event { events, data: fd as u64 };
    // SAFETY: the event is there for as long as the call takes.
    assert_eq!(unsafe { epoll_ctl(epoll, 1, fd, &mut event) }, 0, "epoll_ctl");
}

fn add(epoll: i32, all: &mut HashMap<i32, Connection>, stream: TcpStream) -> Result<i32> {
    let fd = stream.as_raw_fd();
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    watch(epoll, fd, IN | EDGE | END);
    all.insert(fd, Connection { stream, other: None });
    Ok(fd)
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let work = match args.next().as_deref() {
        Some("answering") => Work::Answering,
        Some("proxying") => Work::Proxying,
        Some("passing") => Work::Passing,
        _ => panic!("answering, proxying or passing"),
    };
    let mut ports = args.map(|port| port.parse::<u16>().expect("a port"));
    let listener = TcpListener::bind(("127.0.0.1", ports.next().expect("a port")))?;
    let upstream = ports.next().unwrap_or_default();
    listener.set_nonblocking(true)?;
    // SAFETY: no memory is involved.
    let epoll = unsafe { epoll_create1(0) };
    watch(epoll, listener.as_raw_fd(), IN);
    let answer = [ANSWER, &[b'-'; 162]].concat();
    let (mut all, mut idle) = (HashMap::new(), Vec::new());
    let (mut events, mut buffer) = ([Event { events: 0, data: 0 }; 512], vec![0; 16 << 10]);
    loop {
        // SAFETY: there is room for as many events.
        let count = unsafe { epoll_wait(epoll, events.as_mut_ptr(), 512, -1) };
        for event in &events[..count.max(0) as usize] {
            let fd = event.data as i32;
            if fd == listener.as_raw_fd() {
                while let Ok((stream, _)) = listener.accept() {
                    let client = add(epoll, &mut all, stream)?;
                    if work == Work::Passing {
                        let up = add(epoll, &mut all, TcpStream::connect(("127.0.0.1", upstream))?)?;
                        all.get_mut(&client).expect("it was kept").other = Some(up);
                        all.get_mut(&up).expect("it was kept").other = Some(client);
                    }
                }
                continue;
            }
            let Some(from) = all.get_mut(&fd) else { continue };
            let n = match from.stream.read(&mut buffer) {
                Ok(n) if n > 0 => n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => continue,
                _ => {
                    let gone = all.remove(&fd).and_then(|gone| gone.other);
                    idle.retain(|kept| *kept != fd);
                    if let Some(other) = gone.filter(|_| work == Work::Passing) {
                        all.remove(&other);
                    }
                    continue;
                }
            };
            let (to, bytes) = match (work, from.other) {
                (Work::Passing, Some(other)) => (other, &buffer[..n]),
                (Work::Proxying, Some(client)) => {
                    from.other = None;
                    idle.push(fd);
                    (client, &buffer[..n])
                }
                (Work::Proxying, None) => {
                    let up = match idle.pop() {
                        Some(up) => up,
                        None => add(epoll, &mut all, TcpStream::connect(("127.0.0.1", upstream))?)?,
                    };
                    all.get_mut(&up).expect("it was kept").other = Some(fd);
                    (up, REQUEST)
                }
                _ => (fd, &answer[..]),
            };
            if let Some(to) = all.get_mut(&to) {
                // All of it fits the socket's buffer. Whoever went away needs none of it.
                let _ = to.stream.write(bytes);
            }
        }
    }
}
