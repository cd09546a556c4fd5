//! `client_body_early_read` of `ngx_http_core`: bodies that are there before the first phase, so that rewrites see
//! `$request_body`.

use std::sync::Arc;

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Outcome};
use crate::http::module::{Module, Verdict};
use crate::http::phases::body_is_too_large;
use crate::http::request::Request;
use crate::settings;
use crate::value::Template;

settings! {
    /// Settings of a server.
    pub struct Srv {
        /// One that is neither empty nor `0` makes the body be read.
        conditions: Arc<Vec<Template>> = Arc::default(),
    }
}

/// The module.
pub struct EarlyBody;

impl Conf for Srv {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

impl Module for EarlyBody {
    type Main = ();
    type Srv = Srv;
    type Loc = ();
    const COMMANDS: Commands = Commands {
        module: "ngx_http_core",
        setters: &[("client_body_early_read", |cf, d| {
            for text in d.args() {
                let condition = cf.http.template(text)?;
                Arc::make_mut(cf.http.srv().early_body().conditions.edit()).push(condition);
            }
            Ok(())
        })],
    };
}

/// Reads the body where the server wants it early. The error is what to answer.
pub async fn read(req: &mut Request) -> Result<(), Verdict> {
    let conf = &req.server.srv.early_body;
    let holds = |condition: &Template| !matches!(&condition.eval(req)[..], b"" | b"0");
    if !conf.conditions.iter().any(holds) {
        return Ok(());
    }
    if body_is_too_large(req) {
        return Err(Verdict::Status(413));
    }
    req.read_body().await
}

#[cfg(test)]
mod tests {
    use crate::http::testing::Site;

    #[test]
    fn bodies_are_there_for_rewrites() {
        let site = Site::new(
            "server { LISTEN client_body_early_read $arg_early;
               set $seen \"$request_body\"; return 200 \"[$seen]\"; }",
        );
        let body = "Content-Length: 3\r\n";
        let ask = |target: &str| site.ask("POST", target, &format!("{body}\r\nabc")).text();
        assert_eq!(ask("/?early=1"), "[abc]");
        assert_eq!(ask("/?early=0"), "[]");
        assert_eq!(ask("/"), "[]");
    }

    #[test]
    fn a_body_that_is_too_large_is_refused() {
        let site =
            Site::new("server { LISTEN client_body_early_read 1; client_max_body_size 2; return 200 a; }");
        assert_eq!(site.ask("POST", "/", "Content-Length: 3\r\n\r\nabc").status, 413);
        assert_eq!(site.ask("POST", "/", "Content-Length: 2\r\n\r\nab").status, 200);
    }
}
