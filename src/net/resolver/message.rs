//! DNS messages (RFC 1035): writing queries, and reading responses without trusting them.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::Failure;

/// Bytes of a header.
const HEADER: usize = 12;
/// Bytes of a record behind its name, data excluded.
const RECORD: usize = 10;
/// Longest label (RFC 1035, section 2.3.4).
const MAX_LABEL: usize = 63;
/// Longest name. RFC 1035 allows 255 bytes, but servers answer for longer ones, and nginx asks them.
const MAX_NAME: usize = 1024;
/// Steps through labels and pointers of one name.
const MAX_STEPS: usize = 128;
const CNAME: u16 = 5;
const DNAME: u16 = 39;
const FORMAT_ERROR: u16 = 1;
const REFUSED: u16 = 5;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses (RFC 3596).
    Aaaa,
    /// Servers of a service (RFC 2782).
    Srv,
}

impl Kind {
    /// The number of the type.
    pub fn code(self) -> u16 {
        match self {
            Kind::A => 1,
            Kind::Aaaa => 28,
            Kind::Srv => 33,
        }
    }

    fn of(code: u16) -> Option<Kind> {
        [Kind::A, Kind::Aaaa, Kind::Srv].into_iter().find(|kind| kind.code() == code)
    }
}

/// A query that asks for recursion; none where `name` cannot be one. `name` has no dot at its end.
pub fn query(id: u16, name: &[u8], kind: Kind) -> Option<Vec<u8>> {
    let mut packet = Vec::with_capacity(HEADER + name.len() + 6);
    packet.extend_from_slice(&id.to_be_bytes());
    packet.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split(|byte| *byte == b'.') {
        let length = u8::try_from(label.len()).ok().filter(|n| (1..=MAX_LABEL as u8).contains(n))?;
        packet.push(length);
        packet.extend_from_slice(label);
    }
    packet.push(0);
    if packet.len() - HEADER > MAX_NAME {
        return None;
    }
    packet.extend_from_slice(&kind.code().to_be_bytes());
    packet.extend_from_slice(&[0, 1]);
    Some(packet)
}

/// What is wrong with a response, in nginx's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// It ends too early.
    Short,
    /// It is no response, or one that is truncated over TCP.
    Flags {
        /// It came over TCP.
        tcp: bool,
        /// Its id.
        id: u16,
        /// Its flags.
        flags: u16,
    },
    /// The server reports an error that says nothing about the name.
    Error {
        /// The code.
        code: u16,
        /// Its id.
        id: u16,
    },
    /// A name goes on where the response has ended.
    Out,
    /// Anything else.
    Words(&'static str),
    /// A class or type that was not asked for.
    Number(&'static str, u16),
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Invalid::Short => f.write_str("short DNS response"),
            Invalid::Flags { tcp, id, flags } => {
                let over = if *tcp { "TCP" } else { "UDP" };
                write!(f, "invalid {over} DNS response {id} fl:{flags:04X}")
            }
            Invalid::Error { code, id } => write!(f, "DNS error ({}), query id:{id}", Failure(*code)),
            Invalid::Out => f.write_str("name is out of DNS response"),
            Invalid::Words(words) => write!(f, "{words} in DNS response"),
            Invalid::Number(words, number) => write!(f, "{words} {number} in DNS response"),
        }
    }
}

/// A response, read as far as its question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The id of the query.
    pub id: u16,
    /// 0, or what is wrong: 3 for a name that does not exist.
    pub code: u16,
    /// There is more than fits.
    pub truncated: bool,
    /// The name asked for, in lower case.
    pub name: Vec<u8>,
    /// The type asked for.
    pub kind: Kind,
    /// Records that answer.
    pub count: u16,
    /// Where they begin.
    at: usize,
}

/// A server of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Lower ones come first.
    pub priority: u16,
    /// Its share, never 0.
    pub weight: u16,
    /// Where it listens.
    pub port: u16,
    /// Its name.
    pub name: Vec<u8>,
}

/// What the records of a response say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// A
    pub v4: Vec<Ipv4Addr>,
    /// AAAA
    pub v6: Vec<Ipv6Addr>,
    /// SRV
    pub services: Vec<Service>,
    /// The name to ask for instead.
    pub alias: Option<Vec<u8>>,
    /// Seconds; the least of all records.
    pub ttl: u32,
    /// Types that do not belong there.
    pub strange: Vec<u16>,
}

