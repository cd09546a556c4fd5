//! What became of each attempt, and how `$upstream_*` show it.

use std::io::Write;
use std::sync::Arc;

/// One attempt at a peer, for `$upstream_*` and the log. Times are in milliseconds.
///
/// One without peer stands between the attempts of one request and those after an internal redirect.
#[derive(Clone, Debug, Default)]
pub struct UpstreamState {
    /// The peer's name, or its group's where no peer could be had.
    pub peer: Option<Arc<str>>,
    /// Status of the response, or the one that stands for the failure; 0 for none.
    pub status: u16,
    /// Until the connection, TLS included, was there.
    pub connect_time: Option<u64>,
    /// Until the header was there; in stream, the first byte.
    pub header_time: Option<u64>,
    /// Until the end; in stream, of the session.
    pub response_time: Option<u64>,
    /// Bytes of body.
    pub response_length: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
}

impl UpstreamState {
    /// An attempt that begins.
    pub fn new(peer: Arc<str>) -> UpstreamState {
        UpstreamState { peer: Some(peer), ..UpstreamState::default() }
    }
}

/// What a list shows of each attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `$upstream_addr`
    Addr,
    /// `$upstream_status`
    Status,
    /// `$upstream_connect_time`
    ConnectTime,
    /// `$upstream_header_time`, `$upstream_first_byte_time`
    HeaderTime,
    /// `$upstream_response_time`, `$upstream_session_time`
    ResponseTime,
    /// `$upstream_response_length`
    ResponseLength,
    /// `$upstream_bytes_sent`
    BytesSent,
    /// `$upstream_bytes_received`
    BytesReceived,
}

/// Appends `field` of all attempts of a request, with ` : ` where an internal redirect led to another server;
/// false where there was none.
pub fn http_list(states: &[UpstreamState], field: Field, out: &mut Vec<u8>) -> bool {
    let mut rest = states.iter();
    let Some(first) = rest.next() else { return false };
    show(first, field, out);
    while let Some(next) = rest.next() {
        if next.peer.is_some() {
            out.extend_from_slice(b", ");
            show(next, field, out);
        } else {
            out.extend_from_slice(b" : ");
            if let Some(next) = rest.next() {
                show(next, field, out);
            }
        }
    }
    true
}

/// Appends `field` of all attempts of a session; false where there was none.
pub fn stream_list(states: &[UpstreamState], field: Field, out: &mut Vec<u8>) -> bool {
    for (i, state) in states.iter().enumerate() {
        if i > 0 {
            out.extend_from_slice(b", ");
        }
        show(state, field, out);
    }
    !states.is_empty()
}

fn show(state: &UpstreamState, field: Field, out: &mut Vec<u8>) {
    let number = match field {
        Field::Addr => return out.extend_from_slice(state.peer.as_deref().unwrap_or("").as_bytes()),
        Field::Status if state.status == 0 => return out.push(b'-'),
        Field::Status => u64::from(state.status),
        Field::ConnectTime => return time(state, state.connect_time, out),
        Field::HeaderTime => return time(state, state.header_time, out),
        Field::ResponseTime => return time(state, state.response_time, out),
        Field::ResponseLength => state.response_length,
        Field::BytesSent => state.bytes_sent,
        Field::BytesReceived => state.bytes_received,
    };
    // Writing to memory does not fail.
    let _ = write!(out, "{number}");
}

/// Seconds with three places.
fn time(state: &UpstreamState, time: Option<u64>, out: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _ = match time {
        Some(ms) => write!(out, "{}.{:03}", ms / 1000, ms % 1000),
        None if state.peer.is_none() => write!(out, "0.000"),
        None => write!(out, "-"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(states: &[UpstreamState], field: Field) -> String {
        let mut out = Vec::new();
        assert!(http_list(states, field, &mut out));
        String::from_utf8(out).unwrap()
    }

    fn sample() -> Vec<UpstreamState> {
        let mut failed = UpstreamState::new("127.0.0.1:8081".into());
        failed.status = 502;
        failed.response_time = Some(0);
        let mut good = UpstreamState::new("127.0.0.1:8082".into());
        good.status = 404;
        good.connect_time = Some(1);
        good.header_time = Some(1234);
        good.response_time = Some(61_005);
        good.response_length = 153;
        good.bytes_sent = 77;
        good.bytes_received = 300;
        let mut after = UpstreamState::new("unix:/tmp/s".into());
        after.bytes_sent = 5;
        vec![failed, good, UpstreamState::default(), after]
    }

    #[test]
    fn attempts_and_redirects_are_told_apart() {
        let states = sample();
        assert_eq!(list(&states, Field::Addr), "127.0.0.1:8081, 127.0.0.1:8082 : unix:/tmp/s");
        assert_eq!(list(&states, Field::Status), "502, 404 : -");
        assert_eq!(list(&states, Field::ConnectTime), "-, 0.001 : -");
        assert_eq!(list(&states, Field::HeaderTime), "-, 1.234 : -");
        assert_eq!(list(&states, Field::ResponseTime), "0.000, 61.005 : -");
        assert_eq!(list(&states, Field::ResponseLength), "0, 153 : 0");
        assert_eq!(list(&states, Field::BytesSent), "0, 77 : 5");
        assert_eq!(list(&states, Field::BytesReceived), "0, 300 : 0");
        assert_eq!(list(&states[..3], Field::Status), "502, 404 : ");
    }

    #[test]
    fn no_attempt_is_no_value() {
        assert!(!http_list(&[], Field::Addr, &mut Vec::new()));
        assert!(!stream_list(&[], Field::Addr, &mut Vec::new()));
    }

    #[test]
    fn sessions_have_commas_only() {
        let mut out = Vec::new();
        stream_list(&sample()[1..], Field::BytesSent, &mut out);
        assert_eq!(out, b"77, 0, 5");
    }
}
