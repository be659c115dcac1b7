//! NOTIFICATION (RFC 4271 section 4.5): the last message of a session, and so the type of every error that ends one.

use super::AfiSafi;
use super::frame::{HEADER_LEN, MAX_MESSAGE, MessageType, begin, finish};
use std::fmt;

/// Error code (RFC 4271 section 4.5, RFC 7313 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    /// Message Header Error.
    Header = 1,
    /// OPEN Message Error.
    Open = 2,
    /// UPDATE Message Error.
    Update = 3,
    /// Hold Timer Expired.
    HoldTimer = 4,
    /// Finite State Machine Error.
    Fsm = 5,
    /// Cease.
    Cease = 6,
    /// ROUTE-REFRESH Message Error.
    RouteRefresh = 7,
    /// Send Hold Timer Expired (RFC 9687): never sent, used in logs.
    SendHoldTimer = 8,
}

/// Subcodes of Cease (RFC 4486, RFC 8538).
pub mod cease {
    /// Maximum Number of Prefixes Reached.
    pub const MAX_PREFIXES: u8 = 1;
    /// Administrative Shutdown; may carry text.
    pub const SHUTDOWN: u8 = 2;
    /// Peer De-configured.
    pub const DECONFIGURED: u8 = 3;
    /// Administrative Reset; may carry text.
    pub const RESET: u8 = 4;
    /// Connection Rejected.
    pub const REJECTED: u8 = 5;
    /// Other Configuration Change.
    pub const CONFIG_CHANGE: u8 = 6;
    /// Connection Collision Resolution.
    pub const COLLISION: u8 = 7;
    /// Out of Resources.
    pub const OUT_OF_RESOURCES: u8 = 8;
    /// Hard Reset (RFC 8538): ends graceful restart too.
    pub const HARD_RESET: u8 = 9;
    /// BFD Down (RFC 9384).
    pub const BFD_DOWN: u8 = 10;
}

/// A NOTIFICATION, sent or received.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Notification {
    /// Error code; any octet may be received.
    pub code: u8,
    /// Error subcode; 0 is unspecific.
    pub subcode: u8,
    /// Data, as the subcode defines it.
    pub data: Vec<u8>,
}

impl Notification {
    /// Any code and subcode without data.
    #[must_use]
    pub const fn new(code: Code, subcode: u8) -> Self {
        Notification { code: code as u8, subcode, data: Vec::new() }
    }

    /// Cease with the text of RFC 9003, cut at 255 octets between characters.
    #[must_use]
    pub fn cease(subcode: u8, text: &str) -> Self {
        let mut end = text.len().min(255);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut data = Vec::new();
        if end > 0 {
            data.push(u8::try_from(end).unwrap_or(u8::MAX));
            data.extend_from_slice(&text.as_bytes()[..end]);
        }
        Notification { code: Code::Cease as u8, subcode, data }
    }

    /// Maximum Number of Prefixes Reached, with what it is about (RFC 4486 section 4).
    #[must_use]
    pub fn max_prefixes(family: AfiSafi, limit: u32) -> Self {
        let [afi, safi] = [&family.afi.to_be_bytes()[..], &[family.safi]];
        let data = [afi, safi, &limit.to_be_bytes()].concat();
        Notification { code: Code::Cease as u8, subcode: cease::MAX_PREFIXES, data }
    }

    /// OPEN Message Error.
    #[must_use]
    pub(crate) const fn open(subcode: u8, data: Vec<u8>) -> Self {
        Notification { code: Code::Open as u8, subcode, data }
    }

    /// UPDATE Message Error.
    #[must_use]
    pub(crate) const fn update(subcode: u8, data: Vec<u8>) -> Self {
        Notification { code: Code::Update as u8, subcode, data }
    }

    /// Connection Not Synchronized.
    #[must_use]
    pub(crate) const fn not_synchronized() -> Self {
        Notification::new(Code::Header, 1)
    }

