//! `ngx_http_secure_link`: `$secure_link`, links with a checksum and perhaps an end.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::Bytes;
use md5::{Digest, Md5};

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Fault, Outcome, Setting, set, units};
use crate::http::basic;
use crate::http::module::Module;
use crate::http::request::Request;
use crate::net::clock;
use crate::settings;
use crate::syntax::Directive;
use crate::value::{Builtin, Template};

/// The module.
pub struct SecureLink;

settings! {
    /// What is checked.
    pub struct LocConf {
        /// Checksum and end of the link.
        link: Option<Template> = None,
        /// What the checksum is of.
        md5: Option<Template> = None,
        /// The older form: `/prefix/checksum/link`.
        secret: Bytes = Bytes::new(),
    }
}

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, cf: &mut Build) -> Outcome {
        if self.secret.is_set() {
            if self.link.is_set() || self.md5.is_set() {
                return Err(Fault::Whole(format!(
                    "\"secure_link_secret\" cannot be mixed with \"secure_link\" and \"secure_link_md5\"{}",
                    cf.here
                )));
            }
            return Ok(());
        }
        self.link.inherit(&parent.link);
        self.md5.inherit(&parent.md5);
        if self.link.is_none() && self.md5.is_none() {
            self.secret.inherit(&parent.secret);
        }
        Ok(())
    }
}

impl Module for SecureLink {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_secure_link",
        setters: &[
            ("secure_link", |cf, d| template(cf, d, |cf| &mut cf.http.loc().secure_link().link)),
            ("secure_link_md5", |cf, d| template(cf, d, |cf| &mut cf.http.loc().secure_link().md5)),
            ("secure_link_secret", |cf, d| {
                let secret = &mut cf.http.loc().secure_link().secret;
                secret.once()?;
                set::text(secret, d)
            }),
        ],
    };
    const VARIABLES: &'static [Builtin<Request>] = &[
        Builtin::cached("secure_link", |req, out| {
            let conf = &req.conf.secure_link;
            let value = match conf.secret.is_set() {
                true => by_secret(req.unparsed_uri(), &conf.secret),
                false => by_md5(req).map(|valid| if valid { &b"1"[..] } else { b"0" }),
            };
            value.is_some_and(|value| {
                out.extend_from_slice(value);
                true
            })
        }),
        Builtin::cached("secure_link_expires", |req, out| {
            let conf = &req.conf.secure_link;
            if conf.secret.is_set() || conf.md5.is_none() {
                return false;
            }
            let Some(link) = &*conf.link else { return false };
            match split_link(&link.eval(req)) {
                Some((_, Some((_, text)))) => {
                    out.extend_from_slice(text);
                    true
                }
                _ => false,
            }
        }),
    ];
}

fn template(
    cf: &mut Build,
    d: &Directive<'_>,
    to: fn(&mut Build) -> &mut Setting<Option<Template>>,
) -> Outcome {
    to(cf).once()?;
    let value = cf.http.template(d.arg(1))?;
    to(cf).set(Some(value))
}

/// The checksum, and the end in seconds since 1970 and as written.
type Link<'l> = (&'l [u8], Option<(i64, &'l [u8])>);

fn split_link(link: &[u8]) -> Option<Link<'_>> {
    let Some(comma) = memchr::memchr(b',', link) else { return Some((link, None)) };
    let text = &link[comma + 1..];
    let expires = units::number(text).and_then(|n| i64::try_from(n).ok()).filter(|n| *n > 0)?;
    Some((&link[..comma], Some((expires, text))))
}

/// Whether the link has not ended; none where its checksum is wrong.
fn by_md5(req: &Request) -> Option<bool> {
    let conf = &req.conf.secure_link;
    let (link, text) = ((*conf.link).as_ref()?.eval(req), (*conf.md5).as_ref()?.eval(req));
    let (sum, expires) = split_link(&link)?;
    if !is_sum(sum, &text) {
        return None;
    }
    Some(expires.is_none_or(|(expires, _)| expires >= clock::wall().sec))
}

/// Whether `sum`, in base64 for URLs, is the MD5 of `text`.
fn is_sum(sum: &[u8], text: &[u8]) -> bool {
    if sum.len() > 24 || sum.iter().any(|c| matches!(c, b'+' | b'/')) {
        return false;
    }
    let plain: Vec<u8> = sum
        .iter()
        .map(|c| match c {
            b'-' => b'+',
            b'_' => b'/',
            c => *c,
        })
        .collect();
    basic::decode(&plain).is_some_and(|sum| verify_slices_are_equal(&sum, &Md5::digest(text)).is_ok())
}

/// The link in `/prefix/checksum/link`; none where the checksum is wrong.
fn by_secret<'u>(uri: &'u [u8], secret: &[u8]) -> Option<&'u [u8]> {
    let slash = |from: usize| Some(from + memchr::memchr(b'/', uri.get(from..)?)?);
    let start = slash(1)? + 1;
    let end = slash(start)?;
    let (sum, link) = (&uri[start..end], &uri[end + 1..]);
    if sum.len() != 32 || link.is_empty() {
        return None;
    }
    let sum: Option<Vec<u8>> = sum.chunks(2).map(|pair| Some(units::hex(pair)? as u8)).collect();
    let own = Md5::digest([link, secret].concat());
    verify_slices_are_equal(&sum?, &own).is_ok().then_some(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_in_base64_for_urls() {
        // printf text | openssl md5 -binary | base64 | tr +/ -_
        assert!(is_sum(b"2147483647", b"x").eq(&false));
        assert!(is_sum(b"1B2M2Y8AsgTpgAmY7PhCfg", b"") && is_sum(b"1B2M2Y8AsgTpgAmY7PhCfg==", b""));
        assert!(!is_sum(b"1B2M2Y8AsgTpgAmY7PhCfg", b"x"));
        assert_eq!(split_link(b"sum,12"), Some((&b"sum"[..], Some((12, &b"12"[..])))));
        assert_eq!(split_link(b"sum"), Some((&b"sum"[..], None)));
        assert_eq!(split_link(b"sum,x"), None);
        assert_eq!(split_link(b"sum,0"), None);
    }

    #[test]
    fn links_behind_a_prefix_and_a_checksum() {
        // printf linksecret | md5sum
        let sum = "97d9a13bba0a4d77a0ad1c7ec6a40ee0";
        let made: String = Md5::digest(b"linksecret").iter().map(|b| format!("{b:02x}")).collect();
        let uri = format!("/p/{made}/link");
        assert_eq!(by_secret(uri.as_bytes(), b"secret"), Some(&b"link"[..]));
        assert_eq!(by_secret(format!("/p/{sum}/other").as_bytes(), b"secret"), None);
        for uri in ["/p/", "/", "", "/p/0/link", "/p/zz/"] {
            assert_eq!(by_secret(uri.as_bytes(), b"secret"), None, "{uri}");
        }
    }
}
