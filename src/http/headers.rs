//! A list of header fields as they came: names with their case, in order, in one piece of memory.

use std::cell::RefCell;
use std::fmt;

#[derive(Clone, Copy)]
struct Field {
    name: u32,
    name_len: u16,
    value: u32,
    value_len: u32,
    /// Hash of the lower-case name; 0 marks a removed field.
    hash: u32,
}

/// Header fields in order. Appending copies into one arena; nothing is allocated per field, and the memory goes to the
/// next list of the thread.
#[derive(Clone, Default)]
pub struct Headers {
    arena: Vec<u8>,
    fields: Vec<Field>,
}

/// Room of a new list: bytes and fields. Lists that grew past four times of it are not kept.
const ROOM: (usize, usize) = (1024, 24);
/// Lists that a thread keeps.
const SPARE: usize = 32;

thread_local! {
    static POOL: RefCell<Vec<(Vec<u8>, Vec<Field>)>> = const { RefCell::new(Vec::new()) };
}

impl Drop for Headers {
    #[inline]
    fn drop(&mut self) {
        if self.arena.capacity() > 0 {
            self.give_back();
        }
    }
}

impl Headers {
    #[inline(never)]
    fn give_back(&mut self) {
        let (mut arena, mut fields) = (std::mem::take(&mut self.arena), std::mem::take(&mut self.fields));
        if arena.capacity() > 4 * ROOM.0 || fields.capacity() > 4 * ROOM.1 {
            return;
        }
        // Past the thread's end the pool is gone and the memory is simply freed.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < SPARE {
                arena.clear();
                fields.clear();
                pool.push((arena, fields));
            }
        });
    }
}

/// Hash of a name, letters' case ignored; never 0. Made of the length and three of the letters: names that look alike
/// to it are told apart by comparing them.
#[inline]
pub const fn hash(name: &[u8]) -> u32 {
    let len = name.len();
    if len == 0 {
        return 1;
    }
    let some = [len as u8, name[0] | 0x20, name[len / 2] | 0x20, name[len - 1] | 0x20];
    let mixed = u32::from_le_bytes(some).wrapping_mul(0x9e37_79b1);
    (mixed ^ (mixed >> 15)) | 1
}

/// Whether two names are the same, letters' case ignored. Most are written alike.
#[inline]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && (alike(a, b) || a.eq_ignore_ascii_case(b))
}

/// Whether texts of one length are the same. Names are too short for a call of memcmp to be worth it.
#[inline(always)]
fn alike(a: &[u8], b: &[u8]) -> bool {
    let (Some(last_a), Some(last_b)) = (a.last_chunk::<8>(), b.last_chunk::<8>()) else {
        let (Some(last_a), Some(last_b)) = (a.last_chunk::<4>(), b.last_chunk::<4>()) else {
            return a.iter().zip(b).all(|(a, b)| a == b);
        };
        return a[..4] == b[..4] && last_a == last_b;
    };
    last_a == last_b && a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0).all(|(a, b)| a == b)
}

/// Whether `word`, which is in lower case and not empty, occurs in `value` in any case.
pub fn contains_word(value: &[u8], word: &[u8]) -> bool {
    value.windows(word.len()).any(|w| w[0] | 0x20 == word[0] && w.eq_ignore_ascii_case(word))
}

/// A name whose hash is known at compile time.
#[derive(Clone, Copy, Debug)]
pub struct Name {
    /// As written when sent.
    pub text: &'static [u8],
    /// Its [`hash`].
    pub hash: u32,
}

impl Name {
    /// Makes the constant.
    pub const fn new(text: &'static str) -> Name {
        Name { text: text.as_bytes(), hash: hash(text.as_bytes()) }
    }
}

