//! `geo`: from a client's address to a value, by the longest network or by ranges. Used by http and stream.

use std::net::{IpAddr, Ipv4Addr};

use super::entries::{entries, variable_name};
use super::map::VariablesOf;
use super::ranges::Ranges;
use super::texts::{Inserted, Texts};
use super::{Context, Get, VarId};
use crate::conf::{Build, Fault, Outcome};
use crate::log::Level;
use crate::net::cidr::{Cidr, Parsed, parse_ip};
use crate::syntax::Directive;

/// A context with a client.
pub trait Client: Context {
    /// Whether `proxy` and `proxy_recursive` are known in the block.
    const FORWARDED: bool;

    /// The client's address; none for a unix socket.
    fn client_ip(&self) -> Option<IpAddr>;

    /// The address a trusted proxy says it acts for (`X-Forwarded-For`), or `ip` itself.
    fn forwarded(&self, ip: IpAddr, proxies: &[Cidr], recursive: bool) -> IpAddr;
}

/// Number of a value.
pub(super) type ValueId = u32;

/// What stands for an address nobody has: unix sockets, and values that are no address.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::BROADCAST);

/// A binary tree over the bits of networks; nodes are numbers, 0 is the root and as a child stands for none.
#[derive(Debug)]
struct Radix(Vec<Node>);

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    children: [u32; 2],
    /// Value + 1, 0 for none.
    value: u32,
}

impl Default for Radix {
    fn default() -> Self {
        Radix(vec![Node::default()])
    }
}

fn bit(key: u128, depth: u32) -> usize {
    (key >> (127 - depth)) as usize & 1
}

impl Radix {
    /// Adds a network; false where it has a value already.
    fn insert(&mut self, key: u128, bits: u32, value: ValueId) -> bool {
        let mut at = 0;
        for depth in 0..bits {
            let side = bit(key, depth);
            at = match self.0[at].children[side] {
                0 => {
                    self.0.push(Node::default());
                    let new = self.0.len() - 1;
                    self.0[at].children[side] = new as u32;
                    new
                }
                next => next as usize,
            };
        }
        let free = self.0[at].value == 0;
        if free {
            self.0[at].value = value + 1;
        }
        free
    }

    /// Takes a network's value away; false where it has none.
    fn remove(&mut self, key: u128, bits: u32) -> bool {
        let mut at = 0;
        for depth in 0..bits {
            match self.0[at].children[bit(key, depth)] {
                0 => return false,
                next => at = next as usize,
            }
        }
        std::mem::take(&mut self.0[at].value) != 0
    }

    /// The value of the longest network that has `key` in it.
    fn find(&self, key: u128) -> Option<ValueId> {
        let (mut at, mut depth, mut found) = (0, 0, 0);
        loop {
            let node = &self.0[at];
            if node.value != 0 {
                found = node.value;
            }
            if depth == 128 {
                break;
            }
            match node.children[bit(key, depth)] {
                0 => break,
                next => at = next as usize,
            }
            depth += 1;
        }
        found.checked_sub(1)
    }
}

/// A network's first bits at the top, and how many there are. A tree holds one family only.
fn key(cidr: &Cidr) -> (u128, u32) {
    match *cidr {
        Cidr::V4(net, mask) => (u128::from(net) << 96, mask.count_ones()),
        Cidr::V6(net, mask) => (net, mask.count_ones()),
        Cidr::Unix => (0, 0),
    }
}

#[derive(Debug, Default)]
struct Trees {
    v4: Radix,
    v6: Radix,
}

impl Trees {
    fn of(&mut self, cidr: &Cidr) -> &mut Radix {
        match cidr {
            Cidr::V6(..) => &mut self.v6,
            _ => &mut self.v4,
        }
    }
}

/// A `geo` block ready to be looked at.
#[derive(Debug, Default)]
pub struct Geo {
    values: Texts,
    /// None in `ranges` mode, or before the first network.
    trees: Option<Trees>,
    by_range: bool,
    ranges: Ranges,
    default: Option<ValueId>,
    proxies: Vec<Cidr>,
    proxy_recursive: bool,
    volatile: bool,
}