impl Response {
    /// Reads header and question.
    ///
    /// # Errors
    /// What is wrong with them, in the order nginx finds it.
    pub fn read(packet: &[u8], tcp: bool) -> Result<Response, Invalid> {
        let word = |at: usize| word(packet, at).ok_or(Invalid::Short);
        if packet.len() < HEADER {
            return Err(Invalid::Short);
        }
        let (id, flags, questions, count) = (word(0)?, word(2)?, word(4)?, word(6)?);
        let truncated = flags & 0x0200 != 0;
        if flags & 0xf870 != 0x8000 || truncated && tcp {
            return Err(Invalid::Flags { tcp, id, flags });
        }
        let code = flags & 0xf;
        if code == FORMAT_ERROR || code > REFUSED {
            return Err(Invalid::Error { code, id });
        }
        if questions != 1 {
            return Err(Invalid::Words("invalid number of questions"));
        }
        let at = question_end(packet)?;
        let least = at + 4 + usize::from(count) * (2 + RECORD);
        if least > packet.len() {
            return Err(Invalid::Short);
        }
        let class = word(at + 2)?;
        if class != 1 {
            return Err(Invalid::Number("unknown query class", class));
        }
        let kind = word(at)?;
        let kind = Kind::of(kind).ok_or(Invalid::Number("unknown query type", kind))?;
        let name = name(packet, HEADER)?;
        Ok(Response { id, code, truncated, name, kind, count, at: at + 4 })
    }

    /// Reads the records that answer.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn records(&self, packet: &[u8]) -> Result<Records, Invalid> {
        let mut records = Records { ttl: u32::MAX, ..Records::default() };
        let mut at = self.at;
        for _ in 0..self.count {
            at = skip_name(packet, at)?;
            // A record with data: nothing may end with its head.
            if at + RECORD >= packet.len() {
                return Err(Invalid::Short);
            }
            let word = |at: usize| word(packet, at).ok_or(Invalid::Short);
            let (kind, class, length) = (word(at)?, word(at + 2)?, usize::from(word(at + 8)?));
            if class != 1 {
                return Err(Invalid::Number("unexpected RR class", class));
            }
            let ttl = u32::from(word(at + 4)?) << 16 | u32::from(word(at + 6)?);
            // RFC 2181, section 8: the highest bit makes it zero.
            records.ttl = records.ttl.min(if ttl > i32::MAX as u32 { 0 } else { ttl });
            at += RECORD;
            self.take(&mut records, packet, kind, at, length)?;
            at += length;
        }
        records.services.sort_by_key(|service| service.priority);
        Ok(records)
    }

    fn take(
        &self,
        records: &mut Records,
        packet: &[u8],
        kind: u16,
        at: usize,
        length: usize,
    ) -> Result<(), Invalid> {
        let data = || packet.get(at..at + length).ok_or(Invalid::Short);
        match (Kind::of(kind), self.kind) {
            (Some(Kind::A), Kind::Aaaa) => Err(Invalid::Words("unexpected A record")),
            (Some(Kind::Aaaa), Kind::A) => Err(Invalid::Words("unexpected AAAA record")),
            (Some(Kind::A), Kind::A) => {
                let bytes = <[u8; 4]>::try_from(data()?).map_err(|_| Invalid::Words("invalid A record"))?;
                records.v4.push(bytes.into());
                Ok(())
            }
            (Some(Kind::Aaaa), Kind::Aaaa) => {
                let bytes =
                    <[u8; 16]>::try_from(data()?).map_err(|_| Invalid::Words("invalid AAAA record"))?;
                records.v6.push(bytes.into());
                Ok(())
            }
            (Some(Kind::Srv), Kind::Srv) => {
                if data()?.len() < 7 {
                    return Err(Invalid::Short);
                }
                let word = |at: usize| word(packet, at).ok_or(Invalid::Short);
                let (priority, weight, port) = (word(at)?, word(at + 2)?.max(1), word(at + 4)?);
                let name = name(packet, at + 6)?;
                records.services.push(Service { priority, weight, port, name });
                Ok(())
            }
            _ if kind == CNAME => {
                records.alias = Some(name(packet, at)?);
                Ok(())
            }
            _ if kind == DNAME => Ok(()),
            _ => {
                records.strange.push(kind);
                Ok(())
            }
        }
    }
}

