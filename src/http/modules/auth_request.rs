//! `ngx_http_auth_request`: access by the status of a subrequest.

use bytes::Bytes;

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Fault, Outcome};
use crate::http::conf::Loc;
use crate::http::headers::WWW_AUTHENTICATE;
use crate::http::module::{Handlers, Module, Step, Verdict};
use crate::http::request::Request;
use crate::http::subrequest::Body;
use crate::log::Level;
use crate::settings;
use crate::syntax::Directive;
use crate::value::entries::variable_name;
use crate::value::{Context as _, Template, VarId};

/// The module.
pub struct AuthRequest;

settings! {
    /// `auth_request`
    pub struct LocConf {
        /// Who is asked; none with `off`.
        uri: Option<Bytes> = None,
        /// Variables that get values when the subrequest is done.
        variables: Vec<(VarId, Template)> = Vec::new(),
    }
}

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

impl Module for AuthRequest {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_auth_request",
        setters: &[("auth_request", directive), ("auth_request_set", set)],
    };

    fn handlers(loc: &Loc, to: &mut Handlers) {
        if loc.auth_request.uri.is_some() {
            to.access.push(|req| Step::Later(Box::pin(handle(req))));
        }
    }
}

fn directive(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let uri = match d.arg(1) {
        b"off" | b"" => None,
        uri => Some(Bytes::copy_from_slice(uri)),
    };
    cf.http.loc().auth_request().uri.set(uri)
}

fn set(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let name = variable_name(d.arg(1))?;
    let id = cf.http.vars.define_slot(name).map_err(Fault::Here)?;
    let value = cf.http.template(d.arg(2))?;
    cf.http.loc().auth_request().variables.edit().push((id, value));
    Ok(())
}

async fn handle(req: &mut Request) -> Verdict {
    let conf = &req.conf.auth_request;
    let Some(uri) = &*conf.uri else { return Verdict::Next };
    let Ok(mut child) = req.subrequest(uri.clone(), Bytes::new()) else { return Verdict::Status(500) };
    child.without_body();
    if req.run_subrequest(&mut child, Body::Discard).await.is_err() {
        return Verdict::Close;
    }
    for (id, value) in conf.variables.iter() {
        let value = value.eval(&*child);
        req.variables().set(req, *id, value);
        // Both have one set of variables: the next value may be made of this one.
        child.scope.adopt(&req.scope);
    }
    match child.response.status {
        403 => Verdict::Status(403),
        401 => {
            challenge(req, &child);
            Verdict::Status(401)
        }
        200..300 => Verdict::Allow,
        status => {
            req.log(Level::Error, None, format_args!("auth request unexpected status: {status}"));
            Verdict::Status(500)
        }
    }
}

/// Asks the client for what the subrequest was asked for.
fn challenge(req: &mut Request, child: &Request) {
    let answered = &child.response.headers;
    let from = if answered.contains(WWW_AUTHENTICATE) { answered } else { &child.upstream_headers };
    for (name, value) in from.iter() {
        if name.eq_ignore_ascii_case(WWW_AUTHENTICATE.text) {
            req.response.headers.push(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{Site, emerg, loads};

    #[test]
    fn off_and_faults() {
        assert!(loads("auth_request /a; server { auth_request off; auth_request_set $x $status; }"));
        assert!(
            emerg("auth_request /a; auth_request /b;").contains("\"auth_request\" directive is duplicate")
        );
        assert!(emerg("auth_request_set x y;").contains("invalid variable name \"x\""));
    }

    #[test]
    fn the_status_decides() {
        let site = Site::new(
            "server { LISTEN
               location / { auth_request /auth$uri; }
               location /open { auth_request /ok; return 200 never; }
               location /ok/ { auth_request /200; }
               location /no/ { auth_request /403; }
               location /ask/ { auth_request /401; }
               location /odd/ { auth_request /404; }
               location = /200 { return 204; }
               location = /403 { return 403; }
               location = /401 { return 401; }
             }",
        );
        for folder in ["ok", "no", "ask", "odd"] {
            site.folder.write(&format!("{folder}/f"), "in");
        }
        assert_eq!(site.get("/ok/f").text(), "in");
        assert_eq!(site.get("/no/f").status, 403);
        assert_eq!(site.get("/ask/f").status, 401);
        assert_eq!(site.get("/odd/f").status, 500);
        assert!(site.log().contains("auth request unexpected status: 404"));
    }

    #[test]
    fn variables_are_set_from_the_subrequest() {
        let site = Site::new(
            "server { LISTEN
               location / {
                 auth_request /auth; auth_request_set $who $user; auth_request_set $said $who-$uri;
                 error_page 404 = @shown;
               }
               location = /auth { set $user me; return 204; }
               location @shown { return 200 $said; }
             }",
        );
        assert_eq!(site.get("/none").text(), "me-/auth");
    }
}
