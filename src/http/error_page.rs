//! `error_page`: what is sent in place of an error.

use std::sync::Arc;

use crate::conf::{Build, Fault, Outcome, units};
use crate::syntax::Directive;
use crate::value::Template;

/// One `error_page` directive for one status.
#[derive(Debug)]
pub struct ErrorPage {
    /// The status it stands for.
    pub status: u16,
    /// The status to answer with: `=200`; `Some(0)` is `=`, the page's own.
    pub overwrite: Option<u16>,
    /// URI, `@name` or absolute URL.
    pub target: Template,
    /// Arguments written behind the URI's `?`, where the target is constant.
    pub args: Vec<u8>,
}

/// Reads the directive.
pub fn directive(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let mut last = d.len() - 1;
    let target = d.arg(last);
    let mut overwrite = None;
    last -= 1;
    if last > 0
        && let Some(code) = d.arg(last).strip_prefix(b"=")
    {
        overwrite = Some(if code.is_empty() {
            0
        } else {
            units::number(code)
                .and_then(|n| u16::try_from(n).ok())
                .ok_or_else(|| Fault::invalid_value(d.arg(last)))?
        });
        last -= 1;
        if last == 0 {
            return Err(Fault::invalid_value(d.arg(1)));
        }
    }
    let template = cf.http.template(target)?;
    let (template, args) = match template.as_constant() {
        Some(text) if text.starts_with(b"/") => match memchr::memchr(b'?', text) {
            Some(at) => (Template::constant(text[..at].to_vec()), text[at + 1..].to_vec()),
            None => (template, Vec::new()),
        },
        _ => (template, Vec::new()),
    };
    for i in 1..=last {
        let word = d.arg(i);
        let status = units::number(word).ok_or_else(|| Fault::invalid_value(word))?;
        if status == 499 {
            return Err(Fault::here(format!("invalid value \"{}\"", String::from_utf8_lossy(word))));
        }
        if !(300..=599).contains(&status) {
            return Err(Fault::here(format!(
                "value \"{}\" must be between 300 and 599",
                String::from_utf8_lossy(word)
            )));
        }
        let overwrite = overwrite.or(match status {
            // nginx's own codes for faults on the way to a request are answered as 400.
            494..=497 => Some(400),
            _ => None,
        });
        let page =
            ErrorPage { status: status as u16, overwrite, target: template.clone(), args: args.clone() };
        cf.http.loc().core().error_pages.edit().push(Arc::new(page));
    }
    Ok(())
}
