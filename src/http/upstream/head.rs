//! The head of an upstream's response: its fields as places in the buffer, and what they mean for the exchange.

use std::fmt;
use std::ops::Range;

use super::Fault;
use crate::http::headers::{Headers, Name, contains_word, hash, same};
use crate::log::{Level, bytes};

/// Says what is wrong with a head, in the error log's words.
pub type Tell<'a> = &'a dyn Fn(Level, fmt::Arguments<'_>);

/// One field, by its place in the buffer.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    name: (u32, u32),
    value: (u32, u32),
    /// Hash of the name, see [`hash`].
    pub hash: u32,
    /// What is known of the name.
    pub known: Known,
    /// A repetition of a field that may come once.
    pub ignored: bool,
}

/// Head of a response. Kept and used again.
#[derive(Debug, Default)]
pub struct Head {
    /// Status code.
    pub status: u16,
    /// `200 OK`, within the buffer.
    pub line: Range<usize>,
    /// Fields in order.
    pub fields: Vec<Field>,
    /// Where the next line begins; at the end, where the body does.
    pub size: usize,
    /// `Content-Length`
    pub length: Option<u64>,
    /// `Transfer-Encoding: chunked`
    pub chunked: bool,
    /// There was no head at all: what came is body.
    pub headless: bool,
    /// The connection is not to be used again.
    pub close: bool,
    /// A bit for each [`Known`] that came.
    seen: u32,
}

macro_rules! known {
    ($($id:ident = $text:literal $once:literal;)*) => {
        /// Fields the exchange knows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Known { Other, $($id,)* }

        const NAMES: &[(Known, Name)] = &[$((Known::$id, Name::new($text)),)*];

        impl Known {
            /// By name and its hash.
            #[inline]
            pub fn of(name: &[u8], hash: u32) -> Known {
                let mut at = place(hash);
                while let Some((known, own)) = PLACES[at].checked_sub(1).and_then(|i| NAMES.get(i as usize)) {
                    if own.hash == hash && same(name, own.text) {
                        return *known;
                    }
                    at = (at + 1) % PLACES.len();
                }
                Known::Other
            }

            /// A bit of its own.
            pub(super) fn bit(self) -> u32 {
                const { assert!(NAMES.len() < 32) };
                1 << self as u32
            }

            /// Repetitions are ignored, with a warning.
            fn once(self) -> bool {
                match self { $(Known::$id => $once,)* Known::Other => false }
            }
        }
    };
}

/// Where the search for a name with that hash begins.
const fn place(hash: u32) -> usize {
    (hash >> 1) as usize % 128
}

/// A hash table with open places: numbers in [`NAMES`], from 1 on; 0 is free.
const PLACES: [u8; 128] = {
    let mut places = [0; 128];
    let mut i = 0;
    while i < NAMES.len() {
        let mut at = place(NAMES[i].1.hash);
        while places[at] != 0 {
            at = (at + 1) % places.len();
        }
        places[at] = i as u8 + 1;
        i += 1;
    }
    places
};

known! {
    Date = "Date" true;
    Server = "Server" true;
    ContentType = "Content-Type" true;
    ContentLength = "Content-Length" false;
    Connection = "Connection" false;
    TransferEncoding = "Transfer-Encoding" false;
    KeepAlive = "Keep-Alive" false;
    LastModified = "Last-Modified" true;
    ETag = "ETag" true;
    SetCookie = "Set-Cookie" false;
    Location = "Location" true;
    CacheControl = "Cache-Control" false;
    AcceptRanges = "Accept-Ranges" false;
    Expires = "Expires" true;
    Refresh = "Refresh" true;
    Upgrade = "Upgrade" false;
    Status = "Status" true;
    ContentDisposition = "Content-Disposition" false;
    WwwAuthenticate = "WWW-Authenticate" false;
    AccelRedirect = "X-Accel-Redirect" true;
    AccelExpires = "X-Accel-Expires" true;
    AccelLimitRate = "X-Accel-Limit-Rate" true;
    AccelBuffering = "X-Accel-Buffering" false;
    AccelCharset = "X-Accel-Charset" false;
}

impl Field {
    /// Name as it came.
    pub fn name(self, buffer: &[u8]) -> &[u8] {
        &buffer[self.name.0 as usize..self.name.1 as usize]
    }

    /// Where the value is in the buffer.
    pub fn place(self) -> Range<usize> {
        self.value.0 as usize..self.value.1 as usize
    }

    /// Value as it came.
    pub fn value(self, buffer: &[u8]) -> &[u8] {
        &buffer[self.value.0 as usize..self.value.1 as usize]
    }
}

impl Head {
    /// Forgets everything but the memory.
    pub fn clear(&mut self) {
        self.fields.clear();
        *self = Head { fields: std::mem::take(&mut self.fields), ..Head::default() };
    }

