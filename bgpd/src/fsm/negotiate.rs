//! Our OPEN, and what an OPEN of the peer makes of it.

use super::add_path;
use super::config::{LocalRole, PeerConfig, RemoteAs};
use crate::wire::{AfiSafi, Capability, Families, Family, GracefulRestart, LongLived, Negotiated, Notification, Open};

/// Capability codes that are left out of our OPEN because the peer refused them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Refused {
    /// The peer does not know capabilities at all (RFC 5492 section 3).
    pub(super) all: bool,
    /// Single codes.
    pub(super) codes: Vec<u8>,
}

impl Refused {
    /// Learns from a NOTIFICATION to our OPEN; false if it teaches nothing.
    pub(super) fn learn(&mut self, notification: &Notification) -> bool {
        match (notification.code, notification.subcode) {
            (2, 4) => !std::mem::replace(&mut self.all, true),
            (2, 7) => {
                let before = self.codes.len();
                let mut rest = &notification.data[..];
                while let [code, length, tail @ ..] = rest {
                    // Families, roles and AS numbers cannot be left out without changing what the session is.
                    if !matches!(code, 1 | 9 | 65) && !self.codes.contains(code) {
                        self.codes.push(*code);
                    }
                    rest = tail.get(usize::from(*length)..).unwrap_or(&[]);
                }
                self.codes.len() > before
            }
            _ => false,
        }
    }
}

/// Our OPEN.
pub(super) fn open(config: &PeerConfig, refused: &Refused) -> Open {
    let mut capabilities: Vec<Capability> =
        config.families.iter().map(|family| Capability::Multiprotocol(family.into())).collect();
    capabilities.push(Capability::RouteRefresh);
    if config.extended_next_hop && config.families.contains(Family::Ipv4Unicast) {
        capabilities.push(Capability::ExtendedNextHop(vec![IPV4_OVER_IPV6]));
    }
    capabilities.push(Capability::ExtendedMessage);
    if let Some(restart) = &config.graceful_restart {
        let families =
            restart.families.iter().filter(|(family, _)| offered(config, *family)).copied().collect::<Vec<_>>();
        capabilities.push(Capability::GracefulRestart(GracefulRestart { families, ..restart.clone() }));
    }
    if let Some(long) = config.long_lived.as_ref().filter(|_| config.graceful_restart.is_some()) {
        let families = long.families.iter().filter(|(family, ..)| offered(config, *family)).copied().collect();
        capabilities.push(Capability::LongLived(LongLived { families }));
    }
    capabilities.extend(config.role.map(|role| Capability::Role(role.ours)));
    let mode = add_path::mode(config.add_path_receive, config.add_path_send);
    if mode != 0 {
        capabilities.push(Capability::AddPath(config.families.iter().map(|family| (family.into(), mode)).collect()));
    }
    capabilities.push(Capability::FourOctetAs(config.local_asn));
    capabilities.push(Capability::EnhancedRouteRefresh);
    capabilities.retain(|capability| !refused.all && !refused.codes.contains(&capability.code()));
    Open { asn: config.local_asn, hold_time: config.hold_time, identifier: config.identifier, capabilities }
}

fn offered(config: &PeerConfig, family: AfiSafi) -> bool {
    family.family().is_some_and(|family| config.families.contains(family))
}

