//! An OCSP response: read or refused, and what is read of it lies within it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nxr::tls::ocsp::response::{read, time};

fuzz_target!(|bytes: &[u8]| {
    let _ = time(bytes);
    let Ok(basic) = read(bytes) else { return };
    let within = |part: &[u8]| bytes.as_ptr_range().contains(&part.as_ptr()) || part.is_empty();
    assert!(within(basic.der));
    assert!(basic.certificates.iter().all(|certificate| within(certificate)));
    for single in &basic.singles {
        assert!(within(single.serial) && within(single.this_update));
    }
    // Nothing may follow a response.
    assert!(read(&[bytes, &[0]].concat()).is_err());
});
