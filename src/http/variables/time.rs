//! Variables of the clock.

use super::put;
use crate::http::head;
use crate::http::request::Request;
use crate::net::clock;

/// Appends milliseconds as seconds with three decimals.
pub(super) fn seconds(ms: u64, out: &mut Vec<u8>) {
    head::decimal(ms / 1000, out);
    let rest = ms % 1000;
    out.extend_from_slice(&[
        b'.',
        b'0' + (rest / 100) as u8,
        b'0' + (rest / 10 % 10) as u8,
        b'0' + (rest % 10) as u8,
    ]);
}

pub(super) fn request_time(req: &Request, out: &mut Vec<u8>) -> bool {
    seconds(req.elapsed_ms(), out);
    true
}

pub(super) fn msec(_: &Request, out: &mut Vec<u8>) -> bool {
    let now = clock::wall();
    seconds(now.sec as u64 * 1000 + u64::from(now.msec), out);
    true
}

pub(super) fn local(_: &Request, out: &mut Vec<u8>) -> bool {
    clock::with_texts(|t| put(out, &t.time_local))
}

pub(super) fn long_gmt(_: &Request, out: &mut Vec<u8>) -> bool {
    put(out, &clock::long_date(clock::wall().sec, true))
}

pub(super) fn long_local(_: &Request, out: &mut Vec<u8>) -> bool {
    put(out, &clock::long_date(clock::wall().sec, false))
}

pub(super) fn iso8601(_: &Request, out: &mut Vec<u8>) -> bool {
    clock::with_texts(|t| put(out, &t.time_iso8601))
}
