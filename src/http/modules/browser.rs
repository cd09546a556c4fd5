//! `ngx_http_browser`: what kind of browser `User-Agent` names.

use std::sync::Arc;

use bytes::Bytes;

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Fault, Outcome};
use crate::http::headers::USER_AGENT;
use crate::http::module::Module;
use crate::http::request::Request;
use crate::settings;
use crate::syntax::Directive;
use crate::value::Builtin;

/// The module.
pub struct Browser;

/// How a browser is known: where its mark may begin, and the mark that stands before the version (a byte further for
/// Opera, which writes a slash or a space).
struct Mask {
    name: &'static str,
    skip: usize,
    mark: &'static str,
    add: usize,
}

/// In the order in which they are looked for.
const MASKS: [Mask; 5] = [
    Mask { name: "opera", skip: 0, mark: "Opera", add: 6 },
    Mask { name: "msie", skip: 25, mark: "MSIE ", add: 5 },
    Mask { name: "gecko", skip: 13, mark: "rv:", add: 3 },
    Mask { name: "safari", skip: 13, mark: "Safari/", add: 7 },
    Mask { name: "konqueror", skip: 25, mark: "Konqueror/", add: 10 },
];

/// A version that no browser has.
const NEVER: u64 = 4_001_000_000;

settings! {
    /// `modern_browser`, `ancient_browser`
    pub struct LocConf {
        /// Index into [`MASKS`] and least version.
        modern: Vec<(usize, u64)> = Vec::new(),
        unlisted: bool = false,
        ancient: Arc<Vec<Bytes>> = Arc::default(),
        netscape4: bool = false,
        modern_value: Bytes = Bytes::from_static(b"1"),
        ancient_value: Bytes = Bytes::from_static(b"1"),
    }
}

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        if !self.modern.is_set() && !self.unlisted.is_set() {
            self.modern.inherit(&parent.modern);
            self.unlisted.inherit(&parent.unlisted);
        } else if self.modern.is_set() {
            let modern = self.modern.edit();
            // Opera may call itself MSIE, so it is looked for even where it is not listed.
            if !modern.iter().any(|(mask, _)| *mask == 0) {
                modern.push((0, NEVER));
            }
            modern.sort_by_key(|(mask, _)| *mask);
        }
        if !self.ancient.is_set() && !self.netscape4.is_set() {
            self.ancient.inherit(&parent.ancient);
            self.netscape4.inherit(&parent.netscape4);
        }
        self.modern_value.inherit(&parent.modern_value);
        self.ancient_value.inherit(&parent.ancient_value);
        Ok(())
    }
}

impl Module for Browser {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_browser",
        setters: &[
            ("modern_browser", modern),
            ("ancient_browser", ancient),
            ("modern_browser_value", |cf, d| {
                cf.http.loc().browser().modern_value.put(Bytes::copy_from_slice(d.arg(1)));
                Ok(())
            }),
            ("ancient_browser_value", |cf, d| {
                cf.http.loc().browser().ancient_value.put(Bytes::copy_from_slice(d.arg(1)));
                Ok(())
            }),
        ],
    };
    const VARIABLES: &'static [Builtin<Request>] = &[
        Builtin::changeable("msie", |req, out| {
            if req.browser().msie {
                out.push(b'1');
            }
            true
        }),
        Builtin::changeable("modern_browser", |req, out| {
            if is_modern(req) {
                out.extend_from_slice(&req.conf.browser.modern_value);
            }
            true
        }),
        Builtin::changeable("ancient_browser", |req, out| {
            if !is_modern(req) {
                out.extend_from_slice(&req.conf.browser.ancient_value);
            }
            true
        }),
    ];
}

fn modern(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let to = cf.http.loc().browser();
    if d.len() == 2 {
        return match d.arg(1) {
            b"unlisted" => {
                to.unlisted.put(true);
                Ok(())
            }
            word => {
                // nginx refuses it without a word.
                let shown = String::from_utf8_lossy(word).into_owned();
                cf.warn(d.at(), format_args!("\"{shown}\" is not \"unlisted\""));
                Err(Fault::whole(""))
            }
        };
    }
    let shown = |i: usize| String::from_utf8_lossy(d.arg(i)).into_owned();
    let Some(mask) = MASKS.iter().position(|m| m.name.as_bytes().eq_ignore_ascii_case(d.arg(1))) else {
        return Err(Fault::here(format!("unknown browser name \"{}\"", shown(1))));
    };
    match version(d.arg(2)) {
        (version, b"") => {
            to.modern.edit().push((mask, version));
            Ok(())
        }
        _ => Err(Fault::here(format!("invalid browser version \"{}\"", shown(2)))),
    }
}

