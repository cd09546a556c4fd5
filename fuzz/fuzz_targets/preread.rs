//! A ClientHello: whatever pieces it comes in, the same is read of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nxr::tls::preread::{Parser, Progress};

fuzz_target!(|bytes: &[u8]| {
    let whole = Parser::new().feed(bytes);
    let mut parser = Parser::new();
    let mut by_bytes = Progress::NeedMore;
    for end in 0..=bytes.len() {
        by_bytes = parser.feed(&bytes[..end]);
        if by_bytes != Progress::NeedMore {
            break;
        }
    }
    // Bytes behind the end of the message may be wrong without anyone having looked at them.
    if !matches!((&whole, &by_bytes), (Progress::NotTls(_), _)) {
        assert_eq!(whole, by_bytes);
    }
});
