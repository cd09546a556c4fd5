//! All groups of a block, from first mention to use.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;

use super::balance::Method;
use super::balance::least_time::Metric;
use super::directives::{Draft, implied, implied_by_name};
use super::group::Group;
use super::keepalive;
use super::sticky::Sticky;
use crate::conf::url::{Url, UrlError};
use crate::conf::{Fault, Outcome, Setting};
use crate::net::{Address, resolve};

/// Idle connections a group keeps where `keepalive` says nothing.
const DEFAULT_KEEPALIVE: usize = 32;

/// A group's place in its [`Groups`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupId(u32);

/// A group while the configuration is read.
#[derive(Debug)]
pub struct GroupDraft {
    host: Vec<u8>,
    port: u16,
    no_port: bool,
    /// ` in FILE:LINE` of its block or first mention.
    at: String,
    /// There is a block.
    explicit: bool,
    /// None where the name is to be resolved.
    pub(super) servers: Option<Vec<Draft>>,
    pub(super) method: Option<Method>,
    pub(super) takes_backup: bool,
    /// `sticky` came, and no method after it.
    bound: bool,
    pub(super) sticky: Option<Sticky>,
    pub(super) least_time: Setting<Metric>,
    /// Limit, and `local`.
    pub(super) keepalive: Setting<(usize, bool)>,
    pub(super) keepalive_requests: Setting<usize>,
    pub(super) keepalive_time: Setting<u64>,
    pub(super) keepalive_timeout: Setting<u64>,
}

impl GroupDraft {
    fn new(host: &[u8], port: u16, no_port: bool, at: String) -> GroupDraft {
        GroupDraft {
            host: host.to_vec(),
            port,
            no_port,
            at,
            explicit: false,
            servers: None,
            method: None,
            takes_backup: true,
            bound: false,
            sticky: None,
            least_time: Setting::unset(Metric::LastByte),
            keepalive: Setting::unset((DEFAULT_KEEPALIVE, true)),
            keepalive_requests: Setting::unset(1000),
            keepalive_time: Setting::unset(3_600_000),
            keepalive_timeout: Setting::unset(60_000),
        }
    }

    fn shown(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.host)
    }

    /// True where another method, or `sticky`, was there before; that has no effect any more.
    pub(super) fn set_method(&mut self, method: Method, takes_backup: bool) -> bool {
        let redefined = self.method.is_some() || self.bound;
        self.method = Some(method);
        self.takes_backup = takes_backup;
        self.bound = false;
        redefined
    }

    /// `sticky` wraps the method there is.
    pub(super) fn bind(&mut self) {
        self.bound = true;
    }

    fn fault(&self, sentence: impl Display) -> Fault {
        Fault::Whole(format!("{sentence} in upstream \"{}\"{}", self.shown(), self.at))
    }

    fn finish(self, slot: u32) -> Outcome<Group> {
        let servers = match &self.servers {
            Some(servers) => servers.as_slice(),
            None => &[self.resolve()?],
        };
        if servers.iter().any(|s| s.resolve) {
            return Err(self.fault("resolving names at run time is not supported by nxr"));
        }
        if servers.iter().all(|s| s.backup || s.addrs.is_empty()) {
            return Err(self.fault("no servers"));
        }
        let peers = |backup| servers.iter().filter(|s| s.backup == backup).flat_map(Draft::peers).collect();
        let (primary, backup) = (peers(false), peers(true));
        let name: Arc<str> = self.shown().into();
        let no_memory = self.fault("no memory for the points of consistent hashing");
        let method = self.method.unwrap_or_default();
        let mut group = Group::new(name, method, primary, backup).ok_or(no_memory)?;
        group.port = self.port;
        group.explicit = self.explicit;
        group.slot = slot;
        group.sticky = self.sticky.filter(|_| self.bound);
        let (limit, local) = *self.keepalive;
        if self.explicit && limit > 0 {
            group.keepalive = Some(keepalive::Settings {
                limit,
                local,
                requests: *self.keepalive_requests as u64,
                time: *self.keepalive_time,
                timeout: *self.keepalive_timeout,
            });
        }
        Ok(group)
    }

    fn resolve(&self) -> Outcome<Draft> {
        if self.port == 0 {
            return Err(self.fault("no port"));
        }
        let ips = resolve::system(&self.host);
        if ips.is_empty() {
            return Err(self.fault(UrlError::HostNotFound));
        }
        Ok(implied_by_name(ips, self.port))
    }
}

