//! nginx's configuration language: text to a tree with positions, and back.
//!
//! Parsing never fails as a whole. nginx acts on directives while it reads them, so a wrong directive is
//! reported before a later unbalanced brace; the tree therefore holds errors as items, in their place, and
//! whoever walks it in order reports what nginx would report first.
//!
//! The room knows no directive but `include` and the `*_by_lua_block` family, whose bodies are not nginx's
//! language. The grammar is written down in `grammar/nginx.ebnf`.

mod error;
mod glob;
mod load;
mod lua;
mod parse;
mod print;
#[cfg(test)]
mod tests;
mod token;
mod tree;

pub use error::{At, Level, MAX_MESSAGE, SyntaxError};
pub use load::{LoadOptions, load, parse_str, parse_text};
pub use print::print;
pub use tree::{Directive, Item, Items, Tree, Word};
