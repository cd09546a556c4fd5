//! Text with variables in it.

use bytes::Bytes;

use super::{Context, VarId, VariablesBuilder};

/// One part of a compiled value.
#[derive(Clone, Debug)]
pub enum Part {
    /// Literal text.
    Text(Bytes),
    /// `$name`
    Variable(VarId),
    /// `$1` to `$9`
    Capture(u8),
}

/// A compiled value: constant text, or parts to be put together.
#[derive(Clone, Debug)]
pub struct Template {
    parts: Box<[Part]>,
    captures: bool,
}

impl Default for Template {
    fn default() -> Self {
        Template::constant(Bytes::new())
    }
}

impl Template {
    /// Text that stands for itself.
    pub fn constant(text: impl Into<Bytes>) -> Template {
        let text = text.into();
        let parts: Box<[Part]> = if text.is_empty() { Box::default() } else { Box::new([Part::Text(text)]) };
        Template { parts, captures: false }
    }

    /// Compiles `text`. The error is nginx's sentence without a position.
    pub fn parse<C: Context>(text: &[u8], vars: &mut VariablesBuilder<C>) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut captures = false;
        let mut literal = Vec::new();
        let mut rest = text;
        while let Some(at) = memchr::memchr(b'$', rest) {
            literal.extend_from_slice(&rest[..at]);
            rest = &rest[at + 1..];
            if !literal.is_empty() {
                parts.push(Part::Text(Bytes::from(std::mem::take(&mut literal))));
            }
            if let Some(digit @ b'1'..=b'9') = rest.first() {
                parts.push(Part::Capture(digit - b'0'));
                captures = true;
                rest = &rest[1..];
                continue;
            }
            let (name, after) = variable_name(rest)?;
            parts.push(Part::Variable(vars.index(name)));
            rest = after;
        }
        literal.extend_from_slice(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(Bytes::from(literal)));
        }
        Ok(Template { parts: parts.into(), captures })
    }

    /// The parts in order, for what treats them differently (`rewrite`, log formats).
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The text, where there is no variable in it.
    pub fn as_constant(&self) -> Option<&[u8]> {
        match &*self.parts {
            [] => Some(b""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The one variable this template consists of.
    pub fn as_variable(&self) -> Option<VarId> {
        match &*self.parts {
            [Part::Variable(id)] => Some(*id),
            _ => None,
        }
    }

    /// Whether `$1` to `$9` occur.
    pub fn has_captures(&self) -> bool {
        self.captures
    }

    /// Appends the value.
    pub fn append<C: Context>(&self, ctx: &C, out: &mut Vec<u8>) {
        for part in &*self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Variable(id) => {
                    ctx.variables().get(ctx, *id, out);
                }
                Part::Capture(n) => {
                    ctx.scope().capture(*n as usize, out);
                }
            }
        }
    }

    /// The value as a string of its own; constant text is shared, not copied.
    pub fn eval<C: Context>(&self, ctx: &C) -> Bytes {
        match &*self.parts {
            [] => Bytes::new(),
            [Part::Text(text)] => text.clone(),
            _ => {
                let mut out = Vec::with_capacity(64);
                self.append(ctx, &mut out);
                out.into()
            }
        }
    }

    /// Parts in order, for what must treat variables and text apart (log formats).
    pub fn visit<C: Context>(&self, ctx: &C, mut each: impl FnMut(TemplatePart<'_>)) {
        let mut scratch = Vec::new();
        for part in &*self.parts {
            scratch.clear();
            match part {
                Part::Text(text) => each(TemplatePart::Text(text)),
                Part::Variable(id) => {
                    let found = ctx.variables().get(ctx, *id, &mut scratch);
                    each(TemplatePart::Value(found.then_some(&scratch)));
                }
                Part::Capture(n) => {
                    let found = ctx.scope().capture(*n as usize, &mut scratch);
                    each(TemplatePart::Value(found.then_some(&scratch)));
                }
            }
        }
    }
}

/// One part of a template at evaluation.
#[derive(Debug)]
pub enum TemplatePart<'a> {
    /// Literal text.
    Text(&'a [u8]),
    /// A variable's value; none where it has none.
    Value(Option<&'a [u8]>),
}

/// Splits `name` or `{name}` off what follows a `$`.
fn variable_name(rest: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let is_name = |c: &u8| c.is_ascii_alphanumeric() || *c == b'_';
    if let Some(inner) = rest.strip_prefix(b"{") {
        let len = inner.iter().take_while(|c| is_name(c)).count();
        if inner.get(len) != Some(&b'}') {
            let shown = String::from_utf8_lossy(&inner[..len]);
            return Err(format!("the closing bracket in \"{shown}\" variable is missing"));
        }
        if len == 0 {
            return Err("invalid variable name".into());
        }
        return Ok((&inner[..len], &inner[len + 1..]));
    }
    let len = rest.iter().take_while(|c| is_name(c)).count();
    if len == 0 {
        return Err("invalid variable name".into());
    }
    Ok(rest.split_at(len))
}
