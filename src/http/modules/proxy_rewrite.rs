//! `proxy_redirect`, `proxy_cookie_domain`, `proxy_cookie_path` and `proxy_cookie_flags`: what upstreams say of
//! themselves is put in the client's terms.

use std::sync::Arc;

use bytes::Bytes;

use super::proxy::{Own, loc};
use crate::conf::{Build, Fault, Outcome};
use crate::http::request::Request;
use crate::http::upstream::Redirected;
use crate::syntax::Directive;
use crate::value::{Regex, Template};

/// What must be there for a rule to apply.
#[derive(Clone, Debug)]
enum Pattern {
    /// The beginning.
    Text(Template),
    /// A match; all of the value is replaced.
    Regex(Arc<Regex>),
    /// The whole, but for case and a first dot.
    Domain(Template),
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rewrite {
    pattern: Pattern,
    replacement: Template,
}

impl Rewrite {
    /// What `proxy_redirect default` comes to.
    pub fn prefix(from: Bytes, to: Bytes) -> Rewrite {
        Rewrite { pattern: Pattern::Text(Template::constant(from)), replacement: Template::constant(to) }
    }

    /// The new value, where the rule applies to `value` from `prefix` on.
    fn apply(&self, req: &Request, value: &[u8], mut prefix: usize) -> Option<Vec<u8>> {
        let mut part = &value[prefix..];
        let len = match &self.pattern {
            Pattern::Text(pattern) => {
                let pattern = pattern.eval(req);
                part.starts_with(&pattern).then_some(pattern.len())?
            }
            Pattern::Regex(regex) => regex.exec(&req.scope, part).then_some(part.len())?,
            Pattern::Domain(pattern) => {
                if let Some(rest) = part.strip_prefix(b".") {
                    part = rest;
                    prefix += 1;
                }
                part.eq_ignore_ascii_case(&pattern.eval(req)).then_some(part.len())?
            }
        };
        let mut out = Vec::with_capacity(value.len() + 32);
        out.extend_from_slice(&value[..prefix]);
        self.replacement.append(req, &mut out);
        out.extend_from_slice(&value[prefix + len..]);
        Some(out)
    }
}

/// `proxy_redirect` of a location.
pub fn redirect(own: &Own, req: &Request, value: &[u8], prefix: usize) -> Redirected {
    match (*own.redirect, &*own.redirects) {
        (true, Some(rules)) => {
            let new = rules.iter().find_map(|rule| rule.apply(req, value, prefix));
            new.map_or(Redirected::Same, Redirected::To)
        }
        _ => Redirected::Off,
    }
}

/// Flags of `proxy_cookie_flags`.
mod flag {
    pub const SECURE: u32 = 1;
    pub const NO_SECURE: u32 = 2;
    pub const HTTPONLY: u32 = 4;
    pub const NO_HTTPONLY: u32 = 8;
    pub const STRICT: u32 = 16;
    pub const LAX: u32 = 32;
    pub const NONE: u32 = 64;
    pub const NO_SAMESITE: u32 = 128;

    pub const WORDS: &[(&str, u32)] = &[
        ("secure", SECURE),
        ("nosecure", NO_SECURE),
        ("httponly", HTTPONLY),
        ("nohttponly", NO_HTTPONLY),
        ("samesite=strict", STRICT),
        ("samesite=lax", LAX),
        ("samesite=none", NONE),
        ("nosamesite", NO_SAMESITE),
    ];
}

/// One `proxy_cookie_flags`.
#[derive(Clone, Debug)]
pub struct CookieFlags {
    cookie: Result<Arc<Regex>, Template>,
    flags: Vec<Template>,
}

impl CookieFlags {
    fn fits(&self, req: &Request, name: &[u8]) -> bool {
        match &self.cookie {
            Ok(regex) => regex.exec(&req.scope, name),
            Err(template) => template.eval(req).eq_ignore_ascii_case(name),
        }
    }

    fn bits(&self, req: &Request) -> u32 {
        self.flags.iter().fold(0, |bits, flag| {
            let word = flag.eval(req);
            let known = flag::WORDS.iter().find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(&word));
            bits | known.map_or(0, |(_, bit)| *bit)
        })
    }
}

/// An attribute of a cookie; the first is its name and value.
struct Attribute {
    name: Vec<u8>,
    value: Option<Vec<u8>>,
    gone: bool,
}

impl Attribute {
    fn new(name: &[u8], value: Option<&[u8]>) -> Attribute {
        Attribute { name: name.to_vec(), value: value.map(<[u8]>::to_vec), gone: false }
    }

    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] | [rest @ .., b' '] = text {
        text = rest;
    }
    text
}

