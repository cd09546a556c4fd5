//! The PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt): reading it as it arrives, its TLVs, and
//! writing it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Address;
use crate::conf::units;

/// Bytes of a header at most; a longer one is refused.
pub const MAX_HEADER: usize = 4096;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of a version 2 header before the addresses.
const V2_FIXED: usize = 16;
const TLV_SSL: u8 = 0x20;
const TLV_CRC32C: u8 = 0x03;
/// Bytes of an SSL TLV before its own TLVs: flags of the client, result of the verification.
const SSL_FIXED: usize = 5;

const TLVS: &[(&[u8], u8)] =
    &[(b"alpn", 0x01), (b"authority", 0x02), (b"unique_id", 0x05), (b"ssl", TLV_SSL), (b"netns", 0x30)];
const SSL_TLVS: &[(&[u8], u8)] =
    &[(b"version", 0x21), (b"cn", 0x22), (b"cipher", 0x23), (b"sig_alg", 0x24), (b"key_alg", 0x25)];

/// What a header says of the connection. Addresses of version 1 are as they were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The client's address, without port.
    pub source: Box<[u8]>,
    /// The address the client connected to, without port.
    pub destination: Box<[u8]>,
    /// The client's port.
    pub source_port: u16,
    /// The port the client connected to.
    pub destination_port: u16,
    /// Type, length and value triples of version 2.
    tlvs: Box<[u8]>,
}

/// Why the bytes are no header. `Display` gives nginx's words; they come after "while reading PROXY protocol".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Neither version; the first line of what came.
    Broken(Box<[u8]>),
    /// The signature of version 2 with another version in it.
    Version(u8),
    /// More than [`MAX_HEADER`] bytes.
    TooLarge,
    /// The addresses do not fit the length; nginx says nothing of it.
    Short,
}

/// The header at the start of `bytes`, where it is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// None for `UNKNOWN`, `LOCAL`, and what is neither TCP over IPv4 nor over IPv6.
    pub header: Option<Header>,
    /// Bytes it takes.
    pub len: usize,
}

/// Reads the header at the start of `bytes`; `None` when more bytes are needed.
pub fn read(bytes: &[u8]) -> Result<Option<Read>, Error> {
    let head = &bytes[..bytes.len().min(SIGNATURE.len())];
    if SIGNATURE.starts_with(head) {
        return read_v2(bytes);
    }
    match read_v1(bytes) {
        Ok(read) => Ok(Some(read)),
        Err(Stop::More) if bytes.len() < MAX_HEADER => Ok(None),
        Err(_) => Err(broken(bytes)),
    }
}

/// The error of bytes that end before the header does.
pub fn broken(bytes: &[u8]) -> Error {
    let line = bytes.iter().position(|c| matches!(c, b'\r' | b'\n')).unwrap_or(bytes.len());
    Error::Broken(bytes[..line].into())
}

enum Stop {
    More,
    Bad,
}

fn read_v1(bytes: &[u8]) -> Result<Read, Stop> {
    let mut rest = bytes;
    expect(&mut rest, b"PROXY ")?;
    if rest.first() == Some(&b'U') {
        expect(&mut rest, b"UNKNOWN")?;
        let end = memchr::memmem::find(rest, b"\r\n").ok_or(Stop::More)?;
        return Ok(Read { header: None, len: bytes.len() - rest.len() + end + 2 });
    }
    expect(&mut rest, b"TCP")?;
    match take(&mut rest)? {
        b'4' | b'6' => {}
        _ => return Err(Stop::Bad),
    }
    expect(&mut rest, b" ")?;
    let source = address(&mut rest)?;
    let destination = address(&mut rest)?;
    let source_port = port(&mut rest, b' ')?;
    let destination_port = port(&mut rest, b'\r')?;
    expect(&mut rest, b"\n")?;
    let header = Header { source, destination, source_port, destination_port, tlvs: Box::default() };
    Ok(Read { header: Some(header), len: bytes.len() - rest.len() })
}

