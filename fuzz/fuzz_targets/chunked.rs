//! A chunked body: whole or in pieces, the same data comes out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nxr::http::chunked::{Decoder, Step};

/// The data, and whether the end was seen; none where it is malformed.
fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Option<(Vec<u8>, bool)> {
    let (mut decoder, mut data) = (Decoder::with_trailers(), Vec::new());
    for piece in pieces {
        let mut at = 0;
        loop {
            match decoder.step(piece, at).ok()? {
                Step::Data { from, len } => {
                    assert!(len > 0);
                    data.extend_from_slice(&piece[from..from + len]);
                    at = from + len;
                }
                Step::More => break,
                Step::End(used) => {
                    assert!(used <= piece.len() && decoder.is_done());
                    return Some((data, true));
                }
            }
        }
    }
    Some((data, decoder.is_done()))
}

fuzz_target!(|bytes: &[u8]| {
    let whole = decode(std::iter::once(bytes));
    assert_eq!(whole, decode(bytes.chunks(1)));
    assert_eq!(whole, decode(bytes.chunks(3)));
});