fn word(packet: &[u8], at: usize) -> Option<u16> {
    let bytes = packet.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// Where the question's name ends; it must stand there in full.
fn question_end(packet: &[u8]) -> Result<usize, Invalid> {
    let mut at = HEADER;
    loop {
        let length = *packet.get(at).ok_or(Invalid::Short)?;
        if length & 0xc0 != 0 {
            return Err(Invalid::Words("unexpected compression pointer"));
        }
        at += 1 + usize::from(length);
        if length == 0 {
            break;
        }
    }
    match at == HEADER + 1 {
        true => Err(Invalid::Words("zero-length domain name")),
        false => Ok(at),
    }
}

/// Where a record's name ends.
fn skip_name(packet: &[u8], start: usize) -> Result<usize, Invalid> {
    let mut at = start;
    loop {
        let length = *packet.get(at).ok_or(Invalid::Short)?;
        match length {
            0 if at == start => return Err(Invalid::Words("invalid name")),
            0 => return Ok(at + 1),
            _ if length & 0xc0 != 0 => return Ok(at + 2),
            _ => at += 1 + usize::from(length),
        }
    }
}

/// The name at `at`, pointers followed, in lower case with dots between labels; empty for the root.
fn name(packet: &[u8], mut at: usize) -> Result<Vec<u8>, Invalid> {
    let mut name = Vec::new();
    for _ in 0..MAX_STEPS {
        let length = usize::from(*packet.get(at).ok_or(Invalid::Out)?);
        match length & 0xc0 {
            0 if length == 0 => return Ok(name),
            0 => {
                let label = packet.get(at + 1..at + 1 + length).ok_or(Invalid::Out)?;
                if !name.is_empty() {
                    name.push(b'.');
                }
                name.extend(label.iter().map(u8::to_ascii_lowercase));
                if name.len() > MAX_NAME {
                    return Err(Invalid::Words("too long name"));
                }
                at += 1 + length;
            }
            0xc0 => {
                let low = *packet.get(at + 1).ok_or(Invalid::Out)?;
                at = (length & 0x3f) << 8 | usize::from(low);
            }
            _ => return Err(Invalid::Words("invalid label type")),
        }
    }
    Err(Invalid::Words("compression pointers loop"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A response to a query: flags, and records as name, type, ttl and data.
    fn response(query: &[u8], flags: u16, records: &[(&[u8], u16, u32, &[u8])]) -> Vec<u8> {
        let mut packet = query.to_vec();
        packet[2..4].copy_from_slice(&flags.to_be_bytes());
        packet[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
        for (name, kind, ttl, data) in records {
            packet.extend_from_slice(name);
            packet.extend_from_slice(&kind.to_be_bytes());
            packet.extend_from_slice(&[0, 1]);
            packet.extend_from_slice(&ttl.to_be_bytes());
            packet.extend_from_slice(&(data.len() as u16).to_be_bytes());
            packet.extend_from_slice(data);
        }
        packet
    }

    const OWN: &[u8] = &[0xc0, 12];

    fn read(packet: &[u8]) -> Result<Records, String> {
        let response = Response::read(packet, false).map_err(|e| e.to_string())?;
        response.records(packet).map_err(|e| e.to_string())
    }

    #[test]
    fn addresses_aliases_and_services_are_read() {
        let q = query(7, b"a.example.net", Kind::A).unwrap();
        let packet = response(&q, 0x8180, &[(OWN, 1, 60, &[127, 0, 0, 1]), (OWN, 1, 30, &[127, 0, 0, 2])]);
        let head = Response::read(&packet, false).unwrap();
        assert_eq!((head.id, head.code, head.kind, head.count), (7, 0, Kind::A, 2));
        assert_eq!(head.name, b"a.example.net");
        let records = read(&packet).unwrap();
        assert_eq!((records.v4.len(), records.ttl), (2, 30));
        let packet = response(&q, 0x8180, &[(OWN, 5, 1, &[5, b'A', b'l', b'i', b'a', b's', 0xc0, 14])]);
        assert_eq!(read(&packet).unwrap().alias.unwrap(), b"alias.example.net");
        let q = query(7, b"_http._tcp.net", Kind::Srv).unwrap();
        let packet = response(
            &q,
            0x8180,
            &[
                (OWN, 33, 9, &[0, 2, 0, 0, 0x1f, 0x90, 1, b'b', 0]),
                (OWN, 33, 9, &[0, 1, 0, 5, 0, 80, 1, b'a', 0]),
            ],
        );
        let services = read(&packet).unwrap().services;
        assert_eq!((services[0].name.as_slice(), services[0].port), (&b"a"[..], 80));
        assert_eq!((services[1].priority, services[1].weight, services[1].port), (2, 1, 8080));
    }

    #[test]
    fn names_that_cannot_be_are_not_asked_for() {
        let long = [b'a'; 64];
        for name in [&b""[..], b".", b"a..b", b".a", b"a.", &long] {
            assert_eq!(query(1, name, Kind::A), None);
        }
        assert!(query(1, &long[..63], Kind::A).is_some());
        assert_eq!(query(1, [&long[..63]; 17].join(&b'.').as_slice(), Kind::A), None);
    }

    #[test]
    fn broken_responses_are_refused_in_nginx_words() {
        let q = query(7, b"a.b", Kind::A).unwrap();
        let said = |packet: &[u8]| read(packet).unwrap_err();
        assert_eq!(said(&q[..11]), "short DNS response");
        assert_eq!(said(&q), "invalid UDP DNS response 7 fl:0100");
        assert_eq!(said(&response(&q, 0x8181, &[])), "DNS error (1: Format error), query id:7");
        assert_eq!(said(&response(&q, 0x8186, &[])), "DNS error (6: Unknown error), query id:7");
        let mut two = response(&q, 0x8180, &[]);
        two[5] = 2;
        assert_eq!(said(&two), "invalid number of questions in DNS response");
        let mut pointer = response(&q, 0x8180, &[]);
        pointer[12] = 0xc0;
        assert_eq!(said(&pointer), "unexpected compression pointer in DNS response");
        let mut count = response(&q, 0x8180, &[]);
        count[7] = 1;
        assert_eq!(said(&count), "short DNS response");
        let loops = response(&q, 0x8180, &[(OWN, 5, 1, &[0xc0, (q.len() + 12) as u8])]);
        assert_eq!(said(&loops), "compression pointers loop in DNS response");
        let far = response(&q, 0x8180, &[(OWN, 5, 1, &[0xff, 0xff])]);
        assert_eq!(said(&far), "name is out of DNS response");
        let six = response(&q, 0x8180, &[(OWN, 28, 1, &[0; 16])]);
        assert_eq!(said(&six), "unexpected AAAA record in DNS response");
        let three = response(&q, 0x8180, &[(OWN, 1, 1, &[0; 3])]);
        assert_eq!(said(&three), "invalid A record in DNS response");
        assert!(Response::read(&response(&q, 0x8380, &[]), false).unwrap().truncated);
        assert!(Response::read(&response(&q, 0x8380, &[]), true).is_err());
    }

    proptest! {
        #[test]
        fn a_name_comes_back(labels in prop::collection::vec("[a-z0-9_-]{1,20}", 1..8), id: u16) {
            let name = labels.join(".");
            let q = query(id, name.as_bytes(), Kind::Srv).unwrap();
            let packet = response(&q, 0x8180, &[]);
            let read = Response::read(&packet, true).unwrap();
            prop_assert_eq!((read.id, read.kind, read.name), (id, Kind::Srv, name.into_bytes()));
        }

        #[test]
        fn no_bytes_do_harm(packet in prop::collection::vec(any::<u8>(), 0..200), flags in 0x8180u16..0x8190) {
            let _ = read(&packet);
            // Bytes behind a valid beginning reach the records.
            let q = query(1, b"a.example.net", Kind::Srv).unwrap();
            let mut whole = response(&q, flags, &[]);
            whole[6..8].copy_from_slice(&[0, packet.len() as u8 / 16]);
            whole.extend_from_slice(&packet);
            let _ = read(&whole);
        }
    }
}
