//! bgpd

pub mod rib;
pub mod wire;
