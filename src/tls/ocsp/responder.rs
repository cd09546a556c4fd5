//! Where to ask: the URL of a responder.

use crate::conf::url::{self, Use};
use crate::net::Address;
use std::fmt;
use x509_parser::oid_registry::OID_PKIX_ACCESS_DESCRIPTOR_OCSP;
use x509_parser::prelude::{GeneralName, ParsedExtension, X509Certificate};

/// A responder, reached over plain HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Responder {
    /// As the URL has it.
    pub host: Vec<u8>,
    pub port: u16,
    pub uri: Vec<u8>,
    /// Known from the configuration on; empty for a name out of a client's certificate.
    pub addresses: Vec<Address>,
}

/// A URL that cannot be asked; in nginx's words, but for where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadUrl(String);

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadUrl {}

// === impl Responder ===

impl Responder {
    /// Reads a URL. With `resolve` the system is asked for a name's addresses, which may take a while.
    ///
    /// # Errors
    /// [`BadUrl`]
    pub fn new(text: &[u8], resolve: bool) -> Result<Self, BadUrl> {
        let bad = |why: &dyn fmt::Display, url: &[u8]| {
            BadUrl(format!("{why} in OCSP responder \"{}\"", String::from_utf8_lossy(url)))
        };
        let rest = match text.split_at_checked(7) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"http://") && !rest.is_empty() => rest,
            _ => return Err(bad(&"invalid URL prefix", text)),
        };
        let to = Use { default_port: 80, uri_part: true, no_resolve: !resolve, ..Use::default() };
        let mut url = url::parse(rest, &to).map_err(|e| bad(&e, rest))?;
        if url.uri.is_empty() {
            url.uri = b"/".to_vec();
        }
        Ok(Responder { host: url.host, port: url.port, uri: url.uri, addresses: url.addrs })
    }

    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.host).into_owned()
    }
}

/// The URL a certificate gives first for asking about it (RFC 5280 section 4.2.2.1).
pub fn named_by<'a>(cert: &'a X509Certificate<'_>) -> Option<&'a str> {
    cert.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityInfoAccess(access) => {
            access.accessdescs.iter().find_map(|d| match d.access_location {
                GeneralName::URI(url) if d.access_method == OID_PKIX_ACCESS_DESCRIPTOR_OCSP => Some(url),
                _ => None,
            })
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let r = Responder::new(b"HTTP://127.0.0.1:81/a/b", true).unwrap();
        assert_eq!((&r.host[..], r.port, &r.uri[..]), (&b"127.0.0.1"[..], 81, &b"/a/b"[..]));
        assert_eq!(r.addresses[0].to_string(), "127.0.0.1:81");
        let r = Responder::new(b"http://r.example", false).unwrap();
        assert_eq!((r.port, &r.uri[..], r.addresses.len()), (80, &b"/"[..], 0));
        let said = |url: &[u8]| Responder::new(url, true).unwrap_err().to_string();
        for url in ["https://r.example/", "r.example", "http://"] {
            let words = format!("invalid URL prefix in OCSP responder \"{url}\"");
            assert_eq!(said(url.as_bytes()), words);
        }
        assert_eq!(said(b"http://[::1"), "invalid host in OCSP responder \"[::1\"");
        assert_eq!(said(b"http://:80/"), "no host in OCSP responder \":80/\"");
        assert_eq!(said(b"http://no such host/"), "host not found in OCSP responder \"no such host/\"");
    }
}
