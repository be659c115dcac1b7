//! `twill ipam defrag --plan`: which blocks would become free if which pods were restarted. A plan only: whoever restarts pods knows what they
//! are for.

use super::World;
use crate::output::{Format, print, print_line};
use ipnet::IpNet;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use twill_crds::{IPBlock, IPReservation, Object, Pod, PodReference, ip_reservation};
use twill_ipam::{Labels, Reserved, idle::Home, pool, range};

/// A block that would become free.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Freed {
    block: IpNet,
    node: String,
    pool: String,
    /// The pods to restart, `namespace/name`.
    pods: Vec<String>,
    /// Where their next addresses come from.
    because: String,
}

/// Addresses that are kept for a pod, by reservations that count.
type Kept<'a> = BTreeMap<IpAddr, &'a PodReference>;

/// A block with what the plan needs of it.
struct Held<'a> {
    block: &'a IPBlock,
    home: Home,
    /// Pods that have an address of it, and come back with another.
    pods: BTreeSet<String>,
    /// A pod of its node has an address of it that is kept for the pod, and comes back with that.
    pinned: bool,
    /// Addresses that pods can have of it.
    room: u128,
}

impl Held<'_> {
    fn free(&self) -> u128 {
        self.room.saturating_sub(self.pods.len() as u128)
    }
}

pub(super) fn run(world: &World, format: Format) -> anyhow::Result<()> {
    let plan = plan(world);
    if plan.is_empty() && format == Format::Table {
        return print_line("no block would become free: each is needed, or gives itself back");
    }
    let row = |one: &Freed| {
        let count = one.pods.len().to_string();
        vec![one.block.to_string(), one.node.clone(), one.pool.clone(), count, one.pods.join(" "), one.because.clone()]
    };
    print(format, &plan, &["BLOCK", "NODE", "POOL", "PODS", "RESTART", "BECAUSE"], plan.iter().map(row))
}

/// The fewest pods first. Each step counts on those before it, so a plan that is followed in part is right as far as it was followed.
pub(super) fn plan(world: &World) -> Vec<Freed> {
    let reserved = world.reserved();
    let reservations: Vec<&IPReservation> = world.reservations.iter().collect();
    let (counting, _) = ip_reservation::accepted(&reservations);
    let mut kept = Kept::new();
    for one in counting {
        kept.extend(one.spec.addresses.iter().filter_map(|address| Some((*address, one.spec.pod.as_ref()?))));
    }
    let mut nodes: BTreeMap<(&str, bool), Vec<Held<'_>>> = BTreeMap::new();
    for block in &world.blocks {
        let Some(held) = held(world, &reserved, &kept, block) else { continue };
        nodes.entry((&block.spec.node, block.spec.cidr.addr().is_ipv6())).or_default().push(held);
    }
    let mut plan: Vec<Freed> = nodes.into_values().flat_map(of_node).collect();
    plan.sort_by(|a, b| (a.pods.len(), &a.node, a.block).cmp(&(b.pods.len(), &b.node, b.block)));
    plan
}

/// None: the block's node or pool is not there; that is for `twill ipam check`.
fn held<'a>(world: &World, reserved: &Reserved, kept: &Kept<'_>, block: &'a IPBlock) -> Option<Held<'a>> {
    let cidr = block.spec.cidr;
    let node = world.nodes.iter().find(|node| node.name() == block.spec.node)?;
    let labels: Labels = node.metadata.labels.clone().unwrap_or_default();
    let home = pool::home(&world.pools, &labels, cidr)?;
    let inside = world.addresses.iter().filter(|(address, _)| cidr.contains(address));
    let comes_back = |(address, pod): &&(IpAddr, Pod)| {
        kept.get(address).is_some_and(|of| of.namespace == pod.namespace() && of.name == pod.name())
    };
    let (stay, go): (Vec<_>, Vec<_>) = inside.partition(comes_back);
    // Elsewhere it has it whoever has the block.
    let is_here = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) == Some(&block.spec.node);
    let pinned = stay.iter().any(|(_, pod)| is_here(pod));
    let pods = go.into_iter().map(|(_, pod)| format!("{}/{}", pod.namespace(), pod.name())).collect();
    // Ordinal 0 is nobody's.
    let first = u128::from(!reserved.has(cidr.network()));
    let room = range::size(cidr).saturating_sub(reserved.count(cidr)).saturating_sub(first);
    Some(Held { block, home, pods, pinned, room })
}

