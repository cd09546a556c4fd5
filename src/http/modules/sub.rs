//! `ngx_http_sub_filter`: replaces strings in bodies.

use std::sync::Arc;

use bytes::Bytes;

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Fault, Outcome, set};
use crate::http::conf::Loc;
use crate::http::headers::ETAG;
use crate::http::module::{BodyFilter, Handlers, Module};
use crate::http::output::Gone;
use crate::http::request::Request;
use crate::http::types::{self, TypeSet};
use crate::settings;
use crate::syntax::Directive;
use crate::value::Template;

/// The module.
pub struct Sub;

/// What to look for, and what to put in its place.
#[derive(Clone, Debug)]
pub struct Pair {
    find: Template,
    put: Template,
}

settings! {
    /// `sub_filter`
    pub struct LocConf {
        pairs: Arc<Vec<Pair>> = Arc::default(),
        types: TypeSet = TypeSet::html(),
        once: bool = true,
        last_modified: bool = false,
    }
}

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

impl Module for Sub {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_sub_filter",
        setters: &[
            ("sub_filter", directive),
            ("sub_filter_types", |cf, d| {
                types::directive(cf, d, |cf| &mut cf.http.loc().sub().types);
                Ok(())
            }),
            ("sub_filter_once", |cf, d| set::flag(&mut cf.http.loc().sub().once, d)),
            ("sub_filter_last_modified", |cf, d| set::flag(&mut cf.http.loc().sub().last_modified, d)),
        ],
    };

    fn handlers(loc: &Loc, to: &mut Handlers) {
        let loc = &loc.sub;
        if !loc.pairs.is_empty() {
            to.header_filters.push(header_filter);
        }
    }
}

fn directive(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    if d.arg(1).is_empty() {
        return Err(Fault::here("empty search pattern"));
    }
    if cf.http.loc().sub().pairs.len() == 255 {
        return Err(Fault::here("number of search patterns exceeds 255"));
    }
    let find = cf.http.template(&d.arg(1).to_ascii_lowercase())?;
    let put = cf.http.template(d.arg(2))?;
    Arc::make_mut(cf.http.loc().sub().pairs.edit()).push(Pair { find, put });
    Ok(())
}

fn header_filter(req: &mut Request) -> Option<u16> {
    let conf = req.conf;
    let conf = &conf.sub;
    if req.response.content_length == Some(0) || !conf.types.contains(req) {
        return None;
    }
    let mut patterns: Vec<Pattern> = Vec::with_capacity(conf.pairs.len());
    for (pair, at) in conf.pairs.iter().zip(0..) {
        let find = pair.find.eval(req).to_ascii_lowercase();
        if !find.is_empty() {
            patterns.push(Pattern { find, pair: at, put: None });
        }
    }
    if patterns.is_empty() {
        return None;
    }
    if !req.is_subrequest() {
        req.response.clear_content_length();
        if *conf.last_modified {
            req.response.weaken_etag();
        } else {
            req.response.clear_last_modified();
            req.response.headers.remove(ETAG);
        }
    }
    req.add_body_filter(Box::new(Replace::new(patterns, (*conf.pairs).clone(), *conf.once)));
    None
}

struct Pattern {
    /// Lower-case, not empty.
    find: Vec<u8>,
    /// Index of its pair.
    pair: usize,
    /// What it is replaced by, once that was needed.
    put: Option<Bytes>,
}

struct Replace {
    patterns: Vec<Pattern>,
    pairs: Arc<Vec<Pair>>,
    /// Each is replaced once.
    once: bool,
    /// Whether a pattern may begin with this byte.
    begins: [bool; 256],
    /// The end of what came, which may be the beginning of a pattern.
    held: Vec<u8>,
    /// All were replaced that are to be replaced once.
    done: bool,
}

/// How text and a pattern compare.
enum Match {
    Not,
    /// The text ends within the pattern.
    Begins,
    Whole,
}

impl Replace {
    fn new(patterns: Vec<Pattern>, pairs: Arc<Vec<Pair>>, once: bool) -> Replace {
        let mut begins = [false; 256];
        for p in &patterns {
            begins[usize::from(p.find[0])] = true;
            begins[usize::from(p.find[0].to_ascii_uppercase())] = true;
        }
        Replace { patterns, pairs, once, begins, held: Vec::new(), done: false }
    }

    fn compare(text: &[u8], find: &[u8]) -> Match {
        let len = text.len().min(find.len());
        if !text[..len].eq_ignore_ascii_case(&find[..len]) {
            Match::Not
        } else if len < find.len() {
            Match::Begins
        } else {
            Match::Whole
        }
    }