    /// Bad Message Length, with the length as it stood in the header.
    #[must_use]
    pub(crate) fn bad_length(length: usize) -> Self {
        let length = u16::try_from(length).unwrap_or(u16::MAX);
        Notification { code: Code::Header as u8, subcode: 2, data: length.to_be_bytes().to_vec() }
    }

    /// Bad Message Type.
    #[must_use]
    pub(crate) fn bad_type(kind: u8) -> Self {
        Notification { code: Code::Header as u8, subcode: 3, data: vec![kind] }
    }

    /// Reads a whole message.
    #[must_use]
    pub fn decode(message: &[u8]) -> Self {
        match message.get(HEADER_LEN..) {
            Some([code, subcode, data @ ..]) => Notification { code: *code, subcode: *subcode, data: data.to_vec() },
            // The framer lets none shorter than 21 octets pass.
            _ => Notification { code: 0, subcode: 0, data: Vec::new() },
        }
    }

    /// Appends the message; data beyond 4096 octets of message are cut.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = begin(out, MessageType::Notification);
        out.extend_from_slice(&[self.code, self.subcode]);
        out.extend_from_slice(&self.data[..self.data.len().min(MAX_MESSAGE - HEADER_LEN - 2)]);
        finish(out, start);
    }

    /// Shutdown text of a Cease (RFC 9003), if it has one that is UTF-8; control characters are replaced, since it
    /// goes to a terminal.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        if self.code != Code::Cease as u8 || !matches!(self.subcode, cease::SHUTDOWN | cease::RESET) {
            return None;
        }
        let (length, rest) = self.data.split_first()?;
        let text = std::str::from_utf8(rest.get(..usize::from(*length))?).ok()?;
        let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        (!clean.is_empty()).then_some(clean)
    }

    /// Whether graceful restart survives this NOTIFICATION when both sides sent the N bit (RFC 8538 section 4): all but
    /// Hard Reset.
    #[must_use]
    pub fn is_hard_reset(&self) -> bool {
        self.code == Code::Cease as u8 && self.subcode == cease::HARD_RESET
    }

    /// The same, as an end after which no route is kept: a Hard Reset that carries it (RFC 8538 section 3.1).
    #[must_use]
    pub fn hard_reset(&self) -> Self {
        let mut data = vec![self.code, self.subcode];
        data.extend_from_slice(&self.data);
        Self { code: Code::Cease as u8, subcode: cease::HARD_RESET, data }
    }

    /// What a Hard Reset carries.
    fn carried(&self) -> Option<Self> {
        let [code, subcode, data @ ..] = &self.data[..] else { return None };
        self.is_hard_reset().then(|| Self { code: *code, subcode: *subcode, data: data.to_vec() })
    }

    fn names(&self) -> (&'static str, &'static str) {
        let index = usize::from(self.subcode);
        let pick = |names: &[&'static str]| names.get(index).copied().unwrap_or("");
        match self.code {
            1 => (
                "Message Header Error",
                pick(&["", "Connection Not Synchronized", "Bad Message Length", "Bad Message Type"]),
            ),
            2 => (
                "OPEN Message Error",
                pick(&[
                    "",
                    "Unsupported Version Number",
                    "Bad Peer AS",
                    "Bad BGP Identifier",
                    "Unsupported Optional Parameter",
                    "",
                    "Unacceptable Hold Time",
                    "Unsupported Capability",
                    "",
                    "",
                    "",
                    "Role Mismatch",
                ]),
            ),
            3 => (
                "UPDATE Message Error",
                pick(&[
                    "",
                    "Malformed Attribute List",
                    "Unrecognized Well-known Attribute",
                    "Missing Well-known Attribute",
                    "Attribute Flags Error",
                    "Attribute Length Error",
                    "Invalid ORIGIN Attribute",
                    "",
                    "Invalid NEXT_HOP Attribute",
                    "Optional Attribute Error",
                    "Invalid Network Field",
                    "Malformed AS_PATH",
                ]),
            ),
            4 => ("Hold Timer Expired", ""),
            5 => (
                "Finite State Machine Error",
                pick(&[
                    "",
                    "Unexpected Message in OpenSent",
                    "Unexpected Message in OpenConfirm",
                    "Unexpected Message in Established",
                ]),
            ),
            6 => (
                "Cease",
                pick(&[
                    "",
                    "Maximum Number of Prefixes Reached",
                    "Administrative Shutdown",
                    "Peer De-configured",
                    "Administrative Reset",
                    "Connection Rejected",
                    "Other Configuration Change",
                    "Connection Collision Resolution",
                    "Out of Resources",
                    "Hard Reset",
                    "BFD Down",
                ]),
            ),
            7 => ("ROUTE-REFRESH Message Error", pick(&["", "Invalid Message Length"])),
            8 => ("Send Hold Timer Expired", ""),
            _ => ("unknown error", ""),
        }
    }
}

