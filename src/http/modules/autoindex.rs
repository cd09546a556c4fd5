//! `ngx_http_autoindex`: the list of a directory's files.

use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use bytes::Bytes;

use crate::conf::build::Commands;
use crate::conf::{Build, Conf, Outcome, set};
use crate::http::conf::Loc;
use crate::http::file;
use crate::http::method::Method;
use crate::http::module::{Handlers, Module, Verdict, Wait};
use crate::http::modules::core::map_path;
use crate::http::output::Gone;
use crate::http::request::Request;
use crate::http::uri::{Escape, escape};
use crate::log::Level;
use crate::net::clock;
use crate::settings;

/// The module.
pub struct Autoindex;

/// `autoindex_format`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    #[allow(missing_docs)]
    Html,
    #[allow(missing_docs)]
    Json,
    /// JSON in a call of the function that the argument `callback` names.
    Jsonp,
    #[allow(missing_docs)]
    Xml,
}

settings! {
    /// `autoindex` and how it looks.
    pub struct LocConf {
        enable: bool = false,
        format: Format = Format::Html,
        localtime: bool = false,
        exact_size: bool = true,
    }
}

impl Conf for LocConf {
    fn merge(&mut self, parent: &Self, _: &mut Build) -> Outcome {
        self.inherit(parent);
        Ok(())
    }
}

impl Module for Autoindex {
    type Main = ();
    type Srv = ();
    type Loc = LocConf;
    const COMMANDS: Commands = Commands {
        module: "ngx_http_autoindex",
        setters: &[
            ("autoindex", |cf, d| set::flag(&mut cf.http.loc().autoindex().enable, d)),
            ("autoindex_format", |cf, d| {
                let words = [
                    ("html", Format::Html),
                    ("json", Format::Json),
                    ("jsonp", Format::Jsonp),
                    ("xml", Format::Xml),
                ];
                set::choice(&mut cf.http.loc().autoindex().format, d, &words)
            }),
            ("autoindex_localtime", |cf, d| set::flag(&mut cf.http.loc().autoindex().localtime, d)),
            ("autoindex_exact_size", |cf, d| set::flag(&mut cf.http.loc().autoindex().exact_size, d)),
        ],
    };

