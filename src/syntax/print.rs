//! The tree as text again, in one fixed layout.

use super::token::is_blank;
use super::tree::{Directive, Item, Items, Tree};

const INDENT: &[u8] = b"    ";

/// Prints the main text: one directive a line, words quoted where they must be, errors left out.
/// Parsing the outcome gives the same directives. Text in a raw block without an end is the last of all: whatever was
/// printed behind it would be read as part of it.
pub fn print(tree: &Tree) -> Vec<u8> {
    let mut out = Vec::new();
    let mut open: Vec<Items<'_>> = vec![tree.items()];
    while let Some(items) = open.last_mut() {
        match items.next() {
            Some(Item::Directive(directive)) => {
                indent(&mut out, open.len() - 1);
                words(&mut out, &directive);
                if let Some(raw) = directive.raw().filter(|_| directive.is_unclosed_raw()) {
                    out.extend_from_slice(b" {");
                    out.extend_from_slice(raw);
                    return out;
                }
                open.extend(body(&mut out, &directive));
            }
            Some(Item::Error(_)) => {}
            None => {
                open.pop();
                if !open.is_empty() {
                    indent(&mut out, open.len() - 1);
                    out.extend_from_slice(b"}\n");
                }
            }
        }
    }
    out
}

fn indent(out: &mut Vec<u8>, depth: usize) {
    (0..depth).for_each(|_| out.extend_from_slice(INDENT));
}

fn words(out: &mut Vec<u8>, directive: &Directive<'_>) {
    for i in 0..directive.len() {
        if i > 0 {
            out.push(b' ');
        }
        print_word(out, directive.arg(i));
    }
}

/// What follows the words; the items to print next, if any.
fn body<'t>(out: &mut Vec<u8>, directive: &Directive<'t>) -> Option<Items<'t>> {
    if let Some(raw) = directive.raw() {
        out.extend_from_slice(b" {");
        out.extend_from_slice(raw);
        out.extend_from_slice(b"}\n");
        return None;
    }
    let block = directive.block();
    out.extend_from_slice(if block.is_some() { b" {\n" } else { b";\n" });
    block
}

fn print_word(out: &mut Vec<u8>, text: &[u8]) {
    if !needs_quotes(text) {
        return escape(out, text, None);
    }
    // The quote that needs fewer escapes keeps the word short.
    let count = |quote: u8| memchr::memchr_iter(quote, text).count();
    let quote = if count(b'"') <= count(b'\'') { b'"' } else { b'\'' };
    out.push(quote);
    escape(out, text, Some(quote));
    out.push(quote);
}

fn needs_quotes(text: &[u8]) -> bool {
    let Some(first) = text.first() else { return true };
    // `${` opens no block, but an escaped `$` is no variable.
    let escapes = text.contains(&b'\\');
    let stops = |(at, byte): (usize, &u8)| {
        is_blank(*byte) || *byte == b';' || *byte == b'{' && (escapes || at == 0 || text[at - 1] != b'$')
    };
    matches!(first, b'"' | b'\'' | b'#' | b'{' | b'}') || text.iter().enumerate().any(stops)
}

fn escape(out: &mut Vec<u8>, text: &[u8], quote: Option<u8>) {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        at += 1;
        if *byte != b'\\' {
            if Some(*byte) == quote {
                out.push(b'\\');
            }
            out.push(*byte);
            continue;
        }
        out.push(b'\\');
        match text.get(at) {
            // Here a single backslash would be taken for an escape, or take the word's end with it.
            None | Some(b'"' | b'\'' | b'\\' | b't' | b'r' | b'n') => out.push(b'\\'),
            Some(next) => {
                out.push(*next);
                at += 1;
            }
        }
    }
}
