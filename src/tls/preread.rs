//! Reading a ClientHello that is not ours to answer, for `ssl_preread` (RFC 8446 section 4.1.2, RFC 6066 section 3).
//!
//! The parser keeps its place between calls, so a hello that arrives byte by byte costs no more than one that
//! arrives whole. It reads a TLS record only when all of it is there, as nginx does.

/// What a ClientHello asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Preread {
    /// The host name of the server_name extension, as sent.
    pub server_name: Option<Vec<u8>>,
    /// The offered protocols joined with commas; empty when there are none.
    pub alpn: Vec<u8>,
    /// The highest version offered, in the words of `$ssl_preread_protocol`; empty when it has no name.
    pub protocol: &'static str,
}

/// The state of a preread after more bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The hello is not complete yet.
    NeedMore,
    /// Not TLS, or not a ClientHello that makes sense; the reason is for the debug log.
    NotTls(&'static str),
    Done(Preread),
}

/// An incremental parser of the ClientHello at the start of a connection.
#[derive(Debug, Clone)]
pub struct Parser {
    /// How many bytes of the buffer have been consumed: always at the start of a record.
    pos: usize,
    field: Field,
    /// Bytes still missing of the current field.
    size: usize,
    /// Bytes left of the handshake message, the current field included.
    left: usize,
    /// Bytes left of the list inside the current extension.
    ext: usize,
    store: Store,
    head: [u8; 4],
    head_len: usize,
    version: [u8; 2],
    host: Option<Vec<u8>>,
    alpn: Option<Vec<u8>>,
}

/// The part of the message that the next bytes belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Start,
    Header,
    Version,
    Random,
    SessionIdLen,
    SessionId,
    CipherSuitesLen,
    CipherSuites,
    CompressionLen,
    Compression,
    Extensions,
    ExtensionHeader,
    SniLen,
    SniHostHead,
    SniHost,
    AlpnLen,
    AlpnProtoLen,
    AlpnProto,
    SupportedVersionsLen,
}

/// Where the bytes of the current field go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Store {
    Skip,
    Head,
    Version,
    Host,
    Alpn,
}