/// All groups of an http or stream block. While it is read, groups are drafts; [`Groups::finish`] closes them.
#[derive(Debug, Default)]
pub struct Groups {
    drafts: Vec<GroupDraft>,
    current: usize,
    /// Names and sizes.
    zones: Vec<(Vec<u8>, usize)>,
    groups: Vec<Group>,
    names: HashMap<Box<[u8]>, Vec<GroupId>>,
}

impl Groups {
    /// `upstream NAME {`: directives that follow go to this group.
    pub(super) fn open(&mut self, name: &[u8], at: impl Display) -> Outcome {
        let shown = String::from_utf8_lossy(name);
        let found = self.drafts.iter().position(|k| k.host.eq_ignore_ascii_case(name));
        if let Some(known) = found.map(|i| &self.drafts[i]) {
            if known.explicit {
                return Err(Fault::here(format!("duplicate upstream \"{shown}\"")));
            }
            if !known.no_port {
                let (port, at) = (known.port, &known.at);
                return Err(Fault::Whole(format!("upstream \"{shown}\" may not have port {port}{at}")));
            }
        }
        self.current = found.unwrap_or(self.drafts.len());
        if found.is_none() {
            self.drafts.push(GroupDraft::new(name, 0, true, at.to_string()));
        }
        let group = self.current();
        group.explicit = true;
        group.port = 0;
        group.servers = Some(Vec::new());
        Ok(())
    }

    /// The group whose block is being read.
    pub(super) fn current(&mut self) -> &mut GroupDraft {
        if self.drafts.is_empty() {
            self.drafts.push(GroupDraft::new(b"", 0, true, String::new()));
        }
        let at = self.current.min(self.drafts.len() - 1);
        &mut self.drafts[at]
    }

    pub(super) fn add_zone(&mut self, name: &[u8], size: usize) -> Outcome {
        let Some((_, known)) = self.zones.iter_mut().find(|(n, _)| n == name) else {
            self.zones.push((name.to_vec(), size));
            return Ok(());
        };
        if *known == 0 {
            *known = size;
        }
        if size != 0 && size != *known {
            return Err(Fault::here(format!(
                "the size {size} of shared memory zone \"{}\" conflicts with already declared size {known}",
                String::from_utf8_lossy(name)
            )));
        }
        Ok(())
    }

    /// The group of an address that `proxy_pass` and its like name (read with `no_resolve`): the block of that
    /// name, wherever it stands, or else one shared by all who name the same host and port. `at` is the
    /// directive's place.
    pub fn add_implicit(&mut self, url: &Url, at: impl Display) -> Outcome<GroupId> {
        self.add(url, at, |known| known == 0 || url.port == 0 || known == url.port)
    }

    /// The same in stream, where a name without port is not the same name with one.
    pub fn add_implicit_stream(&mut self, url: &Url, at: impl Display) -> Outcome<GroupId> {
        self.add(url, at, |known| known == url.port)
    }

