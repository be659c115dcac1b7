//! Whether policies of the cluster and of namespaces are understood as they are written, and whether the nodes' speakers have what
//! BGPConfiguration gives them. What is not understood is still in force as far as it denies; the nodes read it as it is read here.

use crate::addresses;
use crate::conditions::{Judged, conditions};
use crate::topology;
use crate::world::World;
use crate::written::Status;
use jiff::Timestamp;
use twill_crds::bgp::BGPConfigurationStatus;
use twill_crds::bgp_filter::BGPFilterStatus;
use twill_crds::cluster_network_policy::ClusterNetworkPolicyStatus;
use twill_crds::ip_reservation::{self, IPReservationStatus};
use twill_crds::namespace_isolation::NamespaceIsolationStatus;
use twill_crds::validate::admit;
use twill_crds::{
    BGPConfiguration, BGPFilter, BGPPeer, ClusterNetworkPolicy, IPReservation, NamespaceIsolation, Object,
};
use twill_felix::model;

/// Names in a message.
const NAMED: usize = 5;

/// The status of a policy of the cluster. The kind is not ours, so the condition's type bears our domain, and conditions of others stay.
#[must_use]
pub fn cluster_policy(policy: &ClusterNetworkPolicy, now: Timestamp) -> ClusterNetworkPolicyStatus {
    let judged = [accepted(policy, &model::cluster_network_policy(policy).problems)];
    let old = policy.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let of_others = old.iter().filter(|condition| judged.iter().all(|one| one.kind != condition.type_)).cloned();
    let own = conditions(&judged, old, policy.metadata.generation, now);
    // In one order, whoever wrote last.
    let mut all: Vec<_> = of_others.chain(own).collect();
    all.sort_by_key(|condition| old.iter().position(|one| one.type_ == condition.type_).unwrap_or(usize::MAX));
    ClusterNetworkPolicyStatus { conditions: all }
}

/// The status of a NamespaceIsolation.
#[must_use]
pub fn isolation(isolation: &NamespaceIsolation, now: Timestamp) -> NamespaceIsolationStatus {
    let judged = [accepted(isolation, &model::namespace_isolation(isolation).problems)];
    let old = isolation.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    NamespaceIsolationStatus { conditions: conditions(&judged, old, isolation.metadata.generation, now) }
}

/// The statuses of IPReservations: of those that keep the same addresses, or are for the same pod, the oldest counts. Who has the addresses is
/// the nodes' to say.
pub fn reservations(world: &World, now: Timestamp) -> impl Iterator<Item = (&IPReservation, IPReservationStatus)> {
    let all: Vec<&IPReservation> = world.reservations.iter().map(|(_, one)| one).collect();
    let (_, rejected) = ip_reservation::accepted(&all);
    all.into_iter().map(move |one| {
        let mut judged = accepted(one, &[]);
        let why = rejected.iter().find(|(other, _)| other.name() == one.name()).filter(|_| judged.holds);
        if let Some((_, why)) = why {
            judged = Judged::new(IPReservation::ACCEPTED, false, "Duplicate", why.clone());
        }
        let old = one.status.clone().unwrap_or_default();
        let conditions = conditions(&[judged], &old.conditions, one.metadata.generation, now);
        (one, IPReservationStatus { conditions, ..old })
    })
}

/// The status of a BGPFilter.
#[must_use]
pub fn filter(filter: &BGPFilter, world: &World, now: Timestamp) -> BGPFilterStatus {
    let mut judged = accepted(filter, &[]);
    if !judged.holds {
        judged.message.push_str(
            "; until it is mended nodes go on with the last rules that were understood, and peers that had none take and tell nothing",
        );
    }
    let names = |peer: &&BGPPeer| peer.spec.filters.iter().any(|name| name == filter.name());
    let peers = world.peers.iter().map(|(_, peer)| peer).filter(names).count();
    let old = filter.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    BGPFilterStatus {
        peers: u32::try_from(peers).unwrap_or(u32::MAX),
        conditions: conditions(&[judged], old, filter.metadata.generation, now),
    }
}

/// The status of a BGPConfiguration.
#[must_use]
pub fn configuration(configuration: &BGPConfiguration, world: &World, now: Timestamp) -> BGPConfigurationStatus {
    let (nodes, applied) = applied(configuration, world);
    let (sessions, converged) = topology::sessions(configuration, world);
    let judged = [accepted(configuration, &[]), applied, converged];
    let stored = configuration.status.as_ref();
    let old = stored.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let conditions = conditions(&judged, old, configuration.metadata.generation, now);
    let node_addresses = addresses::chosen(world, stored);
    BGPConfigurationStatus { nodes, sessions: Some(sessions), node_addresses, conditions }
}

/// By what the nodes find in it, else by what an API server refuses, which an earlier release may have stored.
fn accepted<K: Status>(object: &K, problems: &[String]) -> Judged {
    if !problems.is_empty() {
        // The object is known where this is read.
        let own = format!("{} {}: ", K::kind().kind, object.name());
        let texts: Vec<&str> = problems.iter().map(|text| text.strip_prefix(&own).unwrap_or(text)).collect();
        return Judged::new(K::ACCEPTED, false, "NotUnderstood", texts.join("; "));
    }
    let mut value = serde_json::to_value(object).unwrap_or_default();
    match admit(&K::kind(), &mut value, None) {
        Ok(()) => Judged::new(K::ACCEPTED, true, "Valid", ""),
        Err(invalid) => Judged::new(K::ACCEPTED, false, "Invalid", format!("{}: {}", invalid.field, invalid.problem)),
    }
}

/// How many nodes' speakers have the AS that they are given, and what is to be said of the others.
fn applied(configuration: &BGPConfiguration, world: &World) -> (u32, Judged) {
    let (mut done, mut without, mut behind) = (0, Vec::new(), Vec::new());
    for (key, node) in world.nodes.iter() {
        let network = world.networks.get(key).filter(|_| !node.silent);
        match configuration.spec.asn.of(Some(&node.labels)) {
            Err(problem) => without.push(format!("Node {}: {problem}", key.name)),
            Ok(asn) if network.is_some_and(|network| network.bgp.asn == Some(asn)) => done += 1,
            Ok(_) => behind.push(key.name.clone()),
        }
    }
    let all = world.nodes.len();
    let no = |reason, rest: String| {
        Judged::new("Applied", false, reason, format!("{done} of {all} nodes have the AS that this gives them; {rest}"))
    };
    let judged = match (without.is_empty(), behind.is_empty()) {
        (true, true) => Judged::new("Applied", true, "AllNodes", ""),
        (true, false) => no("NodesBehind", format!("not yet: {}; twill status says why there", named(&behind))),
        (false, _) => no("NoASN", named(&without)),
    };
    (u32::try_from(done).unwrap_or(u32::MAX), judged)
}

/// The first few, and how many more.
pub(crate) fn named(all: &[String]) -> String {
    let mut text = all.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if all.len() > NAMED {
        text.push_str(&format!(" and {} more", all.len() - NAMED));
    }
    text
}
