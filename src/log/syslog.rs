//! Logging to syslog: RFC 3164 datagrams to a UDP address or a unix socket.

use super::{Level, error_context, main};
use crate::net::clock;
use socket2::{SockAddr, Socket, Type};
use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "intern", "lpr", "news", "uucp", "clock", "authpriv", "ftp",
    "ntp", "audit", "alert", "cron", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];
const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "error", "warn", "notice", "info", "debug"];

/// One `syslog:` destination.
#[derive(Debug)]
pub struct SyslogPeer {
    address: SockAddr,
    /// The server as the configuration wrote it.
    name: String,
    facility: u8,
    severity: u8,
    tag: String,
    hostname: Option<String>,
    socket: RwLock<Option<Arc<Socket>>>,
}

/// What is wrong with `syslog:...`, in nginx's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogError {
    Duplicate(&'static str),
    Unknown { what: &'static str, value: String },
    TagTooLong,
    TagCharacters,
    NoServer,
    Server { reason: &'static str, server: String },
}

thread_local! {
    /// A failure to log to syslog is logged, but not to syslog.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

// === impl SyslogPeer ===

impl SyslogPeer {
    /// Reads what follows `syslog:`; host names are resolved now. `hostname` is this machine's.
    pub fn parse(parameters: &str, hostname: &str) -> Result<SyslogPeer, SyslogError> {
        let mut server = None;
        let (mut facility, mut severity, mut tag, mut nohostname) = (None, None, None, false);
        for parameter in parameters.split(',') {
            if let Some(value) = parameter.strip_prefix("server=") {
                once(&server, "server")?;
                server = Some((resolve(value)?, value.to_owned()));
            } else if let Some(value) = parameter.strip_prefix("facility=") {
                once(&facility, "facility")?;
                facility = Some(index(&FACILITIES, "facility", value)?);
            } else if let Some(value) = parameter.strip_prefix("severity=") {
                once(&severity, "severity")?;
                severity = Some(index(&SEVERITIES, "severity", value)?);
            } else if let Some(value) = parameter.strip_prefix("tag=") {
                once(&tag, "tag")?;
                tag = Some(checked_tag(value)?);
            } else if parameter == "nohostname" {
                nohostname = true;
            } else {
                return Err(SyslogError::Unknown { what: "parameter", value: parameter.to_owned() });
            }
        }
        let (address, name) = server.ok_or(SyslogError::NoServer)?;
        Ok(SyslogPeer {
            address,
            name,
            facility: facility.unwrap_or(23),
            severity: severity.unwrap_or(6),
            tag: tag.unwrap_or_else(|| "nginx".to_owned()),
            hostname: (!nohostname).then(|| hostname.to_ascii_lowercase()),
            socket: RwLock::new(None),
        })
    }

    /// Appends `<190>Nov 22 03:42:49 host tag: ` with the severity of the configuration, before an access
    /// log line.
    pub fn add_header(&self, line: &mut Vec<u8>) {
        self.header(self.severity, line);
    }

    /// Sends one datagram, header included. A failure is logged to the main log, and returned.
    pub fn send(&self, datagram: &[u8]) -> io::Result<usize> {
        let socket = self.connected()?;
        nix::unistd::write(socket.as_fd(), datagram).map_err(|errno| {
            let reason = io::Error::from(errno);
            if errno != nix::errno::Errno::EAGAIN {
                self.complain(send_level(&reason), &reason, "send() failed");
                *self.socket.write().unwrap_or_else(PoisonError::into_inner) = None;
            }
            reason
        })
    }

    /// Sends a line of the error log, without its end.
    pub(super) fn write_error(&self, level: Level, line: &[u8]) {
        if BUSY.replace(true) {
            return;
        }
        let mut datagram = Vec::with_capacity(line.len() + 128);
        self.header(level as u8 - 1, &mut datagram);
        datagram.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
        // Already logged.
        let _ = self.send(&datagram);
        BUSY.set(false);
    }

    fn header(&self, severity: u8, line: &mut Vec<u8>) {
        line.extend_from_slice(
            format!("<{}>", u32::from(self.facility) * 8 + u32::from(severity)).as_bytes(),
        );
        clock::with_texts(|texts| line.extend_from_slice(&texts.syslog));
        for part in self.hostname.iter().chain([&self.tag]) {
            line.push(b' ');
            line.extend_from_slice(part.as_bytes());
        }
        line.extend_from_slice(b": ");
    }

    fn connected(&self) -> io::Result<Arc<Socket>> {
        if let Some(socket) = &*self.socket.read().unwrap_or_else(PoisonError::into_inner) {
            return Ok(socket.clone());
        }
        let failed = |what: &'static str| {
            move |reason: io::Error| {
                self.complain(Level::Alert, &reason, what);
                reason
            }
        };
        let socket =
            Socket::new(self.address.domain(), Type::DGRAM, None).map_err(failed("socket() failed"))?;
        socket.set_nonblocking(true).map_err(failed("fcntl(O_NONBLOCK) failed"))?;
        socket.connect(&self.address).map_err(failed("connect() failed"))?;
        let socket = Arc::new(socket);
        *self.socket.write().unwrap_or_else(PoisonError::into_inner) = Some(socket.clone());
        Ok(socket)
    }

    fn complain(&self, level: Level, reason: &io::Error, what: &str) {
        let outer = BUSY.replace(true);
        let name = &self.name;
        error_context(
            &main(),
            level,
            None,
            Some(reason),
            format_args!("{what}"),
            format_args!(" while logging to syslog, server: {name}"),
        );
        BUSY.set(outer);
    }
}

/// Network trouble is an error; anything else is nxr's own fault and an alert.
fn send_level(reason: &io::Error) -> Level {
    match reason.raw_os_error() {
        Some(
            libc::ECONNRESET
            | libc::EPIPE
            | libc::ENOTCONN
            | libc::ETIMEDOUT
            | libc::ECONNREFUSED
            | libc::ENETDOWN
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH,
        ) => Level::Error,
        _ => Level::Alert,
    }
}

fn once<T>(value: &Option<T>, name: &'static str) -> Result<(), SyslogError> {
    if value.is_some() { Err(SyslogError::Duplicate(name)) } else { Ok(()) }
}

fn index(names: &[&str], what: &'static str, value: &str) -> Result<u8, SyslogError> {
    let position = names.iter().position(|name| *name == value);
    position.map(|at| at as u8).ok_or(SyslogError::Unknown { what, value: value.to_owned() })
}

fn checked_tag(tag: &str) -> Result<String, SyslogError> {
    if tag.len() > 32 {
        return Err(SyslogError::TagTooLong);
    }
    if tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        Ok(tag.to_owned())
    } else {
        Err(SyslogError::TagCharacters)
    }
}

fn resolve(server: &str) -> Result<SockAddr, SyslogError> {
    let fail = |reason| SyslogError::Server { reason, server: server.to_owned() };
    if let Some(path) = server.strip_prefix("unix:") {
        if path.is_empty() {
            return Err(fail("no path in the unix domain socket"));
        }
        return SockAddr::unix(Path::new(path)).map_err(|_| fail("too long path in the unix domain socket"));
    }
    let (host, port) = split_port(server).map_err(fail)?;
    if host.is_empty() {
        return Err(fail("no host"));
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if let Some(bare) = bare {
        let address: IpAddr = bare.parse().map_err(|_| fail("invalid IPv6 address"))?;
        return Ok(SocketAddr::new(address, port).into());
    }
    let mut addresses = (host, port).to_socket_addrs().map_err(|_| fail("host not found"))?;
    addresses.next().map(SockAddr::from).ok_or_else(|| fail("host not found"))
}

fn split_port(server: &str) -> Result<(&str, u16), &'static str> {
    let after_host = server.rfind(']').map_or(0, |at| at + 1);
    match server[after_host..].find(':') {
        None => Ok((server, 514)),
        Some(at) => {
            let (host, port) = server.split_at(after_host + at);
            match port[1..].parse::<u16>() {
                Ok(port) if port > 0 => Ok((host, port)),
                _ => Err("invalid port"),
            }
        }
    }
}

// === impl SyslogError ===

impl fmt::Display for SyslogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyslogError::Duplicate(name) => write!(f, "duplicate syslog \"{name}\""),
            SyslogError::Unknown { what, value } => write!(f, "unknown syslog {what} \"{value}\""),
            SyslogError::TagTooLong => f.write_str("syslog tag length exceeds 32"),
            SyslogError::TagCharacters => {
                f.write_str("syslog \"tag\" only allows alphanumeric characters and underscore")
            }
            SyslogError::NoServer => f.write_str("no syslog server specified"),
            SyslogError::Server { reason, server } => write!(f, "{reason} in syslog server \"{server}\""),
        }
    }
}

