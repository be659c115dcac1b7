//! `twill ipam`: pools, blocks and addresses, as the datastore has them; `local` as this node's felix has them.

mod check;
mod defrag;
mod places;
mod repair;

use crate::args::{Ipam, Node};
use crate::commands::exit;
use crate::io::control::ask;
use crate::io::with_store;
use crate::output::{Format, print, print_line, print_table, print_value};
use ipnet::IpNet;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::ExitCode;
use twill_crds::control::FelixRequest;
use twill_crds::names::FELIX_SOCKET;
use twill_crds::{IPBlock, IPPool, IPReservation, NodeNetwork, Object, Pod, ippool};
use twill_datastore::{Datastore, Filter};
use twill_ipam::Reserved;

const FIELDS: [&str; 5] = ["address", "namespace", "pod", "container_id", "ifname"];
const HEADER: [&str; 5] = ["ADDRESS", "NAMESPACE", "POD", "CONTAINER", "INTERFACE"];

pub(crate) fn run(command: Ipam) -> anyhow::Result<ExitCode> {
    match command {
        Ipam::Show { store, output } => with_store(&store.datastore, async |store| {
            let world = World::read(&store).await?;
            show(output.output, &world.pools(), &world.shares())?;
            Ok(ExitCode::SUCCESS)
        }),
        Ipam::Who { address, store, output } => with_store(&store.datastore, async |store| {
            let owner = World::read(&store).await?.who(address);
            let text = |field: &Option<String>| field.clone().unwrap_or_else(|| "-".to_owned());
            let row = [&owner.pod, &owner.node, &owner.block, &owner.pool, &owner.reservation].map(text);
            let row = [vec![address.to_string()], row.to_vec()].concat();
            print(output.output, &owner, &["ADDRESS", "POD", "NODE", "BLOCK", "POOL", "RESERVED BY"], [row])?;
            Ok(exit(owner.pod.is_some() || owner.node.is_some()))
        }),
        Ipam::Check { repair, quarantine, store, output } => with_store(&store.datastore, async |store| {
            let freed = if repair { repair::run(&store, quarantine).await? } else { Vec::new() };
            check::run(&World::read(&store).await?, freed, output.output)
        }),
        Ipam::Defrag { store, output, .. } => with_store(&store.datastore, async |store| {
            defrag::run(&World::read(&store).await?, output.output)?;
            Ok(ExitCode::SUCCESS)
        }),
        Ipam::Local { node, output } => local(&node, output.output),
    }
}

fn local(node: &Node, format: Format) -> anyhow::Result<ExitCode> {
    let addresses: Vec<Value> = ask(&node.run_dir.join(FELIX_SOCKET), &FelixRequest::Addresses)?;
    let text = |entry: &Value, field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let rows = addresses.iter().map(|entry| FIELDS.iter().map(|field| text(entry, field)).collect());
    print(format, &addresses, &HEADER, rows)?;
    Ok(ExitCode::SUCCESS)
}

fn show(format: Format, pools: &[PoolUse], blocks: &[BlockUse]) -> anyhow::Result<()> {
    if format != Format::Table {
        return print_value(format, &serde_json::json!({"pools": pools, "blocks": blocks}));
    }
    let rows = pools.iter().map(|pool| {
        let share = format!("{}/{}", pool.used, pool.total);
        let state = pool.rejected.clone().unwrap_or_else(|| if pool.disabled { "disabled" } else { "in use" }.into());
        let (size, blocks) = (format!("/{}", pool.block_size), pool.blocks.to_string());
        let (cidr, reserved) = (pool.cidr.to_string(), pool.reserved.to_string());
        vec![pool.name.clone(), cidr, size, share, reserved, blocks, pool.free_blocks.to_string(), state]
    });
    print_table(&["POOL", "CIDR", "BLOCK", "USED/TOTAL", "RESERVED", "BLOCKS", "FREE BLOCKS", "STATE"], rows)?;
    print_line("")?;
    let row = |block: &BlockUse| {
        vec![block.cidr.to_string(), block.node.clone(), block.used.to_string(), block.reserved.to_string()]
    };
    print_table(&["BLOCK", "NODE", "USED", "RESERVED"], blocks.iter().map(row))
}

