//! Failures on TLS connections, with the words and levels of nginx's error log.

use super::client::UpstreamRefused;
use super::error::strerror;
use rustls::{
    AlertDescription, CertificateError, Error as TlsError, InvalidMessage, PeerIncompatible, PeerMisbehaved,
};
use std::fmt;
use std::io;

/// How grave a failure is to the error log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Info,
    Error,
    Crit,
    Alert,
}

/// Who is at the other end: a client's faults are worth less to the log than an upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Client,
    Upstream,
}

/// Why there is no TLS connection. `Display` gives the log's text, the system's error included.
#[derive(Debug)]
pub enum HandshakeError {
    /// The peer went away in the middle.
    Closed(Option<io::Error>),
    /// The server chosen by name wants no handshakes (`ssl_reject_handshake`).
    Rejected,
    /// There is no certificate to show; why has been said.
    NoCertificate,
    Tls(TlsError),
    Upstream(UpstreamRefused),
    /// What came first is no TLS record.
    NotTls(NotTls),
}

/// What a client speaks instead of TLS, as far as OpenSSL looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTls {
    HttpRequest,
    ProxyRequest,
    Other,
}

// === impl NotTls ===

impl NotTls {
    /// Judges the first five bytes; none for a record of TLS, or of SSL 2.
    pub(super) fn of(bytes: &[u8]) -> Option<NotTls> {
        let version = bytes.get(1).copied().unwrap_or_default();
        if version == 3 || bytes.first().is_some_and(|first| first & 0x80 != 0) {
            return None;
        }
        Some(match bytes {
            [b'G', b'E', b'T', b' ', ..] | [b'P', b'O', b'S', b'T', ..] => NotTls::HttpRequest,
            [b'H', b'E', b'A', b'D', ..] | [b'P', b'U', b'T', b' ', ..] => NotTls::HttpRequest,
            [b'C', b'O', b'N', b'N', b'E', ..] => NotTls::ProxyRequest,
            _ => NotTls::Other,
        })
    }
}

// === impl HandshakeError ===