/// Warnings with their positions.
type Messages = Vec<(Level, String)>;

fn warn(messages: &mut Messages, d: &Directive<'_>, sentence: String) {
    messages.push((Level::Warn, format!("{sentence}{}", d.at())));
}

fn shown(text: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(text)
}

impl Geo {
    /// Reads one entry. `forwarded` tells whether proxies are known.
    pub fn entry(&mut self, d: &Directive<'_>, forwarded: bool, messages: &mut Messages) -> Outcome {
        match (d.len(), d.name()) {
            (1, b"ranges") => {
                if self.trees.is_some() {
                    return Err(Fault::here(
                        "the \"ranges\" directive must be the first directive inside \"geo\" block",
                    ));
                }
                self.by_range = true;
            }
            (1, b"proxy_recursive") if forwarded => self.proxy_recursive = true,
            (1, b"volatile") => self.volatile = true,
            (2, b"proxy") if forwarded => {
                let cidr = network(d, d.arg(1), messages)?;
                self.proxies.push(cidr);
            }
            (2, _) if self.by_range => return self.range(d, messages),
            (2, _) => return self.network(d, messages),
            _ => return Err(Fault::here("invalid number of the geo parameters")),
        }
        Ok(())
    }

    fn value(&mut self, text: &[u8]) -> Outcome<ValueId> {
        match self.values.insert(text) {
            Ok(Inserted::New(id) | Inserted::Old(id)) => Ok(id),
            Err(_) => Err(Fault::here("too many bytes in one geo block")),
        }
    }

    fn network(&mut self, d: &Directive<'_>, messages: &mut Messages) -> Outcome {
        self.trees.get_or_insert_default();
        let (deletes, net) = match d.name() {
            b"default" => {
                self.add(Cidr::V4(0, 0), d, messages)?;
                return self.add(Cidr::V6(0, 0), d, messages);
            }
            b"delete" => (true, d.arg(1)),
            net => (false, net),
        };
        let cidr = network(d, net, messages)?;
        if !deletes {
            return self.add(cidr, d, messages);
        }
        let (key, bits) = key(&cidr);
        if !self.trees.get_or_insert_default().of(&cidr).remove(key, bits) {
            warn(messages, d, format!("no network \"{}\" to delete", shown(net)));
        }
        Ok(())
    }

    fn add(&mut self, cidr: Cidr, d: &Directive<'_>, messages: &mut Messages) -> Outcome {
        let value = self.value(d.arg(1))?;
        let (key, bits) = key(&cidr);
        let tree = self.trees.get_or_insert_default().of(&cidr);
        if tree.insert(key, bits, value) {
            return Ok(());
        }
        let old = tree.find(key).unwrap_or_default();
        tree.remove(key, bits);
        tree.insert(key, bits, value);
        let (new, old) = (shown(d.arg(1)), shown(self.values.get(old)));
        let net = shown(d.name());
        warn(messages, d, format!("duplicate network \"{net}\", value: \"{new}\", old value: \"{old}\""));
        Ok(())
    }

    fn range(&mut self, d: &Directive<'_>, messages: &mut Messages) -> Outcome {
        if d.name() == b"default" {
            let value = self.value(d.arg(1))?;
            if let Some(old) = self.default.replace(value) {
                let (new, old) = (shown(d.arg(1)), shown(self.values.get(old)));
                let said = format!("duplicate default geo range value: \"{new}\", old value: \"{old}\"");
                warn(messages, d, said);
            }
            return Ok(());
        }
        let (deletes, net) = match d.name() {
            b"delete" => (true, d.arg(1)),
            net => (false, net),
        };
        let invalid = || Fault::here(format!("invalid range \"{}\"", shown(net)));
        let (start, end) = parse_range(net).ok_or_else(invalid)?;
        if deletes {
            if !self.ranges.delete(start, end) {
                warn(messages, d, format!("no address range \"{}\" to delete", shown(net)));
            }
            return Ok(());
        }
        let value = self.value(d.arg(1))?;
        let values = &self.values;
        let added = self.ranges.add(start, end, value, |old| {
            let (new, old) = (shown(d.arg(1)), shown(values.get(old)));
            let net = shown(net);
            warn(messages, d, format!("duplicate range \"{net}\", value: \"{new}\", old value: \"{old}\""));
        });
        added.map_err(|other| Fault::here(format!("range \"{}\" overlaps \"{other}\"", shown(net))))
    }

