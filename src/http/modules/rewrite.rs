//! `ngx_http_rewrite`: `rewrite`, `return`, `set`, `if`, `break`. What they compile to is in [`crate::http::script`].

use std::sync::Arc;

use bytes::Bytes;

use crate::conf::build::Commands;
use crate::conf::grammar::Context;
use crate::conf::{Build, Conf, Fault, Outcome, Setting, set, units};
use crate::http::conf::{Loc, LocationBuild, nested};
use crate::http::location::Kind;
use crate::http::module::{Handlers, Module, Step, Verdict};
use crate::http::request::Request;
use crate::http::script::{self, Code, Condition, FileKind, If, Pattern, Rewrite as RewriteCode};
use crate::log::Level;
use crate::syntax::Directive;
use crate::value::entries::variable_name;
use crate::value::{Context as _, Get, Slot};

/// The module.
pub struct Rewrite;

/// What a location (or server) rewrites. The codes are its own, never its parent's.
#[derive(Clone, Debug)]
pub struct LocConf {
    /// `rewrite_log`
    pub log: Setting<bool>,
    /// `uninitialized_variable_warn`
    pub uninitialized_variable_warn: Setting<bool>,
    /// The block's directives in order, those in its `if` blocks too.
    pub codes: Vec<Code>,
}

impl Default for LocConf {
    fn default() -> Self {
        LocConf {
            log: Setting::unset(false),
            uninitialized_variable_warn: Setting::unset(true),
            codes: Vec::new(),
        }
    }
}

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.log.inherit(&parent.log);
        self.uninitialized_variable_warn.inherit(&parent.uninitialized_variable_warn);
        Ok(())
    }
}

impl Module for Rewrite {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_rewrite",
        setters: &[
            ("rewrite", rewrite),
            ("return", return_),
            ("break", |cf, _| {
                push(cf, Code::Break);
                Ok(())
            }),
            ("if", if_block),
            ("set", set_variable),
            ("rewrite_log", |cf, d| set::flag(&mut cf.http.loc().rewrite().log, d)),
            ("uninitialized_variable_warn", |cf, d| {
                set::flag(&mut cf.http.loc().rewrite().uninitialized_variable_warn, d)
            }),
        ],
    };

    fn close(location: &mut LocationBuild, _: &mut Build) -> Outcome {
        // Every block has settings of its own here, since it must not share its parent's codes.
        location.conf.rewrite();
        Ok(())
    }

    fn handlers(loc: &Loc, to: &mut Handlers) {
        if !loc.rewrite.codes.is_empty() {
            to.server_rewrite.push(run_server);
            to.rewrite.push(run_location);
        }
    }
}

fn push(cf: &mut Build, code: Code) {
    cf.http.loc().rewrite().codes.push(code);
}

/// Text that makes an answer or replacement a redirect.
fn is_url(text: &[u8]) -> bool {
    ["http://", "https://", "$scheme"].iter().any(|start| text.starts_with(start.as_bytes()))
}

fn rewrite(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    if d.arg(2).is_empty() {
        return Err(Fault::here("empty replacement"));
    }
    let regex = Arc::new(cf.http.regex(d.arg(1), false)?);
    let (text, add_args) = match d.arg(2).strip_suffix(b"?") {
        Some(text) => (text, false),
        None => (d.arg(2), true),
    };
    let mut redirect = is_url(text).then_some(302);
    let (mut last, mut break_cycle) = (redirect.is_some(), false);
    if d.len() == 4 {
        last = true;
        match d.arg(3) {
            b"last" => {}
            b"break" => break_cycle = true,
            b"redirect" => redirect = Some(302),
            b"permanent" => redirect = Some(301),
            other => return Err(Fault::invalid_parameter(other)),
        }
    }
    let template = cf.http.template(text)?;
    let (parts, has_args) = RewriteCode::pieces(&template, redirect.is_some());
    let pattern = Pattern { regex, text: Bytes::copy_from_slice(d.arg(1)) };
    let code = RewriteCode { pattern, parts, has_args, add_args, redirect, break_cycle, last };
    push(cf, Code::Rewrite(Box::new(code)));
    Ok(())
}

fn return_(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let invalid = || Fault::here(format!("invalid return code \"{}\"", String::from_utf8_lossy(d.arg(1))));
    let (status, text) = match units::number(d.arg(1)) {
        Some(status) => {
            let status = u16::try_from(status).ok().filter(|status| *status <= 999).ok_or_else(invalid)?;
            (status, d.arg(2))
        }
        None if d.len() == 2 && is_url(d.arg(1)) => (302, d.arg(1)),
        None => return Err(invalid()),
    };
    let text = cf.http.template(text)?;
    push(cf, Code::Return(status, text));
    Ok(())
}

fn set_variable(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let name = variable_name(d.arg(1))?;
    let shown = String::from_utf8_lossy(name).into_owned();
    let id = cf.http.vars.define_weak(name, |id| {
        Get::Computed(Box::new(move |req: &Request, out| match req.scope().slot(id) {
            Slot::Value(value) => {
                out.extend_from_slice(&value);
                true
            }
            _ => {
                if *req.conf.rewrite.uninitialized_variable_warn {
                    let said = format_args!("using uninitialized \"{shown}\" variable");
                    req.log(Level::Warn, None, said);
                }
                true
            }
        }))
    })?;
    let value = cf.http.template(d.arg(2))?;
    push(cf, Code::Set(id, value));
    Ok(())
}

