//! The world: sockets, files, clocks, the kernel.

pub mod agent;
pub mod calls;
pub mod conflist;
pub mod conntrack;
pub mod daemon;
pub mod departure;
pub mod events;
pub mod heard;
pub mod host;
pub mod inspect;
pub mod link;
pub mod memory;
pub mod monitor;
pub(crate) mod netfilter;
pub mod netns;
pub mod nflog;
pub mod nft;
pub mod place;
pub mod removal;
pub mod report;
pub mod route;
pub mod rtnl;
pub mod server;
pub mod shaping;
pub mod sysctl;
pub mod uplink;
