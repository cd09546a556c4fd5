//! The clock of a thread: monotonic milliseconds, wall time, and the texts of the current second that logs
//! and headers carry, formatted once a second.

use std::cell::{Cell, RefCell};

const WEEK: [&[u8; 3]; 7] = [b"Sun", b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat"];
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// Seconds since 1970 and milliseconds within the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wall {
    pub sec: i64,
    pub msec: u16,
}

/// A moment in calendar terms. `month` is 1..=12, `weekday` 0 for Sunday, `offset` minutes east of Greenwich.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    pub year: u32,
    pub month: u32,
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
    pub weekday: u32,
    pub offset: i32,
}

/// Texts of one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Texts {
    /// `Sun, 22 Nov 2026 03:42:49 GMT` (RFC 9110, section 5.6.7).
    pub http_date: [u8; 29],
    /// `2026/11/22 03:42:49`, local.
    pub error_log: [u8; 19],
    /// `22/Nov/2026:03:42:49 +0000`, local.
    pub time_local: [u8; 26],
    /// `2026-11-22T03:42:49+00:00`, local.
    pub time_iso8601: [u8; 25],
    /// `Nov 22 03:42:49`, local (RFC 3164, section 4.1.2).
    pub syslog: [u8; 15],
}

/// How often the times that were read last may be looked at before they are read again, should the thread never
/// wait in between.
const LOOKS: u32 = 100;

/// A time that the thread read last.
struct Cached<T> {
    time: Cell<T>,
    /// Looks left; 0: it must be read.
    looks: Cell<u32>,
}

thread_local! {
    /// How often a time that was read may be looked at.
    static KEEP: Cell<u32> = const { Cell::new(0) };
    static NOW: Cached<u64> = const { Cached { time: Cell::new(0), looks: Cell::new(0) } };
    static WALL: Cached<Wall> =
        const { Cached { time: Cell::new(Wall { sec: 0, msec: 0 }), looks: Cell::new(0) } };
    static SECOND: Cell<i64> = const { Cell::new(i64::MIN) };
    static TEXTS: RefCell<Texts> = const { RefCell::new(Texts::EMPTY) };
}

/// Milliseconds of the monotonic clock; the zero is arbitrary.
pub fn now() -> u64 {
    NOW.with(|now| now.look(monotonic))
}

/// The wall clock.
pub fn wall() -> Wall {
    WALL.with(|wall| wall.look(real))
}

/// From now on this thread reads its clocks once a turn of its event loop, not at each look: [`turn`] is to be called
/// whenever it has waited.
pub fn once_a_turn() {
    KEEP.set(LOOKS);
}

/// The thread has waited: the next look reads the clocks.
pub fn turn() {
    NOW.with(|now| now.looks.set(0));
    WALL.with(|wall| wall.looks.set(0));
}

impl<T: Copy> Cached<T> {
    fn look(&self, read: fn() -> T) -> T {
        match self.looks.get() {
            0 => self.read(read),
            left => self.looks.set(left - 1),
        }
        self.time.get()
    }

    #[cold]
    fn read(&self, read: fn() -> T) {
        self.time.set(read());
        self.looks.set(KEEP.get());
    }
}

fn monotonic() -> u64 {
    let time = read(libc::CLOCK_MONOTONIC);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

fn real() -> Wall {
    let time = read(libc::CLOCK_REALTIME);
    Wall { sec: time.tv_sec, msec: (time.tv_nsec / 1_000_000) as u16 }
}

/// The texts of the current second, borrowed for the length of `use_them`.
pub fn with_texts<T>(use_them: impl FnOnce(&Texts) -> T) -> T {
    let sec = wall().sec;
    TEXTS.with(|texts| {
        if SECOND.get() != sec {
            *texts.borrow_mut() = Texts::at(sec);
            SECOND.set(sec);
        }
        use_them(&texts.borrow())
    })
}

/// The `Date` of a response sent now.
pub fn http_date() -> [u8; 29] {
    with_texts(|texts| texts.http_date)
}

/// Reads the time zone again (`TZ`, `/etc/localtime`), as is done before a configuration is read.
pub fn update_zone() {
    unsafe extern "C" {
        fn tzset();
    }
    // SAFETY: tzset(3) locks against localtime_r(3); no thread changes the environment while others run.
    unsafe { tzset() };
    SECOND.set(i64::MIN);
}

fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result; these clocks exist on every Linux.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time
}