    /// The value of an address; empty where nothing and no default fits.
    fn get(&self, ip: IpAddr) -> &[u8] {
        let ip = ip.to_canonical();
        let value = match (ip, &self.trees) {
            _ if self.by_range => {
                // Ranges are of IPv4 addresses only.
                let v4 = match ip {
                    IpAddr::V4(ip) => ip,
                    IpAddr::V6(_) => Ipv4Addr::BROADCAST,
                };
                self.ranges.find(v4.to_bits()).or(self.default)
            }
            (IpAddr::V4(ip), Some(trees)) => trees.v4.find(u128::from(ip.to_bits()) << 96),
            (IpAddr::V6(ip), Some(trees)) => trees.v6.find(ip.to_bits()),
            (_, None) => None,
        };
        value.map_or(b"", |value| self.values.get(value))
    }

    /// Appends the value for a context's client, or for the address in the variable `source`.
    pub fn append<C: Client>(&self, source: Option<VarId>, ctx: &C, out: &mut Vec<u8>) {
        let ip = match source {
            None => ctx.client_ip(),
            Some(id) => {
                let mut text = Vec::with_capacity(40);
                let found = super::variable(ctx, id, &mut text);
                if found { parse_ip(&text) } else { None }
            }
        };
        let ip = match ip {
            Some(ip) if !self.proxies.is_empty() => ctx.forwarded(ip, &self.proxies, self.proxy_recursive),
            Some(ip) => ip,
            None => NOBODY,
        };
        out.extend_from_slice(self.get(ip));
    }

    fn close(&mut self) {
        self.ranges.close();
        self.values.shrink();
        if let Some(trees) = &mut self.trees {
            trees.v4.0.shrink_to_fit();
            trees.v6.0.shrink_to_fit();
        }
    }
}

fn network(d: &Directive<'_>, net: &[u8], messages: &mut Messages) -> Outcome<Cidr> {
    if net == b"255.255.255.255" {
        return Ok(Cidr::V4(u32::MAX, u32::MAX));
    }
    match Cidr::parse(net) {
        None => Err(Fault::here(format!("invalid network \"{}\"", shown(net)))),
        Some(Parsed { cidr, low_bits }) => {
            if low_bits {
                warn(messages, d, format!("low address bits of {} are meaningless", shown(net)));
            }
            Ok(cidr)
        }
    }
}

fn parse_range(text: &[u8]) -> Option<(u32, u32)> {
    let dash = memchr::memchr(b'-', text)?;
    let v4 = |text| match parse_ip(text) {
        Some(IpAddr::V4(ip)) => Some(ip.to_bits()),
        _ => None,
    };
    let (start, end) = (v4(&text[..dash])?, v4(&text[dash + 1..])?);
    (start <= end).then_some((start, end))
}

