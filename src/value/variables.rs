//! The table of variables: what each name means, found once, read by index.

use std::cell::Cell;
use std::collections::HashMap;

use bytes::Bytes;

use super::{Context, Slot, VarId};
use crate::log::{self, Level};

/// How deep computed variables may depend on each other.
const MAX_DEPTH: u8 = 100;

/// Appends a computed value; false where there is none.
pub type Compute<C> = dyn Fn(&C, &mut Vec<u8>) -> bool + Send + Sync;

/// How a variable's value is had.
pub enum Get<C> {
    /// Straight from the context.
    Fn(fn(&C, &mut Vec<u8>) -> bool),
    /// From the context by the rest of the name (`http_*`, `arg_*`).
    Prefixed(fn(&C, &[u8], &mut Vec<u8>) -> bool, Box<[u8]>),
    /// What was set in the scope (`set`, named groups).
    Slot,
    /// Computed by what a directive made of its block (`map`, `geo`, `split_clients`).
    Computed(Box<Compute<C>>),
}

/// How a variable may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// May be defined again by `set`, `map` and the like.
    pub changeable: bool,
    /// The first value computed stays for the whole request.
    pub cached: bool,
}

/// A variable that a module brings.
pub struct Builtin<C: 'static> {
    /// Name without `$`.
    pub name: &'static str,
    /// Reads it.
    pub get: fn(&C, &mut Vec<u8>) -> bool,
    /// Writes it (`set $args ...`).
    pub set: Option<fn(&mut C, Bytes)>,
    /// How it may be used.
    pub flags: Flags,
}

impl<C> Builtin<C> {
    /// A variable that can only be read.
    pub const fn new(name: &'static str, get: fn(&C, &mut Vec<u8>) -> bool) -> Self {
        Builtin { name, get, set: None, flags: Flags { changeable: false, cached: false } }
    }

    /// The same, keeping its first value for the whole request.
    pub const fn cached(name: &'static str, get: fn(&C, &mut Vec<u8>) -> bool) -> Self {
        Builtin { name, get, set: None, flags: Flags { changeable: false, cached: true } }
    }

    /// The same, and `set`, `map` and the like may define it anew.
    pub const fn changeable(name: &'static str, get: fn(&C, &mut Vec<u8>) -> bool) -> Self {
        Builtin { name, get, set: None, flags: Flags { changeable: true, cached: false } }
    }

    /// A variable that `set` writes through to the context.
    pub const fn writable(
        name: &'static str,
        get: fn(&C, &mut Vec<u8>) -> bool,
        set: fn(&mut C, Bytes),
    ) -> Self {
        Builtin { name, get, set: Some(set), flags: Flags { changeable: true, cached: false } }
    }
}

/// A family of variables by the beginning of their names.
pub struct Prefix<C: 'static> {
    /// `http_`, `arg_`, ...
    pub prefix: &'static str,
    /// Reads the member whose name goes on with the second argument.
    pub get: fn(&C, &[u8], &mut Vec<u8>) -> bool,
}

struct Variable<C> {
    name: Box<str>,
    get: Get<C>,
    set: Option<fn(&mut C, Bytes)>,
    cached: bool,
}

/// All variables that a configuration uses.
pub struct Variables<C> {
    list: Vec<Variable<C>>,
    names: HashMap<Box<str>, VarId>,
    /// Families of which some member is used.
    families: Vec<&'static str>,
}

impl<C: Context> Variables<C> {
    /// Whether any variable of that family (`http_`, ...) is used.
    pub fn has_family(&self, prefix: &str) -> bool {
        self.families.contains(&prefix)
    }

    /// Appends the value of `id`; false where it has none.
    pub fn get(&self, ctx: &C, id: VarId, out: &mut Vec<u8>) -> bool {
        let Some(variable) = self.list.get(id.0 as usize) else { return false };
        if variable.cached {
            match ctx.scope().slot(id) {
                Slot::Value(value) => {
                    out.extend_from_slice(&value);
                    return true;
                }
                Slot::NotFound => return false,
                Slot::Unset => {}
            }
        }
        let start = out.len();
        let found = match &variable.get {
            Get::Fn(get) => get(ctx, out),
            Get::Prefixed(get, rest) => get(ctx, rest, out),
            Get::Computed(get) => compute(&variable.name, || get(ctx, out)),
            Get::Slot => match ctx.scope().slot(id) {
                Slot::Value(value) => {
                    out.extend_from_slice(&value);
                    true
                }
                _ => false,
            },
        };
        if variable.cached {
            let kept =
                if found { Slot::Value(Bytes::copy_from_slice(&out[start..])) } else { Slot::NotFound };
            ctx.scope().set(id, kept);
        }
        found
    }

    /// Gives `id` a value, as `set` does.
    pub fn set(&self, ctx: &mut C, id: VarId, value: Bytes) {
        match self.list.get(id.0 as usize).and_then(|v| v.set) {
            Some(set) => set(ctx, value),
            None => ctx.scope().set(id, Slot::Value(value)),
        }
    }

    /// The variable of that name, where the configuration mentions it.
    pub fn find(&self, name: &str) -> Option<VarId> {
        self.names.get(name).copied()
    }

    /// Name of `id`, without `$`.
    pub fn name(&self, id: VarId) -> &str {
        self.list.get(id.0 as usize).map_or("", |v| &v.name)
    }
}