fn attributes(cookie: &[u8]) -> Vec<Attribute> {
    cookie
        .split(|c| *c == b';')
        .map(|part| match memchr::memchr(b'=', part) {
            Some(at) => Attribute::new(trim(&part[..at]), Some(trim(&part[at + 1..]))),
            None => Attribute::new(trim(part), None),
        })
        .collect()
}

/// A new value for `Set-Cookie`, where any rule applies.
pub fn cookie(own: &Own, req: &Request, value: &[u8]) -> Option<Vec<u8>> {
    if own.cookie_domains.is_none() && own.cookie_paths.is_none() && own.cookie_flags.is_none() {
        return None;
    }
    let mut all = attributes(value);
    all.first()?.value.as_ref()?;
    let mut changed = false;
    for attribute in all.iter_mut().skip(1) {
        let rules = match () {
            () if attribute.is("domain") => own.cookie_domains.as_deref(),
            () if attribute.is("path") => own.cookie_paths.as_deref(),
            () => None,
        };
        let (Some(rules), Some(old)) = (rules, &attribute.value) else { continue };
        if let Some(new) = rules.iter().find_map(|rule| rule.apply(req, old, 0)) {
            attribute.value = Some(new);
            changed = true;
        }
    }
    if let Some(rules) = &*own.cookie_flags {
        let name = all.first().map(|a| a.name.clone()).unwrap_or_default();
        let bits = rules.iter().find(|rule| rule.fits(req, &name)).map_or(0, |rule| rule.bits(req));
        if bits != 0 {
            edit_flags(&mut all, bits);
            changed = true;
        }
    }
    changed.then(|| join(&all))
}

fn edit_flags(all: &mut Vec<Attribute>, mut bits: u32) {
    for attribute in all.iter_mut().skip(1) {
        let (on, off) = match () {
            () if attribute.is("secure") => (flag::SECURE, flag::NO_SECURE),
            () if attribute.is("httponly") => (flag::HTTPONLY, flag::NO_HTTPONLY),
            () if attribute.is("samesite") => {
                match samesite(bits) {
                    Some((bit, word)) => {
                        bits &= !bit;
                        let same =
                            attribute.value.as_ref().is_some_and(|v| v.eq_ignore_ascii_case(word.as_bytes()));
                        if !same {
                            *attribute = Attribute::new(b"SameSite", Some(word.as_bytes()));
                        }
                    }
                    None => attribute.gone |= bits & flag::NO_SAMESITE != 0,
                }
                continue;
            }
            () => continue,
        };
        if bits & on != 0 {
            bits &= !on;
        } else {
            attribute.gone |= bits & off != 0;
        }
    }
    if bits & flag::SECURE != 0 {
        all.push(Attribute::new(b"Secure", None));
    }
    if bits & flag::HTTPONLY != 0 {
        all.push(Attribute::new(b"HttpOnly", None));
    }
    if let Some((_, word)) = samesite(bits) {
        all.push(Attribute::new(b"SameSite", Some(word.as_bytes())));
    }
}

fn samesite(bits: u32) -> Option<(u32, &'static str)> {
    [(flag::STRICT, "Strict"), (flag::LAX, "Lax"), (flag::NONE, "None")]
        .into_iter()
        .find(|(bit, _)| bits & bit != 0)
}

fn join(all: &[Attribute]) -> Vec<u8> {
    let mut out = Vec::new();
    for (i, attribute) in all.iter().enumerate().filter(|(_, a)| !a.gone) {
        if i > 0 {
            out.extend_from_slice(b"; ");
        }
        out.extend_from_slice(&attribute.name);
        if let Some(value) = &attribute.value {
            out.push(b'=');
            out.extend_from_slice(value);
        }
    }
    out
}

/// `proxy_redirect default`, `off`, or `FROM TO`
pub fn set_redirect(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let own = &mut loc(cf).own;
    if own.redirect.is_set() && !*own.redirect {
        return Err(Fault::directive("is duplicate"));
    }
    own.redirect.put(true);
    if d.len() == 2 {
        return match d.arg(1) {
            b"off" if own.redirects.is_set() => Err(Fault::directive("is duplicate")),
            b"off" => {
                own.redirect.put(false);
                Ok(())
            }
            b"default" => {
                let rule = own.default_redirect()?;
                own.redirects.edit().get_or_insert_default().push(rule);
                Ok(())
            }
            other => Err(Fault::invalid_parameter(other)),
        };
    }
    let pattern = match d.arg(1) {
        [b'~', b'*', regex @ ..] => Pattern::Regex(Arc::new(cf.http.regex(regex, true)?)),
        [b'~', regex @ ..] => Pattern::Regex(Arc::new(cf.http.regex(regex, false)?)),
        text => Pattern::Text(cf.http.template(text)?),
    };
    let replacement = cf.http.template(d.arg(2))?;
    loc(cf).own.redirects.edit().get_or_insert_default().push(Rewrite { pattern, replacement });
    Ok(())
}

