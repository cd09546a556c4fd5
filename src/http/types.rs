//! Sets of MIME types that a filter applies to (`gzip_types` and its like).

use std::collections::HashSet;
use std::sync::Arc;

use super::request::Request;
use crate::conf::{Build, Setting};
use crate::syntax::Directive;

/// A set of MIME types.
#[derive(Clone, Debug)]
pub enum TypeSet {
    /// `*`
    Any,
    /// These, lower-case.
    Only(Arc<HashSet<Box<[u8]>>>),
}

impl TypeSet {
    /// These types.
    pub fn of(types: &[&str]) -> TypeSet {
        TypeSet::Only(Arc::new(types.iter().map(|t| t.as_bytes().into()).collect()))
    }

    /// Only `text/html`, the default of most filters.
    pub fn html() -> TypeSet {
        TypeSet::of(&["text/html"])
    }

    /// Whether the response's type is in the set.
    pub fn contains(&self, req: &Request) -> bool {
        match self {
            TypeSet::Any => true,
            TypeSet::Only(set) => req.response.content_type.as_ref().is_some_and(|t| {
                !t.is_empty() && (set.contains(&t[..]) || set.contains(&t.to_ascii_lowercase()[..]))
            }),
        }
    }
}

/// Reads a directive's types into the setting that `pick` gives; `text/html` is always one of them.
pub fn directive(cf: &mut Build, d: &Directive<'_>, pick: fn(&mut Build) -> &mut Setting<TypeSet>) {
    let setting = pick(cf);
    let mut set = match (setting.is_set(), &**setting) {
        (true, TypeSet::Any) => return,
        (true, TypeSet::Only(set)) => (**set).clone(),
        (false, _) => HashSet::from([Box::from(&b"text/html"[..])]),
    };
    for word in d.args() {
        if word == b"*" {
            pick(cf).put(TypeSet::Any);
            return;
        }
        let word = word.to_ascii_lowercase();
        if set.contains(&word[..]) {
            let shown = String::from_utf8_lossy(&word).into_owned();
            cf.warn(d.at(), format_args!("duplicate MIME type \"{shown}\""));
        }
        set.insert(word.into());
    }
    pick(cf).put(TypeSet::Only(Arc::new(set)));
}
