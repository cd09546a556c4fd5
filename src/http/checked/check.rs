//! The arguments of one directive.

use bytes::Bytes;

use super::kind::{Kind, Words};
use super::{Value, Values, cache, upstream};
use crate::conf::grammar::Row;
use crate::conf::{Build, Fault, Outcome, Setting, set, tls_settings, units};
use crate::http::types;
use crate::syntax::Directive;

/// The values of the block that is being read.
pub fn own(cf: &mut Build) -> &mut Values {
    cf.http.loc().checked()
}

/// Notes a value; a directive of a kind that may come once in a block was looked for before.
pub fn put(cf: &mut Build, name: &'static str, value: Value) -> Outcome {
    own(cf).said.insert(name, value);
    Ok(())
}

fn shown(text: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(text)
}

fn invalid() -> Fault {
    Fault::directive("invalid value")
}

/// Checks and notes the arguments.
pub fn check(cf: &mut Build, d: &Directive<'_>, row: &'static Row, kind: Kind) -> Outcome {
    let name = row.name;
    let value = match kind {
        Kind::List => Value::Mark,
        Kind::Bits(words) => return bits(cf, d, name, words),
        Kind::Conditions => return d.args().try_for_each(|text| cf.http.template(text).map(|_| ())),
        Kind::Pair => return pair(cf, d, name),
        Kind::CachePath => return cache::path(cf, d, row),
        Kind::CacheValid => return cache::valid(d),
        Kind::Types => {
            types::directive(cf, d, |cf| &mut cf.http.loc().checked().types);
            return Ok(());
        }
        Kind::Variable => return variable(cf, d),
        _ => {
            own(cf).once(name)?;
            single(cf, d, row, kind)?
        }
    };
    put(cf, name, value)
}

/// A directive that may be there once in a block.
fn single(cf: &mut Build, d: &Directive<'_>, row: &'static Row, kind: Kind) -> Outcome<Value> {
    let text = d.arg(1);
    Ok(match kind {
        Kind::Flag => Value::Flag(set::parse_flag(d, text)?),
        Kind::Size => units::size(text).map(|_| Value::Mark).ok_or_else(invalid)?,
        Kind::Milliseconds => units::milliseconds(text).map(|_| Value::Mark).ok_or_else(invalid)?,
        Kind::Offset => units::offset(text).map(|_| Value::Mark).ok_or_else(invalid)?,
        Kind::Number => {
            units::number(text).map(|_| Value::Mark).ok_or_else(|| Fault::directive("invalid number"))?
        }
        Kind::Buffers => {
            let mut buffers = Setting::unset((0, 0));
            set::buffers(&mut buffers, d)?;
            Value::Mark
        }
        Kind::Text => Value::Text(Bytes::copy_from_slice(text)),
        Kind::Template => {
            cf.http.template(text)?;
            Value::Text(Bytes::copy_from_slice(text))
        }
        Kind::TemplateSize => {
            let template = cf.http.template(text)?;
            if template.as_constant().is_some_and(|text| units::size(text).is_none()) {
                return Err(invalid());
            }
            Value::Mark
        }
        Kind::Access => set::parse_access(d).map(|_| Value::Mark)?,
        Kind::Bind => upstream::bind(cf, d)?,
        Kind::Cache => cache::cache(cf, d, row)?,
        Kind::Pass(schemes) => upstream::pass(cf, d, schemes)?,
        Kind::MemcachedPass => upstream::memcached_pass(cf, d)?,
        Kind::TunnelPass => upstream::tunnel_pass(cf, d)?,
        Kind::PasswordFile => tls_settings::passwords(cf, d).map(|_| Value::Mark)?,
        Kind::CertificateCache => tls_settings::certificate_cache(d).map(|_| Value::Mark)?,
        _ => Value::Mark,
    })
}

fn bits(cf: &mut Build, d: &Directive<'_>, name: &'static str, words: Words) -> Outcome {
    let mut setting = Setting::unset(0);
    if let Some(Value::Bits(bits)) = own(cf).said.get(name) {
        setting.put(*bits);
    }
    let mut warnings = Vec::new();
    set::bits(&mut setting, d, words, |warning| warnings.push(warning))?;
    warnings.into_iter().for_each(|warning| cf.warn(d.at(), warning));
    put(cf, name, Value::Bits(*setting))
}

/// `grpc_set_header NAME VALUE`
fn pair(cf: &mut Build, d: &Directive<'_>, name: &'static str) -> Outcome {
    let pair = (Bytes::copy_from_slice(d.arg(1)), Bytes::copy_from_slice(d.arg(2)));
    match own(cf).said.entry(name).or_insert_with(|| Value::Pairs(Vec::new())) {
        Value::Pairs(pairs) => pairs.push(pair),
        other => *other = Value::Pairs(vec![pair]),
    }
    Ok(())
}

/// `auth_request_set $NAME VALUE`
fn variable(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let Some(name) = d.arg(1).strip_prefix(b"$") else {
        return Err(Fault::here(format!("invalid variable name \"{}\"", shown(d.arg(1)))));
    };
    cf.http.vars.define_slot(name).map_err(Fault::Here)?;
    cf.http.template(d.arg(2)).map(|_| ())
}
