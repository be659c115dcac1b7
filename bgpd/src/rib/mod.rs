//! Paths by prefix. In: announcements and withdrawals of peers, and which next hops are reachable. Out: for each prefix
//! the best path and the paths that share its load, and which prefixes changed.
//!
//! One [`Table`] per family. A prefix and a path are numbers into chunked arenas, an attribute set is a number into
//! [`Attributes`]; nothing is allocated per prefix.

mod arena;
mod attributes;
mod counts;
mod decision;
mod dirty;
mod key;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod model;
mod sweep;
mod table;

pub use arena::Arena;
pub use attributes::{AttrId, AttributeSet, Attributes, HopId, Rank};
pub use decision::{PeerRank, Source};
pub use dirty::{Bitmap, DirtyList};
pub use key::{Key, V4, V6};
pub use table::{Change, MAX_PATHS, Path, PathId, PeerId, PrefixId, Table, Teller};
