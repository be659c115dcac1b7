//! What HostPolicies need of the world: facts of the node, self-tests, and what is kept over a restart.

pub mod activation;
pub mod facts;
pub mod kept;
pub mod look;
pub mod names;
pub mod resolvers;
pub mod sockets;
pub mod test;