/// What addresses depend on.
struct World {
    pools: Vec<IPPool>,
    blocks: Vec<IPBlock>,
    /// Pods that have an address of their own, and the address.
    addresses: Vec<(IpAddr, Pod)>,
    /// UIDs of all pods.
    uids: BTreeSet<String>,
    reservations: Vec<IPReservation>,
    nodes: Vec<twill_crds::Node>,
    networks: Vec<NodeNetwork>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PoolUse {
    name: String,
    cidr: IpNet,
    block_size: u8,
    used: usize,
    total: u128,
    /// Addresses that IPReservations keep from pods, whether or not one has them.
    reserved: u128,
    blocks: usize,
    free_blocks: u128,
    disabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected: Option<String>,
}

#[derive(Debug, Serialize)]
struct BlockUse {
    cidr: IpNet,
    node: String,
    used: usize,
    reserved: u128,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Owner {
    pod: Option<String>,
    node: Option<String>,
    block: Option<String>,
    pool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reservation: Option<String>,
}

impl World {
    async fn read(store: &Datastore) -> anyhow::Result<Self> {
        let all = Filter::default();
        let pods = store.list::<Pod>(&all).await?.items;
        Ok(Self {
            pools: store.list(&all).await?.items,
            blocks: store.list(&all).await?.items,
            uids: pods.iter().filter_map(|pod| pod.metadata.uid.clone()).collect(),
            addresses: pods.into_iter().flat_map(own_addresses).collect(),
            reservations: store.list(&all).await?.items,
            nodes: store.list(&all).await?.items,
            networks: store.list(&all).await?.items,
        })
    }

    fn reserved(&self) -> Reserved {
        Reserved::new(&self.reservations)
    }

    fn pools(&self) -> Vec<PoolUse> {
        let (reserved, (_, rejected)) = (self.reserved(), ippool::accepted(&self.pools));
        let reason = |name: &str| rejected.iter().find(|(pool, _)| pool.name() == name).map(|(_, why)| why.clone());
        let of = |pool: &IPPool| {
            let (cidr, size) = (pool.spec.cidr, pool.spec.block_prefix_len());
            let blocks = self.blocks.iter().filter(|block| cidr.contains(&block.spec.cidr)).count();
            let room = 1u128 << size.saturating_sub(cidr.prefix_len());
            PoolUse {
                name: pool.name().to_owned(),
                cidr,
                block_size: size,
                used: self.used(cidr),
                total: 1u128.checked_shl(u32::from(cidr.max_prefix_len() - cidr.prefix_len())).unwrap_or(u128::MAX),
                reserved: reserved.count(cidr),
                blocks,
                free_blocks: room.saturating_sub(blocks as u128),
                disabled: pool.spec.disabled,
                rejected: reason(pool.name()),
            }
        };
        self.pools.iter().map(of).collect()
    }

    /// The blocks by address.
    fn shares(&self) -> Vec<BlockUse> {
        let reserved = self.reserved();
        let of = |block: &IPBlock| {
            let cidr = block.spec.cidr;
            BlockUse { cidr, node: block.spec.node.clone(), used: self.used(cidr), reserved: reserved.count(cidr) }
        };
        let mut shares: Vec<BlockUse> = self.blocks.iter().map(of).collect();
        shares.sort_by_key(|share| share.cidr);
        shares
    }

    fn used(&self, cidr: IpNet) -> usize {
        self.addresses.iter().filter(|(address, _)| cidr.contains(address)).count()
    }

