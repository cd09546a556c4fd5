//! `ngx_http_geo`: the `geo` block; what it does is in [`crate::value::geo`].

use std::net::{IpAddr, SocketAddr};

use crate::conf::build::Commands;
use crate::http::forwarded::forwarded;
use crate::http::headers::X_FORWARDED_FOR;
use crate::http::module::Module;
use crate::http::request::Request;
use crate::net::Address;
use crate::net::cidr::Cidr;
use crate::value::geo::{Client, geo_block};

/// The module.
pub struct Geo;

impl Module for Geo {
    type Main = ();
    type Srv = ();
    type Loc = ();
    const COMMANDS: Commands = Commands {
        module: "ngx_http_geo",
        setters: &[("geo", |cf, d| geo_block(cf, d, |cf| &mut cf.http.vars))],
    };
}

impl Client for Request {
    const FORWARDED: bool = true;

    fn client_ip(&self) -> Option<IpAddr> {
        self.conn.client_ip()
    }

    fn forwarded(&self, ip: IpAddr, proxies: &[Cidr], recursive: bool) -> IpAddr {
        let peer = Address::Inet(SocketAddr::new(ip, 0));
        let lists: Vec<&[u8]> = self.head.headers.all(X_FORWARDED_FOR).collect();
        forwarded(&peer, &lists, proxies, recursive).map_or(ip, |found| found.ip())
    }
}
