//! One direction of a connection: records sealed and opened with its key (RFC 8446 section 5.2; for TLSv1.2 RFC 5246
//! section 6.2.3.3, RFC 5288 and RFC 7905).

use std::io::IoSlice;
use std::ops::Range;

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use rustls::{ConnectionTrafficSecrets, ContentType, Error, InvalidMessage, PeerMisbehaved, ProtocolVersion};

/// Type, version and length before a record's payload.
pub(super) const HEADER: usize = 5;
/// Most bytes of text in a record (RFC 8446 section 5.1).
pub(super) const MAX_TEXT: usize = 16 << 10;
/// All suites of both versions have tags of this size.
const TAG: usize = 16;
/// The part of a nonce that TLSv1.2 sends with AES-GCM (RFC 5288 section 3).
const EXPLICIT: usize = 8;

/// What surrounds the text of a record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// TLSv1.3: the true type follows the text, and then padding.
    Inner,
    /// TLSv1.2 with AES-GCM: a part of the nonce goes before the text.
    Explicit,
    /// TLSv1.2 with ChaCha20-Poly1305.
    Plain,
}

/// Text to be sealed, in several pieces.
pub(super) struct Pieces<'a, 'b> {
    rest: &'a [IoSlice<'b>],
    /// Bytes taken of the first.
    at: usize,
}

/// A key and the number of records it has served.
pub(super) struct Cipher {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    seq: u64,
    form: Form,
}

// === impl Pieces ===

impl<'a, 'b> Pieces<'a, 'b> {
    pub(super) fn new(pieces: &'a [IoSlice<'b>]) -> Self {
        Pieces { rest: pieces, at: 0 }
    }

    /// The next `n` bytes, where one piece has them all.
    fn contiguous(&mut self, n: usize) -> Option<&'a [u8]> {
        while let Some((first, rest)) = self.rest.split_first() {
            if self.at < first.len() {
                break;
            }
            self.rest = rest;
            self.at = 0;
        }
        let found = self.rest.first()?.get(self.at..self.at + n)?;
        self.at += n;
        Some(found)
    }

    /// Copies the next bytes; there must be as many.
    fn copy(&mut self, mut to: &mut [u8]) {
        while !to.is_empty() {
            let Some((first, rest)) = self.rest.split_first() else { return };
            let bytes = &first[self.at..];
            let n = bytes.len().min(to.len());
            to[..n].copy_from_slice(&bytes[..n]);
            to = &mut to[n..];
            self.at += n;
            if self.at == first.len() {
                self.rest = rest;
                self.at = 0;
            }
        }
    }
}

// === impl Form ===

impl Form {
    fn before(self) -> usize {
        if self == Form::Explicit { EXPLICIT } else { 0 }
    }

    fn inner_type(self) -> usize {
        usize::from(self == Form::Inner)
    }
}

// === impl Cipher ===

