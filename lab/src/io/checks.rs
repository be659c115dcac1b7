//! What of a change to a lab that is up is refused before anything is changed.

use crate::file::{self, overlap};
use crate::io::cluster::Cluster;
use crate::io::{underlay, up};
use crate::nodes;
use crate::resources::{self, Desired};
use anyhow::{Context, anyhow, bail, ensure};
use twill_crds::{BGPConfiguration, IPPool, Node, Object};

impl Cluster {
    /// Checks pools, nodes and their AS.
    ///
    /// # Errors
    /// The first thing that is not possible.
    pub(super) fn check(&self, desired: &Desired) -> anyhow::Result<()> {
        let mut pools = self.list::<IPPool>()?;
        let mut kernel_has_ipip = None;
        for object in desired.objects.iter().filter(|o| o.kind == IPPool::kind()) {
            let pool: IPPool = serde_json::from_value(object.value.clone()).with_context(|| resources::what(object))?;
            let others = pools.iter().filter(|p| p.name() != pool.name()).cloned().collect::<Vec<_>>();
            twill_crds::validate::pools(&others, &pool)?;
            self.check_underlay(&pool)?;
            up::check_kernel(&pool, *kernel_has_ipip.get_or_insert_with(underlay::kernel_has_ipip))?;
            pools.push(pool);
        }
        let names = self.state.nodes.iter().map(|n| n.name.as_str()).collect::<Vec<_>>();
        nodes::check(&names, &desired.objects)?;
        self.check_asns(desired)
    }

    /// A Fabric's ToRs know the AS of every node, and are not configured again.
    fn check_asns(&self, desired: &Desired) -> anyhow::Result<()> {
        let configured = self.state.plan.node_asns();
        let source = match nodes::source(&desired.objects)? {
            Some(source) => Some(source),
            None => self.list::<BGPConfiguration>()?.into_iter().next().map(|c| c.spec.asn),
        };
        let source = source.unwrap_or_default();
        for node in self.list::<Node>()? {
            let Some(known) = configured.get(node.name()) else { continue };
            let mut labels = node.meta().labels.clone().unwrap_or_default();
            nodes::relabel(&mut labels, node.name(), &desired.objects);
            let asn = source.of(Some(&labels)).map_err(|problem| anyhow!("Node {}: {problem}", node.name()))?;
            ensure!(
                asn == *known,
                "Node {}: its AS would become {asn}, and its ToR knows it as {known}; take the lab down, and up with this",
                node.name()
            );
        }
        Ok(())
    }

    /// A pool that covers the lab's own wires would cut nodes off.
    fn check_underlay(&self, pool: &IPPool) -> anyhow::Result<()> {
        let cidr = pool.spec.cidr;
        for node in &self.state.nodes {
            if let Some(address) = node.addresses.iter().find(|a| cidr.contains(*a)) {
                bail!(
                    "IPPool {}: spec.cidr: {cidr} holds {address} of node {}; choose another",
                    pool.name(),
                    node.name
                );
            }
        }
        for transit in [file::TRANSIT_V4, file::TRANSIT_V6] {
            ensure!(
                !overlap(transit, cidr),
                "IPPool {}: spec.cidr: {cidr} overlaps {transit}, which the lab uses between routers; choose another",
                pool.name()
            );
        }
        Ok(())
    }
}
