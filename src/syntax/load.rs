//! Reading the main file and all it includes.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::error::{At, Level, SyntaxError};
use super::glob;
use super::parse::parse;
use super::tree::{Body, Included, Source, Tree};

/// How to read a configuration.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// What relative names of `include` are put behind, `/` at its end included.
    pub conf_prefix: Vec<u8>,
    /// How deep blocks and includes together may nest.
    pub max_depth: usize,
}

impl LoadOptions {
    pub fn new(conf_prefix: impl Into<Vec<u8>>) -> Self {
        LoadOptions { conf_prefix: conf_prefix.into(), max_depth: 256 }
    }
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions::new("")
    }
}

/// Reads a file and what it includes. What is wrong with them is in the tree.
pub fn load(path: &Path, opts: &LoadOptions) -> Tree {
    let name = path.as_os_str().as_bytes();
    let mut loader = Loader::new(opts);
    match loader.open(name, 0, At::Nowhere) {
        Ok(id) => loader.finish(id),
        Err(error) => Tree { sources: Vec::new(), failed: Some(error) },
    }
}

/// Reads the text of `-g`: statements only, no limit to the length of words, positions "in command line".
pub fn parse_str(text: &[u8], opts: &LoadOptions) -> Tree {
    let mut loader = Loader::new(opts);
    let id = loader.add(None, text.to_vec(), 0);
    loader.finish(id)
}

/// Reads text as if it were the file `name`.
pub fn parse_text(name: &[u8], text: &[u8], opts: &LoadOptions) -> Tree {
    let mut loader = Loader::new(opts);
    let id = loader.add(Some(name.into()), text.to_vec(), 0);
    loader.finish(id)
}

struct Loader<'o> {
    opts: &'o LoadOptions,
    sources: Vec<Source>,
    by_name: HashMap<Arc<[u8]>, u32>,
    /// Whether a source and all it includes are read; those that are not are being read.
    done: Vec<bool>,
}

/// A source whose includes are being read.
struct Frame {
    id: u32,
    /// The include being read, and its files still to come.
    include: usize,
    files: std::vec::IntoIter<Vec<u8>>,
    /// How many blocks and includes are open around the source.
    depth: usize,
}

impl Frame {
    fn new(id: u32, depth: usize) -> Self {
        Frame { id, include: usize::MAX, files: Vec::new().into_iter(), depth }
    }
}

impl<'o> Loader<'o> {
    fn new(opts: &'o LoadOptions) -> Self {
        Loader { opts, sources: Vec::new(), by_name: HashMap::new(), done: Vec::new() }
    }

    fn finish(mut self, root: u32) -> Tree {
        self.read_includes(root);
        Tree { sources: self.sources, failed: None }
    }

    fn add(&mut self, name: Option<Arc<[u8]>>, text: Vec<u8>, depth: usize) -> u32 {
        let id = self.sources.len() as u32;
        if let Some(name) = &name {
            self.by_name.insert(name.clone(), id);
        }
        self.sources.push(parse(name, text, self.opts.max_depth.saturating_sub(depth)));
        self.done.push(false);
        id
    }

    fn open(&mut self, name: &[u8], depth: usize, at: At<'_>) -> Result<u32, SyntaxError> {
        let path = Path::new(OsStr::from_bytes(name));
        let failed = |error: io::Error| SyntaxError::io("open", name, &error, at);
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        if size > Source::MAX {
            return Err(failed(io::Error::from_raw_os_error(libc::EFBIG)));
        }
        // As nginx: no more than the size says, so a device or a pipe is an empty file.
        let mut text = Vec::with_capacity(size as usize);
        file.take(size)
            .read_to_end(&mut text)
            .map_err(|error| SyntaxError::io("pread", name, &error, At::Nowhere).with_level(Level::Crit))?;
        Ok(self.add(Some(name.into()), text, depth))
    }

    /// Reads what `root` includes, depth first and without recursion.
    fn read_includes(&mut self, root: u32) {
        let mut stack = vec![Frame::new(root, 0)];
        while let Some(frame) = stack.last_mut() {
            if let Some(name) = frame.files.next() {
                let (id, include) = (frame.id as usize, frame.include);
                let depth = frame.depth + self.sources[id].includes[include].depth as usize + 1;
                let (file, fresh) = self.enter(id, include, &name, depth);
                self.sources[id].includes[include].files.push(file);
                stack.extend(fresh.map(|fresh| Frame::new(fresh, depth)));
                continue;
            }
            let (id, include) = (frame.id as usize, frame.include.wrapping_add(1));
            if include < self.sources[id].includes.len() {
                frame.include = include;
                frame.files = self.names(id, include).into_iter();
                continue;
            }
            self.sources[id].height = self.height(id);
            self.done[id] = true;
            stack.pop();
        }
    }

    /// Takes or opens one file of an include; the second is its source if its own includes are to be read.
    fn enter(&mut self, id: usize, include: usize, name: &[u8], depth: usize) -> (Included, Option<u32>) {
        let source = &self.sources[id];
        let line = source.nodes[source.includes[include].node as usize].line;
        let owner = source.name.clone();
        let at = owner.as_deref().map_or(At::CommandLine, |path| At::File { path, line });
        // nginx has every file open that is being read, and no limit but that of open files.
        let too_deep = || {
            let error = io::Error::from_raw_os_error(libc::EMFILE);
            (Included::Error(SyntaxError::io("open", name, &error, at)), None)
        };
        if let Some(known) = self.by_name.get(name).copied() {
            let height = self.sources[known as usize].height as usize;
            if !self.done[known as usize] || depth + height > self.opts.max_depth {
                return too_deep();
            }
            return (Included::Source(known), None);
        }
        if depth > self.opts.max_depth {
            return too_deep();
        }
        match self.open(name, depth, at) {
            Ok(fresh) => (Included::Source(fresh), Some(fresh)),
            Err(error) => (Included::Error(error), None),
        }
    }

    /// The paths an include names: those that match its pattern, or the name itself.
    fn names(&self, id: usize, include: usize) -> Vec<Vec<u8>> {
        let source = &self.sources[id];
        let node = &source.nodes[source.includes[include].node as usize];
        debug_assert!(matches!(node.body, Body::Include(_)));
        let word = source.word_text(node.first_word as usize + 1);
        let mut name = if word.first() == Some(&b'/') { Vec::new() } else { self.opts.conf_prefix.clone() };
        name.extend_from_slice(word);
        // What nginx hands to the system ends at the first zero byte.
        name.truncate(memchr::memchr(0, &name).unwrap_or(name.len()));
        if name.iter().any(|byte| matches!(byte, b'*' | b'?' | b'[')) {
            glob::glob(&name)
        } else {
            vec![name]
        }
    }

    fn height(&self, id: usize) -> u32 {
        let source = &self.sources[id];
        let below = |include: &super::tree::Include| {
            let files = include.files.iter().map(|file| match file {
                Included::Source(file) => self.sources[*file as usize].height,
                Included::Error(_) => 0,
            });
            include.depth + 1 + files.max().unwrap_or(0)
        };
        source.includes.iter().map(below).max().unwrap_or(0).max(source.height)
    }
}
