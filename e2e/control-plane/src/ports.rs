//! Ports for servers.

use anyhow::Context;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below those that the kernel gives to whoever asks for any (`ip_local_port_range`): between the look for a port and the start of its
/// server, or while that is down, a connection that somebody opens would have it. Above those of well-known servers.
const PORTS: Range<u16> = 20_000..30_000;

/// A port of loopback that is free now, and no other that this process was told.
///
/// # Errors
/// All are taken.
pub fn free_port() -> anyhow::Result<u16> {
    static TOLD: AtomicU16 = AtomicU16::new(0);
    let of_process = std::process::id().wrapping_mul(37);
    let next = || of_process.wrapping_add(TOLD.fetch_add(1, Ordering::Relaxed).into()) % PORTS.len() as u32;
    let mut candidates = PORTS.map(|_| PORTS.start + next() as u16);
    let found = candidates.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
    found.with_context(|| format!("no port from {} to {} is free on loopback", PORTS.start, PORTS.end - 1))
}
