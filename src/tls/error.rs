//! What can be wrong with TLS settings, in nginx's words (those of OpenSSL included).

use std::fmt;
use std::io;

/// What was being loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object {
    Certificate,
    Key,
    Crl,
}

/// Why TLS settings cannot be used. `Display` gives the text nginx logs at `[emerg]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// A certificate, key or CRL could not be read; `why` names the call that failed and OpenSSL's reasons.
    Load { object: Object, name: String, why: String },
    /// The key does not belong to the certificate; `calls` begins the names of OpenSSL's functions.
    KeyMismatch { calls: &'static str, key: String },
    /// An RSA key of less than 2048 bits.
    KeyTooSmall { calls: &'static str, name: String },
    /// `ssl_ciphers` matches nothing, or is not a cipher list.
    Ciphers { list: String, ssl: &'static str },
    /// `ssl_ciphers` matches suites, but none that this program has, and nothing newer than TLSv1.2 is allowed.
    NoUsableCiphers { list: String },
    /// `ssl_ecdh_curve` names something that is not a group.
    Curve { list: String, group: String },
    /// `ssl_ecdh_curve` names only groups that this program lacks.
    NoUsableCurves { list: String },
    /// `ssl_protocols` leaves no protocol that this program has.
    NoUsableProtocols,
    /// `ssl_conf_command` was refused.
    ConfCommand { name: String, value: String, ssl: String },
    /// A file could not be opened: the number is the system's error.
    Open { call: &'static str, name: String, errno: i32 },
    /// A file opened through OpenSSL's BIO could not be opened or parsed.
    Bio { call: &'static str, name: String, ssl: String },
    /// A session ticket key of a wrong size.
    TicketKeySize { name: String },
    /// A line of a password file is longer than 512 bytes.
    PasswordLine { name: String },
    /// The system has no random numbers to give, or the TLS library refuses the settings.
    Library(String),
}

// === impl Error ===

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Load { object, name, why } => {
                let what = match object {
                    Object::Certificate => "certificate",
                    Object::Key => "certificate key",
                    Object::Crl => "CRL",
                };
                write!(f, "cannot load {what} \"{name}\": {why}")
            }
            Error::KeyMismatch { calls, key } => write!(
                f,
                "{calls}_use_PrivateKey(\"{key}\") failed \
                 (SSL: error:05800074:x509 certificate routines::key values mismatch)"
            ),
            Error::KeyTooSmall { calls, name } => write!(
                f,
                "{calls}_use_certificate(\"{name}\") failed (SSL: error:0A00018F:SSL routines::ee key too small)"
            ),
            Error::Ciphers { list, ssl } => {
                write!(f, "SSL_CTX_set_cipher_list(\"{list}\") failed (SSL: {ssl})")
            }
            Error::NoUsableCiphers { list } => {
                write!(f, "SSL_CTX_set_cipher_list(\"{list}\") failed: none of these ciphers is supported")
            }
            Error::Curve { list, group } => write!(
                f,
                "SSL_CTX_set1_curves_list(\"{list}\") failed \
                 (SSL: error:0A080106:SSL routines::passed invalid argument:group '{group}' cannot be set)"
            ),
            Error::NoUsableCurves { list } => {
                write!(f, "SSL_CTX_set1_curves_list(\"{list}\") failed: none of these curves is supported")
            }
            Error::NoUsableProtocols => f.write_str("none of the \"ssl_protocols\" is supported"),
            Error::ConfCommand { name, value, ssl } => {
                write!(f, "SSL_CONF_cmd(\"{name}\", \"{value}\") failed (SSL: {ssl})")
            }
            Error::Open { call, name, errno } => {
                write!(f, "{call} \"{name}\" failed ({errno}: {})", strerror(*errno))
            }
            Error::Bio { call, name, ssl } if ssl.is_empty() => write!(f, "{call}(\"{name}\") failed"),
            Error::Bio { call, name, ssl } => write!(f, "{call}(\"{name}\") failed (SSL: {ssl})"),
            Error::TicketKeySize { name } => write!(f, "\"{name}\" must be 48 or 80 bytes"),
            Error::PasswordLine { name } => write!(f, "too long line in \"{name}\""),
            Error::Library(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {}

impl From<rustls::Error> for Error {
    fn from(e: rustls::Error) -> Self {
        Error::Library(e.to_string())
    }
}

/// The system's text of an error number, without Rust's suffix.
pub(crate) fn strerror(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// OpenSSL's account of a failed `fopen()`, as its BIO routines leave it.
pub(crate) fn fopen_failed(path: &str, mode: &str, e: &io::Error) -> String {
    let errno = e.raw_os_error().unwrap_or(libc::EIO);
    let bio = match errno {
        libc::ENOENT | libc::ENXIO => "error:10000080:BIO routines::no such file",
        _ => "error:10080002:BIO routines::system lib",
    };
    let system = system_failed(e, &format!("fopen({path}, {mode})"));
    format!("{system} {bio}")
}

/// OpenSSL's account of a failed system call.
pub(super) fn system_failed(e: &io::Error, call: &str) -> String {
    let errno = e.raw_os_error().unwrap_or(libc::EIO);
    let code = 0x8000_0000_u32 | (errno as u32 & 0x7fff_ffff);
    format!("error:{code:08X}:system library::{}:calling {call}", strerror(errno))
}