/// Runs `get`, unless it is within itself too often: a `map` whose value needs that value.
fn compute(name: &str, get: impl FnOnce() -> bool) -> bool {
    thread_local! {
        static DEPTH: Cell<u8> = const { Cell::new(0) };
    }
    let depth = DEPTH.get();
    if depth == MAX_DEPTH {
        log::error(
            &log::main(),
            Level::Error,
            None,
            format_args!("cycle while evaluating variable \"{name}\""),
        );
        return false;
    }
    DEPTH.set(depth + 1);
    let found = get();
    DEPTH.set(depth);
    found
}

enum Entry<C> {
    /// Used, not defined so far.
    Wanted,
    Defined {
        get: Get<C>,
        set: Option<fn(&mut C, Bytes)>,
        cached: bool,
    },
}

/// The table while the configuration is read: names may be used before they are defined.
pub struct VariablesBuilder<C: 'static> {
    builtins: HashMap<&'static str, &'static Builtin<C>>,
    prefixes: Vec<&'static Prefix<C>>,
    names: HashMap<Box<str>, VarId>,
    entries: Vec<(Box<str>, Entry<C>)>,
}

/// The reader of the family that `name` belongs to.
fn family<C>(prefixes: &[&'static Prefix<C>], name: &str) -> Option<Get<C>> {
    let family = prefixes.iter().find(|p| name.starts_with(p.prefix))?;
    Some(Get::Prefixed(family.get, name.as_bytes()[family.prefix.len()..].into()))
}

impl<C: 'static> VariablesBuilder<C> {
    /// A table that knows these variables and families.
    pub fn new(
        builtins: impl IntoIterator<Item = &'static Builtin<C>>,
        prefixes: impl IntoIterator<Item = &'static Prefix<C>>,
    ) -> Self {
        VariablesBuilder {
            builtins: builtins.into_iter().map(|b| (b.name, b)).collect(),
            prefixes: prefixes.into_iter().collect(),
            names: HashMap::new(),
            entries: Vec::new(),
        }
    }

    /// The index of a name that is used; it may be defined later.
    pub fn index(&mut self, name: &[u8]) -> VarId {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        if let Some(id) = self.names.get(name.as_str()) {
            return *id;
        }
        let id = VarId(self.entries.len() as u32);
        self.names.insert(name.clone().into(), id);
        self.entries.push((name.into(), Entry::Wanted));
        id
    }

    /// Defines a variable whose value is computed (`map`, `geo`).
    pub fn define(&mut self, name: &[u8], get: Get<C>, cached: bool) -> Result<VarId, String> {
        let id = self.definable(name)?;
        self.entries[id.0 as usize].1 = Entry::Defined { get, set: None, cached };
        Ok(id)
    }

    /// Defines a variable that `set` and its like assign; an existing definition stays.
    pub fn define_slot(&mut self, name: &[u8]) -> Result<VarId, String> {
        self.define_weak(name, |_| Get::Slot)
    }

    /// As [`VariablesBuilder::define_slot`], with what reads the variable while nothing is assigned.
    pub fn define_weak(&mut self, name: &[u8], get: impl FnOnce(VarId) -> Get<C>) -> Result<VarId, String> {
        let id = self.definable(name)?;
        let (name, entry) = &self.entries[id.0 as usize];
        if matches!(entry, Entry::Wanted) {
            // What was assigned stays; only a variable that writes through to the context is read anew.
            let defined = match (self.builtins.get(&**name), family(&self.prefixes, name)) {
                (Some(b), _) => Entry::Defined {
                    get: Get::Fn(b.get),
                    set: b.set,
                    cached: b.set.is_none() || b.flags.cached,
                },
                (None, Some(get)) => Entry::Defined { get, set: None, cached: true },
                (None, None) => Entry::Defined { get: get(id), set: None, cached: true },
            };
            self.entries[id.0 as usize].1 = defined;
        }
        Ok(id)
    }

    /// Defines the variable of a named group.
    pub fn define_capture(&mut self, name: &[u8]) -> Result<VarId, String> {
        self.define_slot(name)
    }

    /// A name that may be defined: known ones must be changeable.
    fn definable(&mut self, name: &[u8]) -> Result<VarId, String> {
        let id = self.index(name);
        let name = &*self.entries[id.0 as usize].0;
        if self.builtins.get(name).is_some_and(|b| !b.flags.changeable) {
            return Err(format!("the duplicate \"{name}\" variable"));
        }
        Ok(id)
    }

    /// Closes the table; the error names a variable that nothing defines.
    pub fn finish(self) -> Result<Variables<C>, String> {
        let mut list = Vec::with_capacity(self.entries.len());
        for (name, entry) in self.entries {
            let variable = match entry {
                Entry::Defined { get, set, cached } => Variable { name, get, set, cached },
                Entry::Wanted => match self.builtins.get(&*name) {
                    Some(b) => Variable { get: Get::Fn(b.get), set: b.set, cached: b.flags.cached, name },
                    None => {
                        let get = family(&self.prefixes, &name)
                            .ok_or_else(|| format!("unknown \"{name}\" variable"))?;
                        Variable { get, set: None, cached: false, name }
                    }
                },
            };
            list.push(variable);
        }
        let used = |prefix: &&str| list.iter().any(|v: &Variable<C>| v.name.starts_with(prefix));
        let families = self.prefixes.iter().map(|family| family.prefix).filter(used).collect();
        Ok(Variables { list, names: self.names, families })
    }
}