impl std::error::Error for SyslogError {}

#[cfg(test)]
mod tests {
    use super::super::{ErrorLogBuilder, Target, error};
    use super::*;
    use std::net::UdpSocket;
    use std::time::Duration;

    fn words(parameters: &str) -> String {
        SyslogPeer::parse(parameters, "host").unwrap_err().to_string()
    }

    #[test]
    fn wrong_parameters_are_refused_in_nginx_words() {
        assert_eq!(words("server=127.0.0.1,server=127.0.0.1"), "duplicate syslog \"server\"");
        assert_eq!(words("facility=loud"), "unknown syslog facility \"loud\"");
        assert_eq!(words("severity=err"), "unknown syslog severity \"err\"");
        assert_eq!(words("tag=a-b"), "syslog \"tag\" only allows alphanumeric characters and underscore");
        assert_eq!(words(&format!("tag={}", "a".repeat(33))), "syslog tag length exceeds 32");
        assert_eq!(words("tag=a"), "no syslog server specified");
        assert_eq!(words("colour=red"), "unknown syslog parameter \"colour=red\"");
        assert_eq!(words("server=127.0.0.1:99999"), "invalid port in syslog server \"127.0.0.1:99999\"");
    }

    #[test]
    fn lines_arrive_as_datagrams() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let server = receiver.local_addr().unwrap();
        let peer = SyslogPeer::parse(&format!("server={server},facility=user,tag=edge"), "Host").unwrap();
        let mut builder = ErrorLogBuilder::new();
        builder.add(Target::Syslog(Arc::new(peer)), Level::Info);
        error(&builder.build(), Level::Info, Some(3), format_args!("hello"));

        let mut datagram = [0; 2048];
        let count = receiver.recv(&mut datagram).unwrap();
        let text = std::str::from_utf8(&datagram[..count]).unwrap();
        assert!(text.starts_with("<14>"), "{text}");
        assert!(text.contains(" host edge: ") && text.ends_with(": *3 hello"), "{text}");
    }
}
