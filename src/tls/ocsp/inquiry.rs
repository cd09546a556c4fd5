//! Asking a responder about one certificate: its name resolved, its addresses tried in turn, its answer checked.

use super::exchange::{Answer, Failed, exchange};
use super::judge::{self, Trust};
use super::request::{self, CertId};
use super::responder::Responder;
use super::response::{self, Status};
use crate::conf::url::inet_addr;
use crate::log::{self, ErrorLog, Level};
use crate::net::resolver::Resolver;
use crate::net::{Address, Deadline};
use crate::tls::verify::PathVerifier;
use rustls::pki_types::CertificateDer;
use std::fmt::Arguments;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where lines about a connection go.
#[derive(Debug, Clone)]
pub struct Log {
    pub log: ErrorLog,
    /// The number after the `*`.
    pub connection: Option<u64>,
    /// What stands behind lines that are not about a responder: ` while SSL handshaking, client: ...`.
    pub context: String,
}

/// `resolver` and `resolver_timeout` of a server.
#[derive(Debug, Clone)]
pub struct Resolving {
    pub resolver: Option<Arc<Resolver>>,
    /// Milliseconds.
    pub timeout: u64,
}

/// One question.
pub struct Inquiry<'a> {
    pub id: CertId,
    /// Certificates that may have signed the answer.
    pub chain: &'a [CertificateDer<'a>],
    pub responder: &'a Responder,
    /// None: nothing is resolved at run time.
    pub resolving: Option<&'a Resolving>,
    /// Milliseconds for each address of the responder; none for a connection that has a limit of its own.
    pub timeout: Option<u64>,
    pub trust: Trust,
    pub verifier: &'a PathVerifier,
    pub log: &'a Log,
    /// The file of the certificate, for log lines.
    pub name: Option<&'a str>,
}

/// A status, and the response that says so.
pub struct Finding {
    pub status: Status,
    /// Until when, in seconds since 1970, if it says so.
    pub valid: Option<i64>,
    pub response: Vec<u8>,
    /// Who said so.
    pub address: Address,
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

// === impl Inquiry ===

impl Inquiry<'_> {
    /// Asks, and checks the answer; what fails is logged.
    pub async fn ask(&self) -> Option<Finding> {
        let request = request::http(&self.responder.uri, &self.responder.host, &self.id.request());
        for address in self.addresses().await? {
            if let Some(answer) = self.one(&address, &request).await {
                return self.check(&answer, address);
            }
        }
        None
    }

    async fn addresses(&self) -> Option<Vec<Address>> {
        let Responder { host, port, addresses, .. } = self.responder;
        if let Some(ip) = inet_addr(host) {
            return Some(vec![Address::Inet(SocketAddr::new(ip.into(), *port))]);
        }
        let shown = self.responder.shown();
        let resolver = self.resolving.and_then(|r| Some((r.resolver.as_ref()?, r.timeout)));
        // Brackets and paths are no names.
        let is_name = !addresses.iter().any(|a| matches!(a, Address::Unix(_))) && !host.starts_with(b"[");
        match resolver.filter(|_| is_name) {
            Some((resolver, timeout)) => match resolver.addresses(host, timeout).await {
                Ok(answer) => {
                    let with_port = answer.addresses.into_iter().map(|ip| SocketAddr::new(ip, *port));
                    Some(with_port.map(Address::Inet).collect())
                }
                Err(failure) => {
                    let text = format_args!("{shown} could not be resolved ({failure})");
                    self.tell(Level::Error, None, None, text);
                    None
                }
            },
            None => {
                let level = if addresses.is_empty() { Level::Error } else { Level::Warn };
                if is_name {
                    let text = format_args!("no resolver defined to resolve {shown}");
                    self.tell(level, None, None, text);
                }
                (!addresses.is_empty()).then(|| addresses.clone())
            }
        }
    }

    async fn one(&self, address: &Address, request: &[u8]) -> Option<Answer> {
        let mut tell = |failed: &Failed| self.failed(address, failed);
        let exchange = exchange(address, request, &mut tell);
        let done = match self.timeout {
            None => exchange.await,
            Some(timeout) => {
                let deadline = Deadline::never();
                deadline.set(timeout);
                let Some(done) = deadline.limit(exchange).await else {
                    let reason = io::Error::from_raw_os_error(libc::ETIMEDOUT);
                    let text = format_args!("OCSP responder timed out");
                    self.tell(Level::Error, Some(&reason), Some(address), text);
                    return None;
                };
                done
            }
        };
        match done {
            Ok(answer) => Some(answer),
            Err(failed) => {
                self.failed(address, &failed);
                if matches!(failed, Failed::Receive(_)) {
                    self.failed(address, &Failed::Closed);
                }
                None
            }
        }
    }

    fn failed(&self, address: &Address, failed: &Failed) {
        let tell = |level, reason, text: Arguments<'_>| self.tell(level, reason, Some(address), text);
        match failed {
            Failed::Connect(e) => {
                let level = match e.raw_os_error() {
                    Some(
                        libc::ECONNREFUSED
                        | libc::ENETDOWN
                        | libc::ENETUNREACH
                        | libc::EHOSTDOWN
                        | libc::EHOSTUNREACH
                        | libc::ECONNRESET
                        | libc::EAGAIN,
                    ) => Level::Error,
                    _ => Level::Crit,
                };
                tell(level, Some(e), format_args!("connect() to {address} failed"));
            }
            Failed::Send(e) => tell(Level::Error, Some(e), format_args!("send() failed")),
            Failed::Receive(e) => tell(Level::Error, Some(e), format_args!("recv() failed")),
            Failed::Closed => {
                tell(Level::Error, None, format_args!("OCSP responder prematurely closed connection"));
            }
            Failed::Invalid => {
                tell(Level::Error, None, format_args!("OCSP responder sent invalid response"));
            }
            Failed::Type(value) => {
                let value = log::bytes(value);
                let text = format_args!("OCSP responder sent invalid \"Content-Type\" header: \"{value}\"");
                tell(Level::Error, None, text);
            }
        }
    }

    fn check(&self, answer: &Answer, address: Address) -> Option<Finding> {
        let now = now();
        let error = |text: Arguments<'_>| {
            self.tell(Level::Error, None, Some(&address), text);
        };
        if answer.status != 200 {
            return None;
        }
        let body = response::first(&answer.body).unwrap_or(&answer.body);
        let basic = response::read(body).map_err(|e| error(format_args!("{e}"))).ok()?;
        let signed = judge::signer(&basic, self.chain, self.verifier, self.trust, now);
        signed.map_err(|e| error(format_args!("{e}"))).ok()?;
        let Some(single) = basic.find(&self.id) else {
            error(format_args!("certificate status not found in the OCSP response"));
            return None;
        };
        let valid = judge::is_timely(single, now).map_err(|e| error(format_args!("{e}"))).ok()?;
        Some(Finding { status: single.status, valid, response: body.to_vec(), address })
    }

    /// Logs a line with what is being done behind it.
    pub fn tell(
        &self,
        level: Level,
        reason: Option<&io::Error>,
        address: Option<&Address>,
        text: Arguments<'_>,
    ) {
        if !self.log.log.enabled(level) {
            return;
        }
        let mut tail = format!(" while requesting certificate status, responder: {}", self.responder.shown());
        if let Some(address) = address {
            tail += &format!(", peer: {address}");
        }
        if let Some(name) = self.name {
            tail += &format!(", certificate: \"{name}\"");
        }
        let tail = format_args!("{tail}");
        log::error_context(&self.log.log, level, self.log.connection, reason, text, tail);
    }
}