fn ancient(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let to = cf.http.loc().browser();
    for word in d.args() {
        match word {
            b"netscape4" => to.netscape4.put(true),
            word => Arc::make_mut(to.ancient.edit()).push(Bytes::copy_from_slice(word)),
        }
    }
    Ok(())
}

/// A version as one number, two digits a part after the first, and what follows it.
fn version(text: &[u8]) -> (u64, &[u8]) {
    let (mut version, mut part, mut scale) = (0u64, 0u64, 1_000_000u64);
    for (i, c) in text.iter().enumerate() {
        match c {
            b'0'..=b'9' => part = part.saturating_mul(10).saturating_add(u64::from(c - b'0')),
            b'.' => {
                version = version.saturating_add(part.saturating_mul(scale));
                part = 0;
                scale /= 100;
            }
            _ => return (version.saturating_add(part.saturating_mul(scale)), &text[i..]),
        }
    }
    (version.saturating_add(part.saturating_mul(scale)), b"")
}

fn has(text: &[u8], word: &[u8]) -> bool {
    memchr::memmem::find(text, word).is_some()
}

fn is_modern(req: &Request) -> bool {
    match req.header(USER_AGENT) {
        Some(agent) => agent_is_modern(&req.conf.browser, agent),
        None => *req.conf.browser.unlisted,
    }
}

fn agent_is_modern(conf: &LocConf, agent: &[u8]) -> bool {
    for &(mask, least) in conf.modern.iter() {
        let mask = &MASKS[mask];
        let Some(rest) = agent.get(mask.skip..) else { continue };
        let Some(at) = memchr::memmem::find(rest, mask.mark.as_bytes()) else { continue };
        match rest.get(at + mask.add..) {
            Some(text) if !text.is_empty() => return version(text).0 >= least,
            _ => {}
        }
    }
    if !conf.modern.is_empty() && !*conf.unlisted {
        return false;
    }
    if *conf.netscape4
        && agent.len() > "Mozilla/4.72 ".len()
        && agent.starts_with(b"Mozilla/")
        && matches!(agent[8], b'1'..=b'4')
    {
        return false;
    }
    !conf.ancient.iter().any(|word| has(agent, word)) && *conf.unlisted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{Site, emerg};

    #[test]
    fn versions() {
        for (text, want) in
            [("5.5", 5_050_000), ("1.0.0", 1_000_000), ("10", 10_000_000), ("1.2.3.4", 1_020_304)]
        {
            assert_eq!(version(text.as_bytes()), (want, &b""[..]), "{text}");
        }
        assert_eq!(version(b"7.50 (X11)"), (7_500_000, &b" (X11)"[..]));
    }

    #[test]
    fn browsers() {
        let site = Site::new(
            "server { LISTEN modern_browser msie 5.5; modern_browser opera 9; ancient_browser Lynx;
               ancient_browser_value old; modern_browser_value new;
               location /u { modern_browser unlisted; return 200 $modern_browser$ancient_browser; }
               location / { return 200 $modern_browser$ancient_browser; } }",
        );
        let ask = |path: &str, agent: &str| site.ask("GET", path, &format!("User-Agent: {agent}\r\n")).text();
        assert_eq!(ask("/", "Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)"), "new");
        assert_eq!(ask("/", "Mozilla/4.0 (compatible; MSIE 5.0; Windows NT 5.1)"), "old");
        assert_eq!(ask("/", "Mozilla/4.0 (compatible; MSIE 6.0; X11) Opera 7.50 [en]"), "old");
        assert_eq!(ask("/", "curl/8"), "old");
        assert_eq!(ask("/u", "curl/8"), "new");
        assert_eq!(ask("/u", "Lynx/2"), "old");
        assert!(emerg("modern_browser mosaic 1;").starts_with("unknown browser name \"mosaic\" in "));
        assert!(emerg("modern_browser msie x;").starts_with("invalid browser version \"x\" in "));
    }
}
