//! Numbers, sizes and times as nginx reads them. All refuse signs, white space around, and what exceeds 63 bits.

const MAX: u64 = i64::MAX as u64;

/// So many decimal digits never exceed 63 bits.
const SURE: usize = 18;

const KILO: u64 = 1 << 10;
const MEGA: u64 = 1 << 20;
const GIGA: u64 = 1 << 30;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;
const MONTH: u64 = 30 * DAY;
const YEAR: u64 = 365 * DAY;

/// Decimal digits only (`ngx_atoi`).
pub fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    if text.len() <= SURE {
        let digits = text.iter().all(u8::is_ascii_digit);
        return digits.then(|| text.iter().fold(0, |value, byte| value * 10 + u64::from(byte - b'0')));
    }
    text.iter().try_fold(0, |value, byte| push_digit(value, *byte))
}

/// Hexadecimal digits only, in either case (`ngx_hextoi`).
pub fn hex(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |value, byte| {
        let digit = char::from(*byte).to_digit(16)?;
        (value <= MAX / 16).then(|| value * 16 + u64::from(digit))
    })
}

/// A fixed-point number scaled by ten to the `point`: `10.5` with 2 is 1050 (`ngx_atofp`).
/// Further decimals are refused, a dot without decimals is not.
pub fn fixed_point(text: &[u8], point: u32) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let (mut value, mut left, mut dot) = (0, point, false);
    for byte in text {
        if left == 0 || *byte == b'.' && dot {
            return None;
        }
        if *byte == b'.' {
            dot = true;
            continue;
        }
        value = push_digit(value, *byte)?;
        left -= u32::from(dot);
    }
    (0..left).try_fold(value, |value, _| (value <= MAX / 10).then(|| value * 10))
}

/// Bytes, with `k` or `m` in either case (`ngx_parse_size`).
pub fn size(text: &[u8]) -> Option<usize> {
    let bytes = scaled(text, false)?;
    usize::try_from(bytes).ok()
}

/// Bytes, with `k`, `m` or `g` in either case (`ngx_parse_offset`).
pub fn offset(text: &[u8]) -> Option<u64> {
    scaled(text, true)
}

fn scaled(text: &[u8], giga: bool) -> Option<u64> {
    let (last, digits) = text.split_last()?;
    let (digits, scale) = match last {
        b'K' | b'k' => (digits, KILO),
        b'M' | b'm' => (digits, MEGA),
        b'G' | b'g' if giga => (digits, GIGA),
        _ => (text, 1),
    };
    number(digits)?.checked_mul(scale).filter(|bytes| *bytes <= MAX)
}

/// `on` or `off` in any case.
pub fn flag(text: &[u8]) -> Option<bool> {
    if text.eq_ignore_ascii_case(b"on") {
        return Some(true);
    }
    text.eq_ignore_ascii_case(b"off").then_some(false)
}

/// Seconds: units `y M w d h m s`, each at most once and in this order (`ngx_parse_time`, `is_sec`).
pub fn seconds(text: &[u8]) -> Option<u64> {
    time(text, Resolution::Seconds)
}

/// Milliseconds: units `w d h m s ms`, each at most once and in this order; a bare number is seconds.
pub fn milliseconds(text: &[u8]) -> Option<u64> {
    time(text, Resolution::Milliseconds)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Resolution {
    Seconds,
    Milliseconds,
}

/// Units in the order in which they may follow each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Start,
    Year,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
    Millisecond,
    /// A space stood where a unit may: whatever follows is a bare number.
    Last,
}

