//! The objects that policy depends on: from a datastore, with those of files in the place of its own.

use anyhow::Context;
use serde_json::{Value, json};
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use twill_crds::manifest::Manifest;
use twill_crds::{
    BGPConfiguration, ClusterNetworkPolicy, EndpointSlice, HostPolicy, IPBlock, IPPool, Namespace, NamespaceIsolation,
    NetworkPolicy, Node, Object, Pod, Service,
};
use twill_datastore::{Datastore, Error, Filter};
use twill_felix::evaluate::{Objects, Universe};
use twill_felix::model::{self, Protocol};

/// All pods, namespaces, policies and nodes.
#[derive(Clone, Default)]
pub(crate) struct Cluster {
    pub(crate) pods: Vec<Pod>,
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) network_policies: Vec<NetworkPolicy>,
    pub(crate) cluster_network_policies: Vec<ClusterNetworkPolicy>,
    pub(crate) namespace_isolations: Vec<NamespaceIsolation>,
    pub(crate) host_policies: Vec<HostPolicy>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) blocks: Vec<IPBlock>,
    pub(crate) pools: Vec<IPPool>,
    pub(crate) bgp_configurations: Vec<BGPConfiguration>,
    pub(crate) services: Vec<Service>,
    pub(crate) endpoint_slices: Vec<EndpointSlice>,
}

/// Pods and nodes without an address get one from here (RFC 2544's and RFC 5180's ranges for tests): pods from the first half.
const V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0);

impl Cluster {
    pub(crate) async fn of(store: &Datastore) -> anyhow::Result<Self> {
        let (services, endpoint_slices) = as_far_as_allowed(services(store).await)?;
        Ok(Self {
            pods: all(store).await?,
            namespaces: all(store).await?,
            network_policies: all(store).await?,
            cluster_network_policies: all(store).await?,
            namespace_isolations: all(store).await?,
            host_policies: all(store).await?,
            nodes: all(store).await?,
            blocks: all(store).await?,
            pools: all(store).await?,
            bgp_configurations: all(store).await?,
            services,
            endpoint_slices,
        })
    }

    pub(crate) fn universe(&self) -> Universe {
        Universe::new(&Objects {
            pods: &self.pods,
            namespaces: &self.namespaces,
            network_policies: &self.network_policies,
            cluster_network_policies: &self.cluster_network_policies,
            namespace_isolations: &self.namespace_isolations,
            host_policies: &self.host_policies,
            nodes: &self.nodes,
            blocks: &self.blocks,
            pools: &self.pools,
            bgp_configurations: &self.bgp_configurations,
            services: &self.services,
            endpoint_slices: &self.endpoint_slices,
        })
    }

    /// The nodes, with their addresses in tunnels.
    pub(crate) fn read_nodes(&self) -> Vec<model::Node> {
        let blocks = self.blocks.iter().map(|block| (block.spec.node.as_str(), block.spec.cidr));
        model::nodes(self.nodes.iter(), blocks)
    }

    /// What a running cluster would have: a namespace for every pod and policy, and addresses for pods and nodes without, always the
    /// same for the same names.
    pub(crate) fn complete(&mut self) -> anyhow::Result<()> {
        let known: BTreeSet<&str> = self.namespaces.iter().map(Object::name).collect();
        let of_pods = self.pods.iter().map(Object::namespace);
        let named = of_pods.chain(self.network_policies.iter().map(Object::namespace));
        let missing: BTreeSet<String> = named.filter(|name| !known.contains(name)).map(str::to_owned).collect();
        for name in missing {
            self.namespaces.push(read(&json!({"metadata": {"name": name}}))?);
        }
        self.pods.sort_by_key(|pod| (pod.metadata.namespace.clone(), pod.metadata.name.clone()));
        self.nodes.sort_by_key(|node| node.metadata.name.clone());
        let mut free = Free { taken: self.addresses(), next: 0 };
        for pod in &mut self.pods {
            let host = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or_default();
            let status = pod.status.get_or_insert_default();
            if !host && status.pod_ips.as_ref().is_none_or(Vec::is_empty) && status.pod_ip.is_none() {
                let ips = free.pair(0)?.map(|ip| json!({"ip": ip.to_string()}));
                status.pod_ips = serde_json::from_value(json!(ips))?;
            }
        }
        free.next = 0;
        for node in &mut self.nodes {
            let addresses = &mut node.status.get_or_insert_default().addresses;
            if addresses.as_ref().is_none_or(Vec::is_empty) {
                let own = free.pair(1)?.map(|ip| json!({"type": "InternalIP", "address": ip.to_string()}));
                *addresses = serde_json::from_value(json!(own))?;
            }
        }
        Ok(())
    }

    /// All addresses that are written.
    fn addresses(&self) -> BTreeSet<IpAddr> {
        let pods = self.pods.iter().flat_map(|pod| model::Pod::read(pod).addresses.to_vec());
        let nodes = self.nodes.iter().flat_map(|node| model::Node::read(node).known_as);
        pods.chain(nodes).collect()
    }
}

/// A cluster into which objects are put, each in the place of the one that has its name.
pub(crate) struct Putting<'a> {
    cluster: &'a mut Cluster,
    places: Places,
}

