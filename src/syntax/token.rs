//! Bytes to words: nginx's lexer, one directive at a time.

use nom::branch::alt;
use nom::bytes::complete::{tag, take, take_while, take_while1};
use nom::combinator::{opt, recognize};
use nom::multi::many0_count;
use nom::{IResult, Parser};

/// A word and the byte after it must fit nginx's read buffer.
const BUFFER: usize = 4096;
/// How many bytes of a word that does not fit are shown.
const EXCERPT: usize = 10;

/// What ended a run of words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Semicolon,
    Open,
    Close,
    Eof,
}

/// A word as it stands in the text, quotes excluded, escapes still in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawWord {
    pub start: usize,
    pub len: usize,
    pub quoted: bool,
    pub escaped: bool,
}

/// nginx's words for text that is not a directive, and the line it reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub message: Vec<u8>,
    pub line: u32,
}

/// Where the text came from, which decides the limit of words and the words at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    File,
    CommandLine,
}

pub(super) struct Lexer<'t> {
    text: &'t [u8],
    origin: Origin,
    /// The next byte to read.
    pub pos: usize,
    /// The line of the next byte, counted from 1.
    pub line: u32,
    /// Where nginx's buffer must begin to keep what is being read.
    mark: usize,
    mark_line: u32,
}

impl<'t> Lexer<'t> {
    pub fn new(text: &'t [u8], origin: Origin) -> Self {
        Lexer { text, origin, pos: 0, line: 1, mark: 0, mark_line: 1 }
    }

    /// Reads the words up to `;`, `{`, `}` or the end of the text.
    pub fn directive(&mut self, words: &mut Vec<RawWord>) -> Result<End, Fault> {
        words.clear();
        self.set_mark(self.pos);
        loop {
            let Some(byte) = self.peek()? else {
                return if words.is_empty() { Ok(End::Eof) } else { Err(self.cut_short()) };
            };
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.skip_blank(),
                b'#' => self.skip_comment()?,
                b';' | b'{' if words.is_empty() => return Err(self.unexpected(byte)),
                b'}' if !words.is_empty() => return Err(self.unexpected(byte)),
                b';' | b'{' | b'}' => {
                    self.pos += 1;
                    return Ok(end_of(byte));
                }
                b'"' | b'\'' => {
                    words.push(self.quoted_word(byte)?);
                    if let Some(end) = self.after_quote()? {
                        return Ok(end);
                    }
                }
                _ => {
                    let (word, end) = self.plain_word()?;
                    words.push(word);
                    if let Some(end) = end {
                        return Ok(end);
                    }
                }
            }
        }
    }

    fn set_mark(&mut self, at: usize) {
        self.mark = at;
        self.mark_line = self.line;
    }

    fn limited(&self) -> bool {
        self.origin == Origin::File
    }

    /// The next byte, if nginx's buffer has room for it.
    fn peek(&self) -> Result<Option<u8>, Fault> {
        match self.text.get(self.pos) {
            Some(_) if self.limited() && self.pos - self.mark >= BUFFER => Err(self.too_long(None)),
            byte => Ok(byte.copied()),
        }
    }

    /// What the buffer holds from the mark on.
    fn window(&self) -> &'t [u8] {
        let rest = &self.text[self.mark.min(self.text.len())..];
        if self.limited() { &rest[..rest.len().min(BUFFER)] } else { rest }
    }

    fn skip_blank(&mut self) {
        let rest = &self.text[self.pos..];
        let blank = rest.iter().position(|byte| !is_blank(*byte)).unwrap_or(rest.len());
        self.advance(blank);
        self.set_mark(self.pos - 1);
    }

    fn skip_comment(&mut self) -> Result<(), Fault> {
        self.set_mark(self.pos);
        let window = self.window();
        match memchr::memchr(b'\n', window) {
            // The line feed is the next blank.
            Some(at) => self.advance(at),
            None => {
                self.advance(window.len());
                // Either the end of the text or a comment longer than the buffer.
                self.peek()?;
            }
        }
        Ok(())
    }

    /// A word in quotes; the closing quote is consumed.
    fn quoted_word(&mut self, quote: u8) -> Result<RawWord, Fault> {
        self.set_mark(self.pos + 1);
        let window = self.window();
        let len = matched(quoted(quote), window);
        self.pos = self.mark;
        self.advance((len + 1).min(window.len()));
        if len == window.len() {
            return Err(if self.pos == self.text.len() {
                self.cut_short()
            } else {
                self.too_long(Some(quote))
            });
        }
        Ok(self.word(len, true))
    }

    /// After a closing quote only white space, `;`, `{` or `)` may follow; the last begins the next word.
    fn after_quote(&mut self) -> Result<Option<End>, Fault> {
        match self.peek()? {
            None => Err(self.cut_short()),
            Some(byte @ (b';' | b'{')) => {
                self.pos += 1;
                Ok(Some(end_of(byte)))
            }
            Some(b')') => Ok(None),
            Some(byte) if is_blank(byte) => {
                self.advance(1);
                Ok(None)
            }
            Some(byte) => Err(self.unexpected(byte)),
        }
    }

    /// A word without quotes and the byte that ended it, which may end the directive too.
    fn plain_word(&mut self) -> Result<(RawWord, Option<End>), Fault> {
        self.set_mark(self.pos);
        let window = self.window();
        let len = matched(unquoted, window);
        let Some(byte) = window.get(len).copied() else {
            self.advance(len);
            return Err(if self.pos == self.text.len() { self.cut_short() } else { self.too_long(None) });
        };
        self.advance(len + 1);
        let end = (!is_blank(byte)).then(|| end_of(byte));
        Ok((self.word(len, false), end))
    }

    fn word(&self, len: usize, quoted: bool) -> RawWord {
        let escaped = self.text[self.mark..self.mark + len].contains(&b'\\');
        RawWord { start: self.mark, len, quoted, escaped }
    }

    /// Consumes `count` bytes and counts their lines.
    pub fn advance(&mut self, count: usize) {
        let passed = &self.text[self.pos..self.pos + count];
        let lines = if count < 32 {
            passed.iter().filter(|byte| **byte == b'\n').count()
        } else {
            memchr::memchr_iter(b'\n', passed).count()
        };
        self.line += lines as u32;
        self.pos += count;
    }

    fn fault(&self, message: impl Into<Vec<u8>>) -> Fault {
        Fault { message: message.into(), line: self.line }
    }

    pub fn unexpected(&self, byte: u8) -> Fault {
        self.fault([b"unexpected \"", &[byte][..], b"\""].concat())
    }

    fn cut_short(&self) -> Fault {
        self.fault(match self.origin {
            Origin::File => "unexpected end of file, expecting \";\" or \"}\"",
            Origin::CommandLine => "unexpected end of parameter, expecting \";\"",
        })
    }

    fn too_long(&self, open_quote: Option<u8>) -> Fault {
        let message = match open_quote {
            Some(quote) => {
                let quote = char::from(quote);
                format!("too long parameter, probably missing terminating \"{quote}\" character").into_bytes()
            }
            None => {
                let window = self.window();
                let excerpt = &window[..window.len().min(EXCERPT)];
                [b"too long parameter \"", excerpt, b"...\" started"].concat()
            }
        };
        Fault { message, line: self.mark_line }
    }
}