/// `geo [$address] $variable { ... }`
pub fn geo_block<C: Client>(cf: &mut Build, d: &Directive<'_>, vars: VariablesOf<C>) -> Outcome {
    let mut name = variable_name(d.arg(1))?;
    let mut source = None;
    if d.len() == 3 {
        source = Some(vars(cf).index(name));
        name = variable_name(d.arg(2))?;
    }
    vars(cf).define(name, Get::Slot, false)?;
    let mut geo = Geo::default();
    if let Some(items) = d.block() {
        entries(items, &mut |entry| geo.entry(entry, C::FORWARDED, &mut cf.messages))?;
    }
    geo.close();
    let cached = !geo.volatile;
    let get = Get::Computed(Box::new(move |ctx: &C, out: &mut Vec<u8>| {
        geo.append(source, ctx, out);
        true
    }));
    vars(cf).define(name, get, cached)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::read;
    use super::*;

    fn geo(text: &str) -> Result<(Geo, Vec<String>), String> {
        let (mut geo, mut messages) = (Geo::default(), Vec::new());
        read(text, &mut |d| geo.entry(d, true, &mut messages))?;
        geo.close();
        Ok((geo, messages.into_iter().map(|(_, text)| text).collect()))
    }

    fn get(text: &str, ip: &str) -> String {
        String::from_utf8(geo(text).unwrap().0.get(ip.parse().unwrap()).to_vec()).unwrap()
    }

    #[test]
    fn the_longest_network_wins() {
        let text =
            "default d; 10.0.0.0/8 eight; 10.1.0.0/16 sixteen; 10.1.2.3 host; 2001:db8::/32 six; ::1 lo;
                    192.168.0.0/16 gone; delete 192.168.0.0/16; 255.255.255.255 nobody;";
        let cases = [
            ("10.9.9.9", "eight"),
            ("10.1.9.9", "sixteen"),
            ("10.1.2.3", "host"),
            ("::ffff:10.1.2.3", "host"),
            ("11.0.0.1", "d"),
            ("2001:db8::1", "six"),
            ("::1", "lo"),
            ("::2", "d"),
            ("192.168.1.1", "d"),
            ("255.255.255.255", "nobody"),
        ];
        for (ip, value) in cases {
            assert_eq!(get(text, ip), value, "{ip}");
        }
        assert_eq!(get("10.0.0.0/8 x;", "1.1.1.1"), "");
        assert_eq!(get("", "1.1.1.1"), "");
    }

    #[test]
    fn ranges_split_and_join() {
        let text = "ranges; default d; 10.0.0.0-10.2.255.255 wide; 10.1.0.10-10.1.0.20 narrow; 10.1.0.20-10.1.0.20 one;";
        let cases = [
            ("10.0.0.0", "wide"),
            ("10.1.0.9", "wide"),
            ("10.1.0.10", "narrow"),
            ("10.1.0.19", "narrow"),
            ("10.1.0.20", "one"),
            ("10.1.0.21", "wide"),
            ("10.2.255.255", "wide"),
            ("10.3.0.0", "d"),
            ("::1", "d"),
        ];
        for (ip, value) in cases {
            assert_eq!(get(text, ip), value, "{ip}");
        }
        assert_eq!(
            get("ranges; 0.0.0.0-255.255.255.254 all; delete 0.0.0.0-255.255.255.254;", "1.1.1.1"),
            ""
        );
    }

    #[test]
    fn nginx_words_for_faults_and_warnings() {
        let fault = |text: &str| geo(text).err().unwrap();
        assert_eq!(fault("bogus z;"), "invalid network \"bogus\" in test:1");
        assert_eq!(fault("10.0.0.0/8;"), "invalid number of the geo parameters in test:1");
        assert_eq!(
            fault("default 1; ranges;"),
            "the \"ranges\" directive must be the first directive inside \"geo\" block in test:1"
        );
        assert_eq!(fault("ranges; 10.0.0.0/8 1;"), "invalid range \"10.0.0.0/8\" in test:1");
        assert_eq!(
            fault("ranges; 10.0.0.1-10.0.0.9 1; 10.0.0.5-10.0.0.10 1;"),
            "range \"10.0.0.5-10.0.0.10\" overlaps \"10.0.0.1-10.0.0.9\" in test:1"
        );
        let warnings = |text: &str| geo(text).unwrap().1;
        assert_eq!(
            warnings("10.0.0.1/8 a; 10.0.0.0/8 b; delete 11.0.0.0/8;"),
            [
                "low address bits of 10.0.0.1/8 are meaningless in test:1",
                "duplicate network \"10.0.0.0/8\", value: \"b\", old value: \"a\" in test:1",
                "no network \"11.0.0.0/8\" to delete in test:1",
            ]
        );
        assert_eq!(
            warnings(
                "ranges; default 1; default 2; 1.0.0.0-1.0.0.1 a; 1.0.0.0-1.0.0.1 b; delete 2.0.0.0-2.0.0.1;"
            ),
            [
                "duplicate default geo range value: \"2\", old value: \"1\" in test:1",
                "duplicate range \"1.0.0.0-1.0.0.1\", value: \"b\", old value: \"a\" in test:1",
                "no address range \"2.0.0.0-2.0.0.1\" to delete in test:1",
            ]
        );
    }
}
