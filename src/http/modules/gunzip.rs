//! `ngx_http_gunzip_filter`: decompresses bodies for clients that do not take gzip.

use flate2::{Decompress, FlushDecompress, Status};

use super::gzip_core;
use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Outcome, set};
use crate::http::conf::Loc;
use crate::http::headers::CONTENT_ENCODING;
use crate::http::module::{BodyFilter, Handlers, Module};
use crate::http::output::Gone;
use crate::http::request::Request;
use crate::log::Level;
use crate::settings;

/// The module.
pub struct Gunzip;

settings! {
    /// `gunzip`
    pub struct LocConf {
        enable: bool = false,
        buffers: (usize, usize) = (32, 4096),
    }
}

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

impl Module for Gunzip {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_gunzip_filter",
        setters: &[
            ("gunzip", |cf, d| set::flag(&mut cf.http.loc().gunzip().enable, d)),
            ("gunzip_buffers", |cf, d| set::buffers(&mut cf.http.loc().gunzip().buffers, d)),
        ],
    };

    fn handlers(loc: &Loc, to: &mut Handlers) {
        let loc = &loc.gunzip;
        if *loc.enable {
            to.header_filters.push(header_filter);
        }
    }
}

fn header_filter(req: &mut Request) -> Option<u16> {
    let coding = req.response.headers.get(CONTENT_ENCODING);
    if !coding.is_some_and(|v| v.eq_ignore_ascii_case(b"gzip")) {
        return None;
    }
    gzip_core::vary(req);
    if gzip_core::is_taken(req) {
        return None;
    }
    let r = &mut req.response;
    r.headers.remove(CONTENT_ENCODING);
    r.clear_content_length();
    r.clear_accept_ranges();
    r.weaken_etag();
    req.add_body_filter(Box::new(Inflate::new()));
    None
}

/// zlib's numbers, for the log.
const Z_DATA_ERROR: i32 = -3;
const Z_BUF_ERROR: i32 = -5;

struct Inflate {
    inflate: Decompress,
    /// The end of a member was seen, and nothing after it.
    ended: bool,
}

impl Inflate {
    fn new() -> Inflate {
        Inflate { inflate: Decompress::new_gzip(15), ended: false }
    }
}

impl BodyFilter for Inflate {
    fn filter(&mut self, req: &Request, mut input: &[u8], last: bool, out: &mut Vec<u8>) -> Result<(), Gone> {
        while !input.is_empty() {
            if self.ended {
                // Another member follows (RFC 1952, section 2.2).
                *self = Inflate::new();
            }
            if out.capacity() - out.len() < 1024 {
                out.reserve(4096.max(input.len() * 2));
            }
            let before = (self.inflate.total_in(), out.len());
            let status = self.inflate.decompress_vec(input, out, FlushDecompress::None);
            let used = (self.inflate.total_in() - before.0) as usize;
            input = &input[used..];
            match status {
                Ok(Status::StreamEnd) => self.ended = true,
                Ok(_) if used > 0 || out.len() > before.1 => {}
                Ok(_) => out.reserve(out.capacity() + 4096),
                Err(_) => {
                    let flush = if last { 4 } else { 0 };
                    req.log(Level::Error, None, format_args!("inflate() failed: {flush}, {Z_DATA_ERROR}"));
                    return Err(Gone);
                }
            }
        }
        self.drain(out);
        if last && !self.ended {
            req.log(Level::Error, None, format_args!("inflate() returned {Z_BUF_ERROR} on response end"));
            return Err(Gone);
        }
        Ok(())
    }
}

impl Inflate {
    /// Takes what is left inside for want of room.
    fn drain(&mut self, out: &mut Vec<u8>) {
        while !self.ended && out.len() == out.capacity() && !out.is_empty() {
            out.reserve(4096);
            match self.inflate.decompress_vec(b"", out, FlushDecompress::None) {
                Ok(Status::StreamEnd) => self.ended = true,
                Ok(Status::Ok) => {}
                Ok(Status::BufError) | Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{Folder, Site};
    use std::io::Write;

    fn zip(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn site(body: &[u8]) -> Site {
        let folder = Folder::new();
        folder.write("a.txt.gz", body);
        Site::with(
            folder,
            "gunzip on; gzip_static always; gzip_vary on; gzip_http_version 1.0; server { LISTEN }",
        )
    }

    #[test]
    fn it_decompresses_where_gzip_is_not_taken() {
        let text = "zeros and ones ".repeat(20_000);
        let site = site(&[zip(&text), zip("and more")].concat());
        let answer = site.get("/a.txt");
        assert_eq!((answer.status, answer.field("content-encoding")), (200, None));
        assert_eq!(answer.field("vary"), Some("Accept-Encoding"));
        assert!(answer.field("etag").unwrap().starts_with("W/"));
        assert_eq!(answer.text(), text + "and more");
        let answer = site.ask("GET", "/a.txt", "Accept-Encoding: gzip\r\n");
        assert_eq!(answer.field("content-encoding"), Some("gzip"));
    }

    #[test]
    fn broken_bodies_are_cut_and_logged() {
        let whole = zip(&"text ".repeat(1000));
        let cut = site(&whole[..whole.len() - 4]);
        cut.raw("GET /a.txt HTTP/1.0\r\n\r\n");
        assert!(cut.log().contains("inflate() returned -5 on response end"), "{}", cut.log());
        let wrong = site(b"\x1f\x8b\x08\0\0\0\0\0\0\x03not deflate at all");
        wrong.raw("GET /a.txt HTTP/1.0\r\n\r\n");
        assert!(wrong.log().contains("inflate() failed: 0, -3"), "{}", wrong.log());
    }
}