fn expect(rest: &mut &[u8], text: &[u8]) -> Result<(), Stop> {
    match rest.strip_prefix(text) {
        Some(after) => {
            *rest = after;
            Ok(())
        }
        None if text.starts_with(rest) => Err(Stop::More),
        None => Err(Stop::Bad),
    }
}

fn take(rest: &mut &[u8]) -> Result<u8, Stop> {
    let (first, after) = rest.split_first().ok_or(Stop::More)?;
    *rest = after;
    Ok(*first)
}

fn address(rest: &mut &[u8]) -> Result<Box<[u8]>, Stop> {
    let len = rest.iter().take_while(|c| c.is_ascii_hexdigit() || matches!(c, b':' | b'.')).count();
    let (text, after) = rest.split_at(len);
    *rest = after;
    expect(rest, b" ")?;
    Ok(text.into())
}

fn port(rest: &mut &[u8], end: u8) -> Result<u16, Stop> {
    let len = memchr::memchr(end, rest).ok_or(Stop::More)?;
    let (text, after) = rest.split_at(len);
    *rest = &after[1..];
    units::number(text).and_then(|n| u16::try_from(n).ok()).ok_or(Stop::Bad)
}

fn read_v2(bytes: &[u8]) -> Result<Option<Read>, Error> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<V2_FIXED>() else { return Ok(None) };
    let [.., version_command, family, high, low] = *fixed;
    if version_command >> 4 != 2 {
        return Err(Error::Version(version_command >> 4));
    }
    let len = usize::from(u16::from_be_bytes([high, low]));
    if V2_FIXED + len > MAX_HEADER {
        return Err(Error::TooLarge);
    }
    let Some(body) = rest.get(..len) else { return Ok(None) };
    let mut read = Read { header: None, len: V2_FIXED + len };
    // PROXY over a stream; anything else keeps the connection's own addresses.
    if version_command & 15 != 1 || family & 15 != 1 {
        return Ok(Some(read));
    }
    read.header = match family >> 4 {
        1 => Some(v2_header::<4>(body)?),
        2 => Some(v2_header::<16>(body)?),
        _ => None,
    };
    Ok(Some(read))
}

fn v2_header<const N: usize>(body: &[u8]) -> Result<Header, Error> {
    let piece = |at: usize, len: usize| body.get(at..at + len).ok_or(Error::Short);
    let text = |bytes: &[u8]| -> Box<[u8]> {
        let ip = match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
            (Ok(v4), _) => IpAddr::V4(Ipv4Addr::from(v4)),
            (_, Ok(v6)) => IpAddr::V6(Ipv6Addr::from(v6)),
            _ => return Box::default(),
        };
        ip.to_string().into_bytes().into()
    };
    let port = |at: usize| Ok(piece(at, 2)?.iter().fold(0, |port, byte| port << 8 | u16::from(*byte)));
    Ok(Header {
        source: text(piece(0, N)?),
        destination: text(piece(N, N)?),
        source_port: port(2 * N)?,
        destination_port: port(2 * N + 2)?,
        tlvs: body.get(2 * N + 4..).unwrap_or_default().into(),
    })
}

/// Why `$proxy_protocol_tlv_*` has no value, in nginx's words; all but `Absent` are logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoTlv {
    /// The header does not have it.
    Absent,
    /// `0x` and no hexadecimal number.
    Invalid,
    /// A name that is not known.
    Unknown,
    /// The header's TLVs are damaged.
    Broken,
}

// === impl Header ===

impl Header {
    /// The value of the TLV called `name`: `alpn`, `ssl_cn`, `0xe1`, `ssl_0x21`, ...; `ssl_verify` is a number.
    pub fn tlv(&self, name: &[u8]) -> Result<Vec<u8>, NoTlv> {
        let Some(name) = name.strip_prefix(b"ssl_") else { return named(&self.tlvs, name, TLVS) };
        let ssl = find(&self.tlvs, TLV_SSL)?;
        let Some((fixed, tlvs)) = ssl.split_at_checked(SSL_FIXED) else { return Err(NoTlv::Absent) };
        if name == b"verify" {
            let verify = fixed[1..].iter().fold(0u32, |n, byte| n << 8 | u32::from(*byte));
            return Ok(verify.to_string().into_bytes());
        }
        named(tlvs, name, SSL_TLVS)
    }
}