impl HandshakeError {
    pub(super) fn from_io(e: io::Error) -> Self {
        if e.kind() == io::ErrorKind::UnexpectedEof {
            return HandshakeError::Closed(None);
        }
        match e.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
            Some(tls) => HandshakeError::from_tls(tls.clone()),
            None => HandshakeError::Closed(Some(e)),
        }
    }

    pub(super) fn from_tls(e: TlsError) -> Self {
        if let TlsError::InvalidCertificate(CertificateError::Other(other)) = &e
            && let Some(refused) = other.0.downcast_ref::<UpstreamRefused>()
        {
            return HandshakeError::Upstream(refused.clone());
        }
        HandshakeError::Tls(e)
    }

    /// The level nginx logs it at.
    pub fn level(&self, peer: Peer) -> Level {
        match self {
            HandshakeError::Closed(e) => {
                connection_level(e.as_ref().and_then(io::Error::raw_os_error).unwrap_or(0), peer)
            }
            HandshakeError::Rejected | HandshakeError::NoCertificate | HandshakeError::NotTls(_) => {
                fault(peer)
            }
            HandshakeError::Tls(e) => tls_level(e, peer),
            HandshakeError::Upstream(_) => Level::Error,
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeError::NotTls(what) => {
                let (code, words) = match what {
                    NotTls::HttpRequest => ("0A00009C", "http request"),
                    NotTls::ProxyRequest => ("0A00009B", "https proxy request"),
                    NotTls::Other => ("0A00010B", "wrong version number"),
                };
                write!(f, "SSL_do_handshake() failed (SSL: error:{code}:SSL routines::{words})")
            }
            HandshakeError::Closed(e) => {
                f.write_str("peer closed connection in SSL handshake")?;
                match e.as_ref().and_then(io::Error::raw_os_error) {
                    Some(errno) => write!(f, " ({errno}: {})", strerror(errno)),
                    None => Ok(()),
                }
            }
            HandshakeError::Rejected => f.write_str("handshake rejected"),
            HandshakeError::NoCertificate => {
                f.write_str("SSL_do_handshake() failed (SSL: error:0A000179:SSL routines::cert cb error)")
            }
            HandshakeError::Tls(e) => write!(f, "SSL_do_handshake() failed (SSL: {})", openssl_words(e)),
            HandshakeError::Upstream(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for HandshakeError {}

/// Text and level of an error of reading or writing; `call` is the function nginx would have called,
/// `SSL_read()` or `SSL_write()`.
pub fn io_failure(call: &str, e: &io::Error, peer: Peer) -> (String, Level) {
    if let Some(tls) = e.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
        return (format!("{call} failed (SSL: {})", openssl_words(tls)), tls_level(tls, peer));
    }
    match e.raw_os_error() {
        Some(errno) => {
            let level = match is_connection_errno(errno) {
                true => fault(peer),
                false => Level::Crit,
            };
            (format!("{call} failed ({errno}: {})", strerror(errno)), level)
        }
        None => (format!("{call} failed"), fault(peer)),
    }
}

/// Whether the first byte on a TLS port can begin a ClientHello, of TLS or of SSLv2. If not, it is plain HTTP that
/// nginx answers with "The plain HTTP request was sent to HTTPS port".
pub fn looks_like_tls(first: u8) -> bool {
    first & 0x80 != 0 || first == 0x16
}

fn fault(peer: Peer) -> Level {
    match peer {
        Peer::Client => Level::Info,
        Peer::Upstream => Level::Error,
    }
}

fn is_connection_errno(errno: i32) -> bool {
    matches!(
        errno,
        libc::ECONNRESET
            | libc::EPIPE
            | libc::ENOTCONN
            | libc::ETIMEDOUT
            | libc::ECONNREFUSED
            | libc::ENETDOWN
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
    )
}

fn connection_level(errno: i32, peer: Peer) -> Level {
    match errno == 0 || is_connection_errno(errno) {
        true => fault(peer),
        false => Level::Alert,
    }
}

fn tls_level(e: &TlsError, peer: Peer) -> Level {
    match e {
        TlsError::InappropriateMessage { .. }
        | TlsError::InappropriateHandshakeMessage { .. }
        | TlsError::InvalidMessage(_)
        | TlsError::NoCertificatesPresented
        | TlsError::DecryptError
        | TlsError::PeerIncompatible(_)
        | TlsError::PeerMisbehaved(_)
        | TlsError::AlertReceived(_)
        | TlsError::PeerSentOversizedRecord
        | TlsError::NoApplicationProtocol => fault(peer),
        // No certificate fits what the client can do: OpenSSL says "no shared cipher".
        TlsError::General(text) if text.contains("no server certificate chain") => fault(peer),
        _ => Level::Crit,
    }
}

/// The error as OpenSSL 3 prints the one that comes closest.
fn openssl_words(e: &TlsError) -> String {
    if let TlsError::AlertReceived(alert) = e {
        let number = u8::from(*alert);
        let code = 0x0A00_0000 + 1000 + u32::from(number);
        return format!("error:{code:08X}:SSL routines::{}:SSL alert number {number}", alert_words(*alert));
    }
    let (code, words) = reason(e);
    format!("error:{:08X}:SSL routines::{words}", 0x0A00_0000 + code)
}

fn reason(e: &TlsError) -> (u32, &'static str) {
    use PeerIncompatible as I;
    use PeerMisbehaved as M;
    match e {
        TlsError::InappropriateMessage { .. } | TlsError::InappropriateHandshakeMessage { .. } => {
            (244, "unexpected message")
        }
        TlsError::InvalidMessage(m) => match m {
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion => {
                (267, "wrong version number")
            }
            InvalidMessage::MessageTooLarge | InvalidMessage::HandshakePayloadTooLarge => {
                (152, "excessive message size")
            }
            InvalidMessage::CertificatePayloadTooLarge => (152, "excessive message size"),
            InvalidMessage::UnsupportedCompression => (187, "no compression specified"),
            InvalidMessage::InvalidCcs => (103, "bad change cipher spec"),
            InvalidMessage::InvalidKeyUpdate => (122, "bad key update"),
            InvalidMessage::DuplicateExtension(_) => (110, "bad extension"),
            _ => (159, "length mismatch"),
        },
        TlsError::PeerIncompatible(i) => match i {
            I::NoCipherSuitesInCommon => (193, "no shared cipher"),
            I::NoKxGroupsInCommon | I::NamedGroupsExtensionRequired => (101, "no suitable key share"),
            I::KeyShareExtensionRequired => (258, "missing key share"),
            I::NoSignatureSchemesInCommon | I::NoCertificateRequestSignatureSchemesInCommon => {
                (118, "no suitable signature algorithm")
            }
            I::NullCompressionRequired => (187, "no compression specified"),
            // A hello without signature algorithms is one of TLSv1.1 or older.
            I::SignatureAlgorithmsExtensionRequired
            | I::ServerDoesNotSupportTls12Or13
            | I::ServerTlsVersionIsDisabledByOurConfig
            | I::SupportedVersionsExtensionRequired
            | I::Tls12NotOffered
            | I::Tls12NotOfferedOrEnabled => (258, "unsupported protocol"),
            _ => (110, "bad extension"),
        },
        TlsError::PeerMisbehaved(m) => match m {
            M::InvalidKeyShare | M::MissingKeyShare | M::WrongGroupForKeyShare => (108, "bad key share"),
            M::AttemptedDowngradeToTls12WhenTls13IsSupported => (373, "inappropriate fallback"),
            M::IncorrectBinder => (253, "binder does not verify"),
            M::TooManyWarningAlertsReceived => (409, "too many warn alerts"),
            M::TooMuchEarlyDataReceived => (164, "too much early data"),
            M::SelectedUnofferedCipherSuite => (261, "wrong cipher returned"),
            M::IllegalMiddleboxChangeCipherSpec => (103, "bad change cipher spec"),
            _ => (110, "bad extension"),
        },
        TlsError::NoCertificatesPresented => (199, "peer did not return a certificate"),
        TlsError::DecryptError => (281, "decryption failed or bad record mac"),
        TlsError::PeerSentOversizedRecord => (198, "packet length too long"),
        TlsError::NoApplicationProtocol => (235, "no application protocol"),
        TlsError::InvalidCertificate(CertificateError::BadSignature) => (123, "bad signature"),
        TlsError::InvalidCertificate(_) => (134, "certificate verify failed"),
        TlsError::General(text) if text.contains("no server certificate chain") => (193, "no shared cipher"),
        _ => (0x000C_0103, "internal error"),
    }
}

fn alert_words(alert: AlertDescription) -> &'static str {
    match u8::from(alert) {
        0 => "tlsv1 alert close notify",
        10 => "sslv3 alert unexpected message",
        20 => "sslv3 alert bad record mac",
        21 => "tlsv1 alert decryption failed",
        22 => "tlsv1 alert record overflow",
        30 => "sslv3 alert decompression failure",
        40 => "sslv3 alert handshake failure",
        41 => "sslv3 alert no certificate",
        42 => "sslv3 alert bad certificate",
        43 => "sslv3 alert unsupported certificate",
        44 => "sslv3 alert certificate revoked",
        45 => "sslv3 alert certificate expired",
        46 => "sslv3 alert certificate unknown",
        47 => "sslv3 alert illegal parameter",
        48 => "tlsv1 alert unknown ca",
        49 => "tlsv1 alert access denied",
        50 => "tlsv1 alert decode error",
        51 => "tlsv1 alert decrypt error",
        60 => "tlsv1 alert export restriction",
        70 => "tlsv1 alert protocol version",
        71 => "tlsv1 alert insufficient security",
        80 => "tlsv1 alert internal error",
        86 => "tlsv1 alert inappropriate fallback",
        90 => "tlsv1 alert user cancelled",
        100 => "tlsv1 alert no renegotiation",
        109 => "tlsv13 alert missing extension",
        110 => "tlsv1 unsupported extension",
        111 => "tlsv1 certificate unobtainable",
        112 => "tlsv1 unrecognized name",
        113 => "tlsv1 bad certificate status response",
        115 => "tlsv1 alert unknown psk identity",
        116 => "tlsv13 alert certificate required",
        120 => "tlsv1 alert no application protocol",
        _ => "reason(unknown alert)",
    }
}

impl From<Level> for crate::log::Level {
    fn from(level: Level) -> Self {
        match level {
            Level::Info => crate::log::Level::Info,
            Level::Error => crate::log::Level::Error,
            Level::Crit => crate::log::Level::Crit,
            Level::Alert => crate::log::Level::Alert,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_nginx_says() {
        let text = |e| HandshakeError::Tls(e).to_string();
        assert_eq!(
            text(TlsError::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare)),
            "SSL_do_handshake() failed (SSL: error:0A00006C:SSL routines::bad key share)"
        );
        assert_eq!(
            text(TlsError::AlertReceived(AlertDescription::UnknownCA)),
            "SSL_do_handshake() failed (SSL: error:0A000418:SSL routines::tlsv1 alert unknown ca:SSL alert number 48)"
        );
        assert_eq!(
            text(TlsError::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon)),
            "SSL_do_handshake() failed (SSL: error:0A0000C1:SSL routines::no shared cipher)"
        );
        assert_eq!(
            HandshakeError::Closed(Some(io::Error::from_raw_os_error(libc::ECONNRESET))).to_string(),
            "peer closed connection in SSL handshake (104: Connection reset by peer)"
        );
    }

    #[test]
    fn faults_of_clients_are_information() {
        let e = HandshakeError::Tls(TlsError::DecryptError);
        assert_eq!(e.level(Peer::Client), Level::Info);
        assert_eq!(e.level(Peer::Upstream), Level::Error);
        assert_eq!(HandshakeError::Closed(None).level(Peer::Client), Level::Info);
        assert_eq!(HandshakeError::Tls(TlsError::EncryptError).level(Peer::Client), Level::Crit);
        let reset = io::Error::from_raw_os_error(libc::ECONNRESET);
        assert_eq!(
            io_failure("SSL_read()", &reset, Peer::Upstream),
            ("SSL_read() failed (104: Connection reset by peer)".to_owned(), Level::Error)
        );
        assert!(looks_like_tls(0x16) && looks_like_tls(0x80) && !looks_like_tls(b'G'));
    }
}
