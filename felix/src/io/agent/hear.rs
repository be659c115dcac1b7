//! What was heard of the datastore, kind by kind: into the memory, the index of policy, the supply of addresses, and what follows nodes.

use super::Agent;
use super::facts::{self, Compiled};
use crate::index::Event;
use crate::io::heard::Fact;
use crate::model;
use std::net::IpAddr;
use std::time::Instant;
use twill_crds::IPReservation;
use twill_datastore::Followed;

impl Agent {
    pub(super) fn take(&mut self, fact: Fact) {
        let kind = fact.kind();
        match fact {
            Fact::Pod(followed) => {
                self.memory.hear(kind, &followed);
                self.compiler_hears(&followed);
            }
            Fact::Namespace(followed) => {
                self.memory.hear(kind, &followed);
                self.compiler_hears(&followed);
                self.supply.namespaces.apply(*followed);
            }
            Fact::NetworkPolicy(followed) => {
                self.memory.hear(kind, &followed);
                self.compiler_hears(&followed);
            }
            Fact::ClusterNetworkPolicy(followed) => {
                self.memory.hear(kind, &followed);
                self.compiler_hears(&followed);
            }
            Fact::NamespaceIsolation(followed) => {
                self.memory.hear(kind, &followed);
                self.compiler_hears(&followed);
            }
            // What is in force of them is kept in a file of its own.
            Fact::HostPolicy(followed) => self.hear_host_policies(*followed),
            Fact::BgpConfiguration(followed) => self.hear_bgp_configuration(*followed),
            Fact::Node(followed) => {
                self.memory.hear(kind, &followed);
                self.hear_nodes(*followed);
            }
            Fact::Pool(followed) => {
                self.memory.hear(kind, &followed);
                self.hear_pools(*followed);
            }
            Fact::Reservation(followed) => {
                self.memory.hear(kind, &followed);
                self.keeping.hear(&followed, Instant::now());
                self.supply_changed |= self.is_of_ours(&followed);
                self.supply_changed |= self.supply.hear_reservations(*followed);
            }
            Fact::Block(followed) => {
                self.memory.hear(kind, &followed);
                if let Followed::Synced { revision, .. } = &*followed {
                    self.blocks.listed(*revision);
                }
                let listened = self.heard_up_to().is_some();
                for change in self.supply.blocks.apply(*followed) {
                    if listened {
                        self.keeping.hear_block(&change, Instant::now());
                    }
                    let [old, new] = [&change.old, &change.new].map(|block| block.as_ref().map(|block| &block.spec));
                    self.nodes_untold |= old != new;
                    let gone = change.old.filter(|_| change.new.is_none());
                    if let Some(block) = gone.filter(|block| !self.supply.owns(block)) {
                        self.blocks.vanished(block.spec.cidr);
                    }
                }
            }
        }
    }

    /// Whether somebody holds an address that an attachment of this node has.
    fn is_of_ours(&self, followed: &Followed<IPReservation>) -> bool {
        let Followed::Applied(one, _) = followed else { return false };
        let has = |address: &IpAddr| self.store.ledger().holder(*address).is_some();
        one.holder().is_some_and(|holder| holder.addresses.iter().any(has))
    }

    /// Whether the datastore has a Node of our name, as far as it was heard.
    pub(super) fn node_exists(&self) -> bool {
        self.supply.nodes.get(&twill_datastore::Key::cluster(&self.node)).is_some()
    }

    pub(super) fn hear_nodes(&mut self, followed: Followed<twill_crds::Node>) {
        let changes = self.supply.nodes.apply(followed);
        if !changes.is_empty() {
            self.nodes_untold = true;
            self.services_untold = true;
            // Of other nodes the next look does: thousands of them change all the time.
            if changes.iter().any(|change| change.key.name == self.node) {
                self.refresh_uplinks();
            }
            self.host_hears_of_nodes();
        }
    }

    /// The compiler hears of nodes and their blocks once a commit: blocks come one by one when a cluster starts.
    pub(super) fn tell_nodes(&mut self) {
        if std::mem::take(&mut self.nodes_untold) {
            let blocks = self.supply.blocks.iter().map(|(_, block)| (block.spec.node.as_str(), block.spec.cidr));
            let nodes = model::nodes(self.supply.nodes.iter().map(|(_, node)| &**node), blocks);
            self.compiler.apply(Event::NodesChanged(nodes));
        }
    }

    pub(super) fn hear_pools(&mut self, followed: Followed<twill_crds::IPPool>) {
        if self.supply.hear_pools(followed) {
            let pool = |pool: &twill_crds::IPPool| crate::index::Pool {
                cidr: pool.spec.cidr,
                nat_outgoing: pool.spec.nat_outgoing,
            };
            self.services_untold = true;
            self.compiler.apply(Event::PoolsChanged(self.supply.pools().iter().map(pool).collect()));
        }
    }

    pub(super) fn compiler_hears<K: Compiled>(&mut self, followed: &Followed<K>) {
        facts::event(followed).into_iter().for_each(|event| self.compiler.apply(event));
    }
}
