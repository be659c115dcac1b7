//! The BFD Control packet (RFC 5880 section 4.1). In: octets of a datagram, as [`Packet::decode`] wants them; out: the packet, or why it is
//! discarded, in the order of section 6.8.6.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;
use thiserror::Error;

/// Octets of a packet without authentication.
pub const LENGTH: usize = 24;
/// Least that the Length field says where there is an authentication section.
const LENGTH_WITH_AUTHENTICATION: u8 = 26;
const VERSION: u8 = 1;

const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const CONTROL_PLANE_INDEPENDENT: u8 = 0x08;
const AUTHENTICATION_PRESENT: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// State of a session (RFC 5880 section 4.1), as one side says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// Administratively down: says nothing about the path.
    AdminDown,
    /// Down.
    Down,
    /// The other side is heard.
    Init,
    /// Both sides hear each other.
    Up,
}

impl State {
    fn of(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }

    fn bits(self) -> u8 {
        match self {
            Self::AdminDown => 0,
            Self::Down => 1,
            Self::Init => 2,
            Self::Up => 3,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Why a session last left Up (RFC 5880 section 4.1, Diagnostic): five bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Diagnostic(u8);

impl Diagnostic {
    /// No Diagnostic.
    pub const NONE: Self = Self(0);
    /// Control Detection Time Expired.
    pub const DETECTION_TIME_EXPIRED: Self = Self(1);
    /// Neighbor Signaled Session Down.
    pub const NEIGHBOR_SIGNALED_DOWN: Self = Self(3);
    /// Administratively Down.
    pub const ADMINISTRATIVELY_DOWN: Self = Self(7);
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            0 => "No Diagnostic",
            1 => "Control Detection Time Expired",
            2 => "Echo Function Failed",
            3 => "Neighbor Signaled Session Down",
            4 => "Forwarding Plane Reset",
            5 => "Path Down",
            6 => "Concatenated Path Down",
            7 => "Administratively Down",
            8 => "Reverse Concatenated Path Down",
            other => return write!(f, "Diagnostic {other}"),
        };
        f.write_str(name)
    }
}

/// A Control packet without authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender's session last left Up.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// P: the sender wants an answer with `fin` at once.
    pub poll: bool,
    /// F: answers a packet with `poll`.
    pub fin: bool,
    /// C: the sender's BFD does not share the fate of its control plane.
    pub control_plane_independent: bool,
    /// D: the sender asks not to be sent packets periodically while both sides are Up.
    pub demand: bool,
    /// Packets that may be lost in a row.
    pub detect_mult: u8,
    /// The sender's number of the session.
    pub my_discriminator: NonZeroU32,
    /// The receiver's number of it, 0 while that is unknown.
    pub your_discriminator: u32,
    /// The least interval at which the sender wants to send; whole microseconds.
    pub desired_min_tx: Duration,
    /// The least interval at which it takes packets; 0: none at all.
    pub required_min_rx: Duration,
    /// The least interval at which it takes Echo packets; 0: none at all.
    pub required_min_echo_rx: Duration,
}

/// Why a datagram is discarded (RFC 5880 section 6.8.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Discard {
    /// There is no whole header.
    #[error("{0} octets are no BFD Control packet")]
    Short(usize),
    /// Another version.
    #[error("version {0}, not 1")]
    Version(u8),
    /// The Length field is below the least.
    #[error("Length {0} is too short")]
    Length(u8),
    /// The Length field says more than there is.
    #[error("Length {0} is more than what came")]
    Truncated(u8),
    /// Detect Mult is 0.
    #[error("Detect Mult is 0")]
    DetectMult,
    /// The Multipoint bit is set.
    #[error("Multipoint is set")]
    Multipoint,
    /// My Discriminator is 0.
    #[error("My Discriminator is 0")]
    MyDiscriminator,
    /// Your Discriminator is 0 in a state in which the sender knows it.
    #[error("Your Discriminator is 0 in state {0}")]
    YourDiscriminator(State),
    /// It is authenticated, and no session here is.
    #[error("it is authenticated, which no session here is")]
    Authentication,
}

