//! What a monitoring station is told (BMP, RFC 7854): messages about sessions and about what peers have told. Nothing flows in from a station.

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use crate::fsm::Reason;
use crate::wire::{AfiSafi, Family};
use bytes::Bytes;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const VERSION: u8 = 3;
/// Octets of version, length and type.
const HEADER: usize = 6;

/// Message types (section 4.1).
mod kind {
    pub(super) const ROUTE_MONITORING: u8 = 0;
    pub(super) const STATISTICS: u8 = 1;
    pub(super) const PEER_DOWN: u8 = 2;
    pub(super) const PEER_UP: u8 = 3;
    pub(super) const INITIATION: u8 = 4;
    pub(super) const TERMINATION: u8 = 5;
}

/// Peer flags (section 4.2): the address is IPv6; what is told is what our filters made of it.
const FLAG_V: u8 = 0x80;
const FLAG_L: u8 = 0x40;

/// A peer as stations know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// Its AS.
    pub asn: u32,
    /// Its BGP identifier.
    pub identifier: Ipv4Addr,
}

/// How a session came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Our end of the connection.
    pub local: SocketAddr,
    /// The peer's port.
    pub remote_port: u16,
    /// Our OPEN, header included.
    pub sent: Bytes,
    /// The peer's.
    pub received: Bytes,
}

/// Appends Initiation: the first message of a session.
pub fn initiation(name: &str, out: &mut Vec<u8>) {
    let start = begin(kind::INITIATION, out);
    put_tlv(1, concat!("Twill bgpd ", env!("CARGO_PKG_VERSION")).as_bytes(), out);
    put_tlv(2, name.as_bytes(), out);
    finish(start, out);
}

/// Appends Termination: the session ends because an operator wants so.
pub fn termination(out: &mut Vec<u8>) {
    let start = begin(kind::TERMINATION, out);
    put_tlv(1, &[0, 0], out);
    finish(start, out);
}

/// Appends Peer Up: there is a session with the peer.
pub fn peer_up(peer: &Peer, opening: &Opening, out: &mut Vec<u8>) {
    let start = begin_of(kind::PEER_UP, peer, 0, out);
    out.extend_from_slice(&sixteen(opening.local.ip()));
    out.extend_from_slice(&opening.local.port().to_be_bytes());
    out.extend_from_slice(&opening.remote_port.to_be_bytes());
    out.extend_from_slice(&opening.sent);
    out.extend_from_slice(&opening.received);
    finish(start, out);
}

/// Appends Peer Down: the session is over, and with it all that the peer told. Without a reason: it is not configured any more.
pub fn peer_down(peer: &Peer, reason: Option<&Reason>, out: &mut Vec<u8>) {
    let start = begin_of(kind::PEER_DOWN, peer, 0, out);
    match reason {
        Some(Reason::Sent(notification)) => {
            out.push(1);
            notification.encode(out);
        }
        // No event of RFC 4271's FSM stands for these.
        Some(Reason::SendHoldTimer | Reason::Stopped) => out.extend_from_slice(&[2, 0, 0]),
        Some(Reason::Received(notification)) => {
            out.push(3);
            notification.encode(out);
        }
        Some(Reason::Closed | Reason::Restarted | Reason::NotConnected) => out.push(4),
        None => out.push(5),
    }
    finish(start, out);
}

/// Appends one Route Monitoring per message of `updates`: what our filters left of what the peer told.
pub fn route_monitoring(peer: &Peer, mut updates: &[u8], out: &mut Vec<u8>) {
    while let Some(length) = updates.get(16..18).map(|octets| usize::from(u16::from_be_bytes([octets[0], octets[1]]))) {
        let Some((message, rest)) = updates.split_at_checked(length.max(1)) else { return };
        let start = begin_of(kind::ROUTE_MONITORING, peer, FLAG_L, out);
        out.extend_from_slice(message);
        finish(start, out);
        updates = rest;
    }
}

/// How much a peer has told and been told, now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Paths of each family that were taken.
    pub received: Vec<(Family, u64)>,
    /// Paths that it was told.
    pub advertised: u64,
}

/// Appends a Statistics Report: routes in Adj-RIBs-In (7), the same by family (9), and in Adj-RIB-Out after our filters (RFC 8671, 15).
pub fn statistics(peer: &Peer, counts: &Statistics, out: &mut Vec<u8>) {
    let start = begin_of(kind::STATISTICS, peer, 0, out);
    out.extend_from_slice(&(counts.received.len() as u32 + 2).to_be_bytes());
    let all: u64 = counts.received.iter().map(|(_, count)| count).sum();
    put_tlv(7, &all.to_be_bytes(), out);
    for (family, count) in &counts.received {
        let AfiSafi { afi, safi } = (*family).into();
        put_tlv(9, &[&afi.to_be_bytes()[..], &[safi], &count.to_be_bytes()].concat(), out);
    }
    put_tlv(15, &counts.advertised.to_be_bytes(), out);
    finish(start, out);
}

/// Begins a message; returns where it starts.
fn begin(kind: u8, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[VERSION, 0, 0, 0, 0, kind]);
    start
}

/// Begins a message about a peer of the global instance. When something happened is not said: a station has a clock.
fn begin_of(kind: u8, peer: &Peer, flags: u8, out: &mut Vec<u8>) -> usize {
    let start = begin(kind, out);
    let version = if peer.address.is_ipv6() { FLAG_V } else { 0 };
    out.extend_from_slice(&[0, flags | version]);
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&sixteen(peer.address));
    out.extend_from_slice(&peer.asn.to_be_bytes());
    out.extend_from_slice(&peer.identifier.octets());
    out.extend_from_slice(&[0; 8]);
    start
}

fn finish(start: usize, out: &mut [u8]) {
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[start + 1..start + HEADER - 1].copy_from_slice(&length.to_be_bytes());
}

fn put_tlv(kind: u16, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(value);
}

/// An IPv4 address stands in the last four octets.
fn sixteen(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(address) => {
            let mut octets = [0; 16];
            octets[12..].copy_from_slice(&address.octets());
            octets
        }
    }
}
