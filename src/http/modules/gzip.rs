//! `ngx_http_gzip_filter`: compresses bodies.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use flate2::{Compress, Compression, FlushCompress, Status};

use super::gzip_core;
use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Fault, Outcome, set};
use crate::http::conf::Loc;
use crate::http::headers::CONTENT_ENCODING;
use crate::http::module::{BodyFilter, Handlers, Module};
use crate::http::output::Gone;
use crate::http::request::Request;
use crate::http::types::{self, TypeSet};
use crate::log::Level;
use crate::settings;
use crate::syntax::Directive;
use crate::value::Builtin;

/// The module.
pub struct Gzip;

settings! {
    /// `gzip`
    pub struct LocConf {
        enable: bool = false,
        buffers: (usize, usize) = (32, 4096),
        types: TypeSet = TypeSet::html(),
        level: usize = 1,
        min_length: u64 = 20,
        /// Bits of the window.
        window: usize = 15,
        hash: usize = 128 << 10,
        no_buffer: bool = false,
        postpone: usize = 0,
    }
}

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

impl Module for Gzip {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_gzip_filter",
        setters: &[
            ("gzip", |cf, d| set::flag(&mut cf.http.loc().gzip().enable, d)),
            ("gzip_buffers", |cf, d| set::buffers(&mut cf.http.loc().gzip().buffers, d)),
            ("gzip_types", |cf, d| {
                types::directive(cf, d, |cf| &mut cf.http.loc().gzip().types);
                Ok(())
            }),
            ("gzip_comp_level", level),
            ("gzip_window", window),
            ("gzip_hash", hash),
            ("gzip_no_buffer", |cf, d| set::flag(&mut cf.http.loc().gzip().no_buffer, d)),
            ("postpone_gzipping", |cf, d| set::size(&mut cf.http.loc().gzip().postpone, d)),
            ("gzip_min_length", |cf, d| {
                let to = &mut cf.http.loc().gzip().min_length;
                to.once()?;
                let length = crate::conf::units::size(d.arg(1)).ok_or(Fault::directive("invalid value"))?;
                to.set(length as u64)
            }),
        ],
    };
    const VARIABLES: &'static [Builtin<Request>] = &[Builtin::new("gzip_ratio", ratio)];

    fn handlers(loc: &Loc, to: &mut Handlers) {
        let loc = &loc.gzip;
        if *loc.enable {
            to.header_filters.push(header_filter);
        }
    }
}

fn level(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let to = &mut cf.http.loc().gzip().level;
    set::number(to, d)?;
    match **to {
        1..=9 => Ok(()),
        _ => Err(Fault::here("value must be between 1 and 9")),
    }
}

fn window(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let to = &mut cf.http.loc().gzip().window;
    set::size(to, d)?;
    match (9..=15).find(|bits| **to == 1 << bits) {
        Some(bits) => {
            to.put(bits);
            Ok(())
        }
        None => Err(Fault::directive("must be 512, 1k, 2k, 4k, 8k, 16k, or 32k")),
    }
}

fn hash(cf: &mut Build, d: &Directive<'_>) -> Outcome {
    let to = &mut cf.http.loc().gzip().hash;
    set::size(to, d)?;
    match (9..=17).any(|bits| **to == 1 << bits) {
        true => Ok(()),
        false => Err(Fault::directive("must be 512, 1k, 2k, 4k, 8k, 16k, 32k, 64k, or 128k")),
    }
}

/// Bytes before and after compression, known at the end.
#[derive(Clone, Default)]
struct Totals(Rc<Cell<(u64, u64)>>);

fn header_filter(req: &mut Request) -> Option<u16> {
    let conf = &req.conf.gzip;
    let r = &req.response;
    if !matches!(r.status, 200 | 403 | 404)
        || r.headers.get(CONTENT_ENCODING).is_some_and(|v| !v.is_empty())
        || r.content_length.is_some_and(|n| n < *conf.min_length)
        || !conf.types.contains(req)
        || r.header_only
    {
        return None;
    }
    gzip_core::vary(req);
    if !gzip_core::is_taken(req) {
        return None;
    }
    let totals = req.context_mut::<Totals>().clone();
    let key = (*conf.level as u32, window_for(*conf.window, req.response.content_length));
    let r = &mut req.response;
    r.headers.add(CONTENT_ENCODING, b"gzip");
    r.clear_content_length();
    r.clear_accept_ranges();
    r.weaken_etag();
    req.add_late_body_filter(Box::new(Deflate { compress: None, ended: false, key, totals }));
    None
}

/// Bits of a window that is large enough for a body, at most those that the settings say.
fn window_for(most: usize, length: Option<u64>) -> u8 {
    let mut bits = most;
    if let Some(length) = length {
        while bits > 9 && length < (1 << (bits - 1)) - 262 {
            bits -= 1;
        }
    }
    bits as u8
}

/// Level and window bits.
type Key = (u32, u8);

thread_local! {
    /// Compressors that are free: making one costs more than compressing a small body.
    static FREE: RefCell<Vec<(Key, Compress)>> = const { RefCell::new(Vec::new()) };
}

/// Free compressors that a thread keeps.
const KEEP: usize = 4;

