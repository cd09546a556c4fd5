//! What responders say (RFC 6960 section 4.2), read strictly.

use super::request::{CertId, SHA1};
use crate::tls::der::{self, Reader};
use std::fmt;

/// What became of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Good,
    Revoked,
    Unknown,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Good => "good",
            Status::Revoked => "revoked",
            Status::Unknown => "unknown",
        })
    }
}

/// Why bytes are no response that says anything of certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// It is no OCSPResponse.
    NotAResponse,
    /// The responder would not answer: its responseStatus.
    NotSuccessful(u8),
    /// Nothing is in it.
    NoData,
    /// It is of a type other than id-pkix-ocsp-basic.
    NotBasic,
    /// It is no BasicOCSPResponse.
    Malformed,
}

/// In nginx's words, those of OpenSSL included.
impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NESTED: &str = "error:0688010A:asn1 encoding routines::nested asn1 error:Type=";
        let get1 = "OCSP_response_get1_basic() failed (SSL:";
        match self {
            Unreadable::NotAResponse => write!(f, "d2i_OCSP_RESPONSE() failed (SSL: {NESTED}OCSP_RESPONSE)"),
            Unreadable::NotSuccessful(status) => {
                let words = match status {
                    1 => "malformedrequest",
                    2 => "internalerror",
                    3 => "trylater",
                    5 => "sigrequired",
                    6 => "unauthorized",
                    _ => "(UNKNOWN)",
                };
                write!(f, "OCSP response not successful ({status}: {words})")
            }
            Unreadable::NoData => write!(f, "{get1} error:1380006C:OCSP routines::no response data)"),
            Unreadable::NotBasic => write!(f, "{get1} error:13800068:OCSP routines::not basic response)"),
            Unreadable::Malformed => write!(f, "{get1} {NESTED}OCSP_BASICRESP)"),
        }
    }
}

/// Who signed a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponderId<'a> {
    /// A Name, whole.
    Name(&'a [u8]),
    /// SHA-1 of the key.
    Key(&'a [u8]),
}

/// A BasicOCSPResponse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Basic<'a> {
    /// All of it, for its signature to be checked.
    pub der: &'a [u8],
    pub responder: ResponderId<'a>,
    pub singles: Vec<Single<'a>>,
    /// Certificates that came along, whole.
    pub certificates: Vec<&'a [u8]>,
}

/// What is said of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Single<'a> {
    /// The object identifier of the hash.
    pub hash: &'a [u8],
    pub name_hash: &'a [u8],
    pub key_hash: &'a [u8],
    pub serial: &'a [u8],
    pub status: Status,
    /// GeneralizedTime as it stands.
    pub this_update: &'a [u8],
    /// The same.
    pub next_update: Option<&'a [u8]>,
}

const BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];

/// The OCSPResponse that stands first in `bytes`, without what comes after it.
pub fn first(bytes: &[u8]) -> Option<&[u8]> {
    Reader::new(bytes).any().filter(|e| e.tag == der::SEQUENCE).map(|e| e.whole)
}

/// Reads an OCSPResponse.
///
/// # Errors
/// Whatever it is that makes it say nothing of certificates.
pub fn read(bytes: &[u8]) -> Result<Basic<'_>, Unreadable> {
    let (status, data) = outer(bytes).ok_or(Unreadable::NotAResponse)?;
    if status != 0 {
        return Err(Unreadable::NotSuccessful(status));
    }
    let (kind, octets) = data.ok_or(Unreadable::NoData)?;
    if kind != BASIC {
        return Err(Unreadable::NotBasic);
    }
    basic(octets).ok_or(Unreadable::Malformed)
}

type Typed<'a> = (&'a [u8], &'a [u8]);

fn outer(bytes: &[u8]) -> Option<(u8, Option<Typed<'_>>)> {
    let mut all = Reader::new(bytes);
    let mut response = all.sequence()?;
    all.end()?;
    let &[status] = response.take(der::ENUMERATED)? else { return None };
    let data = match response.optional(CONTEXT_0)? {
        None => None,
        Some(explicit) => {
            let mut explicit = Reader::new(explicit);
            let mut data = explicit.sequence()?;
            explicit.end()?;
            let typed = (data.take(der::OID)?, data.take(der::OCTET_STRING)?);
            data.end()?;
            Some(typed)
        }
    };
    response.end()?;
    Some((status, data))
}

/// Constructed tags of a context: explicit ones, and implicit ones of what is a SEQUENCE itself.
const CONTEXT_0: u8 = 0xa0;
const CONTEXT_1: u8 = 0xa1;
const CONTEXT_2: u8 = 0xa2;
/// Implicit ones of NULL.
const GOOD: u8 = 0x80;
const UNKNOWN: u8 = 0x82;

fn basic(octets: &[u8]) -> Option<Basic<'_>> {
    let mut all = Reader::new(octets);
    let mut parts = all.sequence()?;
    all.end()?;
    let mut data = parts.sequence()?;
    parts.take(der::SEQUENCE)?;
    parts.take(der::BIT_STRING)?;
    let mut certificates = Vec::new();
    if let Some(explicit) = parts.optional(CONTEXT_0)? {
        let mut explicit = Reader::new(explicit);
        let mut list = explicit.sequence()?;
        explicit.end()?;
        while !list.is_empty() {
            certificates.push(list.any().filter(|e| e.tag == der::SEQUENCE)?.whole);
        }
    }
    parts.end()?;

    // Version 1 is the default, and the only one.
    if let Some(version) = data.optional(CONTEXT_0)? {
        Reader::new(version).take(der::INTEGER).filter(|v| *v == [0])?;
    }
    let id = data.any()?;
    let mut inner = Reader::new(id.content);
    let responder = match id.tag {
        CONTEXT_1 => ResponderId::Name(inner.any().filter(|e| e.tag == der::SEQUENCE)?.whole),
        CONTEXT_2 => ResponderId::Key(inner.take(der::OCTET_STRING)?),
        _ => return None,
    };
    inner.end()?;
    data.take(der::GENERALIZED_TIME)?;
    let mut list = data.sequence()?;
    let mut singles = Vec::new();
    while !list.is_empty() {
        singles.push(single(list.sequence()?)?);
    }
    data.optional(CONTEXT_1)?;
    data.end()?;
    Some(Basic { der: octets, responder, singles, certificates })
}

