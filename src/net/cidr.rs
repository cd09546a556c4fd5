//! Networks and addresses as nginx reads them in `allow`, `geo`, `set_real_ip_from` and forwarded headers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Address;

/// A set of client addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cidr {
    /// An IPv4 network: address and mask.
    V4(u32, u32),
    /// An IPv6 network: address and mask.
    V6(u128, u128),
    /// Every unix socket.
    Unix,
}

/// A network, and whether its address had bits outside of its mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The network, those bits cleared.
    pub cidr: Cidr,
    /// `low address bits of ... are meaningless`
    pub low_bits: bool,
}

/// The first `bits` bits of 128.
fn mask128(bits: u32) -> u128 {
    if bits == 0 { 0 } else { u128::MAX << (128 - bits) }
}

impl Cidr {
    /// Reads `address` or `address/bits`.
    pub fn parse(text: &[u8]) -> Option<Parsed> {
        let (address, bits) = match memchr::memchr(b'/', text) {
            Some(slash) => (&text[..slash], Some(crate::conf::units::number(&text[slash + 1..])?)),
            None => (text, None),
        };
        let parsed = match parse_ip(address)? {
            IpAddr::V4(ip) => {
                let bits = u32::try_from(bits.unwrap_or(32)).ok().filter(|bits| *bits <= 32)?;
                let (ip, mask) = (ip.to_bits(), u32::MAX.checked_shl(32 - bits).unwrap_or(0));
                Parsed { cidr: Cidr::V4(ip & mask, mask), low_bits: ip & !mask != 0 }
            }
            IpAddr::V6(ip) => {
                let bits = u32::try_from(bits.unwrap_or(128)).ok().filter(|bits| *bits <= 128)?;
                let (ip, mask) = (ip.to_bits(), mask128(bits));
                Parsed { cidr: Cidr::V6(ip & mask, mask), low_bits: ip & !mask != 0 }
            }
        };
        Some(parsed)
    }

    /// The network of one address.
    pub fn host(ip: IpAddr) -> Cidr {
        match ip {
            IpAddr::V4(ip) => Cidr::V4(ip.to_bits(), u32::MAX),
            IpAddr::V6(ip) => Cidr::V6(ip.to_bits(), u128::MAX),
        }
    }

    /// Whether `address` is in it; IPv4 mapped to IPv6 is IPv4.
    pub fn contains(&self, address: &Address) -> bool {
        match (self, address) {
            (Cidr::Unix, Address::Unix(_)) => true,
            (_, Address::Inet(socket)) => self.contains_ip(socket.ip()),
            _ => false,
        }
    }

    /// See [`Cidr::contains`].
    pub fn contains_ip(&self, ip: IpAddr) -> bool {
        match (self, ip.to_canonical()) {
            (Cidr::V4(net, mask), IpAddr::V4(ip)) => ip.to_bits() & mask == *net,
            (Cidr::V6(net, mask), IpAddr::V6(ip)) => ip.to_bits() & mask == *net,
            _ => false,
        }
    }
}

/// Reads an address without port. As in nginx an octet may be empty, and 255.255.255.255 is none.
pub fn parse_ip(text: &[u8]) -> Option<IpAddr> {
    parse_v4(text).map(IpAddr::V4).or_else(|| {
        let text = std::str::from_utf8(text).ok()?;
        text.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    })
}

fn parse_v4(text: &[u8]) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut at = 0;
    for &c in text {
        match c {
            b'0'..=b'9' => octets[at] = octets[at].checked_mul(10)?.checked_add(c - b'0')?,
            b'.' if at < 3 => at += 1,
            _ => return None,
        }
    }
    (at == 3 && octets != [255; 4]).then(|| octets.into())
}

/// Reads `address`, `address:port`, `[address]` or `[address]:port`; the port is 0 where there is none.
pub fn parse_ip_port(text: &[u8]) -> Option<SocketAddr> {
    if let Some(ip) = parse_ip(text) {
        return Some(SocketAddr::new(ip, 0));
    }
    let (ip, port) = if let Some(inner) = text.strip_prefix(b"[") {
        let end = memchr::memchr(b']', inner)?;
        match &inner[end + 1..] {
            [] => return Some(SocketAddr::new(parse_ip(&inner[..end])?, 0)),
            [b':', port @ ..] => (&inner[..end], port),
            _ => return None,
        }
    } else {
        let colon = memchr::memchr(b':', text)?;
        (&text[..colon], &text[colon + 1..])
    };
    let port = crate::conf::units::number(port).and_then(|port| u16::try_from(port).ok())?;
    if port == 0 {
        return None;
    }
    Some(SocketAddr::new(parse_ip(ip)?, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(net: &str, ip: &str) -> bool {
        Cidr::parse(net.as_bytes()).unwrap().cidr.contains_ip(ip.parse().unwrap())
    }

    #[test]
    fn networks() {
        assert!(contains("10.0.0.0/8", "10.1.2.3") && !contains("10.0.0.0/8", "11.1.2.3"));
        assert!(contains("10.0.0.0/8", "::ffff:10.1.2.3") && contains("0.0.0.0/0", "1.2.3.4"));
        assert!(contains("2001:db8::/32", "2001:db8:1::1") && !contains("::/0", "1.2.3.4"));
        assert!(contains("127.0.0.1", "127.0.0.1") && contains("::1", "::1"));
        assert!(Cidr::parse(b"10.0.0.1/8").unwrap().low_bits);
        for wrong in
            ["", "10.0.0.0/33", "10.0.0/8", "256.1.1.1", "::/129", "1.2.3.4/", "host", "255.255.255.255"]
        {
            assert_eq!(Cidr::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn addresses_with_ports() {
        let shown = |text: &str| parse_ip_port(text.as_bytes()).map(|a| a.to_string());
        assert_eq!(shown("1.2.3.4").as_deref(), Some("1.2.3.4:0"));
        assert_eq!(shown("1.2.3.4:80").as_deref(), Some("1.2.3.4:80"));
        assert_eq!(shown("::1").as_deref(), Some("[::1]:0"));
        assert_eq!(shown("[::1]").as_deref(), Some("[::1]:0"));
        assert_eq!(shown("[::1]:8").as_deref(), Some("[::1]:8"));
        for wrong in ["", "1.2.3.4:0", "1.2.3.4:", "[::1", "[::1]8", "1.2.3.4:65536", "unknown"] {
            assert_eq!(shown(wrong), None, "{wrong}");
        }
    }
}
