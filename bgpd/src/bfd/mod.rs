//! Bidirectional Forwarding Detection (RFC 5880; 5881 over one hop, 5883 over several), without a socket and without a clock. In flow packets,
//! time, and what clients want; out flow packets to be sent, and what became of sessions.
//!
//! Asynchronous mode, active role on both sides. Left out: authentication (RFC 5880 section 6.7), the Echo function, and asking for Demand
//! mode ourselves; a peer that asks for it is obeyed.

mod clients;
mod handover;
mod packet;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod pair;
mod session;

pub use clients::{ClientId, Clients, Wanted};
pub use handover::{Handover, Kept, SILENCE};
pub use packet::{Diagnostic, Discard, LENGTH, Packet, State};
pub use session::{Change, Output, Session, Suspended, Timing};

/// Time since any fixed moment.
pub type Time = std::time::Duration;

/// UDP port of sessions over one hop (RFC 5881 section 4).
pub const SINGLE_HOP_PORT: u16 = 3784;
/// UDP port of sessions over several hops (RFC 5883 section 5).
pub const MULTIHOP_PORT: u16 = 4784;
/// TTL or Hop Limit of every packet, and the only one that is accepted over one hop (RFC 5881 section 5).
pub const TTL: u8 = 255;
/// Source ports of sessions (RFC 5881 section 4).
pub const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;
