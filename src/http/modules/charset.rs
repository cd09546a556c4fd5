//! `ngx_http_charset_filter`: names the charset of responses, and recodes them.

use std::sync::Arc;

use bytes::Bytes;

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Fault, Outcome, Setting, set};
use crate::http::charset_map::{Map, Recode};
use crate::http::conf::Loc;
use crate::http::headers::CONTENT_ENCODING;
use crate::http::module::{BodyFilter, Handlers, Module};
use crate::http::output::Gone;
use crate::http::request::Request;
use crate::http::types::{self, TypeSet};
use crate::log::Level;
use crate::settings;
use crate::syntax::Directive;
use crate::value::{VarId, variable};

/// The module.
pub struct Charset;

/// A charset in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// None is known.
    Off,
    #[allow(missing_docs)]
    Name(Bytes),
    /// What a variable says.
    Variable(VarId),
}

settings! {
    /// What all of the configuration names.
    pub struct MainConf {
        /// Charsets that are named anywhere.
        names: Vec<Bytes> = Vec::new(),
        maps: Vec<Arc<Map>> = Vec::new(),
    }
}

impl Conf for MainConf {
    fn merge(&mut self, _: &Self, _: &mut Build) -> Outcome {
        Ok(())
    }
}

settings! {
    /// `charset` and its like.
    pub struct LocConf {
        charset: Choice = Choice::Off,
        source: Choice = Choice::Off,
        override_charset: bool = false,
        types: TypeSet = TypeSet::of(&[
            "text/html",
            "text/xml",
            "text/plain",
            "text/vnd.wap.wml",
            "application/javascript",
            "application/rss+xml",
        ]),
        /// The maps of the http block.
        maps: Vec<Arc<Map>> = Vec::new(),
    }
}

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        if let (Choice::Name(to), Choice::Name(from)) = (&*self.charset, &*self.source)
            && !same(to, from)
            && !self.maps.iter().any(|m| m.direction(from, to).is_some())
        {
            return Err(Fault::Whole(no_map(from, to)));
        }
        Ok(())
    }
}

fn same(a: &[u8], b: &[u8]) -> bool {
    a.eq_ignore_ascii_case(b)
}

fn no_map(from: &[u8], to: &[u8]) -> String {
    let (from, to) = (crate::log::bytes(from), crate::log::bytes(to));
    format!("no \"charset_map\" between the charsets \"{from}\" and \"{to}\"")
}

impl Module for Charset {
    type Main = MainConf;
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_charset_filter",
        setters: &[
            ("charset", |cf, d| choice(cf, d, |loc| &mut loc.charset)),
            ("source_charset", |cf, d| choice(cf, d, |loc| &mut loc.source)),
            ("override_charset", |cf, d| set::flag(&mut cf.http.loc().charset().override_charset, d)),
            ("charset_types", |cf, d| {
                types::directive(cf, d, |cf| &mut cf.http.loc().charset().types);
                Ok(())
            }),
            ("charset_map", map),
        ],
    };

    fn handlers(_: &Loc, to: &mut Handlers) {
        // Everywhere: an upstream may ask for a charset, and subrequests take their parent's.
        to.header_filters.push(header_filter);
    }
}

fn add_name(cf: &mut Build, name: &[u8]) -> Bytes {
    let names = cf.http.main().charset().names.edit();
    if let Some(known) = names.iter().find(|known| same(known, name)) {
        return known.clone();
    }
    let name = Bytes::copy_from_slice(name);
    names.push(name.clone());
    name
}

fn choice(cf: &mut Build, d: &Directive<'_>, pick: fn(&mut LocConf) -> &mut Setting<Choice>) -> Outcome {
    pick(cf.http.loc().charset()).once()?;
    let value = match d.arg(1) {
        b"off" if d.name() == b"charset" => Choice::Off,
        [b'$', name @ ..] => {
            if name.is_empty() {
                return Err(Fault::here("invalid variable name \"$\""));
            }
            Choice::Variable(cf.http.vars.index(name))
        }
        name => Choice::Name(add_name(cf, name)),
    };
    pick(cf.http.loc().charset()).set(value)
}

