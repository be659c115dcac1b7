//! bgpd

pub mod config;
pub mod fib;
pub mod fsm;
pub mod io;
pub mod rib;
pub mod speaker;
pub mod wire;
