//! The system's resolver, which waits: for names in the configuration only.

use std::ffi::CString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

/// The addresses of a host in the order getaddrinfo(3) gives them, of families this machine has addresses of;
/// empty where there are none.
pub fn system(host: &[u8]) -> Vec<IpAddr> {
    // What nginx hands to the system ends at the first zero byte.
    let host = host.split(|byte| *byte == 0).next().unwrap_or_default();
    let Ok(host) = CString::new(host) else { return Vec::new() };
    // SAFETY: all zeros is a valid addrinfo: no flags, no pointers.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_family = libc::AF_UNSPEC;
    hints.ai_socktype = libc::SOCK_STREAM;
    hints.ai_flags = libc::AI_ADDRCONFIG;
    let mut found: *mut libc::addrinfo = ptr::null_mut();
    // SAFETY: host ends with a zero byte, hints is initialised, found is ours to be written.
    if unsafe { libc::getaddrinfo(host.as_ptr(), ptr::null(), &hints, &mut found) } != 0 {
        return Vec::new();
    }
    let mut addresses = Vec::new();
    let mut next = found;
    // SAFETY: the list is getaddrinfo's, ends with a null pointer, and is not changed until it is freed.
    while let Some(entry) = unsafe { next.as_ref() } {
        // SAFETY: ai_addr points to a socket address of the family that ai_family says.
        addresses.extend(unsafe { address(entry) });
        next = entry.ai_next;
    }
    // SAFETY: found came from getaddrinfo and nothing refers to it any more.
    unsafe { libc::freeaddrinfo(found) };
    addresses
}

/// # Safety
/// `entry.ai_addr` must point to a socket address of the family `entry.ai_family`.
unsafe fn address(entry: &libc::addrinfo) -> Option<IpAddr> {
    match entry.ai_family {
        libc::AF_INET => {
            // SAFETY: the caller says so.
            let addr = unsafe { entry.ai_addr.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(addr.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the caller says so.
            let addr = unsafe { entry.ai_addr.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(addr.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names() {
        assert_eq!(system(b"127.0.0.1"), [IpAddr::from([127, 0, 0, 1])]);
        assert_eq!(system(b"127.1"), [IpAddr::from([127, 0, 0, 1])]);
        assert!(system(b"localhost").iter().all(IpAddr::is_loopback));
        assert!(!system(b"localhost").is_empty());
        assert!(system(b"").is_empty());
        assert!(system(b"a b").is_empty());
    }
}
