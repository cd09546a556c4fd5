//! `$fastcgi_script_name` and `$fastcgi_path_info`, which serve elsewhere too.

use std::ops::Range;

use super::{Value, Values};
use crate::http::request::Request;
use crate::value::Builtin;

/// The variables.
pub const VARIABLES: &[Builtin<Request>] = &[
    Builtin::new("fastcgi_script_name", |req, out| {
        script_name(&req.conf.checked, &req.uri, out);
        true
    }),
    Builtin::new("fastcgi_path_info", |req, out| {
        let (_, info) = split(&req.conf.checked, &req.uri);
        out.extend_from_slice(&req.uri[info]);
        true
    }),
];

/// The parts of a URI that are the script's name and what follows it.
fn split(conf: &Values, uri: &[u8]) -> (Range<usize>, Range<usize>) {
    let Some(groups) = conf.split.as_ref().and_then(|regex| regex.find_groups(uri)) else {
        return (0..uri.len(), 0..0);
    };
    let group = |number: usize| groups.get(number).copied().flatten().map_or(0..0, |(from, to)| from..to);
    (group(1), group(2))
}

fn script_name(conf: &Values, uri: &[u8], out: &mut Vec<u8>) {
    let (script, _) = split(conf, uri);
    let script = &uri[script];
    out.extend_from_slice(script);
    if let (Some(Value::Text(index)), b"/") =
        (conf.said.get("fastcgi_index"), &script[script.len().saturating_sub(1)..])
    {
        out.extend_from_slice(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Regex;
    use std::sync::Arc;

    fn name(conf: &Values, uri: &str) -> String {
        let mut out = Vec::new();
        script_name(conf, uri.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn scripts_and_what_follows_them() {
        let mut conf = Values::default();
        assert_eq!(name(&conf, "/a/"), "/a/");
        conf.said.insert("fastcgi_index", Value::Text("index.php".into()));
        assert_eq!((name(&conf, "/a/"), name(&conf, "/a")), ("/a/index.php".into(), "/a".into()));
        conf.split = Some(Arc::new(Regex::anonymous(b"^(.+\\.php)(.*)$", false).unwrap()));
        assert_eq!(name(&conf, "/x.php/more"), "/x.php");
        assert_eq!(split(&conf, b"/x.php/more").1, 6..11);
        assert_eq!(name(&conf, "/b/"), "/b/index.php");
    }
}
