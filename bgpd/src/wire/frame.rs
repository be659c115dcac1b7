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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn header(length: u16, kind: u8) -> Vec<u8> {
        let mut bytes = vec![0xff; 16];
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.push(kind);
        bytes
    }

    fn error(bytes: &[u8], max: usize) -> (u8, u8, Vec<u8>) {
        let error = Framer::new(bytes, max).next_frame().unwrap_err();
        (error.code, error.subcode, error.data)
    }

    #[test]
    fn messages_are_cut_from_a_stream_however_it_arrives() {
        let mut stream = Vec::new();
        for _ in 0..3 {
            super::super::encode_keepalive(&mut stream);
            super::super::encode_end_of_rib(super::super::Family::Ipv4Unicast, &mut stream);
        }
        for step in 1..stream.len() {
            let (mut buffer, mut kinds) = (Vec::new(), Vec::new());
            for chunk in stream.chunks(step) {
                buffer.extend_from_slice(chunk);
                let mut framer = Framer::new(&buffer, MAX_MESSAGE);
                while let Some(frame) = framer.next_frame().unwrap() {
                    kinds.push(frame.kind);
                }
                let consumed = framer.consumed();
                buffer.drain(..consumed);
            }
            assert_eq!(kinds, [MessageType::Keepalive, MessageType::Update].repeat(3));
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn a_marker_that_is_not_all_ones_is_an_error_as_soon_as_it_shows() {
        assert_eq!(error(b"GET / HTTP/1.1\r\n", 4096), (1, 1, vec![]));
        assert_eq!(error(&[0xff, 0xff, 0xfe], 4096), (1, 1, vec![]));
        let mut late = header(19, 4);
        late[15] = 0;
        assert_eq!(error(&late, 4096), (1, 1, vec![]));
        assert_eq!(Framer::new(&[0xff; 3], 4096).next_frame(), Ok(None));
    }

    #[test]
    fn lengths_are_judged_by_type_and_by_what_was_negotiated() {
        for (length, kind) in [(18, 4), (20, 4), (28, 1), (22, 2), (20, 3), (22, 5), (4097, 2), (0, 2)] {
            let [high, low] = u16::to_be_bytes(length);
            assert_eq!(error(&header(length, kind), 4096), (1, 2, vec![high, low]), "{length} of type {kind}");
        }
        // With extended messages an UPDATE may be longer, an OPEN may not (RFC 8654 section 4).
        assert_eq!(Framer::new(&header(4097, 2), MAX_EXTENDED).next_frame(), Ok(None));
        assert_eq!(error(&header(4097, 1), MAX_EXTENDED), (1, 2, vec![0x10, 1]));
    }

    #[test]
    fn unknown_types_are_named() {
        assert_eq!(error(&header(23, 0), 4096), (1, 3, vec![0]));
        assert_eq!(error(&header(23, 6), 4096), (1, 3, vec![6]));
    }
}
