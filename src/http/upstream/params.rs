//! `*_param`: what a CGI-like application is told of a request, beside the client's own fields (RFC 3875,
//! section 4.1).

use std::sync::Arc;

use bytes::Bytes;

use super::NameSet;
use crate::conf::{Build, Fault, Outcome};
use crate::http::headers::{COOKIE, hash};
use crate::http::request::Request;
use crate::syntax::Directive;
use crate::value::Template;

/// What the client's fields are called.
const HTTP: &[u8] = b"HTTP_";
/// The host the client asked for, unless it is told otherwise.
const HOST: (&[u8], &[u8]) = (b"HTTP_HOST", b"$host$is_request_port$request_port");

/// One `*_param` as written.
#[derive(Clone, Debug)]
pub struct Text {
    name: Bytes,
    value: Bytes,
    if_not_empty: bool,
}

/// Reads `*_param NAME VALUE [if_not_empty]`.
pub fn text(d: &Directive<'_>) -> Outcome<Text> {
    let if_not_empty = d.len() == 4;
    if if_not_empty && d.arg(3) != b"if_not_empty" {
        return Err(Fault::invalid_parameter(d.arg(3)));
    }
    Ok(Text { name: Bytes::copy_from_slice(d.arg(1)), value: Bytes::copy_from_slice(d.arg(2)), if_not_empty })
}

#[derive(Clone, Debug)]
struct Param {
    name: Bytes,
    value: Template,
    if_not_empty: bool,
}

/// All that is told of a request, in order.
#[derive(Clone, Debug, Default)]
pub struct Params {
    list: Vec<Param>,
    /// The client's fields that are not told as they came, as parts of names of parameters.
    replaced: NameSet,
}

impl Params {
    /// Compiles a list.
    pub fn new(texts: &[Text], cf: &mut Build) -> Outcome<Arc<Params>> {
        let mut this = Params::default();
        for text in texts {
            this.add(&text.name, &text.value, text.if_not_empty, cf)?;
        }
        if !texts.iter().any(|text| text.name.eq_ignore_ascii_case(HOST.0)) {
            this.add(HOST.0, HOST.1, true, cf)?;
        }
        Ok(Arc::new(this))
    }

    fn add(&mut self, name: &[u8], value: &[u8], if_not_empty: bool, cf: &mut Build) -> Outcome {
        if let Some(field) = name.strip_prefix(HTTP).filter(|field| !field.is_empty()) {
            self.replaced.add(field);
            if value.is_empty() {
                return Ok(());
            }
        }
        let value = cf.http.template(value)?;
        self.list.push(Param { name: Bytes::copy_from_slice(name), value, if_not_empty });
        Ok(())
    }

    /// Hands out each parameter with its value, and then the client's fields, if they are to be passed.
    pub fn each(&self, req: &Request, pass_fields: bool, mut take: impl FnMut(&[u8], &[u8])) {
        let mut value = Vec::new();
        for param in &self.list {
            let told = match param.value.as_constant() {
                Some(constant) => constant,
                None => {
                    value.clear();
                    param.value.append(req, &mut value);
                    &value
                }
            };
            if !(told.is_empty() && param.if_not_empty) {
                take(&param.name, told);
            }
        }
        if pass_fields {
            self.fields(req, take);
        }
    }

    /// The client's fields, those of one name as one.
    fn fields(&self, req: &Request, mut take: impl FnMut(&[u8], &[u8])) {
        let headers = &req.head.headers;
        let (mut name, mut value) = (HTTP.to_vec(), Vec::new());
        let mut before: Vec<(u32, &[u8])> = Vec::new();
        for (number, (field_hash, field, first)) in headers.iter_hashed().enumerate() {
            name.truncate(HTTP.len());
            name.extend(field.iter().map(|byte| match byte {
                b'-' => b'_',
                byte => byte.to_ascii_uppercase(),
            }));
            let told = &name[HTTP.len()..];
            if self.replaced.contains(hash(told), told) {
                continue;
            }
            let same = |hash: u32, name: &[u8]| hash == field_hash && name.eq_ignore_ascii_case(field);
            if before.iter().any(|(hash, name)| same(*hash, name)) {
                continue;
            }
            before.push((field_hash, field));
            let mut others =
                headers.iter_hashed().skip(number + 1).filter(|(hash, name, _)| same(*hash, name));
            let Some((_, _, second)) = others.next() else {
                take(&name, first);
                continue;
            };
            let between: &[u8] = if same(COOKIE.hash, COOKIE.text) { b"; " } else { b", " };
            value.clear();
            value.extend_from_slice(first);
            for other in std::iter::once(second).chain(others.map(|(_, _, other)| other)) {
                value.extend_from_slice(between);
                value.extend_from_slice(other);
            }
            take(&name, &value);
        }
    }
}
