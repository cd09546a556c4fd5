//! The end of a `*_by_lua_block`: Lua is skipped, not understood.

/// The offset of the `}` that closes the block whose inside begins at the start of `text`.
pub(super) fn block_end(text: &[u8]) -> Option<usize> {
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        at += match byte {
            b'{' => {
                depth += 1;
                1
            }
            b'}' if depth == 0 => return Some(at),
            b'}' => {
                depth -= 1;
                1
            }
            b'"' | b'\'' => string(&text[at..], *byte)?,
            b'-' if text[at..].starts_with(b"--") => comment(&text[at..])?,
            b'[' => long_bracket(&text[at..]).unwrap_or(Some(1))?,
            _ => 1,
        };
    }
    None
}

/// The length of a quoted string, quotes included.
fn string(text: &[u8], quote: u8) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr::memchr2(quote, b'\\', text.get(at..)?)?;
        if text[at] == quote {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// The length of a `--` comment, long or to the end of the line.
fn comment(text: &[u8]) -> Option<usize> {
    match long_bracket(&text[2..]) {
        Some(len) => Some(2 + len?),
        None => Some(memchr::memchr(b'\n', text).map_or(text.len(), |at| at + 1)),
    }
}

/// The length of `[==[ ... ]==]`; the outer `None` when no long bracket begins here, the inner when it never ends.
fn long_bracket(text: &[u8]) -> Option<Option<usize>> {
    let inside = text.strip_prefix(b"[")?;
    let level = inside.iter().take_while(|byte| **byte == b'=').count();
    if inside.get(level) != Some(&b'[') {
        return None;
    }
    let mut close = vec![b'='; level + 2];
    close[0] = b']';
    close[level + 1] = b']';
    let open = level + 2;
    Some(memchr::memmem::find(&text[open..], &close).map(|at| open + at + close.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside(text: &str) -> Option<&str> {
        block_end(text.as_bytes()).map(|at| &text[..at])
    }

    #[test]
    fn braces_balance() {
        assert_eq!(inside(" local t = { a = { 1 } } } rest"), Some(" local t = { a = { 1 } } "));
        assert_eq!(inside("{"), None);
    }

    #[test]
    fn braces_in_strings_and_comments_do_not_count() {
        for lua in [
            "x = '}'",
            r#"x = "}\"}""#,
            "-- }\n",
            "--[[ } \n } ]]",
            "--[==[ ]] } ]==]",
            "x = [[ } ]]",
            "x = [=[ ]] } ]=]",
        ] {
            assert_eq!(inside(&format!("{lua} }} rest")), Some(&*format!("{lua} ")));
        }
    }

    #[test]
    fn indexing_is_no_long_bracket() {
        assert_eq!(inside("x = t[1] + t[y] }"), Some("x = t[1] + t[y] "));
    }

    #[test]
    fn what_never_ends_has_no_end() {
        for lua in ["'abc }", "[[ }", "--[[ }", "-- }", "'\\"] {
            assert_eq!(inside(lua), None);
        }
    }
}