impl Packet {
    /// Reads a datagram's payload. What follows the packet is ignored.
    ///
    /// # Errors
    /// The first reason of RFC 5880 section 6.8.6 to discard it, as far as it needs no session to be known.
    pub fn decode(bytes: &[u8]) -> Result<Self, Discard> {
        let Some(header) = bytes.first_chunk::<LENGTH>() else {
            return Err(match bytes.first() {
                Some(first) if first >> 5 != VERSION => Discard::Version(first >> 5),
                _ => Discard::Short(bytes.len()),
            });
        };
        let [first, flags, detect_mult, length, ..] = *header;
        let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let interval = |at: usize| Duration::from_micros(word(at).into());
        let authenticated = flags & AUTHENTICATION_PRESENT != 0;
        let least = if authenticated { LENGTH_WITH_AUTHENTICATION } else { LENGTH as u8 };
        if first >> 5 != VERSION {
            return Err(Discard::Version(first >> 5));
        }
        if length < least {
            return Err(Discard::Length(length));
        }
        if usize::from(length) > bytes.len() {
            return Err(Discard::Truncated(length));
        }
        if detect_mult == 0 {
            return Err(Discard::DetectMult);
        }
        if flags & MULTIPOINT != 0 {
            return Err(Discard::Multipoint);
        }
        let my_discriminator = NonZeroU32::new(word(4)).ok_or(Discard::MyDiscriminator)?;
        let (state, your_discriminator) = (State::of(flags >> 6), word(8));
        if your_discriminator == 0 && !matches!(state, State::Down | State::AdminDown) {
            return Err(Discard::YourDiscriminator(state));
        }
        if authenticated {
            return Err(Discard::Authentication);
        }
        Ok(Self {
            diagnostic: Diagnostic(first & 0x1f),
            state,
            poll: flags & POLL != 0,
            fin: flags & FINAL != 0,
            control_plane_independent: flags & CONTROL_PLANE_INDEPENDENT != 0,
            demand: flags & DEMAND != 0,
            detect_mult,
            my_discriminator,
            your_discriminator,
            desired_min_tx: interval(12),
            required_min_rx: interval(16),
            required_min_echo_rx: interval(20),
        })
    }

