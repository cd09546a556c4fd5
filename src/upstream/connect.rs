//! Connecting to a peer.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use crate::log::Level;
use crate::net::{Address, Socket, option};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, SockAddr, Type};

/// How to connect.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Address to connect from (`proxy_bind`).
    pub local: Option<SocketAddr>,
    /// The local address need not be this machine's (`proxy_bind ... transparent`).
    pub transparent: bool,
    /// SO_RCVBUF in bytes, 0 for the system's.
    pub rcvbuf: usize,
    /// SO_SNDBUF in bytes, 0 for the system's.
    pub sndbuf: usize,
    /// SO_KEEPALIVE (`proxy_socket_keepalive`).
    pub keepalive: bool,
    /// TCP_NODELAY (`tcp_nodelay`).
    pub nodelay: bool,
}

/// What a connection failed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// socket(2)
    Socket,
    /// setsockopt(2) of IP_TRANSPARENT or IPV6_TRANSPARENT.
    Transparent {
        /// For IPv6.
        ipv6: bool,
    },
    /// bind(2) to this address.
    Bind(SocketAddr),
    /// connect(2) said so at once.
    Connect,
    /// The connection could not be made after all.
    Connecting,
}

/// Why there is no connection. [`fmt::Display`] gives nginx's words without the system's reason.
#[derive(Debug)]
pub struct ConnectError {
    /// What failed.
    pub step: Step,
    /// Where to.
    pub to: Address,
    /// The system's reason.
    pub source: io::Error,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            Step::Socket => f.write_str("socket() failed"),
            Step::Transparent { ipv6: false } => f.write_str("setsockopt(IP_TRANSPARENT) failed"),
            Step::Transparent { ipv6: true } => f.write_str("setsockopt(IPV6_TRANSPARENT) failed"),
            Step::Bind(local) if local.port() == 0 => write!(f, "bind({}) failed", local.ip()),
            Step::Bind(local) => write!(f, "bind({local}) failed"),
            Step::Connect => write!(f, "connect() to {} failed", self.to),
            Step::Connecting => f.write_str("connect() failed"),
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl ConnectError {
    /// How serious nginx finds it.
    pub fn level(&self) -> Level {
        match self.step {
            Step::Socket | Step::Transparent { .. } => Level::Alert,
            Step::Bind(_) => Level::Crit,
            Step::Connecting => match self.source.raw_os_error() {
                Some(
                    libc::ECONNREFUSED
                    | libc::EPIPE
                    | libc::ENOTCONN
                    | libc::ETIMEDOUT
                    | libc::ECONNRESET
                    | libc::ENETDOWN
                    | libc::ENETUNREACH
                    | libc::EHOSTDOWN
                    | libc::EHOSTUNREACH,
                ) => Level::Error,
                _ => Level::Alert,
            },
            Step::Connect => match self.source.raw_os_error() {
                Some(
                    libc::ECONNREFUSED
                    | libc::EAGAIN
                    | libc::ECONNRESET
                    | libc::ENETDOWN
                    | libc::ENETUNREACH
                    | libc::EHOSTDOWN
                    | libc::EHOSTUNREACH,
                ) => Level::Error,
                _ => Level::Crit,
            },
        }
    }

    /// Whether another peer may be tried: nginx answers 500 at once where it could not even begin.
    pub fn try_next(&self) -> bool {
        matches!(self.step, Step::Connect | Step::Connecting)
    }
}

/// Connects over TCP or to a unix socket. Waits as long as the system does: put a [`crate::net::Deadline`] on it.
///
/// # Errors
/// The step that failed, and why. Options the system refuses are left out, as in nginx, but for those of binding.
pub async fn connect(to: &Address, options: &Options) -> Result<Socket, ConnectError> {
    let fail = |step| move |source| ConnectError { step, to: to.clone(), source };
    let (socket, pending) = begin(to, options, Type::STREAM)?;
    let unix = matches!(to, Address::Unix(_));
    if !pending || is_local(to) && is_connected(&socket) {
        return Socket::connected(socket.into(), unix).map_err(fail(Step::Socket));
    }
    let stream = Socket::connecting(socket.into(), unix).map_err(fail(Step::Socket))?;
    std::future::poll_fn(|cx| stream.poll_write_ready(cx)).await.map_err(fail(Step::Connecting))?;
    let reason = socket2::SockRef::from(&stream).take_error().map_err(fail(Step::Connecting))?;
    match reason {
        Some(reason) => Err(fail(Step::Connecting)(reason)),
        None => Ok(stream),
    }
}

fn is_local(to: &Address) -> bool {
    matches!(to, Address::Inet(addr) if addr.ip().is_loopback())
}

/// Whether the connection is there. Within a machine it mostly is as soon as connect(2) returns, though that says
/// `EINPROGRESS`: to ask is cheaper than to wait for the event.
fn is_connected(socket: &socket2::Socket) -> bool {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1)) && fds[0].revents() == Some(PollFlags::POLLOUT)
}

