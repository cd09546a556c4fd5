//! What `rewrite`, `set`, `if`, `return` and `break` compile to, and running it.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use bytes::Bytes;

use super::module::{Step, Verdict};
use super::request::Request;
use super::uri;
use crate::log::{self, Level};
use crate::value::{Part, Regex, Template, VarId};

/// One instruction.
#[derive(Clone, Debug)]
pub enum Code {
    /// `return`: status and text or URL.
    Return(u16, Template),
    /// `break`
    Break,
    /// `set`
    Set(VarId, Template),
    /// `if`
    If(Box<If>),
    /// `rewrite`
    Rewrite(Box<Rewrite>),
}

/// `if (condition) { ... }`
#[derive(Clone, Debug)]
pub struct If {
    /// What must hold.
    pub condition: Condition,
    /// Which of the location's `ifs` has the settings; none in a server.
    pub block: Option<usize>,
    /// The code after the block.
    pub next: usize,
}

/// What an `if` asks.
#[derive(Clone, Debug)]
pub enum Condition {
    /// The variable is neither empty nor `0`.
    Variable(VarId),
    /// The variable is (or is not) this text.
    Equal(VarId, Template, bool),
    /// The variable matches (or does not).
    Matches(VarId, Pattern, bool),
    /// What the path names is (or is not) such a file.
    File(Template, FileKind, bool),
}

/// A regular expression, and how it was written.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// Compiled.
    pub regex: Arc<Regex>,
    /// As written.
    pub text: Bytes,
}

/// What is asked of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// `-f`
    Plain,
    /// `-d`
    Directory,
    /// `-e`: a plain file or a directory.
    Any,
    /// `-x`
    Executable,
}

/// `rewrite regex replacement [flag]`
#[derive(Clone, Debug)]
pub struct Rewrite {
    /// What the URI must match.
    pub pattern: Pattern,
    /// The replacement in parts.
    pub parts: Vec<Piece>,
    /// A `?` is in the replacement.
    pub has_args: bool,
    /// The request's arguments are appended.
    pub add_args: bool,
    /// The status of a redirect.
    pub redirect: Option<u16>,
    /// No new location is looked for.
    pub break_cycle: bool,
    /// Nothing after it runs.
    pub last: bool,
}

/// A part of a replacement.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Text, a variable, a capture.
    Part(Part),
    /// `?`: arguments begin here.
    Args,
}

impl Rewrite {
    /// The parts of a replacement; a `?` in the text of one that is no redirect begins the arguments.
    pub fn pieces(replacement: &Template, redirect: bool) -> (Vec<Piece>, bool) {
        let (mut pieces, mut has_args) = (Vec::new(), false);
        for part in replacement.parts() {
            let Part::Text(text) = part else {
                pieces.push(Piece::Part(part.clone()));
                continue;
            };
            has_args |= text.contains(&b'?');
            if redirect {
                pieces.push(Piece::Part(part.clone()));
                continue;
            }
            for (i, piece) in text.split(|c| *c == b'?').enumerate() {
                if i > 0 {
                    pieces.push(Piece::Args);
                }
                if !piece.is_empty() {
                    pieces.push(Piece::Part(Part::Text(text.slice_ref(piece))));
                }
            }
        }
        (pieces, has_args)
    }
}

/// What an instruction leads to.
enum Flow {
    /// The next instruction.
    Next,
    /// That instruction.
    Jump(usize),
    /// The end of the phase.
    End(Verdict),
    /// A response made of status and text.
    Respond(u16, Bytes),
}

/// Runs `codes`; `log` is `rewrite_log`.
pub fn run<'a>(req: &'a mut Request, codes: &'static [Code], log: bool) -> Step<'a> {
    let mut engine = Engine { escape: true, log };
    let mut at = 0;
    while let Some(code) = codes.get(at) {
        match engine.step(req, code) {
            Flow::Next => at += 1,
            Flow::Jump(to) => at = to,
            Flow::End(verdict) => return verdict.into(),
            Flow::Respond(status, text) => {
                return Step::Later(Box::pin(async move { send_response(req, status, &text).await }));
            }
        }
    }
    Verdict::Next.into()
}

struct Engine {
    /// Captures of an escaped URI are escaped again: until the first `rewrite`, and in redirects.
    escape: bool,
    log: bool,
}

impl Engine {
    fn step(&mut self, req: &mut Request, code: &Code) -> Flow {
        match code {
            Code::Return(status, text) => answer(req, *status, text),
            Code::Break => {
                if req.uri_changed {
                    req.valid_location = false;
                    req.uri_changed = false;
                }
                Flow::End(Verdict::Next)
            }
            Code::Set(id, value) => {
                let value = self.value(req, value);
                let vars = &req.http.variables;
                vars.set(req, *id, value);
                Flow::Next
            }
            Code::If(code) => {
                if !self.holds(req, &code.condition) {
                    return Flow::Jump(code.next);
                }
                if let Some(block) = code.block.and_then(|block| req.location.ifs.get(block)) {
                    req.enter_block(block);
                }
                Flow::Next
            }
            Code::Rewrite(rewrite) => self.rewrite(req, rewrite),
        }
    }

