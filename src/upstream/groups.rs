//! All groups of a block, from first mention to use.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;

use super::balance::Method;
use super::balance::least_time::Metric;
use super::directives::{Draft, implied, implied_by_name};
use super::group::Group;
use super::keepalive;
use super::live::{Asking, Live};
use super::sticky::Sticky;
use crate::conf::url::{Url, UrlError};
use crate::conf::{Fault, Outcome, Setting};
use crate::net::resolver::Resolver;
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
    pub(super) resolver: Setting<Option<Arc<Resolver>>>,
    pub(super) resolver_timeout: Setting<u64>,
    /// `zone`
    pub(super) zoned: bool,
}

/// What a block has for groups that say nothing of it: who resolves names while serving.
#[derive(Clone, Debug)]
pub struct RunTime {
    /// Whether it is stream.
    pub stream: bool,
    /// The block's own `resolver`.
    pub resolver: Option<Arc<Resolver>>,
    /// Milliseconds.
    pub timeout: u64,
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
            resolver: Setting::unset(None),
            resolver_timeout: Setting::unset(30_000),
            zoned: false,
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

    fn finish(self, slot: u32, time: &RunTime) -> Outcome<Group> {
        let servers = match &self.servers {
            Some(servers) => servers.as_slice(),
            None => &[self.resolve()?],
        };
        let resolver = self.resolver(servers, time)?;
        if servers.iter().all(|s| s.backup || s.addrs.is_empty() && !s.resolve) {
            return Err(self.fault("no servers"));
        }
        let peers = |backup| servers.iter().filter(|s| s.backup == backup).flat_map(Draft::peers).collect();
        let (primary, backup) = (peers(false), peers(true));
        let name: Arc<str> = self.shown().into();
        let sticky = self.sticky.clone().map(|sticky| sticky.open(&name)).transpose()?;
        let no_memory = || self.fault("no memory for the points of consistent hashing");
        let method = self.method.clone().unwrap_or_default();
        let mut group = Group::new(name, method, primary, backup).ok_or_else(no_memory)?;
        group.port = self.port;
        group.explicit = self.explicit;
        group.slot = slot;
        group.sticky = sticky.filter(|_| self.bound);
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
        if let Some(asking) = resolver {
            let live = Live::new(&group, time.stream, servers, self.takes_backup, asking);
            group.live = Some(live.ok_or_else(no_memory)?);
        }
        Ok(group)
    }

    /// Who resolves names while serving; none where no server wants that.
    fn resolver(&self, servers: &[Draft], time: &RunTime) -> Outcome<Option<Asking>> {
        if !servers.iter().any(|s| s.resolve) {
            return Ok(None);
        }
        if !self.zoned {
            let (name, at) = (self.shown(), &self.at);
            return Err(Fault::Whole(format!(
                "resolving names at run time requires upstream \"{name}\"{at} to be in shared memory"
            )));
        }
        let resolver = (*self.resolver).clone().or(time.resolver.clone());
        let timeout = if self.resolver_timeout.is_set() { *self.resolver_timeout } else { time.timeout };
        match resolver {
            Some(resolver) => Ok(Some(Asking { resolver, timeout })),
            None => Err(self.fault("no resolver defined to resolve names at run time")),
        }
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
    /// Zones of sessions, and the drafts they belong to.
    sessions: Vec<(Box<[u8]>, usize)>,
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

    /// A zone for the sessions of the current group (`sticky learn`), which must be its own.
    pub(super) fn add_sessions(&mut self, zone: &[u8]) -> Outcome {
        if let Some((_, other)) = self.sessions.iter().find(|(name, _)| **name == *zone) {
            let (zone, upstream) = (String::from_utf8_lossy(zone), self.drafts[*other].shown());
            return Err(Fault::here(format!(
                "sticky zone \"{zone}\" is already used in upstream \"{upstream}\""
            )));
        }
        self.sessions.push((zone.into(), self.current));
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
    pub fn finish(&mut self, time: &RunTime) -> Outcome {
        for (i, draft) in std::mem::take(&mut self.drafts).into_iter().enumerate() {
            let key = draft.host.to_ascii_lowercase().into();
            self.names.entry(key).or_default().push(GroupId(i as u32));
            self.groups.push(draft.finish(i as u32, time)?);
        }
        Ok(())
    }

    /// Looks after the groups whose names are resolved while serving, from the calling thread: one of a worker.
    pub fn look_after(&'static self) {
        for group in &self.groups {
            if let Some(live) = &group.live {
                live.look_after(group);
            }
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
mod tests;