fn if_block(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let condition = condition(cf, d)?;
    let outer = cf.http.location();
    let (block, context) = match outer.kind {
        Kind::Server => (None, Context::HTTP_SERVER_IF),
        _ => (Some(outer.ifs.len()), Context::HTTP_LOCATION_IF),
    };
    // The block's rewrites go on in its parent's codes.
    let mut codes = std::mem::take(&mut outer.conf.rewrite().codes);
    let at = codes.len();
    codes.push(Code::Break);
    let mut scope = LocationBuild::new(Kind::If, &outer.name);
    scope.conf.rewrite().codes = codes;
    let mut inside = nested(cf, d, scope, context)?;
    let mut codes = std::mem::take(&mut inside.conf.rewrite().codes);
    let next = codes.len();
    codes[at] = Code::If(Box::new(If { condition, block, next }));
    let outer = cf.http.location();
    outer.conf.rewrite().codes = codes;
    outer.ifs.push(inside);
    Ok(())
}

fn invalid_condition(word: &[u8]) -> Fault {
    Fault::here(format!("invalid condition \"{}\"", String::from_utf8_lossy(word)))
}

/// The words between the parentheses of `if (...)`.
fn condition_words<'t>(d: &Directive<'t>) -> Outcome<Vec<&'t [u8]>> {
    let mut words: Vec<&[u8]> = d.args().collect();
    let first = words.first().copied().unwrap_or_default();
    let Some(rest) = first.strip_prefix(b"(") else { return Err(invalid_condition(first)) };
    words[0] = rest;
    let last = words.last().copied().unwrap_or_default();
    let Some(rest) = last.strip_suffix(b")") else {
        return Err(invalid_condition(if words.len() == 1 && last.is_empty() { first } else { last }));
    };
    let end = words.len() - 1;
    words[end] = rest;
    let alone = rest.is_empty();
    if alone {
        words.pop();
    }
    if first == b"(" && !words.is_empty() {
        words.remove(0);
    }
    if words.is_empty() {
        return Err(invalid_condition(b")"));
    }
    Ok(words)
}

fn condition(cf: &mut Build, d: &Directive<'_>) -> Outcome<Condition> {
    let words = condition_words(d)?;
    let first = words[0];
    match first {
        [b'$', name @ ..] if !name.is_empty() => {
            if words.len() != 1 && words.len() != 3 {
                return Err(invalid_condition(first));
            }
            let id = cf.http.vars.index(name);
            let [_, op, operand] = words[..] else { return Ok(Condition::Variable(id)) };
            match op {
                b"=" | b"!=" => Ok(Condition::Equal(id, cf.http.template(operand)?, op == b"=")),
                b"~" | b"~*" | b"!~" | b"!~*" => {
                    let regex = cf.http.regex(operand, op.ends_with(b"*"))?;
                    let pattern = Pattern { regex: Arc::new(regex), text: Bytes::copy_from_slice(operand) };
                    Ok(Condition::Matches(id, pattern, op[0] == b'~'))
                }
                _ => {
                    let shown = String::from_utf8_lossy(op);
                    Err(Fault::here(format!("unexpected \"{shown}\" in condition")))
                }
            }
        }
        [b'-', letter] | [b'!', b'-', letter] => {
            let [_, path] = words[..] else { return Err(invalid_condition(first)) };
            let path = cf.http.template(path)?;
            let kind = match letter {
                b'f' => FileKind::Plain,
                b'd' => FileKind::Directory,
                b'e' => FileKind::Any,
                b'x' => FileKind::Executable,
                _ => return Err(invalid_condition(first)),
            };
            Ok(Condition::File(path, kind, first[0] == b'-'))
        }
        _ => Err(invalid_condition(first)),
    }
}

fn run_server(req: &mut Request) -> Step<'_> {
    let conf = &req.server.root.rewrite;
    script::run(req, &conf.codes, *conf.log)
}

fn run_location(req: &mut Request) -> Step<'_> {
    if std::ptr::eq(req.conf, &req.server.root) {
        // Outside of locations the server's rewrites ran already.
        return Verdict::Next.into();
    }
    let conf = &req.conf.rewrite;
    script::run(req, &conf.codes, *conf.log)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::{Item, LoadOptions, parse_text};
    use proptest::prelude::*;

    fn words(text: &str) -> Result<Vec<String>, String> {
        let tree = parse_text(b"t", format!("if {text} {{}}").as_bytes(), &LoadOptions::new(b"/".to_vec()));
        let Some(Item::Directive(d)) = tree.items().next() else { panic!("no directive in {text}") };
        let shown = |words: Vec<&[u8]>| words.iter().map(|w| String::from_utf8_lossy(w).into()).collect();
        condition_words(&d).map(shown).map_err(|fault| fault.text(b"if", ""))
    }

    #[test]
    fn parentheses_touch_words_or_stand_alone() {
        for text in ["($a = b)", "( $a = b )", "( $a = b)", "($a = b )"] {
            assert_eq!(words(text).unwrap(), ["$a", "=", "b"], "{text}");
        }
        assert_eq!(words("($a)").unwrap(), ["$a"]);
        assert_eq!(words("($a = \"\")").err(), None);
    }

    #[test]
    fn nginx_words_for_faults() {
        for (text, shown) in
            [("$a", "$a"), ("(", "("), ("()", ")"), ("( )", ")"), ("($a", "$a"), ("($a b", "b")]
        {
            assert_eq!(words(text).unwrap_err(), format!("invalid condition \"{shown}\""), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_words_are_read_or_refused(text in "[()$a= -]{1,12}") {
            if !text.trim().is_empty() {
                let _ = words(&text);
            }
        }
    }
}