/// What our OPEN and the peer's make together.
///
/// # Errors
/// Bad Peer AS, Bad BGP Identifier, Role Mismatch, Unsupported Capability (no family in common).
pub(crate) fn negotiate(config: &PeerConfig, ours: &Open, theirs: &Open) -> Result<Negotiated, Notification> {
    let welcome = match config.remote_asn {
        RemoteAs::Exactly(asn) => theirs.asn == asn,
        RemoteAs::External => theirs.asn != config.local_asn,
    };
    if !welcome {
        return Err(Notification::open(2, Vec::new()));
    }
    let ebgp = theirs.asn != config.local_asn;
    // RFC 6286 section 2.2: unique inside an AS only.
    if !ebgp && theirs.identifier == config.identifier {
        return Err(Notification::open(3, Vec::new()));
    }
    if ebgp && !roles_agree(config.role, theirs) {
        // Role Mismatch (RFC 9234 section 4.2).
        return Err(Notification::open(11, Vec::new()));
    }
    let families = families_of(ours).intersection(families_of(theirs));
    if families.is_empty() {
        return Err(Notification::open(7, required(config.families)));
    }
    let both = |code: u8| has(ours, code) && has(theirs, code);
    Ok(Negotiated {
        local_asn: config.local_asn,
        peer_asn: theirs.asn,
        peer_id: theirs.identifier,
        ebgp,
        families,
        four_octet_as: both(65),
        extended_message: both(6),
        route_refresh: both(2),
        enhanced_route_refresh: both(70),
        add_path_receive: add_path::families(ours, theirs).intersection(families),
        add_path_send: add_path::families(theirs, ours).intersection(families),
        // RFC 8950 section 4: who announces it can take it, and both did.
        extended_next_hop: families.contains(Family::Ipv4Unicast) && takes_ipv6(ours) && takes_ipv6(theirs),
        hold_time: ours.hold_time.min(theirs.hold_time),
        graceful_restart: theirs.capabilities.iter().find_map(|capability| match capability {
            Capability::GracefulRestart(restart) => Some(restart.clone()),
            _ => None,
        }),
        long_lived: theirs.capabilities.iter().find_map(|capability| match capability {
            Capability::LongLived(long) if has(theirs, 64) => Some(long.clone()),
            _ => None,
        }),
    })
}

/// Whether what the peer says that it is fits what we are to it. Who says two things is not believed.
fn roles_agree(ours: Option<LocalRole>, theirs: &Open) -> bool {
    let Some(LocalRole { ours, strict }) = ours else { return true };
    let mut said = theirs.capabilities.iter().filter(|capability| capability.code() == 9).peekable();
    if said.peek().is_none() {
        return !strict;
    }
    said.all(|capability| *capability == Capability::Role(ours.counterpart()))
}

/// IPv4 unicast with a next hop of AFI 2.
const IPV4_OVER_IPV6: (AfiSafi, u16) = (AfiSafi { afi: 1, safi: 1 }, 2);

fn takes_ipv6(open: &Open) -> bool {
    open.capabilities
        .iter()
        .any(|capability| matches!(capability, Capability::ExtendedNextHop(list) if list.contains(&IPV4_OVER_IPV6)))
}

fn has(open: &Open, code: u8) -> bool {
    open.capabilities
        .iter()
        .any(|capability| capability.code() == code && !matches!(capability, Capability::Unknown { .. }))
}

/// Families of an OPEN; one that names none means IPv4 unicast (RFC 4760 section 8).
fn families_of(open: &Open) -> Families {
    if !has(open, 1) {
        return Families::only(Family::Ipv4Unicast);
    }
    let named = open.capabilities.iter().filter_map(|capability| match capability {
        Capability::Multiprotocol(family) => family.family(),
        _ => None,
    });
    named.collect()
}

/// Data of Unsupported Capability: the families that we ask for (RFC 5492 section 5).
fn required(families: Families) -> Vec<u8> {
    let mut data = Vec::new();
    for family in families.iter() {
        let AfiSafi { afi, safi } = family.into();
        let [high, low] = afi.to_be_bytes();
        data.extend_from_slice(&[1, 4, high, low, 0, safi]);
    }
    data
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn config(asn: u32, extended_next_hop: bool) -> PeerConfig {
        PeerConfig {
            local_asn: asn,
            remote_asn: RemoteAs::External,
            identifier: [10, 0, 0, 1].into(),
            hold_time: 90,
            families: Families::ALL,
            extended_next_hop,
            passive: false,
            graceful_restart: None,
            long_lived: None,
            role: None,
            add_path_receive: false,
            add_path_send: false,
        }
    }

    #[test]
    fn ipv6_next_hops_of_ipv4_are_agreed_on_by_both() {
        let agreed = |ours, theirs| {
            let (mine, other) = (config(1, ours), config(2, theirs));
            let refused = Refused::default();
            negotiate(&mine, &open(&mine, &refused), &open(&other, &refused)).unwrap().extended_next_hop
        };
        assert_eq!(
            [agreed(true, true), agreed(true, false), agreed(false, true), agreed(false, false)],
            [true, false, false, false]
        );
        let only_v6 = PeerConfig { families: Families::only(Family::Ipv6Unicast), ..config(1, true) };
        let theirs = open(&config(2, true), &Refused::default());
        assert!(!negotiate(&only_v6, &open(&only_v6, &Refused::default()), &theirs).unwrap().extended_next_hop);
    }
}
