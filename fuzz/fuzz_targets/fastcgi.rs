//! A FastCGI server's response: whole and in pieces it says the same, and its parts lie within what came.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nxr::http::upstream::fastcgi::{Part, Records, Response};
use nxr::http::upstream::{Head, HeadStep, ResponseFraming};

/// What the records say: both streams, and how reading ended.
fn read(bytes: &[u8], step: usize) -> (Vec<u8>, Vec<u8>, String) {
    let (mut records, mut out, mut err) = (Records::default(), Vec::new(), Vec::new());
    for piece in bytes.chunks(step) {
        let mut at = 0;
        loop {
            match records.step(piece, &mut at) {
                Ok(Part::More) => break,
                Ok(Part::Stdout(range)) => out.extend_from_slice(&piece[range]),
                Ok(Part::Stderr(range)) => err.extend_from_slice(&piece[range]),
                Ok(Part::Finished) => return (out, err, "finished".to_owned()),
                Ok(_) => {}
                Err(bad) => return (out, err, bad.to_string()),
            }
        }
        assert_eq!(at, piece.len(), "all that came was used");
    }
    (out, err, String::new())
}

fuzz_target!(|bytes: &[u8]| {
    assert_eq!(read(bytes, bytes.len().max(1)), read(bytes, 1));
    let (mut response, mut head, mut buffer) = (Response::new(true, &[]), Head::default(), bytes.to_vec());
    let step = response.parse(&|_, what| drop(what.to_string()), &mut buffer, &mut head);
    assert!(head.size <= buffer.len());
    if step == Ok(HeadStep::Done) {
        for field in &head.fields {
            assert!(!field.name(&buffer).contains(&b':') && !field.value(&buffer).contains(&b'\n'));
        }
        response.begin_body(&head);
        let body = &mut buffer[head.size..];
        if let Ok(decoded) = response.take_records(&|_, what| drop(what.to_string()), body) {
            let _ = &body[decoded.data.clone()];
            assert!(head.length.is_none_or(|length| decoded.data.len() as u64 <= length));
        }
    }
});
