//! `ngx_stream_geo`: the `geo` block; what it does is in [`crate::value::geo`].

use std::net::IpAddr;

use crate::conf::build::Commands;
use crate::net::Address;
use crate::net::cidr::Cidr;
use crate::stream::module::Module;
use crate::stream::session::Session;
use crate::value::geo::{Client, geo_block};

/// The module.
pub struct Geo;

impl Module for Geo {
    type Main = ();
    type Srv = ();
    const COMMANDS: Commands = Commands {
        module: "ngx_stream_geo",
        setters: &[("geo", |cf, d| geo_block(cf, d, |cf| &mut cf.stream.vars))],
    };
}

impl Client for Session {
    const FORWARDED: bool = false;

    fn client_ip(&self) -> Option<IpAddr> {
        match &self.client {
            Address::Inet(addr) => Some(addr.ip()),
            Address::Unix(_) => None,
        }
    }

    fn forwarded(&self, ip: IpAddr, _: &[Cidr], _: bool) -> IpAddr {
        ip
    }
}