    fn who(&self, address: IpAddr) -> Owner {
        let pod = self.addresses.iter().find(|(held, _)| *held == address).map(|(_, pod)| pod);
        let block = self.blocks.iter().find(|block| block.spec.cidr.contains(&address));
        let pool = self.pools.iter().find(|pool| pool.spec.cidr.contains(&address));
        Owner {
            pod: pod.map(|pod| format!("{}/{}", pod.namespace(), pod.name())),
            node: pod
                .and_then(|pod| pod.spec.as_ref()?.node_name.clone())
                .or_else(|| block.map(|block| block.spec.node.clone())),
            block: block.map(|block| block.spec.cidr.to_string()),
            pool: pool.map(|pool| pool.name().to_owned()),
            reservation: self.reserved().by(address).map(|(_, name)| name.to_owned()),
        }
    }
}

/// The addresses that a pod holds: none of a pod in its node's network, or of one that has ended.
fn own_addresses(pod: Pod) -> Vec<(IpAddr, Pod)> {
    let hosted = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
    let Some(status) = pod.status.as_ref().filter(|_| !hosted) else { return Vec::new() };
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return Vec::new();
    }
    let several = status.pod_ips.iter().flatten().map(|entry| entry.ip.clone());
    let mut addresses: Vec<IpAddr> = several.chain(status.pod_ip.clone()).filter_map(|ip| ip.parse().ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.into_iter().map(|address| (address, pod.clone())).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn world() -> World {
        let object = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "twill.network/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        let pod = |name: &str, ip: &str, phase: &str, host: bool| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": "a"}, "spec": {"nodeName": "n1", "hostNetwork": host, "containers": []},
                "status": {"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}]}
            }))
            .unwrap()
        };
        let pods = [
            pod("web", "10.0.0.1", "Running", false),
            pod("done", "10.0.0.2", "Succeeded", false),
            pod("host", "10.0.0.3", "Running", true),
        ];
        World {
            pools: vec![serde_json::from_value(object("IPPool", "p", json!({"cidr": "10.0.0.0/24"}))).unwrap()],
            blocks: vec![
                serde_json::from_value(object("IPBlock", "10-0-0-0-26", json!({"cidr": "10.0.0.0/26", "node": "n1"})))
                    .unwrap(),
            ],
            addresses: pods.into_iter().flat_map(own_addresses).collect(),
            reservations: vec![
                serde_json::from_value(object("IPReservation", "r", json!({"reservedCIDRs": ["10.0.0.0/28"]})))
                    .unwrap(),
            ],
            uids: BTreeSet::new(),
            nodes: Vec::new(),
            networks: Vec::new(),
        }
    }

    #[test]
    fn use_counts_pods_that_hold_an_address() {
        let pools = world().pools();
        assert_eq!((pools[0].used, pools[0].total, pools[0].blocks, pools[0].free_blocks), (1, 256, 1, 3));
        assert_eq!((world().shares()[0].used, world().shares()[0].reserved, pools[0].reserved), (1, 16, 16));
    }

    #[test]
    fn an_address_has_a_pod_or_at_least_a_node_or_nobody() {
        let who = |address: &str| world().who(address.parse().unwrap());
        let owner = |pod: Option<&str>, node: Option<&str>, block: Option<&str>, pool: Option<&str>| Owner {
            pod: pod.map(Into::into),
            node: node.map(Into::into),
            block: block.map(Into::into),
            pool: pool.map(Into::into),
            reservation: None,
        };
        let reserved = |owner| Owner { reservation: Some("r".into()), ..owner };
        assert_eq!(who("10.0.0.1"), reserved(owner(Some("a/web"), Some("n1"), Some("10.0.0.0/26"), Some("p"))));
        assert_eq!(who("10.0.0.2"), reserved(owner(None, Some("n1"), Some("10.0.0.0/26"), Some("p"))));
        assert_eq!(who("10.0.0.200"), owner(None, None, None, Some("p")));
        assert_eq!(who("fd00::1"), Owner::default());
    }
}
