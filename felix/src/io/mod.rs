//! The world: sockets, files, clocks, the kernel.

pub mod link;
pub mod monitor;
pub mod netns;
pub mod nft;
pub mod route;
pub mod rtnl;
pub mod sysctl;
