//! `twill bfd`: the process that speaks BFD for others and outlives them, so that a peer which hears no BGP for a while still knows that
//! packets get through.
//!
//! In flow clients' wishes on the control socket, packets and time; out flow packets, and what became of sessions.

mod client;
mod engine;
mod handover;
mod live;
mod realtime;
mod server;
mod sockets;

pub use client::Responder;
pub(super) use client::{Client, Event, Wishes};
pub use server::run;
