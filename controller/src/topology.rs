//! Who peers with whom. In flow what is asked for, what is in force, and what nodes say; out flow the next decision, or the one that
//! there is with less beside it.
//!
//! A decision that takes sessions away keeps them as retiring. A node says the number of the decision once it has all its routes without
//! those ([`twill_crds::node_network::BgpState::step`]); when every node has said so, they go. So nothing is broken before its
//! replacement works, whatever changes in the meantime: what is retiring adds up, and what is wanted again no longer retires.

use crate::conditions::Judged;
use crate::reflectors::choose;
use crate::verdicts::named;
use crate::world::{Network, World};
use std::collections::BTreeSet;
use twill_crds::BGPConfiguration;
use twill_crds::bgp::{NodeAsn, Topology};
use twill_crds::topology::{MESH_BELOW, MESH_UP_TO, Retiring, Sessions};
use twill_datastore::Key;

/// Numbers of decisions that may have been given out without anybody having confirmed one: they are not given out again.
const UNCONFIRMED: u32 = 100;

/// Whether a cluster of so many nodes has too many for a mesh by default.
#[must_use]
pub(crate) fn needs_reflectors(nodes: usize) -> bool {
    nodes > MESH_UP_TO
}

/// What is to be in force, and the condition `Converged`.
#[must_use]
pub(crate) fn sessions(configuration: &BGPConfiguration, world: &World) -> (Sessions, Judged) {
    let stored = configuration.status.as_ref().and_then(|status| status.sessions.clone());
    let (is_new, current) = (stored.is_none(), stored.or_else(|| followed(world)));
    let topology = wanted(configuration, current.as_ref(), world.nodes.len());
    let reflecting: Vec<&str> =
        current.iter().flat_map(|sessions| &sessions.route_reflectors).map(String::as_str).collect();
    let mut goal = Sessions { topology, ..Sessions::default() };
    if topology == Topology::RouteReflector {
        goal.route_reflectors = choose(world, configuration.spec.route_reflectors.as_ref(), &reflecting);
        if goal.route_reflectors.is_empty() {
            return (current.unwrap_or_else(mesh), nobody(configuration));
        }
    }
    let next = next(current, goal, is_new);
    let waiting = if next.retiring.is_some() { waiting(world, next.step) } else { Vec::new() };
    let next = Sessions { retiring: next.retiring.filter(|_| !waiting.is_empty()), ..next };
    let judged = converged(configuration, &next, &waiting);
    (next, judged)
}

/// How many nodes take part: one that is being uninstalled, or has not begun, does not.
#[must_use]
pub(crate) fn members(world: &World) -> usize {
    members_of(world).count()
}

fn members_of(world: &World) -> impl Iterator<Item = (&Key, &Network)> {
    world.networks.iter().filter(|(key, network)| world.nodes.get(key).is_some() && !network.uninstall)
}

/// Whether nodes follow a decision of which no object tells any more: they go on with it until there is another.
#[must_use]
pub(crate) fn is_followed(world: &World) -> bool {
    followed(world).is_some()
}

/// What nodes say that they follow, where no object tells of it: a configuration that was made anew has no status. None: nobody follows one.
fn followed(world: &World) -> Option<Sessions> {
    // One that is being uninstalled follows nobody any more, and is to be left without objects.
    let networks = || members_of(world);
    let step = networks().filter_map(|(_, network)| network.bgp.step).max();
    let reflecting = networks().filter(|(_, network)| network.bgp.reflects);
    let route_reflectors: Vec<String> = reflecting.map(|(key, _)| key.name.clone()).collect();
    step.or((!route_reflectors.is_empty()).then_some(0)).map(|step| Sessions {
        step: step.saturating_add(UNCONFIRMED),
        topology: if route_reflectors.is_empty() { Topology::Mesh } else { Topology::RouteReflector },
        route_reflectors,
        retiring: None,
    })
}

/// What every node does before anything was decided.
fn mesh() -> Sessions {
    Sessions { step: 1, topology: Topology::Mesh, ..Sessions::default() }
}

