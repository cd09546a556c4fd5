//! The tree: flat vectors per text, handed out as views.

use std::sync::Arc;

use super::error::{At, SyntaxError};

/// A configuration as read: the main text and every file it includes, each parsed once.
#[derive(Debug)]
pub struct Tree {
    /// In reading order; the first is the main text.
    pub(super) sources: Vec<Source>,
    /// Why there is no main text.
    pub(super) failed: Option<SyntaxError>,
}

/// One text. Nodes are in the order of the text, a block's children right behind it.
#[derive(Debug)]
pub(super) struct Source {
    /// The path as nginx prints it; none for the text of `-g`.
    pub name: Option<Arc<[u8]>>,
    pub text: Vec<u8>,
    pub nodes: Vec<Node>,
    pub words: Vec<WordSpan>,
    pub blocks: Vec<Block>,
    pub includes: Vec<Include>,
    pub errors: Vec<SyntaxError>,
    /// Words with escapes, by where they begin in `text`, ascending.
    pub cooked: Vec<(u32, Span)>,
    pub cooked_text: Vec<u8>,
    /// The deepest nesting of blocks and includes below this text.
    pub height: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub first_word: u32,
    /// Offset of the terminating `;` or `{`.
    pub stop: u32,
    pub line: u32,
    pub body: Body,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Body {
    None,
    Block(u32),
    Include(u32),
    Error(u32),
}

#[derive(Debug)]
pub(super) struct Block {
    /// The node after the block's last child.
    pub next: u32,
    pub close: u32,
    pub close_line: u32,
    pub raw: bool,
}

#[derive(Debug)]
pub(super) struct Include {
    pub node: u32,
    /// How many blocks of this text are open around it.
    pub depth: u32,
    pub files: Vec<Included>,
}

#[derive(Debug)]
pub(super) enum Included {
    Source(u32),
    Error(SyntaxError),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub start: u32,
    pub len: u32,
}

/// Offset and length of a word in the text; the two highest bits of the length are flags.
#[derive(Clone, Copy, Debug)]
pub(super) struct WordSpan {
    start: u32,
    len: u32,
}

const QUOTED: u32 = 1 << 31;
const COOKED: u32 = 1 << 30;

impl WordSpan {
    pub fn new(start: u32, len: u32, quoted: bool, cooked: bool) -> Self {
        let flags = if quoted { QUOTED } else { 0 } | if cooked { COOKED } else { 0 };
        WordSpan { start, len: len & !(QUOTED | COOKED) | flags }
    }
}

// === impl Source ===

impl Source {
    /// The longest text whose offsets and lengths fit.
    pub const MAX: u64 = (1 << 30) - 1;

    pub fn new(name: Option<Arc<[u8]>>, text: Vec<u8>) -> Self {
        Source {
            name,
            text,
            nodes: Vec::new(),
            words: Vec::new(),
            blocks: Vec::new(),
            includes: Vec::new(),
            errors: Vec::new(),
            cooked: Vec::new(),
            cooked_text: Vec::new(),
            height: 0,
        }
    }

    pub fn shrink(&mut self) {
        self.nodes.shrink_to_fit();
        self.words.shrink_to_fit();
        self.blocks.shrink_to_fit();
        self.includes.shrink_to_fit();
        self.cooked.shrink_to_fit();
        self.cooked_text.shrink_to_fit();
    }

    pub fn word_text(&self, index: usize) -> &[u8] {
        let Some(word) = self.words.get(index) else { return b"" };
        if word.len & COOKED == 0 {
            let start = word.start as usize;
            return self.text.get(start..start + (word.len & !QUOTED) as usize).unwrap_or_default();
        }
        let Ok(at) = self.cooked.binary_search_by_key(&word.start, |(start, _)| *start) else { return b"" };
        let span = self.cooked[at].1;
        self.cooked_text.get(span.start as usize..(span.start + span.len) as usize).unwrap_or_default()
    }

    fn items<'t>(&'t self, tree: &'t Tree, from: u32, to: u32) -> Items<'t> {
        Items { tree, run: Some(Run { source: self, next: from, end: to }), files: [].iter(), first: None }
    }
}

// === impl Tree ===

impl Tree {
    /// The items of the main text.
    pub fn items(&self) -> Items<'_> {
        match (&self.failed, self.sources.first()) {
            (None, Some(source)) => source.items(self, 0, source.nodes.len() as u32),
            (error, _) => Items { tree: self, run: None, files: [].iter(), first: error.as_ref() },
        }
    }

    /// The files in reading order, each once: path as nginx prints it, and bytes.
    pub fn files(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.sources.iter().filter_map(|source| Some((source.name.as_deref()?, &*source.text)))
    }
}

/// A directive, or what stands in its place.
#[derive(Clone, Copy, Debug)]
pub enum Item<'t> {
    Directive(Directive<'t>),
    /// Nothing follows an error in its text.
    Error(&'t SyntaxError),
}

/// The items of a block, of a text, or of all files of an `include`, in order.
#[derive(Clone, Debug)]
pub struct Items<'t> {
    tree: &'t Tree,
    first: Option<&'t SyntaxError>,
    run: Option<Run<'t>>,
    files: std::slice::Iter<'t, Included>,
}

#[derive(Clone, Debug)]
struct Run<'t> {
    source: &'t Source,
    next: u32,
    end: u32,
}

impl<'t> Iterator for Items<'t> {
    type Item = Item<'t>;

