//! HTTP/2 on the client's side.
/// Writes a response to an HTTP/2 stream.
#[derive(Default)]
pub struct Writer {}
