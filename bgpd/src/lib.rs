//! bgpd

pub mod rib;
