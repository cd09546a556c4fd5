//! The client behind trusted proxies: the address lists of `X-Forwarded-For` and its like, read from the end.

use std::net::SocketAddr;

use crate::net::Address;
use crate::net::cidr::{Cidr, parse_ip_port};

/// The address that `lists` (values of one header field, in order) give for a request from `peer`: the last one if
/// `peer` is trusted, or with `recursive` the last that is not trusted itself. None where `peer` stays.
pub fn forwarded(peer: &Address, lists: &[&[u8]], trusted: &[Cidr], recursive: bool) -> Option<SocketAddr> {
    let mut found: Option<SocketAddr> = None;
    for list in lists.iter().rev() {
        let mut rest = *list;
        loop {
            let is_trusted = match &found {
                Some(address) => trusted.iter().any(|net| net.contains_ip(address.ip())),
                None => trusted.iter().any(|net| net.contains(peer)),
            };
            if !is_trusted {
                return found;
            }
            let (before, last) = split_last(rest);
            match parse_ip_port(last) {
                Some(address) => found = Some(address),
                None => return found,
            }
            if !recursive {
                return found;
            }
            match before {
                Some(before) => rest = before,
                None => break,
            }
        }
    }
    found
}

/// The last address of a list, and what is before it.
fn split_last(list: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let separates = |c: &u8| matches!(c, b' ' | b',');
    let mut end = list.len();
    while end > 1 && separates(&list[end - 1]) {
        end -= 1;
    }
    let list = &list[..end];
    match list.iter().rposition(separates) {
        Some(at) if at > 0 => (Some(&list[..at]), &list[at + 1..]),
        _ => (None, list),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn trusted() -> Vec<Cidr> {
        ["127.0.0.1", "10.0.0.0/8"].iter().filter_map(|net| Some(Cidr::parse(net.as_bytes())?.cidr)).collect()
    }

    fn get(peer: &str, lists: &[&str], recursive: bool) -> Option<String> {
        let peer = Address::Inet(format!("{peer}:1").parse().unwrap());
        let lists: Vec<&[u8]> = lists.iter().map(|l| l.as_bytes()).collect();
        forwarded(&peer, &lists, &trusted(), recursive).map(|a| a.to_string())
    }

    #[test]
    fn the_last_or_the_last_untrusted() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(get("127.0.0.1", &["1.1.1.1, 2.2.2.2"], false), some("2.2.2.2:0"));
        assert_eq!(get("9.9.9.9", &["1.1.1.1"], false), None);
        assert_eq!(get("127.0.0.1", &["1.1.1.1, 10.0.0.1 ,"], false), some("10.0.0.1:0"));
        assert_eq!(get("127.0.0.1", &["1.1.1.1,10.0.0.1"], true), some("1.1.1.1:0"));
        assert_eq!(get("127.0.0.1", &["10.0.0.2, 10.0.0.1"], true), some("10.0.0.2:0"));
        assert_eq!(get("127.0.0.1", &["3.3.3.3", "10.0.0.2, 10.0.0.1"], true), some("3.3.3.3:0"));
        assert_eq!(get("127.0.0.1", &["3.3.3.3", "10.0.0.2"], false), some("10.0.0.2:0"));
        assert_eq!(get("127.0.0.1", &["unknown, 10.0.0.1"], true), some("10.0.0.1:0"));
        assert_eq!(get("127.0.0.1", &["1.1.1.1:80"], true), some("1.1.1.1:80"));
        assert_eq!(get("127.0.0.1", &["", "x"], true), None);
    }

    proptest! {
        #[test]
        fn any_list_is_read(list in "[0-9., :]{0,30}") {
            let _ = get("127.0.0.1", &[&list], true);
        }
    }
}
