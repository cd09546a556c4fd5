//! Text of a configuration: printed and read again, it says the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nxr::syntax::{LoadOptions, parse_text, print};

fuzz_target!(|text: &[u8]| {
    // Files that the text includes are not what is looked for here, nor words that quoting makes too long.
    if text.len() > 1500 || text.windows(7).any(|word| word == b"include") {
        return;
    }
    let options = LoadOptions::new("/nonexistent/");
    let printed = print(&parse_text(b"nginx.conf", text, &options));
    let again = print(&parse_text(b"nginx.conf", &printed, &options));
    assert_eq!(again, printed);
});