fn time(text: &[u8], resolution: Resolution) -> Option<u64> {
    let in_ms = resolution == Resolution::Milliseconds;
    let mut step = if in_ms { Step::Month } else { Step::Start };
    let (mut total, mut value, mut valid) = (0u64, 0u64, false);
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        if byte.is_ascii_digit() {
            value = push_digit(value, *byte)?;
            valid = true;
            rest = tail;
            continue;
        }
        let (next, scale, after) = unit(rest, resolution)?;
        // A space may stand only before seconds, as the unit it replaces.
        let order = if next == Step::Last { Step::Second } else { next };
        if step >= order {
            return None;
        }
        step = next;
        let scale = if in_ms && step != Step::Millisecond { scale * 1000 } else { scale };
        total = add(total, value, scale)?;
        value = 0;
        rest = &after[after.iter().take_while(|byte| **byte == b' ').count()..];
    }
    if !valid {
        return None;
    }
    add(total, value, if in_ms { 1000 } else { 1 })
}

/// The unit at the start, its length in seconds (milliseconds for `ms`), and what follows it.
fn unit(text: &[u8], resolution: Resolution) -> Option<(Step, u64, &[u8])> {
    let (first, rest) = text.split_first()?;
    Some(match first {
        b'y' => (Step::Year, YEAR, rest),
        b'M' => (Step::Month, MONTH, rest),
        b'w' => (Step::Week, WEEK, rest),
        b'd' => (Step::Day, DAY, rest),
        b'h' => (Step::Hour, HOUR, rest),
        b'm' if rest.first() == Some(&b's') => {
            let after = rest.get(1..)?;
            (resolution == Resolution::Milliseconds).then_some((Step::Millisecond, 1, after))?
        }
        b'm' => (Step::Minute, MINUTE, rest),
        b's' => (Step::Second, 1, rest),
        b' ' => (Step::Last, 1, rest),
        _ => return None,
    })
}

fn add(total: u64, value: u64, scale: u64) -> Option<u64> {
    let sum = total.checked_add(value.checked_mul(scale)?)?;
    (sum <= MAX).then_some(sum)
}