    fn handlers(loc: &Loc, to: &mut Handlers) {
        let loc = &loc.autoindex;
        if *loc.enable {
            to.content.push(|req| Box::pin(handle(req)) as Wait<'_, Verdict>);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
    Other,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Directory => "directory",
            Kind::File => "file",
            Kind::Other => "other",
        }
    }
}

/// A file in the list.
struct Entry {
    name: Vec<u8>,
    kind: Kind,
    time: i64,
    size: u64,
}

async fn handle(req: &mut Request) -> Verdict {
    if !req.uri.ends_with(b"/") || !matches!(req.method, Method::Get | Method::Head) {
        return Verdict::Next;
    }
    let mut path = map_path(req);
    if path.is_empty() {
        return Verdict::Status(500);
    }
    if path.len() > 1 {
        path.pop();
    }
    let mut format = *req.conf.autoindex.format;
    let mut callback = Vec::new();
    if format == Format::Jsonp {
        match callback_name(req) {
            Ok(name) if name.is_empty() => format = Format::Json,
            Ok(name) => callback = name,
            Err(()) => return Verdict::Status(400),
        }
    }
    let entries = match std::fs::read_dir(file::path(&path)) {
        Ok(entries) => entries,
        Err(e) => {
            let (status, level) = file::status_of(&e);
            let shown = crate::log::bytes(&path);
            req.log(level, Some(&e), format_args!("opendir() \"{shown}\" failed"));
            return Verdict::Status(status);
        }
    };
    if let Err(verdict) = req.discard_body().await {
        return verdict;
    }
    req.response.status = 200;
    let content_type = match format {
        Format::Html => "text/html",
        Format::Json => "application/json",
        Format::Jsonp => "application/javascript",
        Format::Xml => "text/xml",
    };
    req.response.content_type = Some(Bytes::from_static(content_type.as_bytes()));
    if format == Format::Xml {
        req.response.charset = Some(Bytes::from_static(b"utf-8"));
    }
    match send(req, entries, &path, format, &callback).await {
        Ok(()) => Verdict::Done,
        Err(Gone) => Verdict::Close,
    }
}

async fn send(
    req: &mut Request,
    entries: std::fs::ReadDir,
    path: &[u8],
    format: Format,
    callback: &[u8],
) -> Result<(), Gone> {
    req.send_head().await?;
    if !req.response.header_only {
        let mut list = read(req, entries, path)?;
        list.sort_by(|a, b| {
            let directory = |e: &Entry| e.kind == Kind::Directory;
            directory(b).cmp(&directory(a)).then_with(|| a.name.cmp(&b.name))
        });
        let body = match format {
            Format::Html => html(req, &list),
            Format::Json | Format::Jsonp => json(&list, callback),
            Format::Xml => xml(&list),
        };
        req.send(&body).await?;
    }
    req.finish().await
}

fn read(req: &Request, entries: std::fs::ReadDir, folder: &[u8]) -> Result<Vec<Entry>, Gone> {
    let failed = |call: &str, path: &[u8], error: &io::Error| {
        let shown = crate::log::bytes(path);
        req.log(Level::Crit, Some(error), format_args!("{call} \"{shown}\" failed"));
        Gone
    };
    let mut list = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| failed("readdir()", folder, &e))?;
        let name = entry.file_name().as_bytes().to_vec();
        if name.starts_with(b".") {
            continue;
        }
        let path = [folder, b"/", &name].concat();
        let data = match std::fs::metadata(file::path(&path)) {
            Ok(data) => data,
            // A link that leads nowhere is shown itself.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ELOOP)) => {
                std::fs::symlink_metadata(file::path(&path)).map_err(|e| failed("lstat()", &path, &e))?
            }
            Err(e) => {
                let gone = failed("stat()", &path, &e);
                if e.raw_os_error() == Some(libc::EACCES) {
                    continue;
                }
                return Err(gone);
            }
        };
        list.push(Entry { name, kind: kind(&data), time: data.mtime(), size: data.len() });
    }
    Ok(list)
}

fn kind(data: &Metadata) -> Kind {
    match data {
        data if data.is_dir() => Kind::Directory,
        data if data.is_file() => Kind::File,
        _ => Kind::Other,
    }
}

/// The function that JSONP calls; empty where none is named.
fn callback_name(req: &Request) -> Result<Vec<u8>, ()> {
    let named = req.args.split(|c| *c == b'&').find_map(|pair| match pair.split_at_checked(9) {
        Some((name, value)) if name.eq_ignore_ascii_case(b"callback=") => Some(value),
        _ => None,
    });
    let name = named.unwrap_or_default();
    let fault = if name.len() > 128 {
        "too long"
    } else if !name.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.')) {
        "invalid"
    } else {
        return Ok(name.to_vec());
    };
    let shown = crate::log::bytes(name);
    req.log(Level::Info, None, format_args!("client sent {fault} callback name: \"{shown}\""));
    Err(())
}

/// Appends text with HTML's special characters as entities.
fn escape_html(text: &[u8], out: &mut Vec<u8>) {
    for c in text {
        match c {
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'&' => out.extend_from_slice(b"&amp;"),
            b'"' => out.extend_from_slice(b"&quot;"),
            _ => out.push(*c),
        }
    }
}

/// Characters of a name that are shown.
const WIDTH: usize = 50;

/// The first `most` characters of a name.
fn cut(name: &[u8], most: usize, utf8: bool) -> &[u8] {
    let end = match std::str::from_utf8(name) {
        Ok(text) if utf8 => text.char_indices().nth(most).map_or(name.len(), |(at, _)| at),
        _ => name.len().min(most),
    };
    &name[..end]
}