    fn next(&mut self) -> Option<Item<'t>> {
        if let Some(error) = self.first.take() {
            return Some(Item::Error(error));
        }
        loop {
            if let Some(item) = self.run.as_mut().and_then(|run| run.next(self.tree)) {
                return Some(item);
            }
            self.run = match self.files.next()? {
                Included::Error(error) => return Some(Item::Error(error)),
                Included::Source(index) => self.tree.sources.get(*index as usize).map(|source| Run {
                    source,
                    next: 0,
                    end: source.nodes.len() as u32,
                }),
            };
        }
    }
}

impl<'t> Run<'t> {
    fn next(&mut self, tree: &'t Tree) -> Option<Item<'t>> {
        if self.next >= self.end {
            return None;
        }
        let (source, index) = (self.source, self.next);
        let node = source.nodes.get(index as usize)?;
        self.next = match node.body {
            Body::Block(block) => source.blocks.get(block as usize)?.next,
            _ => index + 1,
        };
        Some(match node.body {
            Body::Error(error) => Item::Error(source.errors.get(error as usize)?),
            _ => Item::Directive(Directive { tree, source, node, index }),
        })
    }
}

/// One directive: its words and what follows them.
#[derive(Clone, Copy, Debug)]
pub struct Directive<'t> {
    tree: &'t Tree,
    source: &'t Source,
    node: &'t Node,
    index: u32,
}

#[allow(clippy::len_without_is_empty)] // a directive has at least its name
impl<'t> Directive<'t> {
    /// The first word.
    pub fn name(&self) -> &'t [u8] {
        self.arg(0)
    }

    /// How many words it has, the name included.
    pub fn len(&self) -> usize {
        let next = self.source.nodes.get(self.index as usize + 1);
        let end = next.map_or(self.source.words.len(), |node| node.first_word as usize);
        end - self.node.first_word as usize
    }

    /// Word `i`, the name being 0; empty where there is none.
    pub fn word(&self, i: usize) -> Word<'t> {
        let index = self.node.first_word as usize + i;
        let span = (i < self.len()).then(|| self.source.words.get(index)).flatten();
        Word {
            text: self.arg(i),
            quoted: span.is_some_and(|span| span.len & QUOTED != 0),
            source: self.source,
            node: self.node,
            start: span.map_or(self.node.stop, |span| span.start),
        }
    }

    /// The text of word `i`, the first argument being 1; empty where there is none.
    pub fn arg(&self, i: usize) -> &'t [u8] {
        if i < self.len() { self.source.word_text(self.node.first_word as usize + i) } else { b"" }
    }

    /// The texts of the words after the name.
    pub fn args(&self) -> impl ExactSizeIterator<Item = &'t [u8]> + use<'t> {
        let this = *self;
        (1..self.len()).map(move |i| this.arg(i))
    }

    /// Whether `{` ended the words; true of raw bodies too.
    pub fn has_block(&self) -> bool {
        matches!(self.node.body, Body::Block(_))
    }

    /// The items between the braces, when `{` ended the words and the body is nginx's language.
    pub fn block(&self) -> Option<Items<'t>> {
        let block = self.braces().filter(|block| !block.raw)?;
        Some(self.source.items(self.tree, self.index + 1, block.next))
    }

    /// The items of the files that `include FILE;` names, in order.
    pub fn included(&self) -> Option<Items<'t>> {
        let Body::Include(include) = self.node.body else { return None };
        let files = self.source.includes.get(include as usize)?.files.iter();
        Some(Items { tree: self.tree, run: None, files, first: None })
    }

    /// The text between the braces of a `*_by_lua_block`.
    pub fn raw(&self) -> Option<&'t [u8]> {
        let block = self.braces().filter(|block| block.raw)?;
        self.source.text.get(self.node.stop as usize + 1..block.close as usize)
    }

    /// Whether that text goes on to the end of its file, where its brace should be.
    pub fn is_unclosed_raw(&self) -> bool {
        self.braces().is_some_and(|block| block.raw && block.close as usize >= self.source.text.len())
    }

    fn braces(&self) -> Option<&'t Block> {
        match self.node.body {
            Body::Block(block) => self.source.blocks.get(block as usize),
            _ => None,
        }
    }

    /// The place nginx reports for the directive: the line of its `;` or `{`.
    pub fn at(&self) -> At<'t> {
        self.source.at(self.node.line)
    }

    /// The place nginx reports once a block is read: the line of its `}`.
    pub fn end(&self) -> At<'t> {
        self.source.at(self.braces().map_or(self.node.line, |block| block.close_line))
    }
}

/// A word with quotes and escapes resolved. Its position is worked out when asked for.
#[derive(Clone, Copy, Debug)]
pub struct Word<'t> {
    pub text: &'t [u8],
    /// Whether it stood in quotes.
    pub quoted: bool,
    source: &'t Source,
    node: &'t Node,
    start: u32,
}

impl<'t> Word<'t> {
    /// The line it begins on, counted from 1.
    pub fn line(&self) -> u32 {
        let between = self.source.text.get(self.start as usize..=self.node.stop as usize).unwrap_or_default();
        self.node.line - memchr::memchr_iter(b'\n', between).count() as u32
    }

    /// The byte of its line it begins at, the quote included, counted from 1.
    pub fn column(&self) -> u32 {
        let start = self.start as usize - usize::from(self.quoted);
        let before = self.source.text.get(..start).unwrap_or_default();
        (start - memchr::memrchr(b'\n', before).map_or(0, |at| at + 1)) as u32 + 1
    }

    /// The place it begins at, as opposed to its directive's, which is that of the terminator.
    pub fn at(&self) -> At<'t> {
        self.source.at(self.line())
    }
}