macro_rules! names {
    ($($id:ident = $text:literal;)*) => {
        $(#[doc = concat!("`", $text, "`")] pub const $id: Name = Name::new($text);)*
    };
}

names! {
    ACCEPT_ENCODING = "Accept-Encoding";
    ACCEPT_RANGES = "Accept-Ranges";
    AUTHORIZATION = "Authorization";
    CACHE_CONTROL = "Cache-Control";
    CONNECTION = "Connection";
    CONTENT_ENCODING = "Content-Encoding";
    CONTENT_LENGTH = "Content-Length";
    CONTENT_RANGE = "Content-Range";
    CONTENT_TYPE = "Content-Type";
    COOKIE = "Cookie";
    DATE = "Date";
    ETAG = "ETag";
    EXPECT = "Expect";
    EXPIRES = "Expires";
    HOST = "Host";
    IF_MATCH = "If-Match";
    IF_MODIFIED_SINCE = "If-Modified-Since";
    IF_NONE_MATCH = "If-None-Match";
    IF_RANGE = "If-Range";
    IF_UNMODIFIED_SINCE = "If-Unmodified-Since";
    KEEP_ALIVE = "Keep-Alive";
    LAST_MODIFIED = "Last-Modified";
    LINK = "Link";
    LOCATION = "Location";
    PROXY_AUTHORIZATION = "Proxy-Authorization";
    RANGE = "Range";
    REFERER = "Referer";
    REFRESH = "Refresh";
    SERVER = "Server";
    SET_COOKIE = "Set-Cookie";
    TE = "TE";
    TRAILER = "Trailer";
    TRANSFER_ENCODING = "Transfer-Encoding";
    UPGRADE = "Upgrade";
    USER_AGENT = "User-Agent";
    VARY = "Vary";
    VIA = "Via";
    WWW_AUTHENTICATE = "WWW-Authenticate";
    X_ACCEL_BUFFERING = "X-Accel-Buffering";
    X_ACCEL_CHARSET = "X-Accel-Charset";
    X_ACCEL_EXPIRES = "X-Accel-Expires";
    X_ACCEL_LIMIT_RATE = "X-Accel-Limit-Rate";
    X_ACCEL_REDIRECT = "X-Accel-Redirect";
    X_FORWARDED_FOR = "X-Forwarded-For";
    X_REAL_IP = "X-Real-IP";
}

impl Headers {
    /// An empty list.
    pub fn new() -> Headers {
        Headers::default()
    }

    /// Forgets all fields and keeps the memory.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.fields.clear();
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Appends a field. A name over 65,535 bytes is cut off from what limits allow and never arises.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.push_hashed(name, hash(name), value);
    }

    /// Appends a field of a known name.
    pub fn add(&mut self, name: Name, value: &[u8]) {
        self.push_hashed(name.text, name.hash, value);
    }

    /// Appends a field whose [`hash`] is known.
    pub fn push_hashed(&mut self, name: &[u8], hash: u32, value: &[u8]) {
        if self.arena.capacity() == 0 {
            self.take_room();
        }
        let name = &name[..name.len().min(u16::MAX as usize)];
        let at = self.arena.len() as u32;
        self.arena.extend_from_slice(name);
        self.arena.extend_from_slice(value);
        self.fields.push(Field {
            name: at,
            name_len: name.len() as u16,
            value: at + name.len() as u32,
            value_len: value.len() as u32,
            hash,
        });
    }

    #[inline(never)]
    fn take_room(&mut self) {
        (self.arena, self.fields) = POOL
            .with_borrow_mut(Vec::pop)
            .unwrap_or_else(|| (Vec::with_capacity(ROOM.0), Vec::with_capacity(ROOM.1)));
    }

    fn name_of(&self, f: &Field) -> &[u8] {
        &self.arena[f.name as usize..f.name as usize + f.name_len as usize]
    }

    fn value_of(&self, f: &Field) -> &[u8] {
        &self.arena[f.value as usize..(f.value + f.value_len) as usize]
    }

    fn matching<'a>(&'a self, hash: u32, name: &'a [u8]) -> impl Iterator<Item = &'a Field> {
        self.fields.iter().filter(move |f| f.hash == hash && same(self.name_of(f), name))
    }

    /// Name and value of each field, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().filter(|f| f.hash != 0).map(|f| (self.name_of(f), self.value_of(f)))
    }

    /// Hash, name and value of each field, in order.
    pub fn iter_hashed(&self) -> impl Iterator<Item = (u32, &[u8], &[u8])> {
        self.fields.iter().filter(|f| f.hash != 0).map(|f| (f.hash, self.name_of(f), self.value_of(f)))
    }

    /// Value of the first field of that name.
    pub fn get(&self, name: Name) -> Option<&[u8]> {
        self.matching(name.hash, name.text).next().map(|f| self.value_of(f))
    }

    /// Values of all fields of that name.
    pub fn all<'a>(&'a self, name: Name) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.matching(name.hash, name.text).map(|f| self.value_of(f))
    }

    /// Value of the first field of that name, where it came more than once.
    pub fn repeated(&self, name: &[u8]) -> Option<&[u8]> {
        let mut fields = self.matching(hash(name), name);
        let first = fields.next();
        fields.next().and(first).map(|f| self.value_of(f))
    }

    /// Value of the first field of a name known only now.
    pub fn find(&self, name: &[u8]) -> Option<&[u8]> {
        self.matching(hash(name), name).next().map(|f| self.value_of(f))
    }

    /// Whether there is a field of that name.
    pub fn contains(&self, name: Name) -> bool {
        self.matching(name.hash, name.text).next().is_some()
    }

    /// Removes all fields of that name; true where there was one.
    pub fn remove(&mut self, name: Name) -> bool {
        let mut any = false;
        for i in 0..self.fields.len() {
            let f = self.fields[i];
            if f.hash == name.hash && same(self.name_of(&f), name.text) {
                self.fields[i].hash = 0;
                any = true;
            }
        }
        any
    }

    /// Removes the fields that `drop` chooses; true where there was one.
    pub fn remove_where(&mut self, mut drop: impl FnMut(&[u8], &[u8]) -> bool) -> bool {
        let mut any = false;
        for i in 0..self.fields.len() {
            let f = self.fields[i];
            if f.hash != 0 && drop(self.name_of(&f), self.value_of(&f)) {
                self.fields[i].hash = 0;
                any = true;
            }
        }
        any
    }

    /// Replaces all fields of that name by one, in the place of the first.
    pub fn set(&mut self, name: Name, value: &[u8]) {
        let mut first = None;
        for i in 0..self.fields.len() {
            let f = self.fields[i];
            if f.hash == name.hash && same(self.name_of(&f), name.text) {
                if first.is_none() {
                    first = Some(i);
                } else {
                    self.fields[i].hash = 0;
                }
            }
        }
        match first {
            Some(i) => {
                let at = self.arena.len() as u32;
                self.arena.extend_from_slice(value);
                self.fields[i].value = at;
                self.fields[i].value_len = value.len() as u32;
            }
            None => self.add(name, value),
        }
    }

    /// Replaces the value of the field at `place`, or appends a field; returns its place, which stays.
    pub fn put_at(&mut self, place: Option<usize>, name: Name, value: &[u8]) -> usize {
        let end = self.arena.len() as u32;
        match place.and_then(|place| Some((place, self.fields.get_mut(place)?))) {
            Some((place, field)) => {
                self.arena.extend_from_slice(value);
                (field.value, field.value_len) = (end, value.len() as u32);
                place
            }
            None => {
                self.add(name, value);
                self.fields.len() - 1
            }
        }
    }

    /// Replaces each value for which `map` gives a new one.
    pub fn map_values(&mut self, mut map: impl FnMut(&[u8], &[u8]) -> Option<Vec<u8>>) {
        for i in 0..self.fields.len() {
            let f = self.fields[i];
            if f.hash == 0 {
                continue;
            }
            if let Some(value) = map(self.name_of(&f), self.value_of(&f)) {
                let at = self.arena.len() as u32;
                self.arena.extend_from_slice(&value);
                self.fields[i].value = at;
                self.fields[i].value_len = value.len() as u32;
            }
        }
    }

    /// The values of a name joined by `separator`, appended; false where there is none. As nginx's `$http_name`.
    pub fn join(&self, name: &[u8], separator: &[u8], out: &mut Vec<u8>) -> bool {
        let mut found = false;
        for f in self.matching(hash(name), name) {
            if found {
                out.extend_from_slice(separator);
            }
            out.extend_from_slice(self.value_of(f));
            found = true;
        }
        found
    }

    /// The values of the field whose name, lower-cased and with `-` as `_`, is `variable` (`$http_*`), joined.
    pub fn join_variable(&self, variable: &[u8], separator: &[u8], out: &mut Vec<u8>) -> bool {
        let mut found = false;
        for f in self.fields.iter().filter(|f| f.hash != 0 && f.name_len as usize == variable.len()) {
            let same = self.name_of(f).iter().zip(variable).all(|(&n, &v)| {
                let n = if n == b'-' { b'_' } else { n.to_ascii_lowercase() };
                n == v
            });
            if same {
                if found {
                    out.extend_from_slice(separator);
                }
                out.extend_from_slice(self.value_of(f));
                found = true;
            }
        }
        found
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(
                self.iter()
                    .map(|(n, v)| format!("{}: {}", String::from_utf8_lossy(n), String::from_utf8_lossy(v))),
            )
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_case_and_repetition_are_kept() {
        let mut h = Headers::new();
        h.push(b"X-One", b"1");
        h.push(b"set-cookie", b"a");
        h.push(b"Set-Cookie", b"b");
        assert_eq!(h.all(SET_COOKIE).collect::<Vec<_>>(), [b"a", b"b"]);
        let mut joined = Vec::new();
        assert!(h.join_variable(b"set_cookie", b", ", &mut joined));
        assert_eq!(joined, b"a, b");
        h.set(SET_COOKIE, b"c");
        assert_eq!(h.iter().collect::<Vec<_>>(), [(&b"X-One"[..], &b"1"[..]), (b"set-cookie", b"c")]);
        assert!(h.remove(SET_COOKIE) && !h.contains(SET_COOKIE));
    }
}
