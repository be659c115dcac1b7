//! The stream as messages: header checks of RFC 4271 section 6.1, with the lengths of RFC 8654.

use super::Notification;

/// Octets of the message header.
pub const HEADER_LEN: usize = 19;
/// Octets of the longest message without RFC 8654, and of the longest OPEN and KEEPALIVE with it.
pub const MAX_MESSAGE: usize = 4096;
/// Octets of the longest message with RFC 8654.
pub const MAX_EXTENDED: usize = 65535;

/// Message type (RFC 4271 section 4.1, RFC 2918).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MessageType {
    /// OPEN.
    Open = 1,
    /// UPDATE.
    Update = 2,
    /// NOTIFICATION.
    Notification = 3,
    /// KEEPALIVE.
    Keepalive = 4,
    /// ROUTE-REFRESH.
    RouteRefresh = 5,
}

impl MessageType {
    const fn from_octet(octet: u8) -> Option<Self> {
        match octet {
            1 => Some(MessageType::Open),
            2 => Some(MessageType::Update),
            3 => Some(MessageType::Notification),
            4 => Some(MessageType::Keepalive),
            5 => Some(MessageType::RouteRefresh),
            _ => None,
        }
    }

    /// Whether a message of this type may have `length` octets on a session that allows `max`.
    const fn allows(self, length: usize, max: usize) -> bool {
        match self {
            MessageType::Open => length >= 29 && length <= MAX_MESSAGE,
            MessageType::Update => length >= 23 && length <= max,
            MessageType::Notification => length >= 21 && length <= max,
            MessageType::Keepalive => length == HEADER_LEN,
            MessageType::RouteRefresh => length >= 23 && length <= max,
        }
    }
}

/// One whole message with a checked header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its type.
    pub kind: MessageType,
    /// The message, header included.
    pub bytes: &'a [u8],
}

/// Cuts a stream into messages. Holds no bytes: the caller keeps what has not been consumed.
///
/// ```
/// # use twill_bgpd::wire::{Framer, MessageType, encode_keepalive};
/// let mut buffer = Vec::new();
/// encode_keepalive(&mut buffer);
/// buffer.push(0xff); // the beginning of the next message
/// let mut framer = Framer::new(&buffer, 4096);
/// assert_eq!(framer.next_frame().unwrap().unwrap().kind, MessageType::Keepalive);
/// assert!(framer.next_frame().unwrap().is_none());
/// assert_eq!(framer.consumed(), 19);
/// ```
#[derive(Debug)]
pub struct Framer<'a> {
    bytes: &'a [u8],
    at: usize,
    max: usize,
}

impl<'a> Framer<'a> {
    /// Over everything received and not yet consumed; `max` is [`super::Negotiated::max_message`], before Established
    /// [`MAX_MESSAGE`].
    #[must_use]
    pub fn new(bytes: &'a [u8], max: usize) -> Self {
        Framer { bytes, at: 0, max }
    }

    /// The next message; `None`: more bytes are needed. After an error the stream is lost.
    ///
    /// # Errors
    /// Connection Not Synchronized, Bad Message Length or Bad Message Type, as soon as the header shows it.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'a>>, Notification> {
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        let Some(header) = rest.first_chunk::<HEADER_LEN>() else {
            return match rest.iter().take(16).all(|octet| *octet == 0xff) {
                true => Ok(None),
                false => Err(Notification::not_synchronized()),
            };
        };
        if header[..16] != [0xff; 16] {
            return Err(Notification::not_synchronized());
        }
        let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
        let kind = MessageType::from_octet(header[18]);
        if length < HEADER_LEN || length > self.max {
            return Err(Notification::bad_length(length));
        }
        let kind = kind.ok_or_else(|| Notification::bad_type(header[18]))?;
        if !kind.allows(length, self.max) {
            return Err(Notification::bad_length(length));
        }
        let Some(bytes) = rest.get(..length) else { return Ok(None) };
        self.at += length;
        Ok(Some(Frame { kind, bytes }))
    }

    /// Octets of all messages that were yielded.
    #[must_use]
    pub fn consumed(&self) -> usize {
        self.at
    }
}

/// Appends a header whose length [`finish`] fills in; returns where the message starts.
pub(super) fn begin(out: &mut Vec<u8>, kind: MessageType) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0xff; 16]);
    out.extend_from_slice(&[0, 0, kind as u8]);
    start
}

/// Fills in the length of the message that starts at `start` and ends where `out` ends.
pub(super) fn finish(out: &mut [u8], start: usize) {
    let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    out[start + 16..start + 18].copy_from_slice(&length.to_be_bytes());
}
