//! Asking for a certificate's status: the request and its place in a URL (RFC 6960 section 4.1 and appendix A.1).

use crate::tls::der;
use aws_lc_rs::digest;
use x509_parser::prelude::X509Certificate;

/// id-sha1, the hash that every responder knows (RFC 5019 section 2.1.1).
pub const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
const NULL: &[u8] = &[5, 0];

/// What a certificate is called between a client and a responder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertId {
    /// SHA-1 of the issuer's name.
    pub name_hash: [u8; 20],
    /// SHA-1 of the issuer's key.
    pub key_hash: [u8; 20],
    /// The content of the serial number.
    pub serial: Vec<u8>,
}

// === impl CertId ===

impl CertId {
    pub fn new(cert: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> Self {
        CertId {
            name_hash: sha1(cert.issuer().as_raw()),
            key_hash: sha1(&issuer.public_key().subject_public_key.data),
            serial: cert.raw_serial().to_vec(),
        }
    }

    /// An OCSPRequest for this certificate alone, without extensions.
    pub fn request(&self) -> Vec<u8> {
        let algorithm = der::encode(der::SEQUENCE, &[&der::encode(der::OID, &[SHA1]), NULL]);
        let mut request = der::encode(
            der::SEQUENCE,
            &[
                &algorithm,
                &der::encode(der::OCTET_STRING, &[&self.name_hash]),
                &der::encode(der::OCTET_STRING, &[&self.key_hash]),
                &der::encode(der::INTEGER, &[&self.serial]),
            ],
        );
        // Request, requestList, TBSRequest, OCSPRequest: one in another.
        for _ in 0..4 {
            request = der::encode(der::SEQUENCE, &[&request]);
        }
        request
    }
}

pub fn sha1(bytes: &[u8]) -> [u8; 20] {
    let mut out = [0; 20];
    out.copy_from_slice(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref());
    out
}

/// The request as HTTP: a GET, which caches between here and the responder can answer.
pub fn http(uri: &[u8], host: &[u8], request: &[u8]) -> Vec<u8> {
    let mut out = [b"GET ", uri].concat();
    if !uri.ends_with(b"/") {
        out.push(b'/');
    }
    for c in crate::tls::pem::base64(request).bytes() {
        match c {
            b'+' => out.extend(b"%2B"),
            b'/' => out.extend(b"%2F"),
            b'=' => out.extend(b"%3D"),
            c => out.push(c),
        }
    }
    out.extend(b" HTTP/1.0\r\nHost: ");
    out.extend(host);
    out.extend(b"\r\n\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_what_responders_read() {
        let id = CertId { name_hash: [1; 20], key_hash: [2; 20], serial: vec![0x10, 0] };
        let der = id.request();
        // From OCSPRequest to the AlgorithmIdentifier.
        let head = [0x30, 0x43, 0x30, 0x41, 0x30, 0x3f, 0x30, 0x3d, 0x30, 0x3b, 0x30, 9, 6, 5];
        assert_eq!(der[..head.len()], head);
        assert_eq!(der[der.len() - 4..], [2, 2, 0x10, 0]);
        let text = String::from_utf8(http(b"/ocsp", b"r.example", &[0xfb, 0xff, 0xfe, 0])).unwrap();
        assert_eq!(text, "GET /ocsp/%2B%2F%2F%2BAA%3D%3D HTTP/1.0\r\nHost: r.example\r\n\r\n");
        assert!(http(b"/", b"r", b"").starts_with(b"GET / HTTP/1.0\r\n"));
    }
}
