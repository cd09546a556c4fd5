//! A request line: what is found lies within it, and does not depend on how much was there at first.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nxr::http::parse::request_line;

fuzz_target!(|bytes: &[u8]| {
    let whole = request_line(bytes);
    for end in 0..bytes.len() {
        match request_line(&bytes[..end]) {
            Ok(None) => {}
            early => {
                assert_eq!(format!("{early:?}"), format!("{whole:?}"), "after {end} bytes");
                break;
            }
        }
    }
});
