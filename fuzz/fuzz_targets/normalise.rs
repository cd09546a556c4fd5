//! A path: the result begins with a slash and leads nowhere above the root.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nxr::http::uri::{Escape, escape, normalise, unescape};

fuzz_target!(|uri: &[u8]| {
    for merge_slashes in [false, true] {
        let Ok((path, arguments)) = normalise(uri, merge_slashes) else { continue };
        assert!(path.starts_with(b"/"));
        assert!(!path.split(|byte| *byte == b'/').any(|part| part == b".."));
        assert!(arguments.is_empty() || uri.ends_with(arguments) || uri.contains(&b'#'));
        let mut escaped = Vec::new();
        escape(&path, Escape::Uri, &mut escaped);
        assert_eq!(unescape(&escaped), path);
    }
});