    /// The octets.
    #[must_use]
    pub fn encode(&self) -> [u8; LENGTH] {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let mut bytes = [0; LENGTH];
        bytes[0] = VERSION << 5 | self.diagnostic.0 & 0x1f;
        bytes[1] = self.state.bits() << 6
            | bit(self.poll, POLL)
            | bit(self.fin, FINAL)
            | bit(self.control_plane_independent, CONTROL_PLANE_INDEPENDENT)
            | bit(self.demand, DEMAND);
        bytes[2] = self.detect_mult;
        bytes[3] = LENGTH as u8;
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let words = [
            self.my_discriminator.get(),
            self.your_discriminator,
            micros(self.desired_min_tx),
            micros(self.required_min_rx),
            micros(self.required_min_echo_rx),
        ];
        for (place, word) in bytes[4..].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What BIRD 2.0.12 sent on a session that had just come Up at 100 ms × 3.
    const BIRD: [u8; 24] = [
        0x20, 0xe0, 3, 24, 0xa8, 0xd1, 0x97, 0xcf, 0x62, 0x92, 0x02, 0x17, 0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0, 0, 0, 0,
        0,
    ];
    /// What FRR 8.4.4 sent while Down, having been told Down.
    const FRR: [u8; 24] = [
        0x23, 0x40, 3, 24, 0x3b, 0x9d, 0x84, 0x01, 0x72, 0x45, 0x32, 0xa7, 0, 15, 0x42, 0x40, 0, 15, 0x42, 0x40, 0, 0,
        0xc3, 0x50,
    ];

    #[test]
    fn octets_of_a_packet_are_read_and_written_alike() {
        let packet = Packet::decode(&BIRD).unwrap();
        assert_eq!((packet.state, packet.poll, packet.fin, packet.detect_mult), (State::Up, true, false, 3));
        assert_eq!((packet.my_discriminator.get(), packet.your_discriminator), (0xa8d1_97cf, 0x6292_0217));
        assert_eq!(packet.desired_min_tx, Duration::from_millis(100));
        assert_eq!(packet.encode(), BIRD);
        let packet = Packet::decode(&FRR).unwrap();
        assert_eq!((packet.state, packet.diagnostic), (State::Down, Diagnostic::NEIGHBOR_SIGNALED_DOWN));
        assert_eq!(packet.required_min_rx, Duration::from_secs(1));
        assert_eq!(packet.required_min_echo_rx, Duration::from_millis(50));
        assert_eq!(packet.encode(), FRR);
    }

    #[test]
    fn each_rule_of_the_rfc_discards_in_its_order() {
        // Each change breaks one rule more; the first that is broken is the reason.
        let changes: [(usize, u8, Discard); 8] = [
            (1, 0xe4, Discard::Length(24)),
            (3, 26, Discard::Truncated(26)),
            (1, 0xc0, Discard::Truncated(26)),
            (3, 23, Discard::Length(23)),
            (0, 0x40, Discard::Version(2)),
            (0, 0x00, Discard::Version(0)),
            (0, 0x20, Discard::Length(23)),
            (3, 25, Discard::Truncated(25)),
        ];
        let mut bytes = BIRD;
        for (at, value, reason) in changes {
            bytes[at] = value;
            assert_eq!(Packet::decode(&bytes), Err(reason));
        }
        let with = |changes: &[(usize, u8)]| {
            let mut bytes = BIRD;
            changes.iter().for_each(|(at, value)| bytes[*at] = *value);
            Packet::decode(&bytes).err()
        };
        assert_eq!(with(&[(2, 0), (1, 0xe1)]), Some(Discard::DetectMult));
        let no_mine = [(4, 0), (5, 0), (6, 0), (7, 0)];
        let no_yours = [(8, 0), (9, 0), (10, 0), (11, 0)];
        assert_eq!(with(&[&no_mine[..], &[(1, 0xe1)]].concat()), Some(Discard::Multipoint));
        assert_eq!(with(&[&no_mine[..], &no_yours].concat()), Some(Discard::MyDiscriminator));
        assert_eq!(with(&no_yours), Some(Discard::YourDiscriminator(State::Up)));
        assert_eq!(with(&[&no_yours[..], &[(1, 0x80)]].concat()), Some(Discard::YourDiscriminator(State::Init)));
        assert_eq!(with(&[&no_yours[..], &[(1, 0x40)]].concat()), None);
        assert_eq!(with(&[&no_yours[..], &[(1, 0x00)]].concat()), None);
        let mut signed = [0; 26];
        signed[..24].copy_from_slice(&BIRD);
        (signed[1], signed[3]) = (0xe4, 26);
        assert_eq!(Packet::decode(&signed), Err(Discard::Authentication));
        assert_eq!(Packet::decode(&BIRD[..23]), Err(Discard::Short(23)));
        assert_eq!(Packet::decode(&[]), Err(Discard::Short(0)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn no_octets_panic_and_what_is_taken_is_what_is_written(mut bytes in proptest::collection::vec(any::<u8>(), 0..64), likely: bool) {
            if likely && bytes.len() >= LENGTH {
                (bytes[0], bytes[3]) = (0x20 | bytes[0] & 0x1f, LENGTH as u8);
                bytes[1] &= !(MULTIPOINT | AUTHENTICATION_PRESENT);
            }
            if let Ok(packet) = Packet::decode(&bytes) {
                let written = packet.encode();
                prop_assert_eq!(Packet::decode(&written), Ok(packet));
                if bytes[3] == LENGTH as u8 {
                    prop_assert_eq!(&written[..], &bytes[..LENGTH]);
                }
            }
        }
    }
}
