//! What a new configuration changes in sessions that stay: what is taken, what is told, and to which group a peer belongs.

use super::config::{Member, Peer};
use super::event::{Established, Output};
use super::export::ExportPolicy;
use super::import;
use super::plan::Plan;
use super::routing::Routing;
use super::state::{Session, Speaker};
use crate::rib::{AttrId, Key, PeerId};
use crate::wire::{Families, Family};
use ipnet::IpNet;
use std::collections::BTreeSet;

impl Speaker {
    /// Applies what may change without a new session.
    pub(super) fn refilter(&mut self, peer: PeerId, new: Peer, plan: &Plan) {
        let Some(session) = self.sessions.get_mut(&peer) else { return self.refilter_absent(peer, &new) };
        let old = std::mem::replace(&mut session.peer, new.clone());
        let (id, established) = (session.id, session.established.clone());
        let shared = &mut self.shared;
        // What rules say of a path that they have changed before is not known: it has to be told again.
        if new.import != old.import && new.import_filter.is_empty() {
            self.v4.remove(peer, shared, |key, _| !new.import.takes(key.net()));
            self.v6.remove(peer, shared, |key, _| !new.import.takes(key.net()));
        }
        let refilter = new.import_filter != old.import_filter
            || new.import != old.import && (new.import.widens(&old.import) || !new.import_filter.is_empty());
        if refilter {
            // It is told again, and judged anew.
            self.rejected.forget_all(peer);
        }
        if refilter || new.allow_own_as != old.allow_own_as {
            let families = established.negotiated.families.iter();
            self.requests.extend(families.map(|family| Output::Refresh(peer, id, family)));
        }
        // Rules may have put our AS into paths; those are told again anyway.
        if new.allow_own_as < old.allow_own_as && new.import_filter.is_empty() {
            self.refuse_own_as(peer, &new, &established, plan.config.asn);
        }
        let passed_on = |peer: &Peer| (peer.reflector_client, peer.member != Member::Apart);
        if passed_on(&new) != passed_on(&old) {
            let provenance = &mut self.shared.provenance[usize::from(peer.0)];
            (provenance.client, provenance.member) = passed_on(&new);
            self.v4.retell(peer);
            self.v6.retell(peer);
        }
        if let Some(session) = self.sessions.get(&peer) {
            rejoin(&mut self.v4, peer, session, plan.config.leaving);
            rejoin(&mut self.v6, peer, session, plan.config.leaving);
        }
        if new.max_prefixes != old.max_prefixes {
            self.relimit(peer);
        }
    }

    /// What is kept of a peer that restarts cannot be judged anew by other rules, nor told again.
    fn refilter_absent(&mut self, peer: PeerId, new: &Peer) {
        let old = self.plan.as_ref().and_then(|plan| plan.peer(peer));
        let judged = |peer: &Peer| (peer.import_filter.clone(), peer.import.clone(), peer.allow_own_as);
        if old.is_some_and(|(_, old)| judged(old) != judged(new)) {
            self.sweep(peer, Families::ALL);
        }
    }

    fn refuse_own_as(&mut self, peer: PeerId, config: &Peer, established: &Established, asn: u32) {
        let mut refused = BTreeSet::new();
        let sets = &self.shared.attributes;
        let mut judge = |id: AttrId| {
            let set = sets.value(id);
            if set.is_some_and(|set| import::accept(config, established, asn, set).is_err()) {
                refused.insert(id);
            }
        };
        self.v4.table.sets_of(peer, &mut judge);
        self.v6.table.sets_of(peer, &mut judge);
        self.v4.remove(peer, &mut self.shared, |_, path| refused.contains(&path.attributes));
        self.v6.remove(peer, &mut self.shared, |_, path| refused.contains(&path.attributes));
    }

    /// All peers hear that we are about to go, or that we are not.
    pub(super) fn tell_of_leaving(&mut self, leaving: bool) {
        for (peer, session) in &self.sessions {
            rejoin(&mut self.v4, *peer, session, leaving);
            rejoin(&mut self.v6, *peer, session, leaving);
        }
    }
}

/// Moves a peer to the group that its configuration asks for now, remembering what it has been told.
fn rejoin<K: Key>(routing: &mut Routing<K>, peer: PeerId, session: &Session, leaving: bool) {
    let Session { id, established, peer: config, .. } = session;
    let policy = export_policy(K::FAMILY, config, established, leaving);
    if routing.policy_of(peer).is_none_or(|old| *old == policy) {
        return;
    }
    if let Some(advertised) = routing.leave(peer) {
        routing.join(peer, established.remote, *id, policy, Some(advertised));
    }
}

pub(super) fn export_policy(family: Family, peer: &Peer, established: &Established, leaving: bool) -> ExportPolicy {
    let negotiated = &established.negotiated;
    let of_family = |net: &&IpNet| {
        matches!((family, net), (Family::Ipv4Unicast, IpNet::V4(_)) | (Family::Ipv6Unicast, IpNet::V6(_)))
    };
    ExportPolicy {
        family,
        external: negotiated.ebgp,
        peer_asn: negotiated.peer_asn,
        local_asn: negotiated.local_asn,
        client: peer.reflector_client,
        as_override: peer.as_override && negotiated.ebgp,
        next_hop: peer.next_hop,
        filter: peer.export_filter.clone(),
        export: peer.export,
        own_v4: established.next_hop_v4,
        own_v6: established.next_hop_v6,
        own_link_local: established.link_local,
        shared: established.shared.iter().filter(of_family).copied().collect(),
        cluster: established.router_id,
        four_octet_as: negotiated.four_octet_as,
        extended_next_hop: negotiated.extended_next_hop,
        long_lived: negotiated.long_lived.as_ref().is_some_and(|long| long.of(family).is_some()),
        max_message: negotiated.max_message(),
        role: peer.role.map(|role| role.ours),
        leaving,
        paths: if negotiated.add_path_send.contains(family) { peer.add_path.send } else { 0 },
    }
}