fn map(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let (from, to) = (add_name(cf, d.arg(1)), add_name(cf, d.arg(2)));
    let shown = |i: usize| String::from_utf8_lossy(d.arg(i)).into_owned();
    if same(&from, &to) {
        return Err(Fault::here(format!(
            "\"charset_map\" between the same charsets \"{}\" and \"{}\"",
            shown(1),
            shown(2)
        )));
    }
    if same(&from, b"utf-8") {
        return Err(Fault::here(
            "\"charset_map\" with \"utf-8\" charset should be given in the second column",
        ));
    }
    if cf.http.main().charset().maps.iter().any(|m| m.direction(&from, &to).is_some()) {
        return Err(Fault::here(format!(
            "duplicate \"charset_map\" between \"{}\" and \"{}\"",
            shown(1),
            shown(2)
        )));
    }
    let map = Arc::new(Map::read(from, to, d)?);
    cf.http.main().charset().maps.edit().push(map.clone());
    cf.http.loc().charset().maps.edit().push(map);
    Ok(())
}

/// A charset by name, and whether the configuration knows it.
struct Named {
    name: Bytes,
    known: bool,
}

/// A variable that should name a charset has no value: nginx closes the connection without a word.
struct Undefined;

fn named(req: &Request, name: Bytes) -> Named {
    let known = req.http.main.charset.names.iter().any(|known| same(known, &name));
    Named { name, known }
}

fn header_filter(req: &mut Request) -> Option<u16> {
    match recode(req) {
        Ok(()) => None,
        Err(Undefined) => Some(0),
    }
}

fn recode(req: &mut Request) -> Result<(), Undefined> {
    let destination = match &req.parent {
        Some(parent) => parent.charset.clone().map(|name| named(req, name)),
        None => destination(req)?,
    };
    let Some(to) = destination else { return Ok(()) };
    let Some(from) = source(req)? else {
        set_charset(req, to.name);
        return Ok(());
    };
    if same(&from.name, &to.name) {
        set_charset(req, to.name);
        return Ok(());
    }
    if from.known && to.known {
        if req.response.headers.get(CONTENT_ENCODING).is_some_and(|v| !v.is_empty()) {
            return Ok(());
        }
        let maps = &req.http.main.charset.maps;
        if let Some((map, forward)) =
            maps.iter().find_map(|m| m.direction(&from.name, &to.name).map(|forward| (m.clone(), forward)))
        {
            let recode = map.recode(forward);
            if recode.changes_length() && !req.is_subrequest() {
                req.response.clear_content_length();
            }
            set_charset(req, to.name);
            req.add_body_filter(Box::new(Filter(recode)));
            return Ok(());
        }
    }
    req.log(Level::Error, None, format_args!("{}", no_map(&from.name, &to.name)));
    Ok(())
}

/// The charset that the response shall have; none where it is left alone.
fn destination(req: &Request) -> Result<Option<Named>, Undefined> {
    let r = &req.response;
    if r.content_type.as_ref().is_none_or(|t| t.is_empty()) {
        return Ok(None);
    }
    if let Some(wanted) = r.override_charset.as_ref().filter(|c| !c.is_empty()) {
        let wanted = named(req, wanted.clone());
        if wanted.known {
            return Ok(Some(wanted));
        }
        let shown = crate::log::bytes(&wanted.name);
        req.log(Level::Error, None, format_args!("unknown charset \"{shown}\" to override"));
        return Ok(None);
    }
    let conf = &req.conf.charset;
    if *conf.charset == Choice::Off {
        return Ok(None);
    }
    let labelled = r.charset.as_ref().is_some_and(|c| !c.is_empty());
    if labelled && !*conf.override_charset || !labelled && !conf.types.contains(req) {
        return Ok(None);
    }
    chosen(req, &conf.charset)
}

