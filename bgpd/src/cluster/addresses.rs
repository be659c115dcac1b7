//! By which of their addresses nodes are known.
//!
//! In flow Nodes and what the controller says that they have chosen; out flows one address of each family. A node stays known by an address for as long as its Node lists it and
//! it has not chosen another, whatever comes before that in the list: sessions and tunnels would begin anew for nothing. That is remembered, also over a restart. Who has nothing to
//! remember goes by the order of the list until the controller tells what the node has chosen, which is the same thing again.

use crate::fib::NodeAddresses;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use twill_crds::bgp::BGPConfigurationStatus;
use twill_crds::node_address::{first_of_each, internal_ips, may_be_known};
use twill_crds::{Node, Object};

/// The addresses of all nodes, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Addresses {
    all: BTreeMap<String, NodeAddresses>,
}

/// Of these alone an earlier run knew more than their Nodes and the controller say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept(BTreeMap<String, Vec<IpAddr>>);

/// All that a node could be known by, in the order of its status.
pub(super) fn candidates(node: &Node) -> Vec<IpAddr> {
    usable(node, &[])
}

fn usable(node: &Node, chosen: &[IpAddr]) -> Vec<IpAddr> {
    internal_ips(node, chosen).into_iter().filter(|address| may_be_known(*address)).collect()
}

/// By what a node is known that was known by `before`.
fn known_by(
    node: &Node,
    status: Option<&BGPConfigurationStatus>,
    before: impl Iterator<Item = IpAddr>,
) -> NodeAddresses {
    let chosen = status.map(|status| status.chosen_by(node.name())).unwrap_or_default();
    let first: Vec<IpAddr> = chosen.iter().copied().chain(before).collect();
    let (v4, v6) = first_of_each(&usable(node, &first));
    NodeAddresses { name: node.name().to_owned(), v4, v6 }
}

impl Addresses {
    /// A Node is there, or is another than before, or so is what nodes have chosen.
    pub(super) fn learn(&mut self, node: &Node, status: Option<&BGPConfigurationStatus>) {
        let before = self.all.get(node.name()).into_iter().flat_map(NodeAddresses::all);
        let now = known_by(node, status, before);
        self.all.insert(now.name.clone(), now);
    }

    /// A Node is gone.
    pub(super) fn forget(&mut self, name: &str) {
        self.all.remove(name);
    }

    /// Of one node; it has none before its Node was heard of.
    pub(super) fn of(&self, name: &str) -> NodeAddresses {
        let none = || NodeAddresses { name: name.to_owned(), ..NodeAddresses::default() };
        self.all.get(name).cloned().unwrap_or_else(none)
    }

    /// What to keep over a restart beside these Nodes and what was chosen.
    pub(super) fn kept<'a>(
        &self,
        nodes: impl Iterator<Item = &'a Node>,
        status: Option<&BGPConfigurationStatus>,
    ) -> Kept {
        let anew = |node: &&Node| known_by(node, status, std::iter::empty());
        let others = nodes.filter(|node| self.all.get(node.name()).is_some_and(|known| *known != anew(node)));
        Kept(others.map(|node| (node.name().to_owned(), self.of(node.name()).all().collect())).collect())
    }

    /// As it was when that was kept.
    pub(super) fn remembered<'a>(
        nodes: impl Iterator<Item = &'a Node>,
        status: Option<&BGPConfigurationStatus>,
        kept: &Kept,
    ) -> Self {
        let before = |node: &Node| kept.0.get(node.name()).into_iter().flatten().copied();
        let all = nodes.map(|node| (node.name().to_owned(), known_by(node, status, before(node))));
        Self { all: all.collect() }
    }
}
