//! Header fields and hosts as nearly all are written: what is found here in one pass needs no second look.

use std::ops::Range;

use super::lanes::{Controls, NotInHosts, NotInNames, first};

/// A field in a text: `Name: value`, and the line's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsualField {
    /// Its name.
    pub name: Range<usize>,
    /// Its value, without spaces around it.
    pub value: Range<usize>,
    /// Where the next line begins.
    pub next: usize,
}

/// The field that begins at `at`. None where it is not complete, or [`super::field_line`] has to look at it: other
/// bytes in the name, more than one space before the value, spaces behind it, control characters in it.
#[inline(always)]
pub fn usual_field(text: &[u8], at: usize) -> Option<UsualField> {
    let name = first::<NotInNames>(text, at)?;
    if name == at || text[name] != b':' {
        return None;
    }
    let start = name + 1 + usize::from(text.get(name + 1) == Some(&b' '));
    let end = first::<Controls>(text, start)?;
    let next = match text.get(end..)? {
        [b'\r', b'\n', ..] => end + 2,
        [b'\n', ..] => end + 1,
        _ => return None,
    };
    let spaces = end > start && (text[start] == b' ' || text[end - 1] == b' ');
    (!spaces).then_some(UsualField { name: at..name, value: start..end, next })
}

/// Length of the line that `text` begins with, without its LF. None where it is not complete, does not end in CR LF, or
/// has other control characters.
#[inline]
pub fn usual_line(text: &[u8]) -> Option<usize> {
    let end = first::<Controls>(text, 0)?;
    text[end..].starts_with(b"\r\n").then_some(end + 1)
}

/// Where the name of a host ends that needs no change: small letters, digits, hyphens and dots, but no two dots in a
/// row and none at the end. None where it is not such a name.
#[inline]
pub fn usual_host(host: &[u8]) -> Option<usize> {
    let end = first::<NotInHosts>(host, 0).unwrap_or(host.len());
    let name = &host[..end];
    let dots = name.last().is_none_or(|c| *c == b'.') || name.windows(2).any(|two| two == b"..");
    (!dots && host.get(end).is_none_or(|c| *c == b':')).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::super::{FieldLine, any_host, field_line};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_usual() {
        let field = |text: &str| {
            let found = usual_field(text.as_bytes(), 0);
            found.map(|f| format!("{}={} {}", &text[f.name], &text[f.value], &text[f.next..]))
        };
        assert_eq!(field("Host: a\r\nB: c\r\n").as_deref(), Some("Host=a B: c\r\n"));
        assert_eq!(field("Host:a\n").as_deref(), Some("Host=a "));
        assert_eq!(field("X-Long: 0123456789 abcdef\r\n").as_deref(), Some("X-Long=0123456789 abcdef "));
        assert_eq!(field("Empty:\r\n").as_deref(), Some("Empty= "));
        assert_eq!(field("Empty: \r\n").as_deref(), Some("Empty= "));
        for other in
            ["", "Host", "Host: a", "Host: a\r", "\r\n", ": a\r\n", "a b: c\r\n", "a_b: c\r\n", "a:  b\r\n"]
        {
            assert_eq!(field(other), None, "{other:?}");
        }
        for other in ["a: b \r\n", "a: b\tc\r\n", "a: b\0\r\n", "a: b\r\r\n", "a: b\rc\n"] {
            assert_eq!(field(other), None, "{other:?}");
        }
    }

    #[test]
    fn usual_lines() {
        assert_eq!(usual_line(b"HTTP/1.1 200 OK\r\nA: b"), Some(16));
        assert_eq!(usual_line(b"\r\n"), Some(1));
        for other in ["", "a", "a\r", "a\n", "a\tb\r\n", "a\rb\r\n"] {
            assert_eq!(usual_line(other.as_bytes()), None, "{other:?}");
        }
    }

    #[test]
    fn usual_hosts() {
        for (host, end) in [("a", 1), ("a.b-1:80", 5), ("127.0.0.1", 9), (".a", 2), ("a:", 1)] {
            assert_eq!(usual_host(host.as_bytes()), Some(end), "{host}");
        }
        for other in ["", ":", ".", "a.", "a..b", "A", "a_b", "[::1]", "a b", "a/", "a.:80"] {
            assert_eq!(usual_host(other.as_bytes()), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn the_whole_parser_agrees(
            before in "[a-z\\n]{0,20}",
            text in "[A-Za-z_:\\- ]{0,12}[:]?[ -~\\t\\r\u{0}\u{e9}]{0,40}\\r?\\n[a-z]{0,3}",
        ) {
            let at = before.len();
            let whole = before + &text;
            if let Some(f) = usual_field(whole.as_bytes(), at) {
                let line = &whole.as_bytes()[at..f.next - 1];
                prop_assert!(!line.contains(&b'\n'));
                let here = |r: Range<usize>| r.start - at..r.end - at;
                let found = FieldLine::Field { name: here(f.name), value: here(f.value), valid: true };
                prop_assert_eq!(field_line(line, false), found);
            }
        }

        #[test]
        fn usual_hosts_are_hosts(host in "[a-cA-C.:1\\-]{0,20}") {
            if let Some(end) = usual_host(host.as_bytes()) {
                let port = host.len() > end;
                let (name, _) = match any_host(host.as_bytes()) {
                    Ok(found) => found,
                    Err(_) if port => return Ok(()),
                    Err(e) => panic!("{e:?}"),
                };
                prop_assert_eq!(&name[..], &host.as_bytes()[..end]);
            }
        }
    }
}