/// The calendar in Greenwich. Moments before 1970 become 1970; after the year 9999, its last second.
pub fn gmt(sec: i64) -> Civil {
    let sec = sec.clamp(0, 253_402_300_799);
    let (days, second) = ((sec / 86400) as u32, (sec % 86400) as u32);
    // Days since 1 March of the year 0, in eras of 400 years.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    Civil {
        year: year_of_era + era * 400 + u32::from(month <= 2),
        month,
        day: of_year - (153 * from_march + 2) / 5 + 1,
        hour: second / 3600,
        minute: second / 60 % 60,
        second: second % 60,
        weekday: (4 + days) % 7,
        offset: 0,
    }
}

/// The calendar of the local time zone.
pub fn local(sec: i64) -> Civil {
    let sec = sec.clamp(0, 253_402_300_799);
    // SAFETY: an all-zero `tm` is valid; localtime_r writes it and keeps no pointer.
    let offset = unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&sec, &mut tm).is_null() { 0 } else { tm.tm_gmtoff }
    };
    Civil { offset: (offset / 60) as i32, ..gmt(sec + offset) }
}

/// An HTTP date, as in `Last-Modified` and `Expires`.
pub fn format_http_date(sec: i64) -> [u8; 29] {
    let time = gmt(sec);
    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    text[..3].copy_from_slice(weekday(&time));
    two(&mut text[5..7], time.day);
    text[8..11].copy_from_slice(month(&time));
    four(&mut text[12..16], time.year);
    clock(&mut text[17..25], &time);
    text
}

/// The `expires` of a cookie: `Thu, 31-Dec-37 23:55:55 GMT`, with four digits of the year after 2037.
pub fn format_cookie_date(sec: i64) -> String {
    let time = gmt(sec);
    let text = |part: &'static [u8; 3]| std::str::from_utf8(part).unwrap_or_default();
    let year = if time.year > 2037 { time.year.to_string() } else { format!("{:02}", time.year % 100) };
    format!(
        "{}, {:02}-{}-{year} {:02}:{:02}:{:02} GMT",
        text(weekday(&time)),
        time.day,
        text(month(&time)),
        time.hour,
        time.minute,
        time.second
    )
}

// === impl Texts ===

impl Texts {
    const EMPTY: Texts = Texts {
        http_date: [0; 29],
        error_log: [0; 19],
        time_local: [0; 26],
        time_iso8601: [0; 25],
        syslog: [0; 15],
    };

    /// The texts of the second `sec`.
    pub fn at(sec: i64) -> Texts {
        let time = local(sec);
        let mut texts = Texts {
            http_date: format_http_date(sec),
            error_log: *b"1970/01/01 00:00:00",
            time_local: *b"01/Jan/1970:00:00:00 +0000",
            time_iso8601: *b"1970-01-01T00:00:00+00:00",
            syslog: *b"Jan 01 00:00:00",
        };
        let (sign, minutes) = (if time.offset < 0 { b'-' } else { b'+' }, time.offset.unsigned_abs());

        let text = &mut texts.error_log;
        date(text, &time);
        clock(&mut text[11..], &time);

        let text = &mut texts.time_local;
        two(text, time.day);
        text[3..6].copy_from_slice(month(&time));
        four(&mut text[7..], time.year);
        clock(&mut text[12..], &time);
        text[21] = sign;
        two(&mut text[22..], minutes / 60);
        two(&mut text[24..], minutes % 60);

        let text = &mut texts.time_iso8601;
        date(text, &time);
        clock(&mut text[11..], &time);
        text[19] = sign;
        two(&mut text[20..], minutes / 60);
        two(&mut text[23..], minutes % 60);

        let text = &mut texts.syslog;
        text[..3].copy_from_slice(month(&time));
        two(&mut text[4..], time.day);
        if time.day < 10 {
            text[4] = b' ';
        }
        clock(&mut text[7..], &time);
        texts
    }
}

