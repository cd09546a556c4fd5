//! Distinguished names as text: RFC 2253 as OpenSSL prints it, OpenSSL's older one-line form, and a form to compare
//! by (RFC 5280 section 7.1).

use std::fmt::Write;
use x509_parser::asn1_rs::{Any, Oid, Tag};
use x509_parser::x509::X509Name;

/// OpenSSL's short names of attribute types.
static SHORT_NAMES: &[(&str, &str)] = &[
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.13", "description"),
    ("2.5.4.15", "businessCategory"),
    ("2.5.4.16", "postalAddress"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.18", "postOfficeBox"),
    ("2.5.4.20", "telephoneNumber"),
    ("2.5.4.41", "name"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("2.5.4.44", "generationQualifier"),
    ("2.5.4.45", "x500UniqueIdentifier"),
    ("2.5.4.46", "dnQualifier"),
    ("2.5.4.65", "pseudonym"),
    ("2.5.4.72", "role"),
    ("2.5.4.97", "organizationIdentifier"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.3", "mail"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("1.2.840.113549.1.9.2", "unstructuredName"),
    ("1.2.840.113549.1.9.8", "unstructuredAddress"),
    ("1.3.6.1.4.1.311.60.2.1.1", "jurisdictionL"),
    ("1.3.6.1.4.1.311.60.2.1.2", "jurisdictionST"),
    ("1.3.6.1.4.1.311.60.2.1.3", "jurisdictionC"),
];

fn short_name(oid: &Oid<'_>) -> (String, bool) {
    let id = oid.to_id_string();
    match SHORT_NAMES.iter().find(|(o, _)| *o == id) {
        Some((_, name)) => ((*name).to_owned(), true),
        None => (id, false),
    }
}

/// The text of a string type; `None` for what is no string.
fn text(value: &Any<'_>) -> Option<String> {
    Some(match value.tag() {
        Tag::Utf8String => String::from_utf8_lossy(value.data).into_owned(),
        Tag::BmpString => {
            let units: Vec<u16> =
                value.data.chunks_exact(2).map(|p| u16::from_be_bytes([p[0], p[1]])).collect();
            String::from_utf16_lossy(&units)
        }
        Tag::UniversalString => value
            .data
            .chunks_exact(4)
            .map(|p| char::from_u32(u32::from_be_bytes([p[0], p[1], p[2], p[3]])).unwrap_or('\u{fffd}'))
            .collect(),
        Tag::NumericString
        | Tag::PrintableString
        | Tag::T61String
        | Tag::Ia5String
        | Tag::VisibleString
        | Tag::UtcTime
        | Tag::GeneralizedTime => value.data.iter().map(|b| char::from(*b)).collect(),
        _ => return None,
    })
}

fn escape_rfc2253(text: &str, out: &mut String) {
    let last = text.len().saturating_sub(1);
    for (i, b) in text.bytes().enumerate() {
        match b {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => {
                out.push('\\');
                out.push(char::from(b));
            }
            b'#' if i == 0 => out.push_str("\\#"),
            b' ' if i == 0 || i == last => out.push_str("\\ "),
            0..=0x1f | 0x7f..=0xff => {
                let _ = write!(out, "\\{b:02X}");
            }
            _ => out.push(char::from(b)),
        }
    }
}

fn dump(value: &Any<'_>, out: &mut String) {
    let mut der = vec![value.tag().0 as u8 | if value.header.is_constructed() { 0x20 } else { 0 }];
    match value.data.len() {
        n @ 0..=0x7f => der.push(n as u8),
        n @ 0x80..=0xff => der.extend([0x81, n as u8]),
        n => der.extend([0x82, (n >> 8) as u8, n as u8]),
    }
    der.extend(value.data);
    out.push('#');
    for b in der {
        let _ = write!(out, "{b:02X}");
    }
}

/// `$ssl_client_s_dn` and `$ssl_client_i_dn`: the last part first.
pub fn rfc2253(name: &X509Name<'_>) -> String {
    let rdns: Vec<_> = name.iter().collect();
    let mut out = String::new();
    for (i, rdn) in rdns.iter().rev().enumerate() {
        if i > 0 {
            out.push(',');
        }
        let attributes: Vec<_> = rdn.iter().collect();
        for (i, attribute) in attributes.iter().rev().enumerate() {
            if i > 0 {
                out.push('+');
            }
            let (key, known) = short_name(attribute.attr_type());
            out.push_str(&key);
            out.push('=');
            match text(attribute.attr_value()).filter(|_| known) {
                Some(text) => escape_rfc2253(&text, &mut out),
                None => dump(attribute.attr_value(), &mut out),
            }
        }
    }
    out
}

/// `$ssl_client_s_dn_legacy` and `$ssl_client_i_dn_legacy`.
pub fn oneline(name: &X509Name<'_>) -> String {
    let mut out = String::new();
    for attribute in name.iter_attributes() {
        let (key, _) = short_name(attribute.attr_type());
        let _ = write!(out, "/{key}=");
        for b in attribute.attr_value().data {
            match b {
                b' '..=b'~' => out.push(char::from(*b)),
                _ => {
                    let _ = write!(out, "\\x{b:02X}");
                }
            }
        }
    }
    out
}

/// A form in which equal names are equal: without regard to case, string types and runs of white space.
pub fn canonical(name: &X509Name<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    for rdn in name.iter() {
        // A name is within another only by whole parts (RFC 5280 section 7.1).
        out.push(u8::try_from(rdn.iter().count()).unwrap_or(u8::MAX));
        for attribute in rdn.iter() {
            let value = match text(attribute.attr_value()) {
                Some(text) => {
                    let words: Vec<_> = text.split_ascii_whitespace().collect();
                    words.join(" ").to_ascii_lowercase().into_bytes()
                }
                None => attribute.attr_value().data.to_vec(),
            };
            let key = attribute.attr_type().as_bytes();
            for part in [key, &value] {
                out.extend((part.len() as u32).to_be_bytes());
                out.extend(part);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::keys;
    use x509_parser::prelude::{FromDer, X509Certificate};

    #[test]
    fn prints_names_as_openssl_does() {
        let path = format!("{}/fixtures/tls/client.crt", env!("CARGO_MANIFEST_DIR"));
        let chain = keys::certificates(&path).unwrap();
        let (_, cert) = X509Certificate::from_der(&chain[0]).unwrap();
        assert_eq!(
            rfc2253(cert.subject()),
            "emailAddress=kaethe@example.com,CN=K\\C3\\A4the Example,O=nxr\\, tests,C=DE"
        );
        assert_eq!(rfc2253(cert.issuer()), "CN=nxr test root,O=nxr");
        assert_eq!(
            oneline(cert.subject()),
            "/C=DE/O=nxr, tests/CN=K\\xC3\\xA4the Example/emailAddress=kaethe@example.com"
        );
    }

    fn name(tag: u8, value: &str) -> Vec<u8> {
        let mut v = vec![6, 3, 0x55, 4, 3, tag, value.len() as u8];
        v.extend(value.bytes());
        let seq = |t: u8, body: Vec<u8>| [vec![t, body.len() as u8], body].concat();
        seq(0x30, seq(0x31, seq(0x30, v)))
    }

    #[test]
    fn escapes_and_compares() {
        let print = |v: &str| rfc2253(&X509Name::from_der(&name(0x0c, v)).unwrap().1);
        assert_eq!(print("#a "), "CN=\\#a\\ ");
        assert_eq!(print(" a+b\t\"<>;\\"), "CN=\\ a\\+b\\09\\\"\\<\\>\\;\\\\");
        let canon = |t, v| canonical(&X509Name::from_der(&name(t, v)).unwrap().1);
        assert_eq!(canon(0x0c, "My  CA "), canon(0x13, "my ca"));
        assert_ne!(canon(0x0c, "My CA"), canon(0x0c, "MyCA"));
    }
}
