//! A context for the tests of this room.

use super::entries::{EachEntry, entries};
use super::{Builtin, Context, Scope, Variables, VariablesBuilder};
use crate::conf::Fault;
use crate::syntax::{LoadOptions, parse_text};

/// A context whose one variable of its own is `$test`.
pub struct Ctx {
    vars: &'static Variables<Ctx>,
    scope: Scope,
}

impl Context for Ctx {
    fn variables(&self) -> &'static Variables<Ctx> {
        self.vars
    }

    fn scope(&self) -> &Scope {
        &self.scope
    }
}

static BUILTINS: [Builtin<Ctx>; 1] = [Builtin::new("test", |_, out| {
    out.extend_from_slice(b"test value");
    true
})];

pub fn builder() -> VariablesBuilder<Ctx> {
    VariablesBuilder::new(&BUILTINS, [])
}

pub fn ctx(vars: VariablesBuilder<Ctx>) -> Ctx {
    let vars = vars.finish().unwrap_or_else(|error| panic!("{error}"));
    Ctx { vars: Box::leak(Box::new(vars)), scope: Scope::default() }
}

/// Reads the entries of `text`, which is called `test`.
pub fn read(text: &str, each: &mut EachEntry<'_>) -> Result<(), String> {
    let tree = parse_text(b"test", text.as_bytes(), &LoadOptions::new(b"/".to_vec()));
    entries(tree.items(), each).map_err(|fault| match fault {
        Fault::Whole(text) => text,
        other => panic!("a fault without position: {other:?}"),
    })
}
