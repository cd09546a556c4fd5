//! `listen` in http: addresses, their servers, and which server a connection begins with. What it shares with stream
//! is in [`crate::conf::listen`].

pub use crate::conf::listen::{Addr, Listens, Port};

use super::names::ServerName;
use super::{Http, Server};
use crate::conf::listen::{Servers, Side};
use crate::conf::{Build, Outcome};
use crate::log::ErrorLog;
use crate::syntax::Directive;

/// `listen`
pub fn directive(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let index = cf.http.server_index();
    if let Some(server) = cf.http.server() {
        server.listens = true;
    }
    cf.http.listens.directive(d, Side::Http, index, &mut cf.messages)
}

/// What a server without `listen` listens on: port 80, or 8000 for other users than root.
pub fn default_address(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let index = cf.http.server_index();
    cf.http.listens.default_address(index, d.end(), &mut cf.messages)
}

/// Makes the ports of the addresses read.
pub fn resolve(listens: Listens, http: &mut Http, cf: &mut Build) -> Outcome {
    http.ports = listens.resolve(&Known(&http.servers), &mut cf.messages)?;
    Ok(())
}

struct Known<'a>(&'a [Server]);

impl Servers for Known<'_> {
    fn names(&self, server: usize) -> &[ServerName] {
        self.0.get(server).map_or(&[], |server| &server.names)
    }

    fn error_log(&self, server: usize) -> ErrorLog {
        self.0.get(server).map_or_else(ErrorLog::none, |server| server.root.error_log().clone())
    }
}