    fn value(&self, req: &Request, value: &Template) -> Bytes {
        if !(self.escape && value.has_captures() && is_escaped(req)) {
            return value.eval(req);
        }
        let mut out = Vec::new();
        value.parts().iter().for_each(|part| append(req, part, true, &mut out));
        out.into()
    }

    fn holds(&self, req: &Request, condition: &Condition) -> bool {
        let variable = |id: VarId| {
            let mut value = Vec::new();
            crate::value::variable(req, id, &mut value);
            value
        };
        match condition {
            Condition::Variable(id) => !matches!(&variable(*id)[..], b"" | b"0"),
            Condition::Equal(id, text, equal) => {
                let value = variable(*id);
                (self.value(req, text) == value) == *equal
            }
            Condition::Matches(id, pattern, positive) => {
                self.matches(req, pattern, &variable(*id)) == *positive
            }
            Condition::File(path, kind, positive) => is_file(req, &self.value(req, path), *kind) == *positive,
        }
    }

    fn matches(&self, req: &Request, pattern: &Pattern, subject: &[u8]) -> bool {
        let hit = pattern.regex.exec(&req.scope, subject);
        if !hit {
            req.scope.set_captures(Bytes::new(), Vec::new());
        }
        if self.log {
            let words = if hit { "matches" } else { "does not match" };
            let (pattern, subject) = (log::bytes(&pattern.text), log::bytes(subject));
            req.log(Level::Notice, None, format_args!("\"{pattern}\" {words} \"{subject}\""));
        }
        hit
    }

    fn rewrite(&mut self, req: &mut Request, code: &Rewrite) -> Flow {
        if !self.matches(req, &code.pattern, &req.uri) {
            return Flow::Next;
        }
        req.internal = true;
        req.valid_unparsed_uri = false;
        if code.break_cycle {
            req.valid_location = false;
            req.uri_changed = false;
        } else {
            req.uri_changed = true;
        }
        let (text, args_at) = replacement(req, code);
        self.escape = false;
        match code.redirect {
            Some(status) => {
                self.redirect(req, code, &text);
                Flow::End(Verdict::Status(status))
            }
            None => self.change(req, code, text, args_at),
        }
    }

    fn redirect(&self, req: &mut Request, code: &Rewrite, text: &[u8]) {
        let mut target = unescape_redirect(text);
        if code.add_args && !req.args.is_empty() {
            target.push(if code.has_args { b'&' } else { b'?' });
            target.extend_from_slice(&req.args);
        }
        if self.log {
            req.log(Level::Notice, None, format_args!("rewritten redirect: \"{}\"", log::bytes(&target)));
        }
        req.response.location = Some(target.into());
    }

    fn change(&self, req: &mut Request, code: &Rewrite, mut text: Vec<u8>, args_at: Option<usize>) -> Flow {
        match args_at {
            Some(at) => {
                if code.add_args && !req.args.is_empty() {
                    text.push(b'&');
                    text.extend_from_slice(&req.args);
                }
                let mut text = Bytes::from(text);
                req.args = text.split_off(at);
                req.uri = text;
            }
            None => {
                if !code.add_args {
                    req.args = Bytes::new();
                }
                req.uri = text.into();
            }
        }
        if self.log {
            let (uri, args) = (log::bytes(&req.uri), log::bytes(&req.args));
            req.log(Level::Notice, None, format_args!("rewritten data: \"{uri}\", args: \"{args}\""));
        }
        if req.uri.is_empty() {
            req.log(Level::Error, None, format_args!("the rewritten URI has a zero length"));
            return Flow::End(Verdict::Status(500));
        }
        if code.last { Flow::End(Verdict::Next) } else { Flow::Next }
    }
}

/// The replacement, and where its arguments begin.
fn replacement(req: &Request, code: &Rewrite) -> (Vec<u8>, Option<usize>) {
    let escaped = is_escaped(req);
    let mut text = Vec::with_capacity(req.uri.len() + 64);
    let mut args_at = None;
    for piece in &code.parts {
        match piece {
            Piece::Args => args_at = Some(text.len()),
            Piece::Part(part) => {
                let escape = escaped && (args_at.is_some() || code.redirect.is_some());
                append(req, part, escape, &mut text);
            }
        }
    }
    (text, args_at)
}