impl<'a> Putting<'a> {
    pub(crate) fn into(cluster: &'a mut Cluster) -> Self {
        Self { cluster, places: Places::default() }
    }

    /// Puts an object in its place; false if policy does not depend on its kind.
    pub(crate) fn put(&mut self, manifest: &Manifest) -> anyhow::Result<bool> {
        let Self { cluster, places } = self;
        let value = &manifest.value;
        match (manifest.kind.group.as_ref(), manifest.kind.kind.as_ref()) {
            ("", "Pod") => places.put(&mut cluster.pods, value)?,
            ("", "Namespace") => places.put(&mut cluster.namespaces, value)?,
            ("", "Node") => places.put(&mut cluster.nodes, value)?,
            ("networking.k8s.io", "NetworkPolicy") => places.put(&mut cluster.network_policies, value)?,
            (_, "ClusterNetworkPolicy") => places.put(&mut cluster.cluster_network_policies, value)?,
            (_, "NamespaceIsolation") => places.put(&mut cluster.namespace_isolations, value)?,
            (_, "IPBlock") => places.put(&mut cluster.blocks, value)?,
            (_, "IPPool") => places.put(&mut cluster.pools, value)?,
            (_, "BGPConfiguration") => places.put(&mut cluster.bgp_configurations, value)?,
            (_, "HostPolicy") => places.put(&mut cluster.host_policies, value)?,
            ("", "Service") => places.put(&mut cluster.services, value)?,
            ("discovery.k8s.io", "EndpointSlice") => places.put(&mut cluster.endpoint_slices, value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Where objects stand in the lists of their kinds, by namespace and name. A list is looked through once, when something is put into it.
#[derive(Default)]
struct Places(HashMap<String, HashMap<(String, String), usize>>);

impl Places {
    fn put<K: Object>(&mut self, objects: &mut Vec<K>, value: &Value) -> anyhow::Result<()> {
        let key = |object: &K| (object.namespace().to_owned(), object.name().to_owned());
        let of_kind = self.0.entry(K::kind().kind.to_string());
        let places = of_kind.or_insert_with(|| objects.iter().enumerate().map(|(at, old)| (key(old), at)).collect());
        let new: K = read(value)?;
        match places.entry(key(&new)) {
            Entry::Occupied(at) => objects[*at.get()] = new,
            Entry::Vacant(place) => {
                place.insert(objects.len());
                objects.push(new);
            }
        }
        Ok(())
    }
}

/// Addresses that nobody has.
struct Free {
    taken: BTreeSet<IpAddr>,
    next: u16,
}

impl Free {
    /// The next of both families, in a half of the ranges.
    fn pair(&mut self, half: u32) -> anyhow::Result<[IpAddr; 2]> {
        loop {
            let exhausted = "more than 65535 objects have no address; write some into their status";
            self.next = self.next.checked_add(1).context(exhausted)?;
            let offset = half << 16 | u32::from(self.next);
            let pair = [
                IpAddr::V4(Ipv4Addr::from_bits(V4.to_bits() + offset)),
                IpAddr::V6(Ipv6Addr::from_bits(V6.to_bits() + u128::from(offset))),
            ];
            if !pair.iter().any(|address| self.taken.contains(address)) {
                return Ok(pair);
            }
        }
    }
}

type Services = (Vec<Service>, Vec<EndpointSlice>);

/// Services and where they lead.
async fn services(store: &Datastore) -> Result<Services, Error> {
    let services = store.list::<Service>(&Filter::default()).await?;
    let slices = store.list::<EndpointSlice>(&Filter::default()).await?;
    Ok((services.items, slices.items))
}

/// Who may not read Services, as felix itself, is answered about all but Services.
fn as_far_as_allowed(found: Result<Services, Error>) -> Result<Services, Error> {
    match found {
        Err(error @ Error::Forbidden { .. }) => {
            eprintln!(
                "warning: NodePorts are taken for ports of the node itself, and addresses of Services for addresses outside: {error}"
            );
            Ok(Services::default())
        }
        found => found,
    }
}

async fn all<K: Object>(store: &Datastore) -> anyhow::Result<Vec<K>> {
    Ok(store.list::<K>(&Filter::default()).await?.items)
}

fn read<K: Object>(value: &Value) -> anyhow::Result<K> {
    let name = || value["metadata"]["name"].as_str().unwrap_or_default();
    serde_json::from_value(value.clone()).with_context(|| format!("{} {} cannot be read", K::kind().kind, name()))
}

/// All ports that a pod's containers declare.
pub(crate) fn declared(pod: &Pod) -> BTreeSet<(u16, Protocol)> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = u16::try_from(port.container_port).ok().filter(|number| *number > 0)?;
            Some((number, Protocol::of_port(port.protocol.as_deref()).ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_read_services_is_answered_without_them_and_no_other_failure_is_passed_over() {
        let forbidden = Error::Forbidden { what: "list services".to_owned(), who: "felix".to_owned() };
        assert!(
            matches!(as_far_as_allowed(Err(forbidden)), Ok((services, slices)) if services.is_empty() && slices.is_empty())
        );
        assert!(as_far_as_allowed(Err(Error::Unavailable("gone".to_owned()))).is_err());
    }
}
