//! Variables of `ngx_stream_ssl`: of the client's TLS connection and certificate.

use crate::stream::session::Session;
use crate::tls::{PeerCertificate, TlsInfo};
use crate::value::Builtin;

macro_rules! of_connection {
    ($name:literal, $get:expr) => {
        Builtin::changeable($name, |s, out| {
            let get: fn(&TlsInfo) -> String = $get;
            s.tls.as_ref().is_some_and(|info| show(&get(info), out))
        })
    };
}

macro_rules! of_certificate {
    ($name:literal, $get:expr) => {
        Builtin::changeable($name, |s, out| {
            let get: fn(&PeerCertificate<'_>) -> String = $get;
            s.tls.as_ref().and_then(|info| info.certificate()).is_some_and(|cert| show(&get(&cert), out))
        })
    };
}

/// The variables.
pub const VARIABLES: &[Builtin<Session>] = &[
    of_connection!("ssl_protocol", |t| t.protocol().into()),
    of_connection!("ssl_cipher", |t| t.cipher().into()),
    of_connection!("ssl_ciphers", TlsInfo::ciphers),
    of_connection!("ssl_curve", TlsInfo::curve),
    of_connection!("ssl_curves", TlsInfo::curves),
    of_connection!("ssl_sigalg", TlsInfo::sigalg),
    of_connection!("ssl_sigalgs", TlsInfo::sigalgs),
    of_connection!("ssl_session_id", TlsInfo::session_id),
    of_connection!("ssl_session_reused", |t| t.session_reused().into()),
    of_connection!("ssl_server_name", |t| t.server_name.as_deref().unwrap_or_default().into()),
    of_connection!("ssl_alpn_protocol", |t| {
        String::from_utf8_lossy(t.alpn.as_deref().unwrap_or_default()).into_owned()
    }),
    of_connection!("ssl_client_verify", TlsInfo::client_verify),
    Builtin::changeable("ssl_client_sigalg", |_, _| false),
    Builtin::changeable("ssl_ech_status", |_, _| false),
    Builtin::changeable("ssl_ech_outer_server_name", |_, _| false),
    of_certificate!("ssl_client_cert", |c| c.folded()),
    of_certificate!("ssl_client_raw_cert", |c| c.raw()),
    of_certificate!("ssl_client_escaped_cert", |c| c.escaped()),
    of_certificate!("ssl_client_s_dn", |c| c.subject()),
    of_certificate!("ssl_client_i_dn", |c| c.issuer()),
    of_certificate!("ssl_client_serial", |c| c.serial()),
    of_certificate!("ssl_client_fingerprint", |c| c.fingerprint()),
    of_certificate!("ssl_client_v_start", |c| c.valid_from()),
    of_certificate!("ssl_client_v_end", |c| c.valid_until()),
    of_certificate!("ssl_client_v_remain", |c| c.days_remaining().to_string()),
];

fn show(value: &str, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(value.as_bytes());
    !value.is_empty()
}