impl fmt::Display for Notification {
    /// `Cease: Administrative Shutdown (6/2), "text"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, subcode) = self.names();
        f.write_str(code)?;
        if !subcode.is_empty() {
            write!(f, ": {subcode}")?;
        }
        write!(f, " ({}/{})", self.code, self.subcode)?;
        // A Hard Reset inside another one means nothing, and could go on for long.
        if let Some(carried) = self.carried().filter(|carried| !carried.is_hard_reset()) {
            return write!(f, ": {carried}");
        }
        match self.text() {
            Some(text) => write!(f, ", \"{text}\""),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Notification {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn shutdown_text_is_cut_between_characters_and_shown_without_control_characters() {
        let long = "ü".repeat(200);
        let cease = Notification::cease(cease::SHUTDOWN, &long);
        assert_eq!(cease.text().unwrap(), "ü".repeat(127));
        let nasty = Notification::cease(cease::RESET, "a\u{1b}[2Jb\n");
        assert_eq!(nasty.text().unwrap(), "a [2Jb ");
        assert_eq!(Notification::cease(cease::SHUTDOWN, "").text(), None);
    }

    #[test]
    fn text_that_is_none_is_not_shown() {
        for data in [vec![], vec![5, b'a'], vec![2, 0xff, 0xfe], vec![0]] {
            let notification = Notification { code: 6, subcode: 2, data };
            assert_eq!(notification.text(), None, "{notification:?}");
        }
        let other = Notification { code: 6, subcode: 5, data: vec![1, b'a'] };
        assert_eq!(other.text(), None, "only shutdown and reset carry text");
    }

    #[test]
    fn it_reads_as_a_sentence() {
        let cease = Notification::cease(cease::SHUTDOWN, "new cables");
        assert_eq!(cease.to_string(), "Cease: Administrative Shutdown (6/2), \"new cables\"");
        assert_eq!(Notification::new(Code::HoldTimer, 0).to_string(), "Hold Timer Expired (4/0)");
        assert_eq!(cease.hard_reset().to_string(), format!("Cease: Hard Reset (6/9): {cease}"));
        assert_eq!(cease.hard_reset().hard_reset().to_string(), "Cease: Hard Reset (6/9)");
        assert_eq!(Notification { code: 6, subcode: 9, data: vec![6] }.to_string(), "Cease: Hard Reset (6/9)");
        assert_eq!(Notification { code: 99, subcode: 7, data: vec![] }.to_string(), "unknown error (99/7)");
    }

    #[test]
    fn a_message_never_grows_beyond_what_every_peer_takes() {
        let mut bytes = Vec::new();
        Notification { code: 3, subcode: 1, data: vec![0; 60_000] }.encode(&mut bytes);
        assert_eq!(bytes.len(), MAX_MESSAGE);
        assert_eq!(Notification::decode(&bytes).data.len(), MAX_MESSAGE - 21);
    }
}