/// `off` of the cookie directives; true where that is what was said.
fn is_off<T: Clone>(
    to: &mut crate::conf::Setting<Option<Vec<T>>>,
    d: &Directive<'_>,
    alone: bool,
) -> Outcome<bool> {
    if to.is_set() && to.is_none() {
        return Err(Fault::directive("is duplicate"));
    }
    if !alone {
        return Ok(false);
    }
    if d.arg(1) != b"off" {
        return Err(Fault::invalid_parameter(d.arg(1)));
    }
    to.set(None)?;
    Ok(true)
}

/// `proxy_cookie_domain off`, or `FROM TO`
pub fn set_cookie_domain(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    if is_off(&mut loc(cf).own.cookie_domains, d, d.len() == 2)? {
        return Ok(());
    }
    let undotted = |text: &[u8]| text.strip_prefix(b".").unwrap_or(text).to_vec();
    let (pattern, to) = match d.arg(1) {
        [b'~', regex @ ..] => (Pattern::Regex(Arc::new(cf.http.regex(regex, true)?)), d.arg(2).to_vec()),
        text => (Pattern::Domain(cf.http.template(&undotted(text))?), undotted(d.arg(2))),
    };
    let replacement = cf.http.template(&to)?;
    loc(cf).own.cookie_domains.edit().get_or_insert_default().push(Rewrite { pattern, replacement });
    Ok(())
}

/// `proxy_cookie_path off`, or `FROM TO`
pub fn set_cookie_path(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    if is_off(&mut loc(cf).own.cookie_paths, d, d.len() == 2)? {
        return Ok(());
    }
    let pattern = match d.arg(1) {
        [b'~', b'*', regex @ ..] => Pattern::Regex(Arc::new(cf.http.regex(regex, true)?)),
        [b'~', regex @ ..] => Pattern::Regex(Arc::new(cf.http.regex(regex, false)?)),
        text => Pattern::Text(cf.http.template(text)?),
    };
    let replacement = cf.http.template(d.arg(2))?;
    loc(cf).own.cookie_paths.edit().get_or_insert_default().push(Rewrite { pattern, replacement });
    Ok(())
}

/// `proxy_cookie_flags off`, or `COOKIE FLAG ...`
pub fn set_cookie_flags(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    if is_off(&mut loc(cf).own.cookie_flags, d, d.len() == 2)? {
        return Ok(());
    }
    let cookie = match d.arg(1) {
        [b'~', regex @ ..] => Ok(Arc::new(cf.http.regex(regex, true)?)),
        text => Err(cf.http.template(text)?),
    };
    let words: Vec<Vec<u8>> = d.args().skip(1).map(<[u8]>::to_vec).collect();
    let flags = words.iter().map(|word| cf.http.template(word)).collect::<Outcome<Vec<_>>>()?;
    loc(cf).own.cookie_flags.edit().get_or_insert_default().push(CookieFlags { cookie, flags });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(cookie: &str, bits: u32) -> String {
        let mut all = attributes(cookie.as_bytes());
        edit_flags(&mut all, bits);
        String::from_utf8(join(&all)).unwrap()
    }

    #[test]
    fn flags_are_added_changed_and_removed() {
        assert_eq!(
            edited("a=b", flag::SECURE | flag::HTTPONLY | flag::LAX),
            "a=b; Secure; HttpOnly; SameSite=Lax"
        );
        assert_eq!(edited("a=b; secure;HttpOnly", flag::SECURE | flag::NO_HTTPONLY), "a=b; secure");
        assert_eq!(edited("a=b; samesite=lax; Path=/", flag::STRICT), "a=b; SameSite=Strict; Path=/");
        assert_eq!(edited("a=b; SameSite=Lax; Secure", flag::NO_SAMESITE | flag::NO_SECURE), "a=b");
        assert_eq!(edited("a=b; samesite=LAX", flag::LAX), "a=b; samesite=LAX");
    }

    #[test]
    fn attributes_lose_their_spaces() {
        let all = attributes(b" a = b ; Path=/x;Secure");
        assert_eq!(join(&all), b"a=b; Path=/x; Secure");
    }
}
