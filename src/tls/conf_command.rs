//! `ssl_conf_command`: OpenSSL's configuration commands (SSL_CONF_cmd(3)), checked as OpenSSL checks them and put into
//! terms of the other settings where there is something to set.

use super::ciphers::{self, Protocol};
use super::error::Error;
use super::groups;

/// What a command comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfCommand {
    /// A new value for `ciphersuites`.
    Ciphersuites(String),
    /// A new value for `ciphers`.
    Ciphers(String),
    /// A new value for `curves`.
    Curves(String),
    MinProtocol(Option<Protocol>),
    MaxProtocol(Option<Protocol>),
    /// `Options ServerPreference`, which is `ssl_prefer_server_ciphers`.
    PreferServerCiphers(bool),
    /// `Options SessionTicket`, which is `ssl_session_tickets`.
    SessionTickets(bool),
    /// A file with a chain, the leaf first.
    Certificate,
    /// A file with a key.
    PrivateKey,
    /// Nothing to do: TLS here is as the command wants it.
    Nothing,
    /// Right, but this program cannot do it: worth a warning.
    Lacking,
}

const BAD_VALUE: &str = "error:0A000180:SSL routines::bad value";

/// Checks one command. `Options` may come to several things.
pub fn conf_command(name: &str, value: &str) -> Result<Vec<ConfCommand>, Error> {
    let fail = |before: &str| {
        let before = if before.is_empty() { String::new() } else { format!("{before} ") };
        Error::ConfCommand {
            name: name.to_owned(),
            value: value.to_owned(),
            ssl: format!("{before}{BAD_VALUE}:cmd={name}, value={value}"),
        }
    };
    let one = match name.to_ascii_lowercase().as_str() {
        "ciphersuites" => {
            ciphers::ciphersuites(value)?;
            ConfCommand::Ciphersuites(value.to_owned())
        }
        "cipherstring" => match ciphers::ciphers(value) {
            Ok(_) => ConfCommand::Ciphers(value.to_owned()),
            Err(Error::Ciphers { ssl, .. }) => return Err(fail(ssl)),
            Err(e) => return Err(e),
        },
        "groups" | "curves" => match groups::groups(value) {
            Err(Error::Curve { group, .. }) => {
                let why = "error:0A080106:SSL routines::passed invalid argument:group";
                return Err(fail(&format!("{why} '{group}' cannot be set")));
            }
            Err(Error::NoUsableCurves { .. }) => ConfCommand::Lacking,
            Err(e) => return Err(e),
            Ok(_) => ConfCommand::Curves(value.to_owned()),
        },
        "minprotocol" => ConfCommand::MinProtocol(protocol(value).ok_or_else(|| fail(""))?),
        "maxprotocol" => ConfCommand::MaxProtocol(protocol(value).ok_or_else(|| fail(""))?),
        "options" => {
            return value.split(',').map(|o| option(o.trim()).ok_or_else(|| fail(""))).collect();
        }
        "certificate" => ConfCommand::Certificate,
        "privatekey" => ConfCommand::PrivateKey,
        "protocol"
        | "signaturealgorithms"
        | "clientsignaturealgorithms"
        | "dhparameters"
        | "ecdhparameters"
        | "recordpadding"
        | "numtickets"
        | "serverinfofile"
        | "chaincafile"
        | "chaincapath"
        | "verifycafile"
        | "verifycapath"
        | "requestcafile"
        | "requestcapath"
        | "clientcafile"
        | "clientcapath"
        | "verifymode"
        | "verifycastore"
        | "chaincastore"
        | "requestcastore" => ConfCommand::Lacking,
        _ => {
            return Err(Error::ConfCommand {
                name: name.to_owned(),
                value: value.to_owned(),
                ssl: format!("error:0A000182:SSL routines::unknown cmd name:cmd={name}"),
            });
        }
    };
    Ok(vec![one])
}

/// A protocol, or `None` for "none": no limit.
fn protocol(value: &str) -> Option<Option<Protocol>> {
    Some(Some(match value {
        "None" => return Some(None),
        "SSLv3" => Protocol::SslV3,
        "TLSv1" => Protocol::TlsV1,
        "TLSv1.1" => Protocol::TlsV1_1,
        "TLSv1.2" => Protocol::TlsV1_2,
        "TLSv1.3" => Protocol::TlsV1_3,
        _ => return None,
    }))
}

fn option(word: &str) -> Option<ConfCommand> {
    let (on, bare) = match word.strip_prefix('-') {
        Some(bare) => (false, bare),
        None => (true, word.strip_prefix('+').unwrap_or(word)),
    };
    Some(match bare.to_ascii_lowercase().as_str() {
        "serverpreference" => ConfCommand::PreferServerCiphers(on),
        "sessionticket" => ConfCommand::SessionTickets(on),
        // Neither compression nor renegotiation nor old bugs exist here, and new DH keys are made every time.
        "emptyfragments"
        | "bugs"
        | "ecdhsingle"
        | "dhsingle"
        | "encryptthenmac"
        | "antireplay"
        | "extendedmastersecret"
        | "middleboxcompat" => ConfCommand::Nothing,
        "norenegotiation" | "noresumptiononrenegotiation" => match on {
            true => ConfCommand::Nothing,
            false => ConfCommand::Lacking,
        },
        "compression"
        | "unsafelegacyrenegotiation"
        | "unsafelegacyserverconnect"
        | "clientrenegotiation"
        | "prioritizechacha"
        | "allownodhekex"
        | "preferno_dhe_kex"
        | "canames"
        | "ktls" => match on {
            true => ConfCommand::Lacking,
            false => ConfCommand::Nothing,
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_become_settings() {
        let one = |name, value| conf_command(name, value).unwrap();
        assert_eq!(one("MinProtocol", "TLSv1.2"), [ConfCommand::MinProtocol(Some(Protocol::TlsV1_2))]);
        assert_eq!(one("Groups", "X25519"), [ConfCommand::Curves("X25519".to_owned())]);
        assert_eq!(
            one("Options", "ServerPreference,-SessionTicket,-Compression,KTLS"),
            [
                ConfCommand::PreferServerCiphers(true),
                ConfCommand::SessionTickets(false),
                ConfCommand::Nothing,
                ConfCommand::Lacking
            ]
        );
        assert_eq!(one("SignatureAlgorithms", "RSA+SHA256"), [ConfCommand::Lacking]);
    }

    #[test]
    fn refuses_what_openssl_refuses() {
        for (name, value, ssl) in [
            ("Foo", "bar", "error:0A000182:SSL routines::unknown cmd name:cmd=Foo"),
            ("Options", "bar", "error:0A000180:SSL routines::bad value:cmd=Options, value=bar"),
            (
                "CipherString",
                "bar",
                "error:0A0000B9:SSL routines::no cipher match error:0A000180:SSL routines::bad value:cmd=CipherString, value=bar",
            ),
            (
                "Groups",
                "bar",
                "error:0A080106:SSL routines::passed invalid argument:group 'bar' cannot be set error:0A000180:SSL routines::bad value:cmd=Groups, value=bar",
            ),
            ("MinProtocol", "bar", "error:0A000180:SSL routines::bad value:cmd=MinProtocol, value=bar"),
        ] {
            assert_eq!(
                conf_command(name, value).unwrap_err().to_string(),
                format!("SSL_CONF_cmd(\"{name}\", \"{value}\") failed (SSL: {ssl})")
            );
        }
    }
}
