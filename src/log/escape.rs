//! How values are escaped in a log line (`log_format ... escape=`).

/// The `escape` parameter of `log_format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Escape {
    #[default]
    Default,
    Json,
    None,
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Appends `value` to `line`. A variable without a value is `-` by default and nothing otherwise.
pub fn escape(escape: Escape, value: Option<&[u8]>, line: &mut Vec<u8>) {
    match (escape, value) {
        (Escape::Default, None) => line.push(b'-'),
        (_, None) => {}
        (Escape::None, Some(value)) => line.extend_from_slice(value),
        (Escape::Default, Some(value)) => {
            append(value, line, |byte| matches!(byte, b'"' | b'\\' | ..0x20 | 0x7f..), hex)
        }
        (Escape::Json, Some(value)) => {
            append(value, line, |byte| matches!(byte, b'"' | b'\\' | ..0x20), json)
        }
    }
}

// === impl Escape ===

impl Escape {
    /// The escaping called `name` in `log_format`.
    pub fn parse(name: &str) -> Option<Escape> {
        match name {
            "default" => Some(Escape::Default),
            "json" => Some(Escape::Json),
            "none" => Some(Escape::None),
            _ => None,
        }
    }
}

/// Copies runs of plain bytes whole.
fn append(value: &[u8], line: &mut Vec<u8>, special: impl Fn(u8) -> bool, write: impl Fn(u8, &mut Vec<u8>)) {
    let mut rest = value;
    while let Some(at) = rest.iter().position(|byte| special(*byte)) {
        line.extend_from_slice(&rest[..at]);
        write(rest[at], line);
        rest = &rest[at + 1..];
    }
    line.extend_from_slice(rest);
}

fn hex(byte: u8, line: &mut Vec<u8>) {
    line.extend_from_slice(&[b'\\', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}

fn json(byte: u8, line: &mut Vec<u8>) {
    let letter = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            line.extend_from_slice(b"\\u00");
            line.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            return;
        }
    };
    line.extend_from_slice(&[b'\\', letter]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(how: Escape, value: Option<&[u8]>) -> String {
        let mut line = Vec::new();
        escape(how, value, &mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn each_way_of_escaping() {
        let value = Some(&b"a\"b\\c\n\x01\x7f\xc3d"[..]);
        assert_eq!(text(Escape::Default, value), r"a\x22b\x5Cc\x0A\x01\x7F\xC3d");
        assert_eq!(text(Escape::Json, Some(b"a\"b\\c\n\x01\x1f\x7f/")), "a\\\"b\\\\c\\n\\u0001\\u001F\x7f/");
        assert_eq!(text(Escape::None, Some(b"a\"b\n")), "a\"b\n");
    }

    #[test]
    fn a_missing_value() {
        assert_eq!(text(Escape::Default, None), "-");
        assert_eq!(text(Escape::Json, None) + &text(Escape::None, None), "");
        assert_eq!(text(Escape::Default, Some(b"")), "");
    }
}
