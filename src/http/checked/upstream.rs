//! Where requests would be passed on to, and from which address.

use super::Value;
use crate::conf::url::{self, Use};
use crate::conf::{Build, Fault, Outcome};
use crate::http::upstream::settings::local_address;
use crate::syntax::Directive;

fn shown(text: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(text)
}

/// `*_bind off | ADDRESS [transparent]`
pub fn bind(cf: &mut Build, d: &Directive<'_>) -> Outcome<Value> {
    let text = d.arg(1);
    if d.len() == 2 && text == b"off" {
        return Ok(Value::Mark);
    }
    let is_constant = cf.http.template(text)?.as_constant().is_some();
    if is_constant && local_address(text).is_none() {
        return Err(Fault::here(format!("invalid address \"{}\"", shown(text))));
    }
    if d.len() == 3 && d.arg(2) != b"transparent" {
        return Err(Fault::invalid_parameter(d.arg(2)));
    }
    Ok(Value::Mark)
}

/// `*_pass ADDRESS`; whether it is over TLS.
pub fn pass(cf: &mut Build, d: &Directive<'_>, schemes: &[&str]) -> Outcome<Value> {
    let text = d.arg(1);
    if memchr::memchr(b'$', text).is_some() {
        cf.http.template(text)?;
        return Ok(Value::Flag(true));
    }
    let scheme = schemes.iter().position(|scheme| {
        text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes()))
    });
    let rest = scheme.map_or(text, |at| &text[schemes[at].len()..]);
    add(cf, d, rest)?;
    Ok(Value::Flag(scheme == Some(1)))
}

/// `memcached_pass ADDRESS`: no variables.
pub fn memcached_pass(cf: &mut Build, d: &Directive<'_>) -> Outcome<Value> {
    add(cf, d, d.arg(1))?;
    cf.http.template(b"$memcached_key")?;
    Ok(Value::Mark)
}

/// `tunnel_pass [ADDRESS]`
pub fn tunnel_pass(cf: &mut Build, d: &Directive<'_>) -> Outcome<Value> {
    match d.len() {
        1 => Ok(Value::Mark),
        _ => pass(cf, d, &[]),
    }
}

fn add(cf: &mut Build, d: &Directive<'_>, text: &[u8]) -> Outcome {
    let parsed = url::parse(text, &Use { no_resolve: true, ..Use::default() })
        .map_err(|error| Fault::here(format!("{error} in upstream \"{}\"", shown(text))))?;
    cf.http.upstreams.add_implicit(&parsed, d.at()).map(|_| ())
}