fn append(req: &Request, part: &Part, escape: bool, out: &mut Vec<u8>) {
    match part {
        Part::Text(text) => out.extend_from_slice(text),
        Part::Variable(id) => {
            crate::value::variable(req, *id, out);
        }
        Part::Capture(n) if escape => {
            let mut capture = Vec::new();
            req.scope.capture(*n as usize, &mut capture);
            uri::escape(&capture, uri::Escape::Args, out);
        }
        Part::Capture(n) => {
            req.scope.capture(*n as usize, out);
        }
    }
}

/// Whether the path came with percent signs or pluses: what is captured from it was unescaped.
fn is_escaped(req: &Request) -> bool {
    let uri = req.unparsed_uri();
    let path = &uri[..memchr::memchr2(b'?', b'#', uri).unwrap_or(uri.len())];
    memchr::memchr2(b'%', b'+', path).is_some()
}

/// Unescapes what may stand unescaped before the arguments of a redirect's target.
fn unescape_redirect(text: &[u8]) -> Vec<u8> {
    let hex = |c: Option<&u8>| c.and_then(|c| char::from(*c).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&c) = text.get(at) {
        at += 1;
        if c != b'%' {
            out.push(c);
            if c == b'?' {
                break;
            }
            continue;
        }
        let Some(high) = hex(text.get(at)) else {
            // A percent sign that begins nothing is dropped, what follows stays.
            out.extend(text.get(at));
            at += 1;
            continue;
        };
        if let Some(low) = hex(text.get(at + 1)) {
            let digits = &text[at..at + 2];
            let byte = (high * 16 + low) as u8;
            if byte > b'%' && byte < 0x7f {
                out.push(byte);
                if byte == b'?' && digits[1].is_ascii_alphabetic() {
                    at += 2;
                    break;
                }
            } else {
                out.push(b'%');
                out.extend_from_slice(digits);
            }
        }
        at += 2;
    }
    out.extend_from_slice(text.get(at..).unwrap_or_default());
    out
}

fn is_file(req: &Request, path: &[u8], kind: FileKind) -> bool {
    match super::file::stat(req, path) {
        Ok(info) => match kind {
            FileKind::Plain => info.is_file(),
            FileKind::Directory => info.is_dir(),
            FileKind::Any => info.is_file() || info.is_dir(),
            FileKind::Executable => info.permissions().mode() & 0o100 != 0,
        },
        Err((call, error)) => {
            let code = error.raw_os_error();
            if !matches!(code, None | Some(libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG)) {
                req.log(Level::Crit, Some(&error), format_args!("{call} \"{}\" failed", log::bytes(path)));
            }
            false
        }
    }
}

fn answer(req: &mut Request, status: u16, text: &Template) -> Flow {
    req.response.status = status;
    if status >= 400 && text.as_constant().is_some_and(<[u8]>::is_empty) {
        return Flow::End(match status {
            444 | 499 | 408 => {
                req.response.status = status;
                Verdict::Close
            }
            _ => Verdict::Status(status),
        });
    }
    let text = text.eval(req);
    if matches!(status, 301 | 302 | 303 | 307 | 308) {
        req.response.location = Some(text);
        return Flow::End(Verdict::Status(status));
    }
    Flow::Respond(status, text)
}

/// Sends `text` with `status`, typed by the URI's extension.
async fn send_response(req: &mut Request, status: u16, text: &[u8]) -> Verdict {
    if let Err(verdict) = req.discard_body().await {
        return verdict;
    }
    req.response.status = status;
    req.response.content_length = Some(text.len() as u64);
    req.set_content_type();
    let sent = async {
        req.send_head().await?;
        if !req.response.header_only && !text.is_empty() {
            req.send(text).await?;
        }
        req.finish().await
    };
    if sent.await.is_ok() { Verdict::Done } else { Verdict::Close }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirect_targets_are_unescaped_before_arguments() {
        let text = |t: &str| String::from_utf8(unescape_redirect(t.as_bytes())).unwrap();
        assert_eq!(text("/a%41%20%2f%25b"), "/aA%20/%25b");
        assert_eq!(text("/a?b%41"), "/a?b%41");
        assert_eq!(text("/a%3Fb%41"), "/a?b%41");
        assert_eq!(text("/%e4%zzb%"), "/%e4zzb");
    }

    #[test]
    fn a_question_mark_begins_arguments_unless_in_a_redirect() {
        let template = Template::constant(&b"/x?a=b"[..]);
        let (pieces, has_args) = Rewrite::pieces(&template, false);
        assert!(has_args && matches!(&pieces[..], [Piece::Part(_), Piece::Args, Piece::Part(_)]));
        let (pieces, has_args) = Rewrite::pieces(&template, true);
        assert!(has_args && matches!(&pieces[..], [Piece::Part(Part::Text(text))] if text == "/x?a=b"));
        assert!(Rewrite::pieces(&Template::default(), false).0.is_empty());
    }
}