impl Cipher {
    /// The cipher of `secrets`, which has served `seq` records.
    pub(super) fn new(
        version: ProtocolVersion,
        (seq, secrets): (u64, ConnectionTrafficSecrets),
    ) -> Result<Cipher, Error> {
        use ConnectionTrafficSecrets as S;
        let (algorithm, key, iv) = match &secrets {
            S::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            S::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            S::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(Error::General("unknown cipher".into())),
        };
        let form = match (version, &secrets) {
            (ProtocolVersion::TLSv1_3, _) => Form::Inner,
            (_, S::Chacha20Poly1305 { .. }) => Form::Plain,
            _ => Form::Explicit,
        };
        let mut cipher = Cipher {
            key: LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).map_err(|_| Error::EncryptError)?),
            iv: [0; NONCE_LEN],
            seq,
            form,
        };
        cipher.iv.copy_from_slice(iv.as_ref());
        Ok(cipher)
    }

    /// The same suite of TLSv1.3 with another key of its size.
    pub(super) fn renewed(&self, key: &[u8], iv: [u8; NONCE_LEN]) -> Result<Cipher, Error> {
        let key = UnboundKey::new(self.key.algorithm(), key).map_err(|_| Error::EncryptError)?;
        Ok(Cipher { key: LessSafeKey::new(key), iv, seq: 0, form: self.form })
    }

    /// Bytes of a key.
    pub(super) fn key_len(&self) -> usize {
        self.key.algorithm().key_len()
    }

    /// Records served.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    #[cfg(test)]
    pub(super) fn set_seq(&mut self, seq: u64) {
        self.seq = seq;
    }

    /// Whether this is a cipher of TLSv1.3.
    pub(super) fn is_tls13(&self) -> bool {
        self.form == Form::Inner
    }

    /// Bytes that `text` bytes take as a record, header included.
    pub(super) fn sealed_len(&self, text: usize) -> usize {
        HEADER + self.form.before() + text + self.form.inner_type() + TAG
    }

    fn nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        for (byte, seq) in nonce[NONCE_LEN - 8..].iter_mut().zip(self.seq.to_be_bytes()) {
            *byte ^= seq;
        }
        nonce
    }

    /// The data authenticated with a record. `inside`: bytes of its text, and in TLSv1.3 of all its payload.
    fn additional(&self, header: [u8; 3], inside: usize) -> ([u8; 13], Range<usize>) {
        let mut data = [0; 13];
        data[..8].copy_from_slice(&self.seq.to_be_bytes());
        data[8..11].copy_from_slice(&header);
        // It fits: no record is as long as 64 KiB.
        data[11..].copy_from_slice(&(inside as u16).to_be_bytes());
        (data, if self.form == Form::Inner { 8..13 } else { 0..13 })
    }

    /// Seals the next `n` bytes of `text`, at most [`MAX_TEXT`], as a record into `out`, which has exactly room for it.
    pub(super) fn seal(
        &mut self,
        kind: ContentType,
        text: &mut Pieces<'_, '_>,
        n: usize,
        out: &mut [u8],
    ) -> Result<(), Error> {
        if n > MAX_TEXT || out.len() != self.sealed_len(n) || self.seq == u64::MAX {
            return Err(Error::EncryptError);
        }
        let payload = out.len() - HEADER;
        let outer = if self.form == Form::Inner { ContentType::ApplicationData } else { kind };
        let head = [u8::from(outer), 3, 3];
        let nonce = self.nonce();
        let inside = if self.form == Form::Inner { payload } else { n };
        let (data, part) = self.additional(head, inside);
        let data = Aad::from(&data[part]);
        out[..3].copy_from_slice(&head);
        out[3..HEADER].copy_from_slice(&(payload as u16).to_be_bytes());
        let (before, out) = out[HEADER..].split_at_mut(self.form.before());
        if self.form == Form::Explicit {
            before.copy_from_slice(&nonce[NONCE_LEN - EXPLICIT..]);
        }
        let nonce = Nonce::assume_unique_for_key(nonce);
        let (body, tail) = out.split_at_mut(n);
        let inner = [u8::from(kind)];
        let inner = &inner[..self.form.inner_type()];
        let sealed = match text.contiguous(n) {
            Some(bytes) => self.key.seal_out_of_place_scatter(nonce, data, bytes, body, inner, tail),
            None => {
                text.copy(body);
                self.key.seal_in_place_scatter(nonce, data, body, inner, tail)
            }
        };
        self.seq += 1;
        sealed.map_err(|_| Error::EncryptError)
    }

    /// Bytes of room that opening a record of `payload` bytes takes.
    pub(super) fn room(&self, payload: usize) -> usize {
        payload.saturating_sub(self.form.before() + TAG)
    }

    /// Opens a record into `to`, which has [`Cipher::room`]; its true type and the length of its text.
    pub(super) fn open(
        &mut self,
        header: &[u8; HEADER],
        payload: &[u8],
        to: &mut [u8],
    ) -> Result<(ContentType, usize), Error> {
        let (nonce, data, part, at) = self.opening(header, payload)?;
        let (text, tag) = payload[self.form.before()..].split_at(at.len());
        let to = to.get_mut(..text.len()).ok_or(Error::DecryptError)?;
        self.key
            .open_separate_gather(nonce, Aad::from(&data[part]), text, tag, to)
            .map_err(|_| Error::DecryptError)?;
        self.opened(header, to)
    }

    /// Opens a record where it is; its true type and where in the payload its text is.
    pub(super) fn open_in_place(
        &mut self,
        header: &[u8; HEADER],
        payload: &mut [u8],
    ) -> Result<(ContentType, Range<usize>), Error> {
        let (nonce, data, part, at) = self.opening(header, payload)?;
        let (text, tag) = payload[at.start..].split_at_mut(at.len());
        self.key
            .open_in_place_separate_tag(nonce, Aad::from(&data[part]), tag, text)
            .map_err(|_| Error::DecryptError)?;
        let (kind, n) = self.opened(header, text)?;
        Ok((kind, at.start..at.start + n))
    }

    /// Nonce, authenticated data with the part of it that counts, and where the sealed text is.
    #[allow(clippy::type_complexity)]
    fn opening(
        &self,
        header: &[u8; HEADER],
        payload: &[u8],
    ) -> Result<(Nonce, [u8; 13], Range<usize>, Range<usize>), Error> {
        let before = self.form.before();
        let end = payload.len().checked_sub(TAG).filter(|end| *end >= before).ok_or(Error::DecryptError)?;
        let mut nonce = self.nonce();
        if self.form == Form::Explicit {
            nonce[..NONCE_LEN - EXPLICIT].copy_from_slice(&self.iv[..NONCE_LEN - EXPLICIT]);
            nonce[NONCE_LEN - EXPLICIT..].copy_from_slice(&payload[..EXPLICIT]);
        }
        let inside = if self.form == Form::Inner { payload.len() } else { end - before };
        let (data, part) = self.additional([header[0], header[1], header[2]], inside);
        Ok((Nonce::assume_unique_for_key(nonce), data, part, before..end))
    }

    /// Counts a record and takes padding and type off its text.
    fn opened(&mut self, header: &[u8; HEADER], text: &[u8]) -> Result<(ContentType, usize), Error> {
        self.seq = self.seq.checked_add(1).ok_or(Error::DecryptError)?;
        if text.len() > MAX_TEXT + self.form.inner_type() {
            return Err(Error::PeerSentOversizedRecord);
        }
        if self.form != Form::Inner {
            return Ok((ContentType::from(header[0]), text.len()));
        }
        match text.iter().rposition(|byte| *byte != 0) {
            Some(at) => Ok((ContentType::from(text[at]), at)),
            None => Err(PeerMisbehaved::IllegalTlsInnerPlaintext.into()),
        }
    }
}

/// The header of the record that `bytes` begin with, and the length of its payload; none where more must come. What
/// cannot be a record is refused by its header alone.
pub(super) fn frame(bytes: &[u8], tls13: bool) -> Result<Option<([u8; HEADER], usize)>, Error> {
    let Some(header) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    if !(20..=23).contains(&header[0]) {
        return Err(InvalidMessage::InvalidContentType.into());
    }
    if header[1] != 3 {
        return Err(InvalidMessage::UnknownProtocolVersion.into());
    }
    // RFC 8446 section 5.2, RFC 5246 section 6.2.3.
    let most = MAX_TEXT + if tls13 { 256 } else { 2048 };
    let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
    if len > most {
        return Err(Error::PeerSentOversizedRecord);
    }
    Ok(Some((*header, len)))
}
