//! What `ngx_stream_proxy` does with datagrams. There is no TLS for them.

use std::cell::RefCell;

use super::proxy::{Failed, failed_to_connect, rate};
use super::proxy_header::header;
use crate::net::{Address, clock};
use crate::stream::module::INTERNAL_ERROR;
use crate::stream::session::Session;
use crate::stream::udp::relay::{End, Limits, Relay, Upstream};
use crate::upstream::Pick;
use crate::upstream::connect::{self, connect_datagrams};

/// A value of `proxy_responses` that is none.
const UNKNOWN: usize = i32::MAX as usize;

/// A socket for the peer at `address`.
pub fn open(s: &Session, address: &Address, options: &connect::Options) -> Result<Upstream, Failed> {
    let socket = connect_datagrams(address, options).map_err(|error| failed_to_connect(s, &error))?;
    Upstream::new(socket).map_err(|_| Failed::End(INTERNAL_ERROR))
}

/// Moves datagrams until the session is over.
pub async fn run(s: &Session, upstream: &Upstream, began: i64, pick: &mut Pick) -> End {
    let conf = &s.server.srv.proxy;
    let Some(client) = &s.udp else { return End { status: INTERNAL_ERROR, failed: false } };
    let limits = Limits {
        timeout: *conf.timeout,
        buffer: *conf.buffer_size,
        upload_rate: rate(s, &conf.upload_rate),
        download_rate: rate(s, &conf.download_rate),
        requests: *conf.requests,
        responses: Some(*conf.responses).filter(|n| *n < UNKNOWN),
        start: began,
    };
    s.upstream.current(|state| pick.connected(state, false, clock::now()));
    let pick = RefCell::new(pick);
    let first_byte = || s.upstream.current(|state| pick.borrow_mut().first_byte(state, clock::now()));
    Box::pin(Relay::new(s, client, upstream, limits, &first_byte).run(&header(s))).await
}