fn end_of(byte: u8) -> End {
    match byte {
        b';' => End::Semicolon,
        b'{' => End::Open,
        _ => End::Close,
    }
}

pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Bytes that end an unquoted word or need a look inside it.
fn is_special(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' | b'\\' | b'$')
}

type Span<'t> = IResult<&'t [u8], &'t [u8]>;

/// How many bytes of the input a parser that cannot fail takes.
fn matched<'t>(
    mut parser: impl Parser<&'t [u8], Output = &'t [u8], Error = nom::error::Error<&'t [u8]>>,
    input: &'t [u8],
) -> usize {
    parser.parse(input).map_or(0, |(_, span)| span.len())
}

/// `\` takes the next byte with it, whatever it is.
fn escape(input: &[u8]) -> Span<'_> {
    recognize((tag(&b"\\"[..]), opt(take(1usize)))).parse(input)
}

/// `$` and the braces right after it, which open no block.
fn variable(input: &[u8]) -> Span<'_> {
    recognize((tag(&b"$"[..]), take_while(|byte| byte == b'{'))).parse(input)
}

/// The inside of an unquoted word, up to the byte that ends it.
fn unquoted(input: &[u8]) -> Span<'_> {
    recognize(many0_count(alt((take_while1(|byte| !is_special(byte)), escape, variable)))).parse(input)
}

/// The inside of a quoted word, up to its closing quote.
fn quoted<'t>(quote: u8) -> impl Parser<&'t [u8], Output = &'t [u8], Error = nom::error::Error<&'t [u8]>> {
    recognize(many0_count(alt((run_to(quote), escape))))
}

/// At least one byte that is neither the quote nor a backslash.
fn run_to<'t>(quote: u8) -> impl Fn(&'t [u8]) -> Span<'t> {
    move |input| {
        let len = memchr::memchr2(quote, b'\\', input).unwrap_or(input.len());
        if len == 0 {
            return Err(nom::Err::Error(nom::error::Error::new(input, nom::error::ErrorKind::TakeTill1)));
        }
        Ok((&input[len..], &input[..len]))
    }
}

/// Resolves the escapes nginx knows; a backslash before any other byte stays.
pub(super) fn unescape(raw: &[u8], out: &mut Vec<u8>) {
    let mut bytes = raw.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let cooked = match (byte, bytes.peek()) {
            (b'\\', Some(next @ (b'"' | b'\'' | b'\\'))) => *next,
            (b'\\', Some(b't')) => b'\t',
            (b'\\', Some(b'r')) => b'\r',
            (b'\\', Some(b'n')) => b'\n',
            _ => {
                out.push(byte);
                continue;
            }
        };
        bytes.next();
        out.push(cooked);
    }
}