enum Step {
    Continue,
    Finished,
    Bad(&'static str),
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Parser ===

impl Parser {
    pub fn new() -> Self {
        Parser {
            pos: 0,
            field: Field::Start,
            size: 0,
            left: 0,
            ext: 0,
            store: Store::Skip,
            head: [0; 4],
            head_len: 0,
            version: [0; 2],
            host: None,
            alpn: None,
        }
    }

    /// Looks at everything received so far. `buffer` only ever grows between calls.
    pub fn feed(&mut self, buffer: &[u8]) -> Progress {
        while let Some(rest) = buffer.get(self.pos..) {
            let [b0, b1, b2, b3, b4, body @ ..] = rest else { break };
            if b0 & 0x80 != 0 && *b2 == 1 && (*b3 == 0 || *b3 == 3) {
                // A version 2 hello: its version is all there is to know of it.
                self.version = [*b3, *b4];
                return Progress::Done(self.result());
            }
            if *b0 != 0x16 {
                return Progress::NotTls("not a handshake");
            }
            if *b1 != 3 {
                return Progress::NotTls("unsupported SSL version");
            }
            let len = usize::from(u16::from_be_bytes([*b3, *b4]));
            let Some(record) = body.get(..len) else { break };
            match self.record(record) {
                Step::Continue => self.pos += 5 + len,
                Step::Finished => return Progress::Done(self.result()),
                Step::Bad(why) => return Progress::NotTls(why),
            }
        }
        Progress::NeedMore
    }

    fn record(&mut self, mut bytes: &[u8]) -> Step {
        loop {
            let n = bytes.len().min(self.size);
            let (now, later) = bytes.split_at(n);
            self.keep(now);
            bytes = later;
            self.size -= n;
            self.left = self.left.saturating_sub(n);
            if self.size != 0 {
                return Step::Continue;
            }
            match self.next_field() {
                Step::Continue => {}
                end => return end,
            }
            if self.left < self.size {
                return Step::Bad("failed to parse handshake");
            }
            if self.field == Field::ExtensionHeader {
                bytes = self.skip_extensions(bytes);
            }
        }
    }

    /// What follows extensions that are there as a whole, and say nothing that is asked for. The last is left.
    fn skip_extensions<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while let [kind0, kind1, len0, len1, body @ ..] = bytes {
            let len = usize::from(u16::from_be_bytes([*len0, *len1]));
            let Some(rest) = body.get(len..).filter(|_| self.left > 4 + len) else { break };
            if let 0 | 16 | 43 = u16::from_be_bytes([*kind0, *kind1]) {
                break;
            }
            self.left -= 4 + len;
            bytes = rest;
        }
        bytes
    }

    fn keep(&mut self, bytes: &[u8]) {
        match self.store {
            Store::Skip => {}
            Store::Head | Store::Version => {
                let place = match self.store {
                    Store::Version => &mut self.version[..],
                    _ => &mut self.head[..],
                };
                place.iter_mut().skip(self.head_len).zip(bytes).for_each(|(place, byte)| *place = *byte);
                self.head_len += bytes.len();
            }
            Store::Host => self.host.get_or_insert_default().extend_from_slice(bytes),
            Store::Alpn => self.alpn.get_or_insert_default().extend_from_slice(bytes),
        }
    }

    fn expect(&mut self, field: Field, store: Store, size: usize) -> Step {
        self.field = field;
        self.store = store;
        self.size = size;
        self.head_len = 0;
        Step::Continue
    }

    fn u16_at(&self, i: usize) -> usize {
        usize::from(u16::from_be_bytes([self.head[i], self.head[i + 1]]))
    }

    /// The current field is complete: what comes after it.
    fn next_field(&mut self) -> Step {
        use Field::*;
        let first = usize::from(self.head[0]);
        match self.field {
            Start => {
                self.left = 4;
                self.expect(Header, Store::Head, 4)
            }
            Header => {
                if self.head[0] != 1 {
                    return Step::Bad("not a client hello");
                }
                self.left = usize::from(self.head[1]) << 16 | self.u16_at(2);
                self.expect(Version, Store::Version, 2)
            }
            Version => self.expect(Random, Store::Skip, 32),
            Random => self.expect(SessionIdLen, Store::Head, 1),
            SessionIdLen => self.expect(SessionId, Store::Skip, first),
            SessionId => self.expect(CipherSuitesLen, Store::Head, 2),
            CipherSuitesLen => self.expect(CipherSuites, Store::Skip, self.u16_at(0)),
            CipherSuites => self.expect(CompressionLen, Store::Head, 1),
            CompressionLen => self.expect(Compression, Store::Skip, first),
            Compression if self.left == 0 => Step::Finished,
            Compression => self.expect(Extensions, Store::Head, 2),
            Extensions if self.left == 0 => Step::Finished,
            Extensions => self.expect(ExtensionHeader, Store::Head, 4),
            ExtensionHeader => self.extension(),
            SniLen | SniHostHead | SniHost => self.server_name(),
            AlpnLen | AlpnProtoLen | AlpnProto => self.alpn_protocols(),
            SupportedVersionsLen => {
                // Only TLSv1.3 and later send it, whatever it lists.
                self.version = [3, 4];
                self.expect(Extensions, Store::Skip, first)
            }
        }
    }

    fn extension(&mut self) -> Step {
        match self.u16_at(0) {
            0 if self.host.is_none() => self.expect(Field::SniLen, Store::Head, 2),
            16 if self.alpn.is_none() => self.expect(Field::AlpnLen, Store::Head, 2),
            43 => self.expect(Field::SupportedVersionsLen, Store::Head, 1),
            _ => self.expect(Field::Extensions, Store::Skip, self.u16_at(2)),
        }
    }

    fn server_name(&mut self) -> Step {
        match self.field {
            Field::SniLen => {
                self.ext = self.u16_at(0);
                self.expect(Field::SniHostHead, Store::Head, 3)
            }
            Field::SniHostHead => {
                if self.head[0] != 0 {
                    return Step::Bad("SNI hostname type is not DNS");
                }
                let size = self.u16_at(1);
                let Some(rest) = self.ext.checked_sub(3 + size) else {
                    return Step::Bad("SNI format error");
                };
                self.ext = rest;
                self.host = Some(Vec::new());
                self.expect(Field::SniHost, Store::Host, size)
            }
            _ => self.expect(Field::Extensions, Store::Skip, self.ext),
        }
    }

    fn alpn_protocols(&mut self) -> Step {
        match self.field {
            Field::AlpnLen => {
                self.ext = self.u16_at(0);
                self.alpn = Some(Vec::new());
                self.expect(Field::AlpnProtoLen, Store::Head, 1)
            }
            Field::AlpnProtoLen => {
                let size = usize::from(self.head[0]);
                if size == 0 {
                    return Step::Bad("ALPN empty protocol");
                }
                let Some(rest) = self.ext.checked_sub(1 + size) else {
                    return Step::Bad("ALPN format error");
                };
                self.ext = rest;
                self.expect(Field::AlpnProto, Store::Alpn, size)
            }
            _ if self.ext > 0 => {
                self.alpn.get_or_insert_default().push(b',');
                self.expect(Field::AlpnProtoLen, Store::Head, 1)
            }
            _ => self.expect(Field::Extensions, Store::Skip, 0),
        }
    }

    fn result(&mut self) -> Preread {
        let protocol = match self.version {
            [0, 2] => "SSLv2",
            [3, 0] => "SSLv3",
            [3, 1] => "TLSv1",
            [3, 2] => "TLSv1.1",
            [3, 3] => "TLSv1.2",
            [3, 4] => "TLSv1.3",
            _ => "",
        };
        Preread {
            server_name: self.host.take().filter(|host| !host.is_empty()),
            alpn: self.alpn.take().unwrap_or_default(),
            protocol,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut out = kind.to_be_bytes().to_vec();
        out.extend((body.len() as u16).to_be_bytes());
        out.extend(body);
        out
    }

    fn sni(name: &str) -> Vec<u8> {
        let mut body = ((name.len() + 3) as u16).to_be_bytes().to_vec();
        body.push(0);
        body.extend((name.len() as u16).to_be_bytes());
        body.extend(name.as_bytes());
        extension(0, &body)
    }

    fn alpn(names: &[&str]) -> Vec<u8> {
        let list: Vec<u8> =
            names.iter().flat_map(|n| std::iter::once(n.len() as u8).chain(n.bytes())).collect();
        let mut body = (list.len() as u16).to_be_bytes().to_vec();
        body.extend(list);
        extension(16, &body)
    }

    fn hello(extensions: Option<&[Vec<u8>]>, record: usize) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([4, 1, 2, 3, 4]);
        body.extend([0, 4, 0x13, 1, 0xc0, 0x2f]);
        body.extend([1, 0]);
        if let Some(list) = extensions {
            let all = list.concat();
            body.extend((all.len() as u16).to_be_bytes());
            body.extend(all);
        }
        let mut message = vec![1];
        message.extend(&(body.len() as u32).to_be_bytes()[1..]);
        message.extend(body);
        let mut out = Vec::new();
        for part in message.chunks(record) {
            out.extend([0x16, 3, 1]);
            out.extend((part.len() as u16).to_be_bytes());
            out.extend(part);
        }
        out
    }

    fn full(record: usize) -> Vec<u8> {
        hello(
            Some(&[
                extension(10, &[0, 2, 0, 29]),
                sni("a.example"),
                alpn(&["h2", "http/1.1"]),
                extension(43, &[2, 3, 4]),
            ]),
            record,
        )
    }

    fn expected() -> Preread {
        Preread {
            server_name: Some(b"a.example".to_vec()),
            alpn: b"h2,http/1.1".to_vec(),
            protocol: "TLSv1.3",
        }
    }

    #[test]
    fn reads_what_the_variables_need() {
        assert_eq!(Parser::new().feed(&full(4000)), Progress::Done(expected()));
        let plain = hello(None, 4000);
        assert_eq!(
            Parser::new().feed(&plain),
            Progress::Done(Preread { protocol: "TLSv1.2", ..Preread::default() })
        );
    }

    #[test]
    fn a_hello_over_many_records_is_read_byte_by_byte() {
        for record in 1..80 {
            let bytes = full(record);
            let mut parser = Parser::new();
            for end in 0..bytes.len() {
                assert_eq!(parser.feed(&bytes[..end]), Progress::NeedMore, "{record} {end}");
            }
            assert_eq!(parser.feed(&bytes), Progress::Done(expected()));
        }
    }

    #[test]
    fn declines_what_is_not_tls() {
        assert_eq!(Parser::new().feed(b"GET "), Progress::NeedMore);
        assert_eq!(Parser::new().feed(b"GET /"), Progress::NotTls("not a handshake"));
        assert_eq!(Parser::new().feed(&[0x16, 2, 0, 0, 1]), Progress::NotTls("unsupported SSL version"));
        assert_eq!(
            Parser::new().feed(&[0x16, 3, 0, 0, 4, 2, 0, 0, 0]),
            Progress::NotTls("not a client hello")
        );
        let mut typed = sni("x");
        typed[6] = 1;
        assert_eq!(
            Parser::new().feed(&hello(Some(&[typed]), 999)),
            Progress::NotTls("SNI hostname type is not DNS")
        );
        assert_eq!(
            Parser::new().feed(&hello(Some(&[extension(16, &[0, 2, 0, 0])]), 999)),
            Progress::NotTls("ALPN empty protocol")
        );
        assert_eq!(
            Parser::new().feed(&hello(Some(&[extension(16, &[0, 2, 5, 0])]), 999)),
            Progress::NotTls("ALPN format error")
        );
    }

    #[test]
    fn takes_the_version_of_a_version_2_hello() {
        let done = |bytes: &[u8]| match Parser::new().feed(bytes) {
            Progress::Done(p) => p.protocol,
            other => panic!("{other:?}"),
        };
        assert_eq!(done(&[0x80, 0x2e, 1, 3, 1]), "TLSv1");
        assert_eq!(done(&[0x80, 0x2e, 1, 0, 2]), "SSLv2");
        assert_eq!(done(&[0x80, 0x2e, 1, 3, 9]), "");
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_answer(record in 1usize..300, mut cuts in prop::collection::vec(0usize..700, 0..20)) {
            let bytes = full(record);
            cuts.sort_unstable();
            let mut parser = Parser::new();
            for cut in cuts.into_iter().filter(|c| *c < bytes.len()) {
                prop_assert_eq!(parser.feed(&bytes[..cut]), Progress::NeedMore);
            }
            prop_assert_eq!(parser.feed(&bytes), Progress::Done(expected()));
        }

        #[test]
        fn damaged_hellos_never_panic(at in 0usize..150, value: u8, record in 1usize..300) {
            let mut bytes = full(record);
            if let Some(b) = bytes.get_mut(at) { *b = value; }
            let whole = Parser::new().feed(&bytes);
            let mut parser = Parser::new();
            let mut last = Progress::NeedMore;
            for end in 0..=bytes.len() {
                last = parser.feed(&bytes[..end]);
                if last != Progress::NeedMore { break; }
            }
            prop_assert_eq!(last, whole);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut framed = vec![0x16, 3, 1, (bytes.len() >> 8) as u8, bytes.len() as u8];
            framed.extend(&bytes);
            let _ = Parser::new().feed(&bytes);
            let _ = Parser::new().feed(&framed);
        }
    }
}