fn single(mut parts: Reader<'_>) -> Option<Single<'_>> {
    let mut id = parts.sequence()?;
    let hash = id.sequence()?.take(der::OID)?;
    let name_hash = id.take(der::OCTET_STRING)?;
    let key_hash = id.take(der::OCTET_STRING)?;
    let serial = id.take(der::INTEGER)?;
    id.end()?;
    let status = parts.any()?;
    let status = match (status.tag, status.content) {
        (GOOD, []) => Status::Good,
        (CONTEXT_1, info) => {
            Reader::new(info).take(der::GENERALIZED_TIME)?;
            Status::Revoked
        }
        (UNKNOWN, []) => Status::Unknown,
        _ => return None,
    };
    let this_update = parts.take(der::GENERALIZED_TIME)?;
    let next_update = match parts.optional(CONTEXT_0)? {
        None => None,
        Some(explicit) => {
            let mut explicit = Reader::new(explicit);
            let time = explicit.take(der::GENERALIZED_TIME)?;
            explicit.end()?;
            Some(time)
        }
    };
    parts.optional(CONTEXT_1)?;
    parts.end()?;
    Some(Single { hash, name_hash, key_hash, serial, status, this_update, next_update })
}

// === impl Basic ===

impl Basic<'_> {
    /// What is said of a certificate.
    pub fn find(&self, id: &CertId) -> Option<&Single<'_>> {
        self.singles.iter().find(|single| {
            single.hash == SHA1
                && single.name_hash == id.name_hash
                && single.key_hash == id.key_hash
                && single.serial == id.serial
        })
    }
}

/// Seconds since 1970 of a GeneralizedTime: `YYYYMMDDHHMMSSZ`, with or without a fraction.
pub fn time(text: &[u8]) -> Option<i64> {
    let (digits, rest) = text.split_at_checked(14)?;
    let fraction = rest.strip_suffix(b"Z")?;
    let is_fraction = |f: &[u8]| f.len() > 1 && f[0] == b'.' && f[1..].iter().all(u8::is_ascii_digit);
    if !fraction.is_empty() && !is_fraction(fraction) {
        return None;
    }
    let mut number = [0i64; 7];
    for (i, pair) in digits.chunks_exact(2).enumerate() {
        let digit = |b: u8| b.is_ascii_digit().then(|| i64::from(b - b'0'));
        number[i] = digit(pair[0])? * 10 + digit(pair[1])?;
    }
    let [century, year, month, day, hour, minute, second] = number;
    let year = century * 100 + year;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=longest).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Years that begin in March have their leap day at the end.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400);
    let days = y * 365 + leaps + (m * 153 + 2) / 5 + day - 1 - 719_468;
    Some(days * 86400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seq(parts: &[&[u8]]) -> Vec<u8> {
        der::encode(der::SEQUENCE, parts)
    }

    #[test]
    fn refusals_have_their_words() {
        let refused = |status| seq(&[&der::encode(der::ENUMERATED, &[&[status]])]);
        let words = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        assert_eq!(words(&refused(3)), "OCSP response not successful (3: trylater)");
        assert_eq!(words(&refused(9)), "OCSP response not successful (9: (UNKNOWN))");
        assert_eq!(
            words(&refused(0)),
            "OCSP_response_get1_basic() failed (SSL: error:1380006C:OCSP routines::no response data)"
        );
        let typed = seq(&[&der::encode(der::OID, &[SHA1]), &der::encode(der::OCTET_STRING, &[])]);
        let other = seq(&[&der::encode(der::ENUMERATED, &[&[0]]), &der::encode(CONTEXT_0, &[&typed])]);
        assert_eq!(read(&other), Err(Unreadable::NotBasic));
        let typed = seq(&[&der::encode(der::OID, &[BASIC]), &der::encode(der::OCTET_STRING, &[])]);
        let empty = seq(&[&der::encode(der::ENUMERATED, &[&[0]]), &der::encode(CONTEXT_0, &[&typed])]);
        assert_eq!(read(&empty), Err(Unreadable::Malformed));
        assert!(words(b"hello").starts_with("d2i_OCSP_RESPONSE() failed (SSL: error:"));
    }

    #[test]
    fn times() {
        assert_eq!(time(b"19700101000000Z"), Some(0));
        assert_eq!(time(b"20000229235959Z"), Some(951_868_799));
        assert_eq!(time(b"20261122080000.5Z"), Some(1_795_334_400));
        for bad in
            ["", "20000230000000Z", "20001301000000Z", "20000101240000Z", "20000101000000", "2000010100000aZ"]
        {
            assert_eq!(time(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(time(b"20000101000000.Z"), None);
        assert_eq!(time(b"20000101000000+0100"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
            let _ = time(&bytes);
        }
    }
}
