//! `ngx_http_copy_filter`: how nginx reads files into memory. nxr has pieces of its own size, so that its directive is
//! only checked.

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Outcome, set};
use crate::http::module::Module;
use crate::settings;

/// The module.
pub struct Copy;

settings! {
    /// `output_buffers`
    pub struct LocConf {
        output_buffers: (usize, usize) = (2, 32768),
    }
}

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

impl Module for Copy {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_copy_filter",
        setters: &[("output_buffers", |cf, d| set::buffers(&mut cf.http.loc().copy().output_buffers, d))],
    };
}
