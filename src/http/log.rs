//! Error log lines of connections and requests, with what nginx tells about them.

use std::fmt::{self, Arguments, Display};
use std::io;

use super::connection::Connection;
use super::headers::{HOST, REFERER};
use super::request::Request;
use crate::log::{self, ErrorLog, Level};

impl Connection {
    /// The log of the server that the connection has so far.
    pub fn error_log(&self) -> &'static ErrorLog {
        self.log.get()
    }

    /// A line about the connection, while no request is known.
    #[cold]
    pub fn log(&self, level: Level, reason: Option<&io::Error>, action: &str, message: Arguments<'_>) {
        let log = self.log.get();
        if log.enabled(level) {
            let tail = ConnectionTail { action, conn: self };
            log::error_context(log, level, Some(self.number), reason, message, format_args!("{tail}"));
        }
    }

    /// A failed read or write on the client's socket: the client's doing, so only worth an info.
    #[cold]
    pub fn log_io(&self, error: &io::Error, message: &str) {
        self.log(Level::Info, Some(error), "sending response to client", format_args!("{message}"));
    }

    /// The client took too long.
    pub fn log_timeout(&self) {
        let error = io::Error::from_raw_os_error(libc::ETIMEDOUT);
        self.log(Level::Info, Some(&error), "sending response to client", format_args!("client timed out"));
    }
}

struct ConnectionTail<'a> {
    action: &'a str,
    conn: &'a Connection,
}

impl Display for ConnectionTail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.action.is_empty() {
            write!(f, " while {}", self.action)?;
        }
        write!(f, ", client: {}, server: {}", self.conn.client_text(), self.conn.port.text())
    }
}

struct RequestTail<'a>(&'a Request);

impl Display for RequestTail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let req = self.0;
        let action = req.action.get();
        if !action.is_empty() {
            write!(f, " while {action}")?;
        }
        write!(f, ", client: {}", req.conn.client_text())?;
        write!(f, ", server: {}", log::bytes(&req.server.name))?;
        if !req.head.line.is_empty() {
            write!(f, ", request: \"{}\"", log::bytes(&req.head.line))?;
        }
        if req.is_subrequest() {
            write!(f, ", subrequest: \"{}\"", log::bytes(&req.uri))?;
        }
        if let Some(upstream) = &req.upstream_url {
            f.write_str(", upstream: \"")?;
            upstream.write(req, f)?;
            f.write_str("\"")?;
        }
        if let Some(host) = req.header(HOST) {
            write!(f, ", host: \"{}\"", log::bytes(host))?;
        }
        if let Some(referrer) = req.header(REFERER) {
            write!(f, ", referrer: \"{}\"", log::bytes(referrer))?;
        }
        Ok(())
    }
}

impl Request {
    /// A line about the request, with client, server, request line, upstream and host.
    #[cold]
    pub fn log(&self, level: Level, reason: Option<&io::Error>, message: Arguments<'_>) {
        let log = self.conf.error_log();
        if log.enabled(level) {
            let tail = RequestTail(self);
            log::error_context(log, level, Some(self.conn.number), reason, message, format_args!("{tail}"));
        }
    }
}