/// A socket of datagrams for one peer, which does not block.
///
/// # Errors
/// As of [`connect`].
pub fn connect_datagrams(to: &Address, options: &Options) -> Result<socket2::Socket, ConnectError> {
    begin(to, options, Type::DGRAM).map(|(socket, _)| socket)
}

/// A socket whose connection is made, or (true) on its way.
fn begin(to: &Address, options: &Options, kind: Type) -> Result<(socket2::Socket, bool), ConnectError> {
    let fail = |step| move |source| ConnectError { step, to: to.clone(), source };
    let stream = kind == Type::STREAM;
    let (domain, protocol, address) = match to {
        Address::Inet(addr) => {
            (Domain::for_address(*addr), stream.then_some(Protocol::TCP), SockAddr::from(*addr))
        }
        Address::Unix(path) => (Domain::UNIX, None, SockAddr::unix(path).map_err(fail(Step::Connect))?),
    };
    let socket = socket2::Socket::new(domain, kind.nonblocking(), protocol).map_err(fail(Step::Socket))?;
    // What the system refuses of these is left out: the connection works without.
    if options.rcvbuf != 0 {
        let _ = socket.set_recv_buffer_size(options.rcvbuf);
    }
    if options.sndbuf != 0 {
        let _ = socket.set_send_buffer_size(options.sndbuf);
    }
    if options.keepalive {
        let _ = socket.set_keepalive(true);
    }
    if let Address::Inet(_) = to {
        if options.nodelay && stream {
            let _ = socket.set_tcp_nodelay(true);
        }
        if let Some(local) = options.local {
            bind(&socket, local, options.transparent).map_err(|(step, source)| ConnectError {
                step,
                to: to.clone(),
                source,
            })?;
        }
    }
    match socket.connect(&address) {
        Ok(()) => Ok((socket, false)),
        Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => Ok((socket, true)),
        Err(e) => Err(fail(Step::Connect)(e)),
    }
}

fn bind(socket: &socket2::Socket, local: SocketAddr, transparent: bool) -> Result<(), (Step, io::Error)> {
    if transparent {
        let ipv6 = local.is_ipv6();
        let (level, name) = match ipv6 {
            true => (libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT),
            false => (libc::IPPROTO_IP, libc::IP_TRANSPARENT),
        };
        option::set(socket, level, name, 1).map_err(|e| (Step::Transparent { ipv6 }, e))?;
    }
    if local.port() == 0 {
        // A port is then chosen by connect(2), by the peer too: many more connections fit. Not needed to work.
        let _ = option::set(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1);
    }
    socket.bind(&local.into()).map_err(|e| (Step::Bind(local), e))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn run<F: Future>(f: F) -> F::Output {
        let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        rt.block_on(f)
    }

    #[test]
    fn connects_from_the_bound_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = Address::Inet(listener.local_addr().unwrap());
        let options = Options {
            local: "127.0.0.2:0".parse().ok(),
            rcvbuf: 8192,
            keepalive: true,
            nodelay: true,
            ..Options::default()
        };
        run(async {
            let socket = connect(&to, &options).await.unwrap();
            let (_, from) = listener.accept().unwrap();
            assert_eq!(from.ip().to_string(), "127.0.0.2");
            let sock = socket2::SockRef::from(&socket);
            assert!(sock.keepalive().unwrap() && sock.tcp_nodelay().unwrap());
        });
    }

    #[test]
    fn a_refusal_says_so() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = Address::Inet(listener.local_addr().unwrap());
        drop(listener);
        let error = run(connect(&to, &Options::default())).err().unwrap();
        assert_eq!(error.source.raw_os_error(), Some(libc::ECONNREFUSED));
        assert!(error.try_next());
        assert_eq!(error.level().name(), "error");
    }

    #[test]
    fn a_missing_socket_is_critical() {
        let to = Address::Unix("/nonexistent/socket".into());
        let error = run(connect(&to, &Options::default())).err().unwrap();
        assert_eq!(error.to_string(), "connect() to unix:/nonexistent/socket failed");
        assert_eq!(error.source.raw_os_error(), Some(libc::ENOENT));
        assert_eq!(error.level().name(), "crit");
    }

    #[test]
    fn an_address_of_another_machine_cannot_be_bound_to() {
        let to = Address::Inet("127.0.0.1:9".parse().unwrap());
        let options = Options { local: "192.0.2.1:0".parse().ok(), ..Options::default() };
        let error = run(connect(&to, &options)).err().unwrap();
        assert_eq!(error.to_string(), "bind(192.0.2.1) failed");
        assert!(!error.try_next());
    }

    #[test]
    fn unix_sockets_connect() {
        let path = std::env::temp_dir().join(format!("nxr-connect-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        run(async {
            assert!(connect(&Address::Unix(path.clone()), &Options::default()).await.is_ok());
            listener.accept().unwrap();
        });
        std::fs::remove_file(&path).unwrap();
    }
}
