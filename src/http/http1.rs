//! HTTP/1 on the client's side.
/// Writes a response as HTTP/1.
#[derive(Default)]
pub struct Writer {}