fn push_digit(value: u64, byte: u8) -> Option<u64> {
    let digit = char::from(byte).to_digit(10)?;
    let value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    (value <= MAX).then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX_TEXT: &[u8] = b"9223372036854775807";
    const OVER: &[u8] = b"9223372036854775808";

    #[test]
    fn numbers() {
        assert_eq!(number(b"0"), Some(0));
        assert_eq!(number(b"0042"), Some(42));
        assert_eq!(number(MAX_TEXT), Some(MAX));
        for bad in [&b""[..], b"-1", b"+1", b" 1", b"1 ", b"1k", b"0x1", OVER, b"99999999999999999999"] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
        assert_eq!(hex(b"fF"), Some(255));
        assert_eq!(hex(b"7fffffffffffffff"), Some(MAX));
        assert_eq!(hex(b"8000000000000000"), None);
        assert_eq!(hex(b"g"), None);
    }

    #[test]
    fn fixed_points() {
        assert_eq!(fixed_point(b"10.5", 2), Some(1050));
        assert_eq!(fixed_point(b"10", 2), Some(1000));
        assert_eq!(fixed_point(b"10.", 2), Some(1000));
        assert_eq!(fixed_point(b".5", 2), Some(50));
        assert_eq!(fixed_point(b".", 2), Some(0));
        assert_eq!(fixed_point(b"0.001", 3), Some(1));
        for bad in [&b""[..], b"1.234", b"1..2", b"-1", b"1.2.", MAX_TEXT] {
            assert_eq!(fixed_point(bad, 2), None, "{bad:?}");
        }
        assert_eq!(fixed_point(b"1", 0), None);
    }

    #[test]
    fn sizes() {
        assert_eq!(size(b"1"), Some(1));
        assert_eq!(size(b"4k"), Some(4096));
        assert_eq!(size(b"4K"), Some(4096));
        assert_eq!(size(b"2m"), Some(2 << 20));
        assert_eq!(size(b"2M"), Some(2 << 20));
        assert_eq!(size(MAX_TEXT), Some(MAX as usize));
        assert_eq!(size(b"8796093022207m"), Some(8796093022207 << 20));
        for bad in [&b""[..], b"k", b"1g", b"1kb", b"-1k", b"1.5k", b"8796093022208m", OVER] {
            assert_eq!(size(bad), None, "{bad:?}");
        }
        assert_eq!(offset(b"1g"), Some(1 << 30));
        assert_eq!(offset(b"3G"), Some(3 << 30));
        assert_eq!(offset(b"8589934591g"), Some(8589934591 << 30));
        assert_eq!(offset(b"8589934592g"), None);
        assert_eq!(offset(b"g"), None);
    }

    #[test]
    fn flags() {
        assert_eq!(flag(b"on"), Some(true));
        assert_eq!(flag(b"OFF"), Some(false));
        assert_eq!(flag(b"yes"), None);
        assert_eq!(flag(b""), None);
    }

    #[test]
    fn times() {
        assert_eq!(seconds(b"1y2M3w4d5h6m7s"), Some(YEAR + 2 * MONTH + 3 * WEEK + 4 * DAY + 5 * HOUR + 367));
        assert_eq!(milliseconds(b"3w4d5h6m7s8ms"), Some((3 * WEEK + 4 * DAY + 5 * HOUR + 367) * 1000 + 8));
        assert_eq!((seconds(b"60"), milliseconds(b"60")), (Some(60), Some(60_000)));
        assert_eq!((seconds(b"0"), milliseconds(b"0")), (Some(0), Some(0)));
        assert_eq!(milliseconds(b"500ms"), Some(500));
        assert_eq!(seconds(b"1h 30m"), Some(5400));
        assert_eq!(seconds(b"1h  "), Some(3600));
        assert_eq!(seconds(b"5 "), Some(5));
        assert_eq!(seconds(b"1m 5"), Some(65));
    }

    #[test]
    fn times_nginx_takes_though_they_look_wrong() {
        assert_eq!(seconds(b"1hs"), Some(3600));
        assert_eq!(seconds(b"1s5"), Some(6));
        assert_eq!(milliseconds(b"1ms5"), Some(5001));
        assert_eq!(seconds(b"1 5"), Some(6));
        assert_eq!(seconds(b" 5"), Some(5));
    }

    #[test]
    fn times_refused() {
        for bad in
            [&b""[..], b"s", b" ", b"1x", b"-1", b"1m1h", b"1s1s", b"1s 1s", b"1h1h", b"5 s", b"1s ms 1"]
        {
            assert_eq!(seconds(bad), None, "{bad:?}");
        }
        assert_eq!(seconds(b"1ms"), None);
        assert_eq!(milliseconds(b"1y"), None);
        assert_eq!(milliseconds(b"1M"), None);
        assert_eq!(milliseconds(b"1ms1s"), None);
        assert_eq!(milliseconds(b"1ms1ms"), None);
    }

    #[test]
    fn times_do_not_overflow() {
        assert_eq!(seconds(MAX_TEXT), Some(MAX));
        assert_eq!(seconds(OVER), None);
        assert_eq!(milliseconds(b"9223372036854775"), Some(9223372036854775000));
        assert_eq!(milliseconds(b"9223372036854776"), None);
        assert_eq!(milliseconds(b"9223372036854775807ms"), Some(MAX));
        assert_eq!(seconds(b"9223372036854775807s"), Some(MAX));
        assert_eq!(seconds(b"1m9223372036854775807s"), None);
        assert_eq!(seconds(b"292471208677y"), Some(292471208677 * YEAR));
        assert_eq!(seconds(b"292471208678y"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(text in "[0-9 .yMwdhmskgKGx]{0,24}") {
            let text = text.as_bytes();
            for value in [number(text), hex(text), fixed_point(text, 3), offset(text), seconds(text), milliseconds(text)] {
                prop_assert!(value.is_none_or(|value| value <= MAX));
            }
        }
    }
}
