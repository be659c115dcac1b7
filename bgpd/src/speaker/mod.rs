//! The speaker without sockets and clock. In: a [`Config`], sessions that come and go, what peers announce, which next
//! hops are reachable. Out: messages for peers' sockets ([`Output`]), changes for the FIB, and answers about both.

mod adjust;
mod away;
mod config;
mod event;
mod export;
mod group;
mod import;
mod limit;
mod monitor;
mod own;
mod path_attributes;
mod plan;
mod receive;
mod refresh;
mod rejected;
mod restart;
mod retiring;
mod room;
mod routing;
mod session;
mod show;
mod state;
mod templates;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod told;
mod watch;
mod withheld;

pub use config::{AddPath, Bfd, Config, Export, Import, Interface, Member, NextHopRule, Peer, PeerAsn, Shutdown};
pub use event::{Batch, Established, Event, Loss, Op, Output, SessionId, StationId, Then, WITHDRAW};
pub use limit::{Beyond, MaxPrefixes};
pub use monitor::StationEvent;
pub use path_attributes::{Link, PathAttributes};
pub use plan::{PeerChange, Plan};
pub use receive::Receiver;
pub use session::Past;
pub use show::PeerCounts;
pub use state::Speaker;
#[cfg(test)]
pub(crate) use {config::tests::peer as sample_peer, plan::tests::config as sample_config};

pub use templates::{Absent, Range, Seen, Templates, Unnumbered};
