//! The URI's path as nginx normalises it: percent signs decoded, dot segments resolved, slashes merged.

/// The path cannot be normalised: it leaves the root, or has a bad escape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Usual,
    Slash,
    Dot,
    DotDot,
}

/// Bytes that end nothing and need no look.
fn is_usual(c: u8) -> bool {
    !matches!(c, 0..=0x1f | b'#' | b'%' | b'+' | b'.' | b'/' | b'?' | 0x7f)
}

/// Length of the path of a URI (path and arguments as they came) that need not go through [`normalise`]: none where
/// there are dots or slashes behind a slash, percent signs, a fragment.
pub fn simple_path(uri: &[u8]) -> Option<usize> {
    let mut after_slash = false;
    for (i, &c) in uri.iter().enumerate() {
        match c {
            b'?' => return (!uri[i..].contains(&b'#')).then_some(i),
            b'%' | b'#' => return None,
            b'.' | b'/' if after_slash => return None,
            _ => {}
        }
        after_slash = c == b'/';
    }
    Some(uri.len())
}

/// Normalises `uri` and splits the arguments off: path, arguments.
pub fn normalise(uri: &[u8], merge_slashes: bool) -> Result<(Vec<u8>, &[u8]), Invalid> {
    let mut out = Vec::with_capacity(uri.len() + 1);
    let mut state = State::Usual;
    if uri.first() != Some(&b'/') {
        out.push(b'/');
        state = State::Slash;
    }
    let mut at = 0;
    let mut args: &[u8] = b"";
    while let Some(&raw) = uri.get(at) {
        at += 1;
        let mut c = raw;
        if is_usual(c) {
            state = State::Usual;
            out.push(c);
            continue;
        }
        match c {
            b'%' => {
                c = decode(uri, at)?;
                at += 2;
                // These three stand for themselves once decoded; slashes and dots keep their meaning.
                if matches!(c, b'%' | b'#' | b'?') {
                    state = State::Usual;
                    out.push(c);
                    continue;
                }
                if c == 0 {
                    return Err(Invalid);
                }
            }
            b'?' | b'#' => {
                leave_dots(&mut out, state)?;
                state = State::Usual;
                if c == b'?' {
                    args = &uri[at..];
                    args = &args[..memchr::memchr(b'#', args).unwrap_or(args.len())];
                }
                break;
            }
            _ => {}
        }
        state = step(&mut out, state, c, merge_slashes)?;
    }
    leave_dots(&mut out, state)?;
    Ok((out, args))
}

fn step(out: &mut Vec<u8>, state: State, c: u8, merge_slashes: bool) -> Result<State, Invalid> {
    Ok(match (state, c) {
        (State::Usual, b'/') => {
            out.push(c);
            State::Slash
        }
        (State::Slash, b'/') => {
            if !merge_slashes {
                out.push(c);
            }
            State::Slash
        }
        (State::Slash, b'.') => {
            out.push(c);
            State::Dot
        }
        (State::Dot, b'.') => {
            out.push(c);
            State::DotDot
        }
        (State::Dot | State::DotDot, b'/') => {
            leave_dots(out, state)?;
            State::Slash
        }
        _ => {
            out.push(c);
            State::Usual
        }
    })
}

/// Takes a trailing `.` or `..` segment off.
fn leave_dots(out: &mut Vec<u8>, state: State) -> Result<(), Invalid> {
    match state {
        State::Dot => {
            out.pop();
        }
        State::DotDot => {
            let parent = out.len().checked_sub(4).ok_or(Invalid)?;
            let slash = memchr::memrchr(b'/', &out[..=parent]).ok_or(Invalid)?;
            out.truncate(slash + 1);
        }
        _ => {}
    }
    Ok(())
}

fn decode(uri: &[u8], at: usize) -> Result<u8, Invalid> {
    let digit = |i: usize| uri.get(i).and_then(|c| (*c as char).to_digit(16)).ok_or(Invalid);
    Ok((digit(at)? << 4 | digit(at + 1)?) as u8)
}

/// What [`escape`] leaves alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// A whole URI: space, `#`, `%`, `?`, controls and non-ASCII are escaped.
    Uri,
    /// Arguments: also `&`, `+` and `;`.
    Args,
    /// A URL in an HTML attribute: quotes, space, controls.
    Refresh,
    /// One component: all but unreserved characters are escaped.
    Component,
}

/// Appends `text` with its special bytes percent-encoded.
pub fn escape(text: &[u8], kind: Escape, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &c in text {
        let escaped = match kind {
            Escape::Uri => {
                matches!(c, 0..=0x20 | b'"' | b'#' | b'%' | b'<' | b'>' | b'?' | b'\\' | b'^' | b'`'
                | b'{' | b'|' | b'}' | 0x7f..=0xff)
            }
            Escape::Args => {
                matches!(c, 0..=0x20 | b'"' | b'#' | b'%' | b'&' | b'+' | b';' | b'<' | b'>' | b'?'
                | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x7f..=0xff)
            }
            Escape::Refresh => {
                matches!(c, 0..=0x20 | b'"' | b'\'' | b'%' | b'<' | b'>' | b'\\' | b'^' | b'`'
                | b'{' | b'|' | b'}' | 0x7f..=0xff)
            }
            Escape::Component => !(c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_' | b'~')),
        };
        if escaped {
            out.extend_from_slice(&[b'%', HEX[(c >> 4) as usize], HEX[(c & 15) as usize]]);
        } else {
            out.push(c);
        }
    }
}

/// Decodes percent signs, leaving bad escapes as they are.
pub fn unescape(text: &[u8]) -> Vec<u8> {
    percent_encoding::percent_decode(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(uri: &str) -> Result<String, Invalid> {
        normalise(uri.as_bytes(), true).map(|(p, _)| String::from_utf8_lossy(&p).into_owned())
    }

    #[test]
    fn dots_slashes_and_escapes() {
        for (uri, want) in [
            ("/a/../b", "/b"),
            ("/a/./b", "/a/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("//a///b", "/a/b"),
            ("/a%2fb", "/a/b"),
            ("/a%2F..%2Fb", "/b"),
            ("/%2e%2e/x/../y", ""),
            ("/a%3fb", "/a?b"),
            ("/a%25b", "/a%b"),
            ("/a#frag", "/a"),
            ("/...", "/..."),
            ("/..a", "/..a"),
            ("/a/..?x", "/"),
        ] {
            match want {
                "" => assert_eq!(path(uri), Err(Invalid), "{uri}"),
                _ => assert_eq!(path(uri).as_deref(), Ok(want), "{uri}"),
            }
        }
        for wrong in ["/..", "/../a", "/a/../../b", "/%0", "/%zz", "/%00"] {
            assert_eq!(path(wrong), Err(Invalid), "{wrong}");
        }
        assert_eq!(normalise(b"/a//b?c=d#e", false), Ok((b"/a//b".to_vec(), &b"c=d"[..])));
    }

    proptest! {
        #[test]
        fn a_simple_uri_stays(uri in "(/[a-z0-9_-]{1,6}){1,5}/?") {
            prop_assert_eq!(simple_path(uri.as_bytes()), Some(uri.len()));
            prop_assert_eq!(path(&uri), Ok(uri));
        }

        #[test]
        fn it_never_leaves_the_root(uri in "/[a./%2ef]{0,30}") {
            if let Ok(p) = path(&uri) {
                prop_assert!(p.starts_with('/'));
                prop_assert!(!p.split('/').any(|s| s == ".."));
            }
        }
    }
}