    fn add(&mut self, url: &Url, at: impl Display, same_port: impl Fn(u16) -> bool) -> Outcome<GroupId> {
        for (i, known) in self.drafts.iter().enumerate() {
            if !known.host.eq_ignore_ascii_case(&url.host) {
                continue;
            }
            if known.explicit && !url.no_port {
                let shown = String::from_utf8_lossy(&url.host);
                return Err(Fault::here(format!("upstream \"{shown}\" may not have port {}", url.port)));
            }
            if same_port(known.port) {
                return Ok(GroupId(i as u32));
            }
        }
        let mut group = GroupDraft::new(&url.host, url.port, url.no_port, at.to_string());
        group.takes_backup = false;
        if let [address] = &url.addrs[..]
            && (url.port != 0 || matches!(address, Address::Unix(_)))
        {
            group.servers = Some(vec![implied(address.clone())]);
        }
        self.drafts.push(group);
        Ok(GroupId(self.drafts.len() as u32 - 1))
    }

    /// Closes the groups once the block is read: names of groups without a block are resolved now.
    ///
    /// # Errors
    /// `no servers in upstream "x"`, `host not found in upstream "x"` and the like.
    pub fn finish(&mut self) -> Outcome {
        for (i, draft) in std::mem::take(&mut self.drafts).into_iter().enumerate() {
            let key = draft.host.to_ascii_lowercase().into();
            self.names.entry(key).or_default().push(GroupId(i as u32));
            self.groups.push(draft.finish(i as u32)?);
        }
        match self.zones.iter().find(|(_, size)| *size == 0) {
            Some((name, _)) => {
                let shown = String::from_utf8_lossy(name);
                Err(Fault::Whole(format!("zero size shared memory zone \"{shown}\"")))
            }
            None => Ok(()),
        }
    }

    /// A group by its number. Only after [`Groups::finish`].
    pub fn get(&self, id: GroupId) -> &Group {
        &self.groups[id.0 as usize]
    }

    /// All groups, after [`Groups::finish`].
    pub fn iter(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter()
    }

