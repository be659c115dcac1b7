//! What of a peer's paths is taken into the RIB.

use super::config::Peer;
use super::event::Established;
use super::path_attributes::PathAttributes;
use std::net::IpAddr;

/// Why a path is not taken, whatever its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Our AS stands in AS_PATH more often than `allowOwnAS` permits (RFC 4271 section 9).
    AsLoop,
    /// ORIGINATOR_ID is our BGP identifier (RFC 4456 section 8).
    Originator,
    /// CLUSTER_LIST names our cluster (RFC 4456 section 8).
    Cluster,
    /// NEXT_HOP is our own address (RFC 4271 section 5.1.3).
    NextHop,
}

/// Whether paths with these attributes are taken from `peer`.
///
/// # Errors
/// The reason why they are not.
pub(super) fn accept(peer: &Peer, session: &Established, asn: u32, attributes: &PathAttributes) -> Result<(), Refusal> {
    let read = attributes.read();
    let ours = session.negotiated.local_asn;
    let shown = if ours == asn { 0 } else { read.as_path.count(asn) };
    if read.as_path.count(ours) + shown > usize::from(peer.allow_own_as) {
        return Err(Refusal::AsLoop);
    }
    if !session.negotiated.ebgp {
        if read.originator_id == Some(session.router_id) {
            return Err(Refusal::Originator);
        }
        if read.cluster_list.contains(&session.router_id.octets()) {
            return Err(Refusal::Cluster);
        }
    }
    let next_hop = attributes.next_hop.map(crate::wire::NextHop::address);
    let own = [session.next_hop_v4.map(IpAddr::V4), session.next_hop_v6.map(IpAddr::V6)];
    if next_hop.is_some() && own.contains(&next_hop) {
        return Err(Refusal::NextHop);
    }
    Ok(())
}
