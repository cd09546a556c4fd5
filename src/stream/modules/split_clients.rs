//! `ngx_stream_split_clients`: the `split_clients` block; what it does is in [`crate::value::split_clients`].

use crate::conf::build::Commands;
use crate::stream::module::Module;
use crate::value::split_clients::split_clients_block;

/// The module.
pub struct SplitClients;

impl Module for SplitClients {
    type Main = ();
    type Srv = ();
    const COMMANDS: Commands = Commands {
        module: "ngx_stream_split_clients",
        setters: &[("split_clients", |cf, d| split_clients_block(cf, d, |cf| &mut cf.stream.vars))],
    };
}