fn html(req: &Request, list: &[Entry]) -> Vec<u8> {
    let conf = &req.conf.autoindex;
    let utf8 = req.response.charset.as_ref().is_some_and(|c| c.eq_ignore_ascii_case(b"utf-8"));
    let offset = match *conf.localtime {
        true => i64::from(clock::local(clock::wall().sec).offset) * 60,
        false => 0,
    };
    let mut out = b"<html>\r\n<head><title>Index of ".to_vec();
    escape_html(&req.uri, &mut out);
    out.extend_from_slice(b"</title></head>\r\n<body>\r\n<h1>Index of ");
    escape_html(&req.uri, &mut out);
    out.extend_from_slice(b"</h1><hr><pre><a href=\"../\">../</a>\r\n");
    for entry in list {
        link(entry, utf8, &mut out);
        let time = clock::gmt(entry.time + offset);
        let month = &clock::format_http_date(entry.time + offset)[8..11];
        out.extend(format!(" {:02}-", time.day).into_bytes());
        out.extend_from_slice(month);
        out.extend(format!("-{} {:02}:{:02} ", time.year, time.hour, time.minute).into_bytes());
        out.extend(size(entry, *conf.exact_size).into_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"</pre><hr></body>\r\n</html>\r\n");
    out
}

fn link(entry: &Entry, utf8: bool, out: &mut Vec<u8>) {
    let directory = entry.kind == Kind::Directory;
    out.extend_from_slice(b"<a href=\"");
    escape(&entry.name, Escape::Component, out);
    out.extend_from_slice(if directory { b"/\">" } else { b"\">" });
    let mut shown = match std::str::from_utf8(&entry.name) {
        Ok(text) if utf8 => text.chars().count(),
        _ => entry.name.len(),
    };
    if shown > WIDTH {
        escape_html(cut(&entry.name, WIDTH - 3, utf8), out);
        out.extend_from_slice(b"..&gt;</a>");
        return;
    }
    escape_html(&entry.name, out);
    if directory && shown < WIDTH {
        out.push(b'/');
        shown += 1;
    }
    out.extend_from_slice(b"</a>");
    out.resize(out.len() + WIDTH - shown, b' ');
}

fn size(entry: &Entry, exact: bool) -> String {
    match (entry.kind == Kind::Directory, exact) {
        (true, true) => format!("{:>19}", "-"),
        (true, false) => format!("{:>7}", "-"),
        (false, true) => format!("{:>19}", entry.size),
        (false, false) => {
            let rounded = |unit: u64| entry.size / unit + u64::from(entry.size % unit > unit / 2 - 1);
            match entry.size {
                0x4000_0000.. => format!("{:>6}G", rounded(1 << 30)),
                0x10_0000.. => format!("{:>6}M", rounded(1 << 20)),
                10_000.. => format!("{:>6}K", rounded(1 << 10)),
                bytes => format!(" {bytes:>6}"),
            }
        }
    }
}

fn escape_json(text: &[u8], out: &mut Vec<u8>) {
    for &c in text {
        match c {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', c]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            0..=0x1f => out.extend(format!("\\u{c:04X}").into_bytes()),
            _ => out.push(c),
        }
    }
}

fn json(list: &[Entry], callback: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if !callback.is_empty() {
        out.extend_from_slice(b"/* callback */\r\n");
        out.extend_from_slice(callback);
        out.push(b'(');
    }
    out.push(b'[');
    for (i, entry) in list.iter().enumerate() {
        out.extend_from_slice(if i > 0 { b",\r\n{ \"name\":\"" } else { b"\r\n{ \"name\":\"" });
        escape_json(&entry.name, &mut out);
        let time = clock::format_http_date(entry.time);
        out.extend(format!("\", \"type\":\"{}\", \"mtime\":\"", entry.kind.name()).into_bytes());
        out.extend_from_slice(&time);
        out.push(b'"');
        if entry.kind == Kind::File {
            out.extend(format!(", \"size\":{}", entry.size).into_bytes());
        }
        out.extend_from_slice(b" }");
    }
    out.extend_from_slice(b"\r\n]");
    if !callback.is_empty() {
        out.extend_from_slice(b");");
    }
    out
}

fn xml(list: &[Entry]) -> Vec<u8> {
    let mut out = b"<?xml version=\"1.0\"?>\r\n<list>\r\n".to_vec();
    for entry in list {
        let kind = entry.kind.name();
        let t = clock::gmt(entry.time);
        let mut open = format!(
            "<{kind} mtime=\"{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z\"",
            t.year, t.month, t.day, t.hour, t.minute, t.second
        );
        if entry.kind == Kind::File {
            open += &format!(" size=\"{}\"", entry.size);
        }
        out.extend(open.into_bytes());
        out.push(b'>');
        escape_html(&entry.name, &mut out);
        out.extend(format!("</{kind}>\r\n").into_bytes());
    }
    out.extend_from_slice(b"</list>\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{Folder, Site};

    fn entry(name: &str, kind: Kind, size: u64) -> Entry {
        Entry { name: name.into(), kind, time: 23_349_600, size }
    }

    #[test]
    fn sizes_are_rounded() {
        for (bytes, want) in [
            (9999, "   9999"),
            (10_000, "    10K"),
            (10_752, "    11K"),
            (1_048_575, "  1024K"),
            (1 << 20, "     1M"),
            (3 << 29, "     2G"),
        ] {
            assert_eq!(size(&entry("a", Kind::File, bytes), false), want);
        }
        assert_eq!(size(&entry("a", Kind::Directory, 1), false), "      -");
        assert_eq!(size(&entry("a", Kind::File, 7), true).len(), 19);
    }

    #[test]
    fn long_names_are_cut_by_characters() {
        let mut out = Vec::new();
        link(&entry(&"é".repeat(51), Kind::File, 1), true, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with(&format!(">{}..&gt;</a>", "é".repeat(47))), "{text}");
        let mut out = Vec::new();
        link(&entry("a<b", Kind::Directory, 1), true, &mut out);
        let want = format!("<a href=\"a%3Cb/\">a&lt;b/</a>{}", " ".repeat(46));
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn formats() {
        let list = [entry("d\"", Kind::Directory, 0), entry("f&", Kind::File, 3)];
        assert_eq!(
            String::from_utf8(json(&list, b"cb")).unwrap(),
            "/* callback */\r\ncb([\r\n{ \"name\":\"d\\\"\", \"type\":\"directory\", \
             \"mtime\":\"Mon, 28 Sep 1970 06:00:00 GMT\" },\r\n{ \"name\":\"f&\", \"type\":\"file\", \
             \"mtime\":\"Mon, 28 Sep 1970 06:00:00 GMT\", \"size\":3 }\r\n]);"
        );
        assert!(
            String::from_utf8(xml(&list))
                .unwrap()
                .contains("<file mtime=\"1970-09-28T06:00:00Z\" size=\"3\">f&amp;</file>\r\n")
        );
        assert_eq!(json(&[], b""), b"[\r\n]");
    }

    #[test]
    fn directories_come_first_and_hidden_files_not_at_all() {
        let folder = Folder::new();
        for name in ["b/x", "a.txt", ".hidden", "c d"] {
            folder.write(name, "x");
        }
        let site = Site::with(folder, "server { LISTEN location / { autoindex on; } }");
        let text = site.get("/").text();
        let at = |word: &str| text.find(word).unwrap_or_else(|| panic!("{word} in {text}"));
        assert!(at("href=\"b/\"") < at("href=\"a.txt\"") && at("a.txt") < at("href=\"c%20d\""));
        assert!(!text.contains("hidden"));
        assert_eq!(site.get("/none/").status, 404);
        assert!(site.log().contains("/html/none/index.html\" is not found (2: No such file or directory)"));
    }
}
