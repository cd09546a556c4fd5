//! What a peer says after the handshake that is not data: alerts, new keys, tickets, wishes to negotiate again.

use rustls::{AlertDescription, ContentType, Error, HandshakeType, InvalidMessage, PeerMisbehaved};

use super::Records;

/// Most bytes of a handshake message.
const MAX_MESSAGE: usize = 0xffff;
/// Most warnings of a connection.
const WARNINGS: u8 = 4;
/// Most new keys without data between them.
const UPDATES: u8 = 32;
/// Most records without data in a row.
const EMPTY: u8 = 32;

pub(super) const WARNING: u8 = 1;
pub(super) const FATAL: u8 = 2;

const HELLO_REQUEST: u8 = 0;
const CLIENT_HELLO: u8 = 1;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// A KeyUpdate that asks for none in return (RFC 8446 section 4.6.3).
pub(super) const KEY_UPDATE_MESSAGE: [u8; 5] = [KEY_UPDATE, 0, 0, 1, 0];

/// How often a peer did what it may do a few times only.
#[derive(Default)]
pub(super) struct Patience {
    warnings: u8,
    updates: u8,
    empty: u8,
    renegotiations: u8,
}

/// The alert that answers an error; none where the peer is the one who ended it.
pub(super) fn alert(error: &Error) -> Option<AlertDescription> {
    Some(match error {
        Error::AlertReceived(_) => return None,
        Error::DecryptError => AlertDescription::BadRecordMac,
        Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
        Error::InvalidMessage(message) => (*message).into(),
        Error::EncryptError | Error::General(_) => AlertDescription::InternalError,
        _ => AlertDescription::UnexpectedMessage,
    })
}

fn once_more(count: &mut u8, most: u8, error: PeerMisbehaved) -> Result<(), Error> {
    *count = count.saturating_add(1);
    if *count > most { Err(error.into()) } else { Ok(()) }
}

impl Records {
    /// Takes a record that was opened; `n` bytes of data are the caller's to keep.
    pub(super) fn data(&mut self, n: usize) -> Result<(), Error> {
        if !self.message.is_empty() {
            return Err(PeerMisbehaved::MessageInterleavedWithHandshakeMessage.into());
        }
        if n == 0 {
            return once_more(&mut self.patience.empty, EMPTY, PeerMisbehaved::TooManyEmptyFragments);
        }
        self.patience.empty = 0;
        self.patience.updates = 0;
        Ok(())
    }

    /// Takes a record that is not data.
    pub(super) fn control(&mut self, kind: ContentType, bytes: &[u8]) -> Result<(), Error> {
        match kind {
            ContentType::Alert if self.message.is_empty() => self.alert(bytes),
            ContentType::Handshake => self.handshake(bytes),
            ContentType::Alert => Err(PeerMisbehaved::MessageInterleavedWithHandshakeMessage.into()),
            ContentType::ChangeCipherSpec => Err(PeerMisbehaved::IllegalMiddleboxChangeCipherSpec.into()),
            got_type => Err(Error::InappropriateMessage {
                expect_types: vec![ContentType::ApplicationData],
                got_type,
            }),
        }
    }

    fn alert(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let &[level, description] = bytes else { return Err(InvalidMessage::MessageTooShort.into()) };
        let description = AlertDescription::from(description);
        if description == AlertDescription::CloseNotify {
            self.ended = true;
            return Ok(());
        }
        let harmless = !self.open.is_tls13() || description == AlertDescription::UserCanceled;
        if level == WARNING && harmless {
            let error = PeerMisbehaved::TooManyWarningAlertsReceived;
            return once_more(&mut self.patience.warnings, WARNINGS, error);
        }
        Err(Error::AlertReceived(description))
    }

    fn handshake(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.is_empty() {
            return Err(InvalidMessage::InvalidEmptyPayload.into());
        }
        let mut pending = std::mem::take(&mut self.message);
        pending.extend_from_slice(bytes);
        let mut rest = &pending[..];
        while let Some((&[kind, a, b, c], after)) = rest.split_first_chunk::<4>() {
            let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if len > MAX_MESSAGE {
                return Err(InvalidMessage::HandshakePayloadTooLarge.into());
            }
            let Some((body, after)) = after.split_at_checked(len) else { break };
            self.message(kind, body, after.is_empty())?;
            rest = after;
        }
        if !rest.is_empty() {
            self.message = rest.to_vec();
        }
        Ok(())
    }

    /// `last`: nothing follows in its record.
    fn message(&mut self, kind: u8, body: &[u8], last: bool) -> Result<(), Error> {
        match (kind, self.open.is_tls13()) {
            (KEY_UPDATE, true) if !last => Err(PeerMisbehaved::KeyEpochWithPendingFragment.into()),
            (KEY_UPDATE, true) => self.key_update(body),
            (NEW_SESSION_TICKET, true) if self.tickets.is_some() => match &mut self.tickets {
                Some(tickets) => tickets.handle_new_session_ticket(body),
                None => Ok(()),
            },
            (HELLO_REQUEST, false) if self.is_client => self.renegotiation(),
            (CLIENT_HELLO, false) if !self.is_client => self.renegotiation(),
            _ => Err(Error::InappropriateHandshakeMessage {
                expect_types: Vec::new(),
                got_type: HandshakeType::from(kind),
            }),
        }
    }

    fn key_update(&mut self, body: &[u8]) -> Result<(), Error> {
        let wanted = match body {
            [0] => false,
            [1] => true,
            _ => return Err(InvalidMessage::InvalidKeyUpdate.into()),
        };
        let error = PeerMisbehaved::TooManyKeyUpdateRequests;
        once_more(&mut self.patience.updates, UPDATES, error)?;
        let Some(secrets) = &mut self.secrets else { return Err(Error::General("no secrets".into())) };
        self.open = secrets.receive.update(&self.open)?;
        // It goes out before the next data; several wishes are met at once.
        self.update_due |= wanted;
        Ok(())
    }

    /// Refused with a warning; the second time for good (RFC 5246 section 7.2.2).
    fn renegotiation(&mut self) -> Result<(), Error> {
        let error = PeerMisbehaved::TooManyRenegotiationRequests;
        once_more(&mut self.patience.renegotiations, 1, error)?;
        self.push(ContentType::Alert, &[WARNING, u8::from(AlertDescription::NoRenegotiation)])
    }
}