/// `Sunday, 22-Nov-2026 03:42:49 GMT`, in Greenwich or the local time zone: the date of server-side includes.
pub fn long_date(sec: i64, greenwich: bool) -> Vec<u8> {
    const FORMAT: &std::ffi::CStr = c"%A, %d-%b-%Y %H:%M:%S %Z";
    let mut text = [0u8; 128];
    // SAFETY: an all-zero `tm` is valid, and the functions write it and keep no pointer; strftime writes at most the
    // length it is given, and `tm_zone` points to text of the C library.
    let length = unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        let known = match greenwich {
            true => libc::gmtime_r(&sec, &mut tm),
            false => libc::localtime_r(&sec, &mut tm),
        };
        match known.is_null() {
            true => 0,
            false => libc::strftime(text.as_mut_ptr().cast(), text.len(), FORMAT.as_ptr(), &tm),
        }
    };
    text[..length].to_vec()
}

fn weekday(time: &Civil) -> &'static [u8; 3] {
    WEEK[time.weekday as usize % 7]
}

fn month(time: &Civil) -> &'static [u8; 3] {
    MONTHS[(time.month as usize + 11) % 12]
}

fn two(text: &mut [u8], value: u32) {
    text[0] = b'0' + (value / 10 % 10) as u8;
    text[1] = b'0' + (value % 10) as u8;
}

fn four(text: &mut [u8], value: u32) {
    two(text, value / 100);
    two(&mut text[2..], value % 100);
}

/// `HH:MM:SS`; the colons are there already.
fn clock(text: &mut [u8], time: &Civil) {
    two(text, time.hour);
    two(&mut text[3..], time.minute);
    two(&mut text[6..], time.second);
}

/// `YYYY?MM?DD`; the separators are there already.
fn date(text: &mut [u8], time: &Civil) {
    four(text, time.year);
    two(&mut text[5..], time.month);
    two(&mut text[8..], time.day);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn formats_known_moments() {
        assert_eq!(long_date(784_111_777, true), b"Sunday, 06-Nov-1994 08:49:37 GMT");
        assert_eq!(&format_http_date(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(&format_http_date(951_782_400), b"Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(&format_http_date(i64::MAX), b"Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(format_cookie_date(2_145_916_555), "Thu, 31-Dec-37 23:55:55 GMT");
        assert_eq!(format_cookie_date(2_145_916_800), "Fri, 01-Jan-2038 00:00:00 GMT");
    }

    #[test]
    fn texts_of_a_second_agree_with_each_other() {
        let texts = Texts::at(1_795_318_969);
        let local = local(1_795_318_969);
        let error_log = String::from_utf8(texts.error_log.to_vec()).unwrap();
        assert_eq!(
            error_log,
            format!(
                "{:04}/{:02}/{:02} {:02}:{:02}:{:02}",
                local.year, local.month, local.day, local.hour, local.minute, local.second
            )
        );
        assert_eq!(texts.time_iso8601[11..19], texts.error_log[11..]);
        assert_eq!(texts.time_local[12..20], texts.error_log[11..]);
        assert_eq!(texts.syslog[7..], texts.error_log[11..]);
    }

    #[test]
    fn the_clock_goes_forward() {
        let (first, wall_first) = (now(), wall());
        while now() == first {
            std::hint::spin_loop();
        }
        assert!(now() > first && wall() >= wall_first);
        let date = std::str::from_utf8(&http_date()).unwrap().to_owned();
        let read = httpdate::parse_http_date(&date).unwrap().duration_since(UNIX_EPOCH).unwrap();
        assert!(wall().sec.abs_diff(read.as_secs() as i64) <= 1);
    }

    proptest! {
        #[test]
        fn http_dates_are_those_of_httpdate(sec in 0i64..253_402_300_800) {
            let expected = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(sec as u64));
            prop_assert_eq!(format_http_date(sec), expected.as_bytes());
        }
    }
}
