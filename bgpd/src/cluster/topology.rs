//! Which nodes this one speaks with, and what it does for them. In flow the configuration and the controller's decision in its status; out
//! flow a [`Place`] and what each of its peers is.
//!
//! A node only follows what was decided last. Without a decision nodes are a mesh: a datastore without a controller has none, and neither has
//! a cluster whose controller is of an earlier release.

use crate::speaker::{Export, Member, Peer};
use std::collections::BTreeSet;
use twill_crds::bgp::{NodeAsn, Topology};
use twill_crds::topology::Sessions;
use twill_crds::{BGPConfigurationSpec, Object};
use twill_datastore::{Index, Key};

/// This node's place among the others.
pub(super) struct Place {
    /// All with all.
    mesh: bool,
    /// All with all, for good.
    mesh_stays: bool,
    /// Nodes that reflect.
    reflectors: BTreeSet<String>,
    /// Of these, those that go on.
    stay: BTreeSet<String>,
    /// Whether this node reflects.
    reflects: bool,
    /// Whether it goes on.
    reflects_on: bool,
    /// Number of the decision.
    pub(super) step: Option<u32>,
    /// What is wrong with it.
    pub(super) problem: Option<String>,
}

impl Place {
    pub(super) fn of<N: Object>(
        own: &str,
        spec: &BGPConfigurationSpec,
        decided: Option<&Sessions>,
        nodes: &Index<N>,
    ) -> Self {
        let step = decided.map(|decided| decided.step);
        let one_as = matches!(spec.asn, NodeAsn::Number(_));
        match (spec.topology, decided) {
            (Topology::Fabric, _) => Self::without(step),
            // A fabric goes on as such until it is decided who reflects.
            (Topology::RouteReflector, Some(decided)) if decided.topology == Topology::Fabric && one_as => {
                Self::without(step)
            }
            (_, Some(decided)) if decided.topology != Topology::Fabric && one_as => Self::decided(own, decided, nodes),
            (topology, _) => {
                let problem = (topology == Topology::RouteReflector && one_as).then(|| {
                    "BGPConfiguration default: spec.topology: no node has been chosen to reflect yet, so nodes are a mesh; see that twill controller \
                     runs"
                        .to_owned()
                });
                Self { mesh: true, mesh_stays: true, problem, ..Self::without(step) }
            }
        }
    }

    fn without(step: Option<u32>) -> Self {
        Self {
            mesh: false,
            mesh_stays: false,
            reflectors: BTreeSet::new(),
            stay: BTreeSet::new(),
            reflects: false,
            reflects_on: false,
            step,
            problem: None,
        }
    }

    fn decided<N: Object>(own: &str, decided: &Sessions, nodes: &Index<N>) -> Self {
        let reflectors: BTreeSet<String> = decided.reflectors().map(str::to_owned).collect();
        let lost = !decided.is_meshed() && !reflectors.iter().any(|name| nodes.get(&Key::cluster(name)).is_some());
        Self {
            mesh: decided.is_meshed(),
            mesh_stays: decided.topology == Topology::Mesh,
            stay: decided.route_reflectors.iter().cloned().collect(),
            reflects: reflectors.contains(own),
            reflects_on: decided.stays(own),
            step: Some(decided.step),
            problem: lost.then(|| {
                let names = reflectors.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                format!(
                    "BGPConfiguration default: status.sessions: of the nodes that reflect ({names}) none is there any more; see that twill \
                     controller runs, which chooses others"
                )
            }),
            reflectors,
        }
    }

    /// Whether this node reflects.
    pub(super) fn reflects(&self) -> bool {
        self.reflects
    }

    /// Whether it has a session with a node.
    pub(super) fn has(&self, node: &str) -> bool {
        self.mesh || self.reflects || self.reflectors.contains(node)
    }

    /// Makes a peer what this node is for it. Each reflector has a cluster identifier of its own, so that they take what others of
    /// them reflect: a node that has lost its session with one of them, and another that has lost that with another, still know each other.
    pub(super) fn fill_in(&self, node: &str, peer: &mut Peer) {
        let session_stays = self.mesh_stays || self.reflects_on || self.stay.contains(node);
        peer.member = match (self.stay.contains(node), session_stays) {
            (true, _) => Member::Reflector,
            (false, true) if self.reflectors.contains(node) => Member::FormerReflector,
            (false, true) => Member::Node,
            (false, false) => Member::Leaving,
        };
        if self.reflects {
            // One that is closed, since what it may be told is not known, stays closed.
            if peer.export == Export::Own {
                peer.export = Export::Members;
            }
            // Who goes on reflecting has those that will not as clients already: they are told what the others of them say.
            let equals = if self.reflects_on { &self.stay } else { &self.reflectors };
            peer.reflector_client = !equals.contains(node);
        }
    }
}
