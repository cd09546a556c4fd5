//! The PROXY protocol: no more is taken than there is, and what is read of a header does not change with what follows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nxr::net::proxy_protocol::read;

fuzz_target!(|bytes: &[u8]| match read(bytes) {
    Ok(Some(found)) => {
        assert!(found.len <= bytes.len());
        assert_eq!(read(&bytes[..found.len]), Ok(Some(found.clone())));
        if let Some(header) = &found.header {
            for name in
                [&b"alpn"[..], b"authority", b"unique_id", b"ssl_version", b"ssl_cn", b"netns", b"0x20"]
            {
                let _ = header.tlv(name);
            }
        }
    }
    Ok(None) => {}
    Err(error) => drop(error.to_string()),
});