    /// The group that a name with variables turned out to mean; none where it must be resolved. `port` is the
    /// default one where `no_port`.
    pub fn find(&self, host: &[u8], port: u16, no_port: bool) -> Option<&Group> {
        let mut lower = [0u8; 256];
        let ids = match lower.get_mut(..host.len()) {
            Some(lower) => {
                lower.copy_from_slice(host);
                lower.make_ascii_lowercase();
                self.names.get(&*lower)?
            }
            None => self.names.get(&*host.to_ascii_lowercase())?,
        };
        let fits = |g: &&Group| g.port == 0 && no_port || g.port == port;
        ids.iter().map(|id| self.get(*id)).find(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::grammar::Context;
    use crate::conf::url::{self, Use};
    use crate::upstream::testing;
    use crate::{conf::Build, syntax};

    /// Reads what may stand in an http block.
    fn read(text: &str) -> Result<Build, String> {
        let mut cf = testing::build_conf();
        let tree = syntax::parse_text(b"f", text.as_bytes(), &syntax::LoadOptions::default());
        let read = cf.items(tree.items(), Context::HTTP).and_then(|()| cf.http.upstreams.finish());
        read.map(|()| cf).map_err(|fault| fault.text(b"", ""))
    }

    fn fault(text: &str) -> String {
        read(text).err().unwrap_or_default()
    }

    fn pass(cf: &mut Build, text: &str) -> Result<GroupId, String> {
        let to = Use { default_port: 80, uri_part: true, no_resolve: true, ..Use::default() };
        let url = url::parse(text.as_bytes(), &to).unwrap();
        cf.http.upstreams.add_implicit(&url, " in f:9").map_err(|fault| fault.text(b"", " in f:9"))
    }

    #[test]
    fn faults_have_nginx_words() {
        for (text, words) in [
            ("upstream u { }", "no servers are inside upstream in f:1"),
            ("upstream u {\n server 127.0.0.1;\n}\nupstream U {}", "duplicate upstream \"U\" in f:4"),
            ("upstream u { server 127.0.0.1 weight=0; }", "invalid parameter \"weight=0\" in f:1"),
            ("upstream u { server 127.0.0.1 weight=a; }", "invalid parameter \"weight=a\" in f:1"),
            ("upstream u { server 127.0.0.1 max_conns=-1; }", "invalid parameter \"max_conns=-1\" in f:1"),
            (
                "upstream u { server 127.0.0.1 fail_timeout=x; }",
                "invalid parameter \"fail_timeout=x\" in f:1",
            ),
            ("upstream u { server 127.0.0.1 slow_start=1s; }", "invalid parameter \"slow_start=1s\" in f:1"),
            ("upstream u { server 127.0.0.1 route=; }", "route is empty in f:1"),
            ("upstream u { server 127.0.0.1 service=; }", "service is empty in f:1"),
            (
                "upstream u { server a service=b; }",
                "service upstream \"a\" requires \"resolve\" parameter in f:1",
            ),
            (
                "upstream u { server a:1 service=b resolve; }",
                "service upstream \"a:1\" may not have port in f:1",
            ),
            (
                "upstream u { server 1.2.3.4 service=b resolve; }",
                "service upstream \"1.2.3.4\" requires domain name in f:1",
            ),
            (
                "upstream u { ip_hash; server 127.0.0.1 backup; }",
                "balancing method does not support parameter \"backup\" in f:1",
            ),
            ("upstream u { server 127.0.0.1:0; }", "invalid port in upstream \"127.0.0.1:0\" in f:1"),
            (
                "upstream u { server no.such.host.invalid; }",
                "host not found in upstream \"no.such.host.invalid\" in f:1",
            ),
            ("upstream u {\nserver 127.0.0.1 backup; }", "no servers in upstream \"u\" in f:1"),
            ("upstream u { hash $uri x; }", "invalid parameter \"x\" in f:1"),
            ("upstream u { random three; }", "invalid parameter \"three\" in f:1"),
            ("upstream u { random two least_time; }", "invalid parameter \"least_time\" in f:1"),
            ("upstream u { least_time connect; }", "invalid value \"connect\" in f:1"),
            ("upstream u { least_time header x; }", "invalid parameter \"x\" in f:1"),
            (
                "upstream u { least_time header; least_time header; }",
                "\"least_time\" directive is duplicate in f:1",
            ),
            ("upstream u { keepalive x; }", "invalid value \"x\" in \"keepalive\" directive in f:1"),
            ("upstream u { keepalive 1 x; }", "invalid parameter \"x\" in f:1"),
            ("upstream u { keepalive 1; keepalive 2; }", "\"keepalive\" directive is duplicate in f:1"),
            (
                "upstream u { keepalive_requests x; }",
                "\"keepalive_requests\" directive invalid number in f:1",
            ),
            ("upstream u { zone z 1k; }", "zone \"z\" is too small in f:1"),
            ("upstream u { zone z x; }", "invalid zone size \"x\" in f:1"),
            ("upstream u { server 127.0.0.1; zone z; }", "zero size shared memory zone \"z\""),
            (
                "upstream u { server 127.0.0.1; zone z 64k; zone z 128k; }",
                "the size 131072 of shared memory zone \"z\" conflicts with already declared size 65536 in f:1",
            ),
            ("upstream u { sticky x y; }", "unknown parameter \"x\" in f:1"),
            ("upstream u { sticky route x; }", "invalid variable name \"x\" in f:1"),
            ("upstream u { sticky cookie a b; }", "unknown parameter \"b\" in f:1"),
            ("upstream u { sticky cookie a path=; }", "\"sticky\" directive no value for \"path\" in f:1"),
            (
                "upstream u { sticky cookie a samesite=x; }",
                "\"sticky\" directive invalid \"samesite\" parameter value in f:1",
            ),
            ("upstream u { sticky route $a; sticky route $a; }", "\"sticky\" directive is duplicate in f:1"),
        ] {
            assert_eq!(fault(text), words, "{text}");
        }
    }

    #[test]
    fn a_method_may_be_redefined_with_a_warning() {
        let cf = read("upstream u { sticky route $a;\n ip_hash;\nserver 127.0.0.1; }").unwrap();
        let warnings: Vec<_> = cf.messages.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(warnings, ["load balancing method redefined in f:2"]);
        let group = cf.http.upstreams.find(b"U", 80, true).unwrap();
        assert!(matches!(group.method, Method::IpHash) && group.sticky.is_none());
        let cf = read("upstream u { ip_hash; sticky route $a; server 127.0.0.1; }").unwrap();
        assert!(cf.messages.is_empty());
        assert!(cf.http.upstreams.iter().next().unwrap().sticky.is_some());
    }

    #[test]
    fn a_block_keeps_32_connections_unless_told_otherwise() {
        let cf = read(
            "upstream a { server 127.0.0.1; }
             upstream b { server 127.0.0.1; keepalive 5; keepalive_timeout 3s; keepalive_requests 7; }
             upstream c { server 127.0.0.1; keepalive 0; }",
        )
        .unwrap();
        let kept: Vec<_> = cf
            .http
            .upstreams
            .iter()
            .map(|g| g.keepalive.map(|k| (k.limit, k.local, k.requests, k.timeout, k.time)))
            .collect();
        let expected =
            [Some((32, true, 1000, 60_000, 3_600_000)), Some((5, false, 7, 3000, 3_600_000)), None];
        assert_eq!(kept, expected);
    }

    #[test]
    fn an_address_is_a_group_unless_a_block_has_its_name() {
        let mut cf = testing::build_conf();
        let later = pass(&mut cf, "later").unwrap();
        let a = pass(&mut cf, "127.0.0.1:81").unwrap();
        assert_eq!(pass(&mut cf, "127.0.0.1:81/uri"), Ok(a));
        let b = pass(&mut cf, "127.0.0.1:82").unwrap();
        let unix = pass(&mut cf, "unix:/tmp/s:/uri").unwrap();
        assert!(a != b && unix != b);
        let tree = syntax::parse_text(b"f", b"upstream LATER { server 127.0.0.1:1; }", &Default::default());
        cf.items(tree.items(), Context::HTTP).unwrap();
        assert_eq!(pass(&mut cf, "later:80").unwrap_err(), "upstream \"later\" may not have port 80 in f:9");
        assert_eq!(pass(&mut cf, "Later/x"), Ok(later));
        cf.http.upstreams.finish().unwrap();
        let groups = &cf.http.upstreams;
        let peers = |id| groups.get(id).peers().map(|p| p.name.to_string()).collect::<Vec<_>>();
        assert_eq!(peers(later), ["127.0.0.1:1"]);
        assert_eq!(peers(a), ["127.0.0.1:81"]);
        assert_eq!(peers(unix), ["unix:/tmp/s"]);
        assert!(groups.get(a).keepalive.is_none() && groups.get(later).keepalive.is_some());
        assert_eq!(
            groups.find(b"127.0.0.1", 82, false).unwrap().peers().next().unwrap().name.as_ref(),
            "127.0.0.1:82"
        );
        assert!(groups.find(b"127.0.0.1", 80, true).is_none());
        assert!(groups.find(b"later", 80, true).is_some());
    }

    #[test]
    fn a_block_may_not_take_the_name_of_an_address_with_port() {
        let mut cf = testing::build_conf();
        pass(&mut cf, "x:81").unwrap();
        let tree = syntax::parse_text(b"f", b"upstream x { server 127.0.0.1:1; }", &Default::default());
        let fault = cf.items(tree.items(), Context::HTTP).unwrap_err().text(b"", "");
        assert_eq!(fault, "upstream \"x\" may not have port 81 in f:9");
    }

    #[test]
    fn a_name_nobody_knows_is_told_where_it_was_used() {
        let mut cf = testing::build_conf();
        pass(&mut cf, "no.such.host.invalid").unwrap();
        let fault = cf.http.upstreams.finish().unwrap_err().text(b"", "");
        assert_eq!(fault, "host not found in upstream \"no.such.host.invalid\" in f:9");
    }
}
