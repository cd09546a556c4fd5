//! Path patterns as glob(7) has them, in the order of bytes.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// The paths that match, sorted; directories that cannot be read match nothing.
pub(super) fn glob(pattern: &[u8]) -> Vec<Vec<u8>> {
    let root: &[u8] = if pattern.starts_with(b"/") { b"/" } else { b"" };
    let mut paths = vec![root.to_vec()];
    let mut parts = pattern.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).peekable();
    while let Some(part) = parts.next() {
        let inner = parts.peek().is_some() || pattern.ends_with(b"/");
        paths = paths.iter().flat_map(|path| step(path, part, inner)).collect();
    }
    paths.sort_unstable();
    paths
}

/// What of `path` matches one part of the pattern; with `/` at its end where more is to come.
fn step(path: &[u8], part: &[u8], inner: bool) -> Vec<Vec<u8>> {
    let names = if is_magic(part) { entries(path, part) } else { vec![literal(part)] };
    let join = |name: Vec<u8>| {
        let mut joined = path.to_vec();
        joined.extend_from_slice(&name);
        let file = Path::new(OsStr::from_bytes(&joined));
        let exists = if inner { file.is_dir() } else { file.symlink_metadata().is_ok() };
        if inner {
            joined.push(b'/');
        }
        exists.then_some(joined)
    };
    names.into_iter().filter_map(join).collect()
}

fn entries(path: &[u8], part: &[u8]) -> Vec<Vec<u8>> {
    let dir = if path.is_empty() { Path::new(".") } else { Path::new(OsStr::from_bytes(path)) };
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name().into_vec()));
    let hidden = part.starts_with(b".") || part.starts_with(b"\\.");
    names.filter(|name| (hidden || !name.starts_with(b".")) && matches(part, name)).collect()
}

fn is_magic(part: &[u8]) -> bool {
    part.iter().any(|byte| matches!(byte, b'*' | b'?' | b'['))
}

/// A part without wildcards: backslashes removed.
fn literal(part: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(part.len());
    let mut bytes = part.iter().copied();
    while let Some(byte) = bytes.next() {
        out.push(if byte == b'\\' { bytes.next().unwrap_or(byte) } else { byte });
    }
    out
}

/// Matches a whole name; time is bounded by the product of the lengths.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go on with one more byte eaten by the last `*`.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, n));
            continue;
        }
        match name.get(n) {
            None if p == pattern.len() => return true,
            Some(byte) => {
                if let Some(len) = one(&pattern[p..], *byte) {
                    p += len;
                    n += 1;
                    continue;
                }
            }
            None => return false,
        }
        let Some((star, eaten)) = retry else { return false };
        (p, n) = (star, eaten + 1);
        retry = Some((star, n));
    }
}

/// How long the part of the pattern is that matches this one byte.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'[' => match bracket(pattern, byte) {
            Some((len, hit)) => hit.then_some(len),
            None => (byte == b'[').then_some(1),
        },
        b'\\' => match pattern.get(1) {
            Some(next) => (*next == byte).then_some(2),
            None => (byte == b'\\').then_some(1),
        },
        plain => (plain == byte).then_some(1),
    }
}

/// The length of a `[...]` and whether it holds the byte; none when it never closes.
fn bracket(pattern: &[u8], byte: u8) -> Option<(usize, bool)> {
    let mut at = 1;
    let negated = matches!(pattern.get(at), Some(b'!' | b'^'));
    at += usize::from(negated);
    let (mut hit, begin) = (false, at);
    loop {
        let first = match *pattern.get(at)? {
            b']' if at > begin => return Some((at + 1, hit != negated)),
            b'[' if pattern.get(at + 1) == Some(&b':') => {
                let name = &pattern[at + 2..];
                let len = memchr::memmem::find(name, b":]")?;
                hit |= in_class(&name[..len], byte);
                at += len + 4;
                continue;
            }
            b'\\' => {
                at += 1;
                *pattern.get(at)?
            }
            plain => plain,
        };
        at += 1;
        let ranged = pattern.get(at) == Some(&b'-') && pattern.get(at + 1).is_some_and(|last| *last != b']');
        if !ranged {
            hit |= first == byte;
            continue;
        }
        at += 1 + usize::from(pattern[at + 1] == b'\\');
        hit |= (first..=*pattern.get(at)?).contains(&byte);
        at += 1;
    }
}

fn in_class(name: &[u8], byte: u8) -> bool {
    match name {
        b"alnum" => byte.is_ascii_alphanumeric(),
        b"alpha" => byte.is_ascii_alphabetic(),
        b"blank" => matches!(byte, b' ' | b'\t'),
        b"cntrl" => byte.is_ascii_control(),
        b"digit" => byte.is_ascii_digit(),
        b"graph" => byte.is_ascii_graphic(),
        b"lower" => byte.is_ascii_lowercase(),
        b"print" => byte.is_ascii_graphic() || byte == b' ',
        b"punct" => byte.is_ascii_punctuation(),
        b"space" => byte.is_ascii_whitespace() || byte == 0x0b,
        b"upper" => byte.is_ascii_uppercase(),
        b"xdigit" => byte.is_ascii_hexdigit(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        for (pattern, name) in [
            ("*.conf", "a.conf"),
            ("*", "x"),
            ("a*b*c", "a-b-b-c"),
            ("?.c", "a.c"),
            ("[a-c]x", "bx"),
            ("[!a-c]x", "dx"),
            ("[^a]x", "bx"),
            ("[]x]", "]"),
            ("[[:digit:]]*", "1a"),
            ("[a", "[a"),
            ("\\*", "*"),
            ("[a-]", "-"),
        ] {
            assert!(matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        for (pattern, name) in
            [("*.conf", "a.conf.bak"), ("?", ""), ("[a-c]", "d"), ("a*b", "ac"), ("\\*", "x"), ("[!a]", "a")]
        {
            assert!(!matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
    }

    #[test]
    fn paths_are_sorted_and_hidden_files_left_out() {
        let dir = tempdir();
        for name in ["b.conf", "a.conf", ".c.conf", "d.txt", "B.conf"] {
            fs::write(dir.join(name), "").unwrap();
        }
        fs::create_dir(dir.join("sub")).unwrap();
        fs::write(dir.join("sub/e.conf"), "").unwrap();
        let base = dir.as_os_str().as_bytes();
        let found = |pattern: &str| -> Vec<String> {
            glob(&[base, pattern.as_bytes()].concat())
                .iter()
                .map(|path| String::from_utf8_lossy(&path[base.len()..]).into_owned())
                .collect()
        };
        assert_eq!(found("/*.conf"), ["/B.conf", "/a.conf", "/b.conf"]);
        assert_eq!(found("/.*.conf"), ["/.c.conf"]);
        assert_eq!(found("/*/*.conf"), ["/sub/e.conf"]);
        assert_eq!(found("/*/"), ["/sub/"]);
        assert!(found("/none*").is_empty());
        assert!(found("/none/*").is_empty());
        fs::remove_dir_all(dir).unwrap();
    }

    fn tempdir() -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("nxr-glob-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }
}
