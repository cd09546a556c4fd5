//! `root` and `alias`: which file a URI stands for.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use bytes::Bytes;

use super::location::Kind;
use super::request::Request;
use crate::conf::{Build, Fault, Outcome};
use crate::log::Level;
use crate::syntax::Directive;
use crate::value::Template;

/// `root` or `alias`
#[derive(Clone, Debug)]
pub struct Root {
    /// The path, absolute where it is constant.
    pub path: Template,
    /// What `alias` stands for; none for `root`.
    pub alias: Option<Alias>,
}

/// The part of a URI that an `alias` stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alias {
    /// The name of the location that has it; locations nested in that one inherit both.
    Prefix(Bytes),
    /// All of it: the location has a regular expression.
    Whole,
}

/// `root PATH`, `alias PATH`
pub fn directive(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let alias = d.name() == b"alias";
    let word = if alias { "alias" } else { "root" };
    if cf.http.loc().core().root.is_set() {
        let set = cf.http.loc().core().root.alias.is_some();
        return Err(if set == alias {
            Fault::directive("is duplicate")
        } else {
            let other = if set { "alias" } else { "root" };
            Fault::here(format!(
                "\"{word}\" directive is duplicate, \"{other}\" directive was specified earlier"
            ))
        });
    }
    if alias && cf.http.in_named_location() {
        return Err(Fault::here("the \"alias\" directive cannot be used inside the named location"));
    }
    let mut text = d.arg(1);
    for forbidden in ["$document_root", "${document_root}", "$realpath_root", "${realpath_root}"] {
        if memchr::memmem::find(text, forbidden.as_bytes()).is_some() {
            let name = forbidden.trim_matches(['$', '{', '}']);
            return Err(Fault::here(format!(
                "the ${name} variable cannot be used in the \"{word}\" directive"
            )));
        }
    }
    if !alias && text.len() > 1 && text.ends_with(b"/") {
        text = &text[..text.len() - 1];
    }
    let full = if text.starts_with(b"$") { text.to_vec() } else { path_bytes(cf.full_path(text)) };
    let path = cf.http.template(&full)?;
    let location = cf.http.location();
    let alias = alias.then(|| match location.kind {
        Kind::Regex(_) => Alias::Whole,
        _ => Alias::Prefix(Bytes::copy_from_slice(&location.name)),
    });
    cf.http.loc().core().root.set(Root { path, alias })
}

/// The bytes of a path.
pub fn path_bytes(path: PathBuf) -> Vec<u8> {
    path.into_os_string().into_vec()
}

/// The path of the file that the request's URI stands for: `root` and URI, or `alias` and what the location's name
/// leaves of the URI. Empty where an alias does not fit a rewritten URI.
pub fn map_path(req: &Request) -> Vec<u8> {
    let root = &req.conf.core.root;
    let mut path = root.path.eval(req).to_vec();
    if root.path.as_constant().is_none() && path.first() != Some(&b'/') {
        path = path_bytes(req.http.prefix.join(OsString::from_vec(path)));
    }
    match &root.alias {
        None => path.extend_from_slice(&req.uri),
        Some(alias) if !req.valid_location || !alias.fits(&req.uri) => {
            let name = crate::log::bytes(&req.location.name);
            let text = "\"alias\" cannot be used in location";
            req.log(Level::Alert, None, format_args!("{text} \"{name}\" where URI was rewritten"));
            return Vec::new();
        }
        Some(Alias::Prefix(name)) => path.extend_from_slice(&req.uri[name.len()..]),
        Some(Alias::Whole) if req.add_uri_to_alias => path.extend_from_slice(&req.uri),
        Some(Alias::Whole) => {}
    }
    path
}

impl Alias {
    /// Whether it can stand for the beginning of this URI.
    pub fn fits(&self, uri: &[u8]) -> bool {
        match self {
            Alias::Prefix(name) => uri.starts_with(name),
            Alias::Whole => true,
        }
    }
}

/// `$document_root`: `root`'s or `alias`'s path alone.
pub fn document_root(req: &Request) -> Vec<u8> {
    let path = req.conf.core.root.path.eval(req).to_vec();
    match path.first() {
        Some(b'/') => path,
        _ => path_bytes(req.http.prefix.join(OsString::from_vec(path))),
    }
}