fn chosen(req: &Request, choice: &Choice) -> Result<Option<Named>, Undefined> {
    Ok(match choice {
        Choice::Off => None,
        Choice::Name(name) => Some(Named { name: name.clone(), known: true }),
        Choice::Variable(id) => {
            let mut name = Vec::new();
            if !variable(req, *id, &mut name) {
                return Err(Undefined);
            }
            Some(named(req, name.into()))
        }
    })
}

/// The charset that the response has; none where nobody says.
fn source(req: &Request) -> Result<Option<Named>, Undefined> {
    match req.response.charset.as_ref().filter(|c| !c.is_empty()) {
        Some(charset) => Ok(Some(named(req, charset.clone()))),
        None => chosen(req, &req.conf.charset.source),
    }
}

fn set_charset(req: &mut Request, name: Bytes) {
    if req.is_subrequest() {
        return;
    }
    let redirect = matches!(req.response.status, 301 | 302);
    req.response.charset = (!redirect).then_some(name);
}

struct Filter(Recode);

impl BodyFilter for Filter {
    fn filter(&mut self, _: &Request, input: &[u8], _: bool, out: &mut Vec<u8>) -> Result<(), Gone> {
        self.0.run(input, out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{Folder, Site, emerg};

    #[test]
    fn types_are_labelled() {
        let folder = Folder::new();
        folder.write("a.html", "a");
        folder.write("a.gif", "a");
        let site = Site::with(
            folder,
            "server { LISTEN charset utf-8; location /r { return 302 /; } location /v { alias html/; charset $arg_c; }
               location / { } }",
        );
        assert_eq!(site.get("/a.html").field("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(site.get("/a.gif").field("content-type"), Some("image/gif"));
        assert_eq!(site.get("/r").field("content-type"), Some("text/html"));
        assert_eq!(site.get("/v/a.html?c=x").field("content-type"), Some("text/html; charset=x"));
    }

    #[test]
    fn bodies_are_recoded() {
        let folder = Folder::new();
        folder.write("u.html", "a é ж €");
        folder.write("l.html", b"a \xe9 \x80");
        let site = Site::with(
            folder,
            "charset_map latin utf-8 { E9 C3A9; } charset_map latin other { E9 65; 80 81; }
             server { LISTEN
               location /to/ { alias html/; charset utf-8; source_charset latin; }
               location /from/ { alias html/; charset latin; source_charset utf-8; }
               location /one/ { alias html/; charset other; source_charset latin; } }",
        );
        let to = site.get("/to/l.html");
        assert_eq!((to.text().as_str(), to.field("content-length")), ("a é ?", None));
        let from = site.get("/from/u.html");
        assert_eq!(from.body, b"a \xe9 &#1078; &#8364;");
        let one = site.get("/one/l.html");
        assert_eq!((&one.body[..], one.field("content-length")), (&b"a e \x81"[..], Some("5")));
    }

    #[test]
    fn words_of_faults() {
        assert_eq!(
            emerg("charset a; source_charset b; server { }"),
            "no \"charset_map\" between the charsets \"b\" and \"a\""
        );
        for (text, want) in [
            ("charset_map a A { }", "\"charset_map\" between the same charsets \"a\" and \"A\" in "),
            (
                "charset_map utf-8 a { }",
                "\"charset_map\" with \"utf-8\" charset should be given in the second",
            ),
            (
                "charset_map a b { } charset_map b a { }",
                "duplicate \"charset_map\" between \"b\" and \"a\" in ",
            ),
            ("charset_map a b { 100 1; }", "invalid value \"100\" in "),
            ("charset_map a b { 1; }", "invalid parameters number in "),
            ("charset_map a utf-8 { 80 E282ACAA; }", "invalid value \"E282ACAA\" in "),
        ] {
            assert!(emerg(text).starts_with(want), "{text}: {}", emerg(text));
        }
    }
}