    /// Whether a field of one of those kinds came.
    pub fn has_any(&self, known: &[Known]) -> bool {
        known.iter().any(|known| self.seen & known.bit() != 0)
    }

    /// Value of the first field of that kind.
    pub fn get<'b>(&self, known: Known, buffer: &'b [u8]) -> Option<&'b [u8]> {
        self.fields.iter().find(|f| f.known == known && !f.ignored).map(|f| f.value(buffer))
    }

    /// The first field of that kind.
    fn first(&self, known: Known) -> Option<&Field> {
        let came = self.seen & known.bit() != 0;
        if came { self.fields.iter().find(|f| f.known == known) } else { None }
    }

    /// Takes a field and what it means for the message. Lines about what is wrong are logged.
    #[inline(always)]
    pub fn take(
        &mut self,
        tell: Tell<'_>,
        buffer: &[u8],
        name: Range<usize>,
        value: Range<usize>,
    ) -> Result<(), Fault> {
        let hash = hash(&buffer[name.clone()]);
        let known = Known::of(&buffer[name.clone()], hash);
        let mut field = Field {
            name: (name.start as u32, name.end as u32),
            value: (value.start as u32, value.end as u32),
            hash,
            known,
            ignored: false,
        };
        if self.status == 103 {
            // Hints mean nothing for the response that follows.
            self.fields.push(field);
            return Ok(());
        }
        let value = &buffer[value];
        match known {
            Known::Other => {}
            Known::ContentLength => self.content_length(tell, buffer, &field)?,
            Known::TransferEncoding => self.transfer_encoding(tell, buffer, &field)?,
            Known::Connection => self.close |= !same(value, b"keep-alive") && contains_word(value, b"close"),
            _ if known.once() => {
                if let Some(previous) = self.first(known) {
                    duplicate(tell, Level::Warn, buffer, &field, previous, ", ignored");
                    field.ignored = true;
                }
            }
            _ => {}
        }
        self.seen |= known.bit();
        if self.fields.capacity() == 0 {
            // Most heads have no more.
            self.fields = Vec::with_capacity(16);
        }
        self.fields.push(field);
        Ok(())
    }

    fn content_length(&mut self, tell: Tell<'_>, buffer: &[u8], field: &Field) -> Result<(), Fault> {
        if let Some(previous) = self.first(Known::ContentLength) {
            duplicate(tell, Level::Error, buffer, field, previous, "");
            return Err(Fault::InvalidHeader);
        }
        if self.chunked {
            return Err(both(tell));
        }
        let number = crate::conf::units::number(field.value(buffer));
        self.length = number.filter(|n| i64::try_from(*n).is_ok());
        match self.length {
            Some(_) => Ok(()),
            None => {
                let (name, value) = (bytes(field.name(buffer)), bytes(field.value(buffer)));
                tell(
                    Level::Error,
                    format_args!("upstream sent invalid \"Content-Length\" header: \"{name}: {value}\""),
                );
                Err(Fault::InvalidHeader)
            }
        }
    }

    #[inline(never)]
    fn transfer_encoding(&mut self, tell: Tell<'_>, buffer: &[u8], field: &Field) -> Result<(), Fault> {
        if let Some(previous) = self.first(Known::TransferEncoding) {
            duplicate(tell, Level::Error, buffer, field, previous, "");
            return Err(Fault::InvalidHeader);
        }
        if self.length.is_some() {
            return Err(both(tell));
        }
        if !field.value(buffer).eq_ignore_ascii_case(b"chunked") {
            let value = bytes(field.value(buffer));
            tell(Level::Error, format_args!("upstream sent unknown \"Transfer-Encoding\": \"{value}\""));
            return Err(Fault::InvalidHeader);
        }
        self.chunked = true;
        Ok(())
    }

    /// All fields, for `$upstream_http_*`.
    pub fn copy_to(&self, buffer: &[u8], to: &mut Headers) {
        to.clear();
        for field in self.fields.iter().filter(|f| !f.ignored) {
            to.push_hashed(field.name(buffer), field.hash, field.value(buffer));
        }
    }
}

/// Both lengths in one head: one of them lies (RFC 9112, section 6.3).
#[cold]
#[inline(never)]
fn both(tell: Tell<'_>) -> Fault {
    tell(
        Level::Error,
        format_args!("upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time"),
    );
    Fault::InvalidHeader
}

#[cold]
#[inline(never)]
fn duplicate(tell: Tell<'_>, level: Level, buffer: &[u8], field: &Field, previous: &Field, then: &str) {
    let (name, value) = (bytes(field.name(buffer)), bytes(field.value(buffer)));
    let (old_name, old) = (bytes(previous.name(buffer)), bytes(previous.value(buffer)));
    tell(
        level,
        format_args!(
            "upstream sent duplicate header line: \"{name}: {value}\", previous value: \"{old_name}: {old}\"{then}"
        ),
    );
}
