//! The BGP-4 codec. In flow bytes and what the session negotiated ([`Negotiated`]: nothing is ever guessed from the
//! bytes); out flow messages that borrow from those bytes, or the consequence of an error: a [`Notification`] that
//! ends the session, or one of RFC 7606's milder approaches inside [`Update`]. The other way, attribute sets and
//! prefixes become messages in a caller's buffer.
//!
//! ```text
//! stream ──Framer──▶ frame ──decode_update──▶ Update ──AttributeBlock::write_canonical──▶ canonical bytes (interned)
//!                                                                                                │
//! stream ◀──UpdateBuilder (many prefixes, one set)◀── export block ◀──Attributes::export(Edits)──┘
//! ```
//!
//! *Canonical* attribute bytes are the one form in which attributes live between receipt and sending: ascending types,
//! four-octet AS numbers (AS4_PATH and AS4_AGGREGATOR merged in), without NEXT_HOP, MP_REACH_NLRI, MP_UNREACH_NLRI and
//! whatever must not be passed on. Two UPDATEs with the same meaning have the same canonical bytes.

mod as_path;
mod attributes;
mod block;
mod builder;
mod capability;
mod export;
mod family;
mod frame;
mod negotiated;
mod notification;
mod open;
mod prefix;
mod refresh;
mod update;

pub use as_path::{AsPath, Segment, Segments};
pub use attributes::{Aggregator, Attributes, Origin};
pub use block::{AttributeBlock, AttributeSet, Fault};
pub use builder::{TooLong, UpdateBuilder, encode_end_of_rib, encode_keepalive};
pub use capability::{Capability, GracefulRestart, LongLived, Role};
pub use export::{Edits, Reflection, Value};
pub use family::{AfiSafi, Families, Family};
pub use frame::{Frame, Framer, HEADER_LEN, MAX_EXTENDED, MAX_MESSAGE, MessageType};
pub use negotiated::Negotiated;
pub use notification::{Code, Notification, cease};
pub use open::{AS_TRANS, Open};
pub use prefix::{NextHop, PrefixIter, PrefixKey, Prefixes, V4, V6};
pub use refresh::{RefreshKind, RouteRefresh};
pub use update::{Outcome, Reach, Update};
