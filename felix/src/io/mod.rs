//! The world: sockets, files, clocks, the kernel.

pub mod link;
pub mod netns;
pub mod route;
pub mod rtnl;
pub mod sysctl;