/// Of one node's blocks of one family those that go when they are empty ([`twill_ipam::idle`]): not the oldest for all namespaces, of which the
/// tunnel address is; and the pool's others must have room for the pods and a whole block beside.
fn of_node(mut blocks: Vec<Held<'_>>) -> Vec<Freed> {
    let created = |held: &Held<'_>| held.block.metadata.creation_timestamp.as_ref().map(|time| time.0);
    blocks.sort_by_key(|held| (created(held).is_none(), created(held), held.block.spec.cidr));
    let oldest = blocks.iter().position(|held| held.home.current && held.home.for_all);
    let tunnel = oldest.map(|at| blocks[at].block.spec.cidr);
    let replaced = tunnel.is_some();
    blocks.sort_by_key(|held| held.pods.len());
    let mut plan = Vec::new();
    let mut room: BTreeMap<String, u128> = BTreeMap::new();
    for held in blocks.iter().filter(|held| held.home.current) {
        *room.entry(held.home.name.clone()).or_default() += held.free();
    }
    let can_go = |held: &&Held<'_>| !held.pods.is_empty() && !held.pinned && Some(held.block.spec.cidr) != tunnel;
    for held in blocks.iter().filter(can_go) {
        let because = if !held.home.current {
            // The last block that a node has stays.
            if !replaced {
                continue;
            }
            format!("IPPool {} gives no new addresses there, or blocks of another size", held.home.name)
        } else {
            let all = room.entry(held.home.name.clone()).or_default();
            let others = all.saturating_sub(held.free());
            let moved = held.pods.len() as u128;
            if others < moved + held.room {
                continue;
            }
            *all = others - moved;
            format!("other blocks of IPPool {} there have {others} addresses free", held.home.name)
        };
        plan.push(Freed {
            block: held.block.spec.cidr,
            node: held.block.spec.node.clone(),
            pool: held.home.name.clone(),
            pods: held.pods.iter().cloned().collect(),
            because,
        });
    }
    plan
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::own_addresses;
    use super::*;
    use serde_json::{Value, json};

    fn object<K: Object>(name: &str, created: u32, spec: Value) -> K {
        let kind = K::kind();
        let metadata = json!({"name": name, "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z")});
        serde_json::from_value(
            json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": metadata, "spec": spec}),
        )
        .unwrap()
    }

    /// Blocks of n1 of 8 addresses (7 of them for pods), the oldest first, each with so many pods.
    fn world(pods: &[usize]) -> World {
        let block = |n: usize| {
            object("b", u32::try_from(n).unwrap(), json!({"cidr": format!("10.0.0.{}/29", n * 8), "node": "n1"}))
        };
        let one = |block: usize, pod: usize| {
            let ip = format!("10.0.0.{}", block * 8 + pod + 1);
            let pod = json!({"metadata": {"name": format!("p{block}-{pod}"), "namespace": "a"},
                "spec": {"nodeName": "n1", "containers": []}, "status": {"phase": "Running", "podIPs": [{"ip": ip}]}});
            own_addresses(serde_json::from_value(pod).unwrap())
        };
        World {
            pools: vec![object("p", 0, json!({"cidr": "10.0.0.0/24", "blockSize": 29}))],
            blocks: (0..pods.len()).map(block).collect(),
            addresses: pods
                .iter()
                .enumerate()
                .flat_map(|(n, count)| (0..*count).flat_map(move |pod| one(n, pod)))
                .collect(),
            reservations: Vec::new(),
            uids: BTreeSet::new(),
            nodes: vec![object("n1", 0, json!({}))],
            networks: Vec::new(),
        }
    }

    fn planned(world: &World) -> Vec<(String, usize)> {
        plan(world).into_iter().map(|one| (one.block.to_string(), one.pods.len())).collect()
    }

    #[test]
    fn blocks_become_free_whose_pods_fit_elsewhere_with_a_block_to_spare_fewest_pods_first() {
        // 5 + 5 are free in the others, 7 must be left of them beside the 1 that moves.
        assert_eq!(planned(&world(&[2, 2, 1])), [("10.0.0.16/29".to_owned(), 1)]);
        assert_eq!(planned(&world(&[1, 1])), [], "no room for a whole block beside");
        assert_eq!(planned(&world(&[1, 2, 1, 1])), [("10.0.0.16/29".to_owned(), 1), ("10.0.0.24/29".to_owned(), 1)]);
        assert_eq!(planned(&world(&[0, 0, 0])), [], "what is empty goes by itself");
    }

    #[test]
    fn what_is_reserved_is_no_room() {
        let mut world = world(&[2, 2, 1]);
        world.reservations = vec![object("r", 0, json!({"reservedCIDRs": ["10.0.0.4/30"]}))];
        assert_eq!(planned(&world), []);
    }

    #[test]
    fn a_pool_that_gives_no_more_is_emptied_where_another_has_taken_its_place() {
        let mut world = world(&[1, 3]);
        world.pools[0].spec.disabled = true;
        assert_eq!(planned(&world), []);
        world.pools.push(object("q", 0, json!({"cidr": "10.1.0.0/24"})));
        world.blocks.push(object("b", 9, json!({"cidr": "10.1.0.0/26", "node": "n1"})));
        assert_eq!(planned(&world), [("10.0.0.0/29".to_owned(), 1), ("10.0.0.8/29".to_owned(), 3)]);
    }

    #[test]
    fn a_pod_that_comes_back_with_its_address_frees_nothing_where_it_runs() {
        let keeps = |pod: &str| {
            let spec = json!({"addresses": ["10.0.0.17"], "pod": {"namespace": "a", "name": pod}});
            object::<IPReservation>("kept", 0, spec)
        };
        let mut pinned = world(&[2, 2, 1]);
        pinned.reservations = vec![keeps("p2-0")];
        assert_eq!(planned(&pinned), [("10.0.0.8/29".to_owned(), 2)]);
        // Who has what is kept for another comes back without it.
        let mut another = world(&[2, 2, 1]);
        another.reservations = vec![keeps("other")];
        assert_eq!(planned(&another), [("10.0.0.16/29".to_owned(), 1)]);
        // It runs elsewhere, and has its address there whoever has the block.
        let mut elsewhere = world(&[3, 3, 2]);
        elsewhere.reservations = vec![keeps("p2-0")];
        let moved = elsewhere.addresses.iter_mut().find(|(_, pod)| pod.name() == "p2-0").unwrap();
        moved.1.spec.as_mut().unwrap().node_name = Some("n2".to_owned());
        let freed = plan(&elsewhere);
        assert_eq!(freed.iter().map(|one| one.pods.join(" ")).collect::<Vec<_>>(), ["a/p2-1"]);
    }
}
