//! Words to nodes: one text, without what it includes.

use std::sync::Arc;

use super::error::{At, SyntaxError};
use super::lua;
use super::token::{End, Fault, Lexer, Origin, RawWord, unescape};
use super::tree::{Block, Body, Include, Node, Source, Span};

/// Parses one text. `depth` is how many blocks may be open at once.
pub(super) fn parse(name: Option<Arc<[u8]>>, text: Vec<u8>, depth: usize) -> Source {
    let mut source = Source::new(name, text);
    let text = std::mem::take(&mut source.text);
    let builder = Builder { lexer: Lexer::new(&text, source.origin()), source, open: Vec::new(), depth };
    let mut source = builder.run(&text);
    source.text = text;
    source.shrink();
    source
}

struct Builder<'t> {
    lexer: Lexer<'t>,
    source: Source,
    /// The open blocks, outermost first, as indices of `source.blocks`.
    open: Vec<u32>,
    depth: usize,
}

impl Builder<'_> {
    fn run(mut self, text: &[u8]) -> Source {
        let mut words = Vec::new();
        loop {
            let step = match self.lexer.directive(&mut words) {
                Ok(End::Semicolon) => {
                    self.statement(text, &words);
                    Ok(true)
                }
                Ok(End::Open) => self.block(text, &words),
                Ok(End::Close) => self.close(),
                Ok(End::Eof) => self.finish(),
                Err(fault) => Err(fault),
            };
            match step {
                Ok(true) => {}
                Ok(false) => break,
                Err(fault) => {
                    self.error(fault);
                    break;
                }
            }
        }
        while let Some(block) = self.open.pop() {
            self.end_block(block, self.lexer.pos);
        }
        self.source
    }

    fn statement(&mut self, text: &[u8], words: &[RawWord]) {
        let body = match words {
            [name, _] if raw(text, name) == b"include" => {
                self.source.includes.push(Include {
                    node: self.source.nodes.len() as u32,
                    depth: self.open.len() as u32,
                    files: Vec::new(),
                });
                Body::Include(self.source.includes.len() as u32 - 1)
            }
            _ => Body::None,
        };
        self.node(text, words, body);
    }

    fn block(&mut self, text: &[u8], words: &[RawWord]) -> Result<bool, Fault> {
        let line = self.lexer.line;
        if self.source.origin() == Origin::CommandLine {
            return Err(fault("block directives are not supported in -g option", line));
        }
        let index = self.source.blocks.len() as u32;
        let is_lua = words.first().is_some_and(|name| raw(text, name).ends_with(b"_by_lua_block"));
        self.source.blocks.push(Block { next: 0, close: 0, close_line: 0, raw: is_lua });
        self.node(text, words, Body::Block(index));
        self.source.height = self.source.height.max(self.open.len() as u32 + 1);
        if is_lua {
            return self.lua(text, index);
        }
        self.open.push(index);
        if self.open.len() > self.depth {
            return Err(fault("too many nested blocks", line));
        }
        Ok(true)
    }

    fn lua(&mut self, text: &[u8], block: u32) -> Result<bool, Fault> {
        let rest = &text[self.lexer.pos..];
        let end = lua::block_end(rest);
        self.lexer.advance(end.unwrap_or(rest.len()));
        self.end_block(block, self.lexer.pos);
        if end.is_none() {
            return Err(fault("unexpected end of file, expecting \"}\"", self.lexer.line));
        }
        self.lexer.advance(1);
        Ok(true)
    }

    fn close(&mut self) -> Result<bool, Fault> {
        let Some(block) = self.open.pop() else { return Err(self.lexer.unexpected(b'}')) };
        self.end_block(block, self.lexer.pos - 1);
        Ok(true)
    }

    fn finish(&mut self) -> Result<bool, Fault> {
        if self.open.is_empty() {
            return Ok(false);
        }
        Err(fault("unexpected end of file, expecting \"}\"", self.lexer.line))
    }

    fn end_block(&mut self, block: u32, close: usize) {
        let next = self.source.nodes.len() as u32;
        if let Some(block) = self.source.blocks.get_mut(block as usize) {
            (block.next, block.close, block.close_line) = (next, close as u32, self.lexer.line);
        }
    }

    fn node(&mut self, text: &[u8], words: &[RawWord], body: Body) {
        let first_word = self.source.words.len() as u32;
        for word in words {
            self.word(text, word);
        }
        let stop = self.lexer.pos as u32 - 1;
        self.source.nodes.push(Node { first_word, stop, line: self.lexer.line, body });
    }

    fn word(&mut self, text: &[u8], word: &RawWord) {
        let start = word.start as u32;
        if word.escaped {
            let begin = self.source.cooked_text.len() as u32;
            unescape(raw(text, word), &mut self.source.cooked_text);
            let len = self.source.cooked_text.len() as u32 - begin;
            self.source.cooked.push((start, Span { start: begin, len }));
        }
        self.source.words.push(super::tree::WordSpan::new(start, word.len as u32, word.quoted, word.escaped));
    }

    fn error(&mut self, fault: Fault) {
        let error = SyntaxError::new(&fault.message, self.source.at(fault.line));
        self.source.errors.push(error);
        self.source.nodes.push(Node {
            first_word: self.source.words.len() as u32,
            stop: self.lexer.pos as u32,
            line: fault.line,
            body: Body::Error(self.source.errors.len() as u32 - 1),
        });
    }
}

fn raw<'t>(text: &'t [u8], word: &RawWord) -> &'t [u8] {
    &text[word.start..word.start + word.len]
}

fn fault(message: &str, line: u32) -> Fault {
    Fault { message: message.into(), line }
}

impl Source {
    pub(super) fn origin(&self) -> Origin {
        if self.name.is_some() { Origin::File } else { Origin::CommandLine }
    }

    pub(super) fn at(&self, line: u32) -> At<'_> {
        match &self.name {
            Some(path) => At::File { path, line },
            None => At::CommandLine,
        }
    }
}
