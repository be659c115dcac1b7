//! bgpd

pub mod fib;
pub mod io;
pub mod rib;
pub mod speaker;
pub mod wire;
