//! Names that are near to one that nobody knows.

use super::grammar::{self, Context, Support};

/// The directive that might have been meant in a context.
pub fn directive(name: &[u8], context: Context) -> Option<String> {
    let name = String::from_utf8_lossy(name);
    let known = grammar::all()
        .filter(|row| row.contexts.intersects(context) && row.support != Support::No)
        .map(|row| row.name);
    nearest(&name, known).map(|found| format!("did you mean \"{found}\"?"))
}

/// The variable that might have been meant.
pub fn variable(name: &str) -> Option<String> {
    nearest(name, grammar::variable_names()).map(|found| format!("did you mean \"${found}\"?"))
}

/// The name that differs least, if that is little.
fn nearest<'n>(name: &str, among: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let most = match name.len() {
        0..=3 => 1,
        4..=8 => 2,
        _ => 3,
    };
    let distances = among
        .filter(|other| other.len().abs_diff(name.len()) <= most)
        .map(|other| (distance(name.as_bytes(), other.as_bytes()), other));
    distances.filter(|(distance, _)| (1..=most).contains(distance)).min().map(|(_, other)| other)
}

/// How many letters to add, leave out, change, or swap with their neighbours.
fn distance(one: &[u8], other: &[u8]) -> usize {
    let width = other.len() + 1;
    let mut before: Vec<usize> = vec![0; width];
    let mut last: Vec<usize> = (0..width).collect();
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1; width];
        for (j, b) in other.iter().enumerate() {
            let changed = last[j] + usize::from(!a.eq_ignore_ascii_case(b));
            row[j + 1] = changed.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && one[i - 1] == *b && other[j - 1] == *a {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names() {
        let found = |name: &str, context| directive(name.as_bytes(), context);
        assert_eq!(
            found("proxy_passs", Context::HTTP_LOCATION).as_deref(),
            Some("did you mean \"proxy_pass\"?")
        );
        assert_eq!(found("sever", Context::HTTP).as_deref(), Some("did you mean \"server\"?"));
        assert_eq!(found("lsiten", Context::HTTP_SERVER).as_deref(), Some("did you mean \"listen\"?"));
        assert_eq!(found("something_else", Context::HTTP), None);
        assert_eq!(variable("remote_adr").as_deref(), Some("did you mean \"$remote_addr\"?"));
    }

    #[test]
    fn distances() {
        for (one, other, expected) in [("", "abc", 3), ("abc", "abc", 0), ("abc", "acb", 1), ("abc", "ab", 1)]
        {
            assert_eq!(distance(one.as_bytes(), other.as_bytes()), expected, "{one} {other}");
        }
    }
}
