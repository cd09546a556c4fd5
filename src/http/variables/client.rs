//! Variables of the connection: addresses, PROXY protocol, TCP.

use std::net::IpAddr;

use super::{number, put};
use crate::http::request::Request;
use crate::net::Address;
use crate::net::tcp_info::{TcpInfo, tcp_info};

pub(super) fn remote_addr(req: &Request, out: &mut Vec<u8>) -> bool {
    put(out, req.conn.client_text().as_bytes())
}

pub(super) fn binary_remote_addr(req: &Request, out: &mut Vec<u8>) -> bool {
    match req.conn.client_ip() {
        Some(IpAddr::V4(ip)) => put(out, &ip.octets()),
        Some(IpAddr::V6(ip)) => put(out, &ip.octets()),
        None => put(out, b"unix:"),
    }
}

pub(super) fn remote_port(req: &Request, out: &mut Vec<u8>) -> bool {
    let port = req.conn.client().port().filter(|p| *p > 0);
    number(out, port.map_or(0, u64::from), port.is_some())
}

pub(super) fn server_addr(req: &Request, out: &mut Vec<u8>) -> bool {
    match req.conn.local() {
        Address::Inet(addr) => put(out, addr.ip().to_string().as_bytes()),
        unix => put(out, unix.to_string().as_bytes()),
    }
}

pub(super) fn server_port(req: &Request, out: &mut Vec<u8>) -> bool {
    let port = req.conn.local().port();
    number(out, port.map_or(0, u64::from), port.is_some())
}

pub(super) fn proxy_protocol_addr(req: &Request, out: &mut Vec<u8>) -> bool {
    req.conn.proxy_protocol().is_some_and(|h| put(out, &h.source))
}

pub(super) fn proxy_protocol_port(req: &Request, out: &mut Vec<u8>) -> bool {
    req.conn.proxy_protocol().is_some_and(|h| number(out, h.source_port.into(), true))
}

pub(super) fn proxy_protocol_server_addr(req: &Request, out: &mut Vec<u8>) -> bool {
    req.conn.proxy_protocol().is_some_and(|h| put(out, &h.destination))
}

pub(super) fn proxy_protocol_server_port(req: &Request, out: &mut Vec<u8>) -> bool {
    req.conn.proxy_protocol().is_some_and(|h| number(out, h.destination_port.into(), true))
}

pub(super) fn tlv(req: &Request, name: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(header) = req.conn.proxy_protocol() else { return false };
    header.tlv(name).is_ok_and(|value| put(out, &value))
}

pub(super) fn connection_time(req: &Request, out: &mut Vec<u8>) -> bool {
    let ms = crate::net::clock::now().saturating_sub(req.conn.start_ms);
    super::time::seconds(ms, out);
    true
}

pub(super) fn tcpinfo(req: &Request, out: &mut Vec<u8>, pick: fn(&TcpInfo) -> u32) -> bool {
    match req.conn.io.with_socket(tcp_info) {
        Some(info) => number(out, pick(&info).into(), true),
        None => false,
    }
}
