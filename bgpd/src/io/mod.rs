//! All that touches the world: sockets, the kernel, the datastore, the clock.

pub mod netlink;