fn wanted(configuration: &BGPConfiguration, current: Option<&Sessions>, nodes: usize) -> Topology {
    let by_label = matches!(configuration.spec.asn, NodeAsn::Label(_));
    match configuration.spec.topology {
        Topology::Fabric => Topology::Fabric,
        Topology::Mesh => Topology::Mesh,
        // Reflection is inside of one AS (RFC 4456).
        _ if by_label => Topology::Mesh,
        Topology::RouteReflector => Topology::RouteReflector,
        Topology::Auto => {
            let reflects = current.is_some_and(|current| current.topology == Topology::RouteReflector);
            let large = if reflects { nodes > MESH_BELOW } else { needs_reflectors(nodes) };
            if large { Topology::RouteReflector } else { Topology::Mesh }
        }
    }
}

/// The decision that there is, if it is the same, else one more, with what it does away with as retiring. One more too if nothing is stored
/// yet: what nodes have confirmed before is no answer to it.
fn next(current: Option<Sessions>, goal: Sessions, is_new: bool) -> Sessions {
    let current = current.unwrap_or_else(|| Sessions { step: 0, ..mesh() });
    if !is_new && (current.topology, &current.route_reflectors) == (goal.topology, &goal.route_reflectors) {
        return current;
    }
    let step = current.step.saturating_add(1);
    // In a fabric nodes have what they need from others.
    if goal.topology == Topology::Fabric {
        return Sessions { step, ..goal };
    }
    let kept: BTreeSet<&str> = current.reflectors().filter(|name| !goal.stays(name)).collect();
    let retiring = Retiring {
        mesh: current.is_meshed() && goal.topology != Topology::Mesh,
        route_reflectors: kept.into_iter().map(str::to_owned).collect(),
    };
    Sessions { step, retiring: (retiring != Retiring::default()).then_some(retiring), ..goal }
}

/// Nodes that still need what retires, as far as anybody can know: one that is not heard of, is drained, or has never spoken, keeps nobody
/// waiting.
fn waiting(world: &World, step: u32) -> Vec<String> {
    let needs = |(key, node): &(&Key, &crate::world::Node)| {
        let network = world.networks.get(key).filter(|network| !node.silent && !network.drained && !network.uninstall);
        network.is_some_and(|network| !network.bgp.addresses.is_empty() && network.bgp.step != Some(step))
    };
    world.nodes.iter().filter(needs).map(|(key, _)| key.name.clone()).collect()
}

fn converged(configuration: &BGPConfiguration, sessions: &Sessions, waiting: &[String]) -> Judged {
    let no = |reason, message| Judged::new("Converged", false, reason, message);
    let by_label = matches!(configuration.spec.asn, NodeAsn::Label(_));
    if by_label && configuration.spec.topology == Topology::RouteReflector {
        let message = "spec.topology: reflectors need one AS for all nodes, and spec.asn takes it from a label, so nodes are a mesh; \
                       write a number there, or use Mesh or Fabric";
        return no("SeveralASNs", message.to_owned());
    }
    if waiting.is_empty() {
        let reason = match sessions.topology {
            Topology::RouteReflector => "RouteReflector",
            Topology::Fabric => "Fabric",
            Topology::Mesh | Topology::Auto => "Mesh",
        };
        return Judged::new("Converged", true, reason, "");
    }
    let verb = if waiting.len() == 1 { "needs" } else { "need" };
    no(
        "Retiring",
        format!(
            "sessions of before are kept, since {} still {verb} them; twill status says why there, and twill drain NODE that it is not to be \
             waited for",
            named(waiting)
        ),
    )
}

fn nobody(configuration: &BGPConfiguration) -> Judged {
    let selector = configuration.spec.route_reflectors.as_ref().and_then(|wanted| wanted.node_selector.as_ref());
    let message = match selector {
        Some(_) => {
            "spec.routeReflectors.nodeSelector: selects no node that is ready, schedulable and speaks BGP, so sessions stay as they are; let it \
             select others"
        }
        None => {
            "no node is ready, schedulable and speaks BGP, so sessions stay as they are; uncordon one, or see what twill status says there"
        }
    };
    Judged::new("Converged", false, "NoReflector", message)
}
