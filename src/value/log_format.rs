//! `log_format`: compiled once into what is written for each line. Used by http and stream.

use std::cell::Cell;

use super::{Context, VarId, VariablesBuilder};
use crate::conf::{Fault, Outcome};
use crate::log::{Escape, escape};

/// A compiled format.
#[derive(Clone, Debug)]
pub struct LogFormat {
    ops: Vec<Op>,
    escape: Escape,
}

#[derive(Clone, Debug)]
enum Op {
    Text(Box<[u8]>),
    Variable(VarId),
}

impl LogFormat {
    /// Compiles the words of a `log_format` after its name.
    pub fn parse<'w, C: 'static>(
        words: impl IntoIterator<Item = &'w [u8]>,
        vars: &mut VariablesBuilder<C>,
    ) -> Outcome<LogFormat> {
        let mut format = LogFormat { ops: Vec::new(), escape: Escape::Default };
        for (i, word) in words.into_iter().enumerate() {
            if let (0, Some(name)) = (i, word.strip_prefix(b"escape=")) {
                let name = String::from_utf8_lossy(name);
                format.escape = Escape::parse(&name)
                    .ok_or_else(|| Fault::here(format!("unknown log format escaping \"{name}\"")))?;
                continue;
            }
            format.word(word, vars)?;
        }
        Ok(format)
    }

    fn word<C: 'static>(&mut self, mut rest: &[u8], vars: &mut VariablesBuilder<C>) -> Outcome {
        while !rest.is_empty() {
            let Some(after) = rest.strip_prefix(b"$") else {
                let len = memchr::memchr(b'$', rest).unwrap_or(rest.len());
                self.text(&rest[..len]);
                rest = &rest[len..];
                continue;
            };
            let (name, tail) = variable_name(rest, after)?;
            self.ops.push(Op::Variable(vars.index(name)));
            rest = tail;
        }
        Ok(())
    }

    fn text(&mut self, text: &[u8]) {
        match self.ops.last_mut() {
            Some(Op::Text(before)) => *before = [before, text].concat().into(),
            _ => self.ops.push(Op::Text(text.into())),
        }
    }

    /// Appends a line, its end excluded.
    pub fn append<C: Context>(&self, ctx: &C, line: &mut Vec<u8>) {
        for op in &self.ops {
            match op {
                Op::Text(text) => line.extend_from_slice(text),
                Op::Variable(id) => self.variable(ctx, *id, line),
            }
        }
    }

    /// The value goes straight into the line, and is escaped there if it must be.
    fn variable<C: Context>(&self, ctx: &C, id: VarId, line: &mut Vec<u8>) {
        thread_local! {
            static VALUE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
        }
        let start = line.len();
        if !ctx.variables().get(ctx, id, line) {
            line.truncate(start);
            escape(self.escape, None, line);
            return;
        }
        let special: fn(&u8) -> bool = match self.escape {
            Escape::None => return,
            Escape::Default => |c| matches!(c, b'"' | b'\\' | ..0x20 | 0x7f..),
            Escape::Json => |c| matches!(c, b'"' | b'\\' | ..0x20),
        };
        if line[start..].iter().any(special) {
            let mut value = VALUE.take();
            value.clear();
            value.extend_from_slice(&line[start..]);
            line.truncate(start);
            escape(self.escape, Some(&value), line);
            VALUE.set(value);
        }
    }
}

/// Splits `name` or `{name}` off `after`, which follows the `$` at the start of `whole`.
fn variable_name<'w>(whole: &'w [u8], after: &'w [u8]) -> Outcome<(&'w [u8], &'w [u8])> {
    let is_name = |c: &u8| c.is_ascii_alphanumeric() || *c == b'_';
    let invalid = || Fault::invalid_parameter(whole);
    let (inner, bracket) = match after.strip_prefix(b"{") {
        Some(inner) => (inner, true),
        None => (after, false),
    };
    if inner.is_empty() {
        return Err(invalid());
    }
    let len = inner.iter().take_while(|c| is_name(c)).count();
    let (name, mut tail) = inner.split_at(len);
    if bracket {
        tail = tail.strip_prefix(b"}").ok_or_else(|| {
            let shown = String::from_utf8_lossy(name);
            Fault::here(format!("the closing bracket in \"{shown}\" variable is missing"))
        })?;
    }
    if name.is_empty() { Err(invalid()) } else { Ok((name, tail)) }
}

#[cfg(test)]
mod tests {
    use super::super::Slot;
    use super::super::testing::{builder, ctx};
    use super::*;

    fn line(words: &[&str]) -> Result<String, String> {
        let mut vars = builder();
        let set = vars.define_slot(b"set").unwrap();
        let words = words.iter().map(|w| w.as_bytes());
        let format = LogFormat::parse(words, &mut vars).map_err(|f| f.text(b"log_format", ""))?;
        let ctx = ctx(vars);
        ctx.scope().set(set, Slot::Value(bytes::Bytes::from_static(b"a\"b\x01\xff")));
        let mut line = Vec::new();
        format.append(&ctx, &mut line);
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    #[test]
    fn words_are_joined_and_values_escaped() {
        assert_eq!(line(&["<$test> ", "${test}x"]).unwrap(), "<test value> test valuex");
        assert_eq!(line(&["$set"]).unwrap(), r"a\x22b\x01\xFF");
        assert_eq!(line(&["escape=json", "$set"]).unwrap(), "a\\\"b\\u0001\u{fffd}");
        assert_eq!(line(&["escape=none", "$set"]).unwrap(), "a\"b\x01\u{fffd}");
    }

    #[test]
    fn nginx_words_for_faults() {
        assert_eq!(line(&["escape=x", ""]).unwrap_err(), "unknown log format escaping \"x\"");
        assert_eq!(line(&["a$"]).unwrap_err(), "invalid parameter \"$\"");
        assert_eq!(line(&["a$-b"]).unwrap_err(), "invalid parameter \"$-b\"");
        assert_eq!(line(&["a${b"]).unwrap_err(), "the closing bracket in \"b\" variable is missing");
    }
}
