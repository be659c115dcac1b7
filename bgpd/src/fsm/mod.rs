//! The session FSM of RFC 4271 section 8, without a socket and without a clock. In flow what happened (a connection
//! came up, a frame arrived, time passed); out flow [`Output`]s to be performed in order. A [`Peer`] owns up to two
//! connections, one of each direction while a collision lasts.
//!
//! **Collisions** (RFC 4271 section 6.8, RFC 6286). The connection opened by the speaker with the larger identifier is
//! the *preferred* one. The usual race is that one side calls the other connection Established while its peer closes
//! it, and both are lost; so a speaker *commits* to a connection by sending its KEEPALIVE, commits to only one, and
//! holds back the KEEPALIVE of one that is not preferred while the preferred one may still come up. Whatever the
//! interleaving, no two speakers of this kind commit to different connections while both live, and one that follows the
//! RFC to the letter is never led into Established on a connection that we are about to close.
//!
//! **Times** are durations since any fixed moment, monotonic. **Randomness** comes from the seed.

mod add_path;
mod config;
mod connection;
mod ending;
mod messages;
mod negotiate;
mod output;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod pair;
mod path;
mod peer;
mod retry;

pub use config::{LocalRole, PeerConfig, RemoteAs};
pub use connection::State;
pub(crate) use ending::keeps_routes;
pub(crate) use negotiate::negotiate as agree;
pub use output::{ConnId, Output, Reason, Received, Stop};
pub use peer::Peer;

/// Time since any fixed moment.
pub type Time = std::time::Duration;