    /// Replaces in `text`, which begins with what was held back; returns how much of it is settled.
    fn replace(&mut self, text: &[u8], out: &mut Vec<u8>, eval: &dyn Fn(usize) -> Bytes) -> usize {
        let mut copied = 0;
        let mut at = 0;
        'text: while at < text.len() && !self.done {
            if !self.begins[usize::from(text[at])] {
                at += 1;
                continue;
            }
            for i in 0..self.patterns.len() {
                let pattern = &self.patterns[i];
                if self.once && pattern.put.is_some() {
                    continue;
                }
                match Replace::compare(&text[at..], &pattern.find) {
                    Match::Not => {}
                    Match::Begins => break 'text,
                    Match::Whole => {
                        out.extend_from_slice(&text[copied..at]);
                        at += pattern.find.len();
                        copied = at;
                        self.put(i, out, eval);
                        continue 'text;
                    }
                }
            }
            at += 1;
        }
        if self.done {
            at = text.len();
        }
        out.extend_from_slice(&text[copied..at]);
        at
    }

    /// Replaces in another piece of the body.
    fn piece(&mut self, input: &[u8], out: &mut Vec<u8>, eval: &dyn Fn(usize) -> Bytes) {
        if self.held.is_empty() {
            let settled = self.replace(input, out, eval);
            self.held.extend_from_slice(&input[settled..]);
        } else if !input.is_empty() {
            let mut text = std::mem::take(&mut self.held);
            text.extend_from_slice(input);
            let settled = self.replace(&text, out, eval);
            text.drain(..settled);
            self.held = text;
        }
    }

    fn put(&mut self, i: usize, out: &mut Vec<u8>, eval: &dyn Fn(usize) -> Bytes) {
        let pattern = &mut self.patterns[i];
        out.extend_from_slice(pattern.put.get_or_insert_with(|| eval(pattern.pair)));
        self.done = self.once && self.patterns.iter().all(|p| p.put.is_some());
    }
}

impl BodyFilter for Replace {
    fn filter(&mut self, req: &Request, input: &[u8], last: bool, out: &mut Vec<u8>) -> Result<(), Gone> {
        let pairs = self.pairs.clone();
        let eval = |pair: usize| pairs.get(pair).map(|p| p.put.eval(req)).unwrap_or_default();
        self.piece(input, out, &eval);
        if last {
            out.append(&mut self.held);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{Folder, Site, emerg};
    use proptest::prelude::*;

    fn site(conf: &str, text: &str) -> Site {
        let folder = Folder::new();
        folder.write("a.html", text);
        Site::with(folder, &format!("server {{ LISTEN {conf} }}"))
    }

    #[test]
    fn strings_are_replaced() {
        let body = "Aaa bbb AAA bbb ab aab";
        for (conf, want) in [
            ("sub_filter aaa x;", "x bbb AAA bbb ab aab"),
            ("sub_filter aaa x; sub_filter_once off;", "x bbb x bbb ab aab"),
            ("sub_filter aaa x; sub_filter bbb y;", "x y AAA bbb ab aab"),
            ("sub_filter ab x; sub_filter aab y; sub_filter_once off;", "Aaa bbb AAA bbb x y"),
            ("sub_filter aa x; sub_filter aaa y; sub_filter_once off;", "xa bbb xA bbb ab xb"),
            ("sub_filter aab $uri;", "Aaa bbb AAA bbb ab /a.html"),
            ("sub_filter $arg_none x;", body),
        ] {
            let answer = site(conf, body).get("/a.html");
            assert_eq!(answer.text(), want, "{conf}");
        }
    }

    #[test]
    fn fields_that_no_longer_hold_are_left_out() {
        let answer = site("sub_filter a b;", "a").get("/a.html");
        for gone in ["content-length", "last-modified", "etag", "accept-ranges"] {
            assert_eq!(answer.field(gone), None, "{gone}");
        }
        let answer = site("sub_filter a b; sub_filter_last_modified on;", "a").get("/a.html");
        assert!(answer.field("last-modified").is_some());
        assert!(answer.field("etag").unwrap().starts_with("W/"));
        assert!(emerg("sub_filter '' a;").starts_with("empty search pattern in "));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(text in "[ab]{0,40}", cuts in proptest::collection::vec(0usize..40, 0..5)) {
            let find: &[&[u8]] = &[b"abba", b"bb"];
            let run = |pieces: &[&[u8]]| {
                let patterns = find
                    .iter()
                    .map(|f| Pattern { find: f.to_vec(), pair: 0, put: Some(Bytes::from_static(b"x")) })
                    .collect();
                let mut filter = Replace::new(patterns, Arc::default(), false);
                let mut out = Vec::new();
                for piece in pieces {
                    filter.piece(piece, &mut out, &|_| Bytes::new());
                }
                out.append(&mut filter.held);
                out
            };
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|c| *c < text.len()).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&text.as_bytes()[from..cut]);
                from = cut;
            }
            pieces.push(&text.as_bytes()[from..]);
            prop_assert_eq!(run(&pieces), run(&[text.as_bytes()]));
        }
    }
}
