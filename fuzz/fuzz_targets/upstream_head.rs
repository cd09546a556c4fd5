//! The head of an upstream's response: fields lie within it, lengths are clear, and pieces make no difference.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nxr::http::upstream::http1::Response;
use nxr::http::upstream::{Head, HeadStep, ResponseFraming};

/// How reading ended, and what is known then.
fn read(bytes: &[u8], step: usize) -> (String, Head) {
    let (mut response, mut head) = (Response::default(), Head::default());
    let mut end = step.min(bytes.len());
    loop {
        let seen = &bytes[..end];
        let done = response.parse(&|_, what| drop(what.to_string()), seen, &mut head);
        let more = matches!(done, Ok(HeadStep::More));
        if !more || end == bytes.len() {
            for field in &head.fields {
                assert!(!field.name(seen).contains(&b':') && !field.value(seen).contains(&b'\n'));
            }
            assert!(head.size <= seen.len() && seen.get(head.line.clone()).is_some());
            if done.is_ok() {
                assert!(!head.chunked || head.length.is_none(), "one length only");
                response.begin_body(&head);
            }
            return (format!("{done:?}"), head);
        }
        end = (end + step).min(bytes.len());
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (ended, head) = read(bytes, bytes.len().max(1));
    let (ended_by_bytes, head_by_bytes) = read(bytes, 1);
    assert_eq!(ended, ended_by_bytes);
    assert_eq!(format!("{head:?}"), format!("{head_by_bytes:?}"));
});