fn named(tlvs: &[u8], name: &[u8], table: &[(&[u8], u8)]) -> Result<Vec<u8>, NoTlv> {
    let kind = match name.strip_prefix(b"0x") {
        Some(digits) => units::hex(digits).ok_or(NoTlv::Invalid)?,
        None => table.iter().find(|entry| entry.0 == name).ok_or(NoTlv::Unknown)?.1.into(),
    };
    let kind = u8::try_from(kind).map_err(|_| NoTlv::Absent)?;
    find(tlvs, kind).map(<[u8]>::to_vec)
}

fn find(mut tlvs: &[u8], kind: u8) -> Result<&[u8], NoTlv> {
    while !tlvs.is_empty() {
        let Some(([found, high, low], rest)) = tlvs.split_first_chunk::<3>() else {
            return Err(NoTlv::Broken);
        };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, rest) = rest.split_at_checked(len).ok_or(NoTlv::Broken)?;
        if *found == kind {
            return Ok(value);
        }
        tlvs = rest;
    }
    Err(NoTlv::Absent)
}

impl NoTlv {
    /// What the error log says of it.
    pub fn message(&self, name: &[u8]) -> Option<String> {
        let name = String::from_utf8_lossy(name);
        match self {
            NoTlv::Absent => None,
            NoTlv::Invalid => Some(format!("invalid PROXY protocol TLV \"{name}\"")),
            NoTlv::Unknown => Some(format!("unknown PROXY protocol TLV \"{name}\"")),
            NoTlv::Broken => Some("broken PROXY protocol TLV".into()),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Broken(line) => write!(f, "broken header: \"{}\"", crate::log::bytes(line)),
            Error::Version(version) => write!(f, "unknown PROXY protocol version: {version}"),
            Error::TooLarge => f.write_str("header is too large"),
            Error::Short => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// The line of version 1. Addresses that are not both of one family of the internet are `UNKNOWN`.
pub fn write_v1(source: &Address, destination: &Address) -> Vec<u8> {
    let (Address::Inet(source), Address::Inet(destination)) = (source, destination) else {
        return b"PROXY UNKNOWN\r\n".to_vec();
    };
    let family = if source.is_ipv4() { '4' } else { '6' };
    let (from, to) = (source.ip(), destination.ip());
    format!("PROXY TCP{family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
}

/// What a version 2 header says of the client's TLS connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ssl {
    /// Flags: 1 TLS, 2 certificate in this connection, 4 in this session.
    pub client: u8,
    /// Result of the verification; 0 is success.
    pub verify: u32,
    /// Type (0x21 to 0x25) and value of each part.
    pub parts: Vec<(u8, Vec<u8>)>,
}

/// The header of version 2, ending in a checksum (CRC-32C). `tlvs` come first, in order.
pub fn write_v2(source: &Address, destination: &Address, tlvs: &[(u8, &[u8])], ssl: Option<&Ssl>) -> Vec<u8> {
    let mut out = SIGNATURE.to_vec();
    match (source, destination) {
        (Address::Inet(source), Address::Inet(destination)) => write_addresses(&mut out, source, destination),
        // LOCAL: the receiver takes the connection's own addresses.
        _ => out.extend_from_slice(&[0x20, 0, 0, 0]),
    }
    for (kind, value) in tlvs {
        push_tlv(&mut out, *kind, value);
    }
    if let Some(ssl) = ssl {
        let mut value = vec![ssl.client];
        value.extend_from_slice(&ssl.verify.to_be_bytes());
        for (kind, part) in &ssl.parts {
            push_tlv(&mut value, *kind, part);
        }
        push_tlv(&mut out, TLV_SSL, &value);
    }
    push_tlv(&mut out, TLV_CRC32C, &[0; 4]);
    let len = (out.len() - V2_FIXED) as u16;
    out[14..16].copy_from_slice(&len.to_be_bytes());
    let sum = crc32c(&out).to_be_bytes();
    let at = out.len() - sum.len();
    out[at..].copy_from_slice(&sum);
    out
}

fn write_addresses(out: &mut Vec<u8>, source: &SocketAddr, destination: &SocketAddr) {
    let (from, to) = (source.ip().to_canonical(), destination.ip().to_canonical());
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out.extend_from_slice(&[0x21, 0x11, 0, 0]);
            out.extend_from_slice(&from.octets());
            out.extend_from_slice(&to.octets());
        }
        _ => {
            out.extend_from_slice(&[0x21, 0x21, 0, 0]);
            for ip in [source.ip(), destination.ip()] {
                let ip = match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                out.extend_from_slice(&ip.octets());
            }
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
}

fn push_tlv(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let len = value.len().min(usize::from(u16::MAX));
    out.push(kind);
    out.extend_from_slice(&(len as u16).to_be_bytes());
    out.extend_from_slice(&value[..len]);
}

/// CRC-32C (RFC 9260 appendix A), bit by bit: it runs over some dozens of bytes a connection.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0x82F6_3B78 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn inet(text: &str) -> Address {
        Address::Inet(text.parse().unwrap())
    }

    fn header(bytes: &[u8]) -> Header {
        read(bytes).unwrap().unwrap().header.unwrap()
    }

    #[test]
    fn version_1() {
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.2 123 5678\r\nrest";
        let found = read(line).unwrap().unwrap();
        assert_eq!(found.len, line.len() - 4);
        let h = found.header.unwrap();
        assert_eq!((&*h.source, h.source_port), (&b"192.0.2.1"[..], 123));
        assert_eq!((&*h.destination, h.destination_port), (&b"198.51.100.2"[..], 5678));
        assert_eq!(&*header(b"PROXY TCP6 2001:DB8::1 ::1 1 2\r\n").source, b"2001:DB8::1");
        let unknown = read(b"PROXY UNKNOWN whatever 1 2\r\nx").unwrap().unwrap();
        assert_eq!((unknown.header, unknown.len), (None, 28));
    }

    #[test]
    fn what_is_no_header_is_said_in_nginx_words() {
        let words = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        assert_eq!(words(b"GET / HTTP/1.0\r\n"), "broken header: \"GET / HTTP/1.0\"");
        assert_eq!(words(b"PROXY TCP5 a"), "broken header: \"PROXY TCP5 a\"");
        assert_eq!(
            words(b"PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n"),
            "broken header: \"PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\""
        );
        assert_eq!(words(b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\rx").split('"').nth(1).unwrap().len(), 30);
        let mut v3 = write_v2(&inet("1.2.3.4:5"), &inet("1.2.3.4:6"), &[], None);
        v3[12] = 0x31;
        assert_eq!(words(&v3), "unknown PROXY protocol version: 3");
        v3[12] = 0x21;
        v3[14] = 0x10;
        assert_eq!(words(&v3), "header is too large");
        let mut short = write_v2(&inet("1.2.3.4:5"), &inet("1.2.3.4:6"), &[], None);
        short[14..16].copy_from_slice(&[0, 5]);
        assert_eq!(read(&short), Err(Error::Short));
        assert_eq!(broken(b"PROXY TC").to_string(), "broken header: \"PROXY TC\"");
        assert!(matches!(read(&[b'1'; MAX_HEADER]), Err(Error::Broken(_))));
    }

    #[test]
    fn tlvs_by_name_and_number() {
        let ssl =
            Ssl { client: 1, verify: 18, parts: vec![(0x21, b"TLSv1.3".to_vec()), (0x22, b"me".to_vec())] };
        let tlvs: [(u8, &[u8]); 3] = [(0x02, b"example.com"), (0x01, b"h2"), (0xe1, b"own")];
        let bytes = write_v2(&inet("1.2.3.4:5"), &inet("5.6.7.8:9"), &tlvs, Some(&ssl));
        let h = header(&bytes);
        let get = |name: &str| h.tlv(name.as_bytes());
        assert_eq!(get("authority").unwrap(), b"example.com");
        assert_eq!(get("alpn").unwrap(), b"h2");
        assert_eq!(get("0xe1").unwrap(), b"own");
        assert_eq!(get("0xE1").unwrap(), b"own");
        assert_eq!(get("ssl_verify").unwrap(), b"18");
        assert_eq!(get("ssl_version").unwrap(), b"TLSv1.3");
        assert_eq!(get("ssl_cn").unwrap(), b"me");
        assert_eq!(get("ssl_0x22").unwrap(), b"me");
        assert_eq!(get("unique_id"), Err(NoTlv::Absent));
        assert_eq!(get("ssl_cipher"), Err(NoTlv::Absent));
        assert_eq!(
            get("nothing").unwrap_err().message(b"nothing").unwrap(),
            "unknown PROXY protocol TLV \"nothing\""
        );
        assert_eq!(get("0xzz").unwrap_err().message(b"0xzz").unwrap(), "invalid PROXY protocol TLV \"0xzz\"");
        let damaged = Header { tlvs: [1, 0, 9].into(), ..h };
        assert_eq!(damaged.tlv(b"authority"), Err(NoTlv::Broken));
    }

    #[test]
    fn families_and_checksum() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(write_v1(&inet("[::1]:5"), &inet("[::1]:6")), b"PROXY TCP6 ::1 ::1 5 6\r\n");
        assert_eq!(write_v1(&Address::Unix("".into()), &inet("1.1.1.1:1")), b"PROXY UNKNOWN\r\n");
        let mixed = header(&write_v2(&inet("1.2.3.4:5"), &inet("[2001:db8::1]:6"), &[], None));
        assert_eq!(&*mixed.source, b"::ffff:1.2.3.4");
        let mapped = header(&write_v2(&inet("[::ffff:1.2.3.4]:5"), &inet("[::ffff:1.2.3.5]:6"), &[], None));
        assert_eq!(&*mapped.source, b"1.2.3.4");
        let local = write_v2(&Address::Unix("".into()), &inet("1.1.1.1:1"), &[], None);
        assert_eq!(read(&local).unwrap().unwrap(), Read { header: None, len: local.len() });
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80), v2 in any::<bool>()) {
            let bytes = if v2 { [SIGNATURE, &[0x21, 0x11, 0][..], &bytes].concat() } else { bytes };
            if let Ok(Some(found)) = read(&bytes) {
                prop_assert!(found.len <= bytes.len());
                if let Some(h) = found.header {
                    let _ = h.tlv(b"ssl_cn");
                }
            }
        }

        #[test]
        fn what_is_written_is_read_however_it_is_cut(
            from in any::<([u8; 4], u16)>(), to in any::<([u8; 4], u16)>(), v2 in any::<bool>(),
        ) {
            let address = |(ip, port): ([u8; 4], u16)| Address::Inet(SocketAddr::new(ip.into(), port));
            let (from, to) = (address(from), address(to));
            let bytes = if v2 { write_v2(&from, &to, &[(0xe0, b"x")], None) } else { write_v1(&from, &to) };
            for cut in 0..bytes.len() {
                prop_assert_eq!(read(&bytes[..cut]), Ok(None));
            }
            let found = read(&[&bytes[..], b"more"].concat()).unwrap().unwrap();
            prop_assert_eq!(found.len, bytes.len());
            let h = found.header.unwrap();
            prop_assert_eq!(String::from_utf8_lossy(&h.source).into_owned(), from.host());
            prop_assert_eq!(Some(h.destination_port), to.port());
        }

        #[test]
        fn lines_that_differ_in_one_byte_do_not_panic(at in 0usize..60, byte in any::<u8>()) {
            let mut line = write_v1(&inet("[2001:db8::2]:65535"), &inet("[2001:db8::3]:1"));
            let at = at % line.len();
            line[at] = byte;
            let _ = read(&line);
        }
    }
}