fn take(key: Key) -> Compress {
    let kept = FREE.with_borrow_mut(|free| {
        let at = free.iter().rposition(|(k, _)| *k == key)?;
        Some(free.swap_remove(at).1)
    });
    kept.unwrap_or_else(|| Compress::new_gzip(Compression::new(key.0), key.1))
}

struct Deflate {
    /// Taken with the first piece: a HEAD request has none.
    compress: Option<Compress>,
    /// The end was written.
    ended: bool,
    key: Key,
    totals: Totals,
}

impl Deflate {
    fn run(
        &mut self,
        req: &Request,
        mut input: &[u8],
        flush: FlushCompress,
        out: &mut Vec<u8>,
    ) -> Result<(), Gone> {
        if self.ended {
            return Ok(());
        }
        let compress = self.compress.get_or_insert_with(|| take(self.key));
        loop {
            if out.capacity() - out.len() < 512 {
                out.reserve(4096.max(input.len() / 4));
            }
            let before = compress.total_in();
            let status = match compress.compress_vec(input, out, flush) {
                Ok(status) => status,
                Err(e) => {
                    req.log(Level::Alert, None, format_args!("deflate() failed: {e}"));
                    return Err(Gone);
                }
            };
            input = &input[(compress.total_in() - before) as usize..];
            if status == Status::StreamEnd
                || input.is_empty() && out.len() < out.capacity() && !matches!(flush, FlushCompress::Finish)
            {
                return Ok(());
            }
        }
    }
}

impl BodyFilter for Deflate {
    fn filter(&mut self, req: &Request, input: &[u8], last: bool, out: &mut Vec<u8>) -> Result<(), Gone> {
        if input.is_empty() && !last {
            return Ok(());
        }
        self.run(req, input, if last { FlushCompress::Finish } else { FlushCompress::None }, out)?;
        self.ended |= last;
        if last && let Some(mut compress) = self.compress.take() {
            self.totals.0.set((compress.total_in(), compress.total_out()));
            compress.reset();
            FREE.with_borrow_mut(|free| {
                if free.len() < KEEP {
                    free.push((self.key, compress));
                }
            });
        }
        Ok(())
    }

    fn flush(&mut self, req: &Request, out: &mut Vec<u8>) {
        // A failure shows again with the next piece.
        let _ = self.run(req, b"", FlushCompress::Sync, out);
    }
}

/// `$gzip_ratio`: original to compressed, with two decimals.
fn ratio(req: &Request, out: &mut Vec<u8>) -> bool {
    let Some((from, to)) = req.context::<Totals>().map(|t| t.0.get()).filter(|(_, to)| *to > 0) else {
        return false;
    };
    let hundredths = from * 100 / to + u64::from(from * 1000 / to % 10 > 4);
    out.extend(format!("{}.{:02}", hundredths / 100, hundredths % 100).into_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{Folder, Site, emerg};
    use std::io::Read;

    fn unzip(bytes: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut text).unwrap();
        text
    }

    #[test]
    fn bodies_are_compressed_for_those_who_take_it() {
        let folder = Folder::new();
        let text = "all work and no play\n".repeat(5000);
        folder.write("a.html", &text);
        folder.write("small.html", "short");
        folder.write("a.bin", &text);
        let site = Site::with(
            folder,
            "gzip on; gzip_vary on; gzip_http_version 1.0; log_format r $gzip_ratio; server { LISTEN access_log ratio.log r; }",
        );
        for _ in 0..3 {
            let answer = site.ask("GET", "/a.html", "Accept-Encoding: gzip\r\n");
            assert_eq!(answer.field("content-encoding"), Some("gzip"));
            assert_eq!(answer.field("vary"), Some("Accept-Encoding"));
            assert_eq!(answer.field("content-length"), None);
            assert_eq!(answer.field("accept-ranges"), None);
            assert!(answer.field("etag").unwrap().starts_with("W/\""));
            assert_eq!(unzip(&answer.body), text.as_bytes());
            assert!(answer.body.len() < text.len() / 20);
        }
        let plain = site.get("/a.html");
        assert_eq!((plain.field("content-encoding"), plain.field("vary")), (None, Some("Accept-Encoding")));
        for other in ["/small.html", "/a.bin"] {
            assert_eq!(site.ask("GET", other, "Accept-Encoding: gzip\r\n").field("content-encoding"), None);
        }
        assert_eq!(
            site.ask("GET", "/a.html", "Accept-Encoding: gzip\r\nVia: 1.1 x\r\n").field("content-encoding"),
            None
        );
    }

    #[test]
    fn words_of_faults() {
        assert!(emerg("gzip_comp_level 10;").starts_with("value must be between 1 and 9 in "));
        assert!(emerg("gzip_window 3k;").starts_with("\"gzip_window\" directive must be 512, 1k, "));
        assert!(emerg("gzip_hash 1;").starts_with("\"gzip_hash\" directive must be 512, 1k, "));
    }

    #[test]
    fn small_bodies_take_small_windows() {
        assert_eq!(window_for(15, None), 15);
        assert_eq!(window_for(15, Some(1 << 20)), 15);
        assert_eq!(window_for(15, Some(1000)), 11);
        assert_eq!(window_for(12, Some(1)), 9);
    }
}
