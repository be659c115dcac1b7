//! `twill ipam check`: what is wrong with pools, blocks and addresses, as the datastore has them, one sentence each.

use super::World;
use super::places::{Keeping, Places};
use crate::commands::{counted, exit};
use crate::output::{Format, print_line, print_table, print_value};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::process::ExitCode;
use twill_crds::{IPBlock, IPReservation, Object, Pod, ip_reservation, ippool};
use twill_ipam::range;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// Kind and name of the object.
    object: String,
    /// What is wrong with it, what `--repair` does, or what a person must do; one sentence with its object before it.
    finding: String,
}

/// Prints what is wrong, and before that what was repaired; exit 2 if something is wrong.
pub(super) fn run(world: &World, repaired: Vec<String>, format: Format) -> anyhow::Result<ExitCode> {
    let found = findings(world);
    if format != Format::Table {
        print_value(format, &serde_json::json!({"repaired": repaired, "findings": found}))?;
        return Ok(exit(found.is_empty()));
    }
    repaired.iter().try_for_each(|sentence| print_line(sentence))?;
    if found.is_empty() {
        let (pools, blocks) = (counted(world.pools.len(), "pool"), counted(world.blocks.len(), "block"));
        print_line(&format!(
            "nothing is wrong with {pools}, {blocks} and {}",
            counted(world.addresses.len(), "address of pod")
        ))?;
    } else {
        print_table(&["OBJECT", "FINDING"], found.iter().map(|one| vec![one.object.clone(), one.finding.clone()]))?;
    }
    Ok(exit(found.is_empty()))
}

/// All that is wrong, in an order that depends on the objects alone.
pub(super) fn findings(world: &World) -> Vec<Finding> {
    let mut found = pools(world);
    found.extend(blocks(world));
    found.extend(owners(world));
    found.extend(overlaps(world));
    found.extend(shared(world));
    let places = Places::new(world);
    found.extend(misplaced(world, &places));
    found.extend(reserved(world, &places));
    found.extend(reservations(world));
    found
}

fn pools(world: &World) -> Vec<Finding> {
    let (_, rejected) = ippool::accepted(&world.pools);
    let finding = |(pool, why): (&twill_crds::IPPool, String)| Finding {
        object: format!("IPPool {}", pool.name()),
        finding: format!("gives no addresses: {why}"),
    };
    rejected.into_iter().map(finding).collect()
}

fn blocks(world: &World) -> Vec<Finding> {
    let outside = |block: &&IPBlock| !world.pools.iter().any(|pool| pool.spec.cidr.contains(&block.spec.cidr));
    let finding = |block: &IPBlock| {
        let (node, pods) = (&block.spec.node, counted(world.used(block.spec.cidr), "pod"));
        let way = "node NODE gives it back when its last pod ends; restart them, or create the IPPool again";
        Finding {
            object: of(block),
            finding: format!("lies in no IPPool and {pods} of it run; {}", way.replace("NODE", node)),
        }
    };
    world.blocks.iter().filter(outside).map(finding).collect()
}

/// Blocks whose node is not there, or has never said anything.
fn owners(world: &World) -> Vec<Finding> {
    let nodes: BTreeSet<&str> = world.nodes.iter().map(Object::name).collect();
    let networks: BTreeSet<&str> = world.networks.iter().map(Object::name).collect();
    let mut without: BTreeMap<&str, usize> = BTreeMap::new();
    let mut found = Vec::new();
    for block in &world.blocks {
        let node = block.spec.node.as_str();
        if !nodes.contains(node) {
            found.push(Finding {
                object: of(block),
                finding: format!(
                    "is node {node}'s, and there is no such Node; the controller, or --repair, frees it when no Pod has named {node} for the \
                     whole quarantine; register the Node again if its machine runs"
                ),
            });
        } else if !networks.contains(node) {
            *without.entry(node).or_default() += 1;
        }
    }
    found.extend(without.into_iter().map(|(node, blocks)| Finding {
        object: format!("Node {node}"),
        finding: format!(
            "owns {} and has no NodeNetwork, so its felix and bgpd do not report; look there: twill status",
            counted(blocks, "block")
        ),
    }));
    found
}

fn overlaps(world: &World) -> Vec<Finding> {
    let mut all: Vec<&IPBlock> = world.blocks.iter().collect();
    all.sort_by_key(|block| {
        (block.spec.cidr.addr().is_ipv6(), range::span(block.spec.cidr).0, block.spec.cidr.prefix_len())
    });
    let mut found = Vec::new();
    // Of ranges in this order whichever holds another comes before it.
    let mut around: Vec<&IPBlock> = Vec::new();
    for block in all {
        around.retain(|wide| wide.spec.cidr.contains(&block.spec.cidr));
        found.extend(around.iter().map(|wide| Finding {
            object: of(block),
            finding: format!(
                "of node {} overlaps {} of node {}, so neither gives addresses; the node that has no pod in its block gives it back by \
                 itself; if both have, restart the pods of one",
                block.spec.node,
                of(wide),
                wide.spec.node
            ),
        }));
        around.push(block);
    }
    found
}

/// Addresses that several pods have.
fn shared(world: &World) -> Vec<Finding> {
    let mut pods: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
    for (address, pod) in &world.addresses {
        pods.entry(*address).or_default().insert(called(pod));
    }
    let several = pods.into_iter().filter(|(_, pods)| pods.len() > 1);
    several
        .map(|(address, pods)| {
            let pods: Vec<String> = pods.into_iter().collect();
            Finding {
                object: format!("Pod {}", pods[0]),
                finding: format!(
                    "has {address}, which Pod {} has, too; delete the one that should not have it: twill ipam who {address}",
                    pods[1..].join(" and Pod ")
                ),
            }
        })
        .collect()
}

/// Pods whose address lies in no block, or in another node's. One outside every pool is of an address plugin that is not Twill's.
fn misplaced(world: &World, places: &Places<'_>) -> Vec<Finding> {
    let in_pool = |address: &IpAddr| world.pools.iter().any(|pool| pool.spec.cidr.contains(address));
    let is_held = |address, pod| matches!(places.keeping(address, pod), Some(Keeping::Holds | Keeping::Lost(..)));
    let mut found = Vec::new();
    for (address, pod) in world.addresses.iter().filter(|(address, pod)| in_pool(address) && !is_held(*address, pod)) {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        let mut around = places.around(*address).peekable();
        let finding = match around.peek().copied() {
            None => format!(
                "has {address}, which lies in no IPBlock; node {node} claims it again within seconds if its felix runs (twill status there); \
                 if that does not help, restart the pod"
            ),
            Some(block) if around.all(|block| block.spec.node != node) => format!(
                "runs on node {node} and has {address}, which lies in {} of node {}, so it is cut off; restart the pod",
                of(block),
                block.spec.node
            ),
            Some(_) => continue,
        };
        found.push(Finding { object: format!("Pod {}", called(pod)), finding });
    }
    found
}

/// Pods whose address is reserved, and not for them, or not in their hands.
fn reserved(world: &World, places: &Places<'_>) -> Vec<Finding> {
    let reserved = world.reserved();
    let mut found = Vec::new();
    for (address, pod) in &world.addresses {
        let finding = match places.keeping(*address, pod) {
            Some(Keeping::Holds) => continue,
            Some(Keeping::Lost(one, holder)) => format!(
                "has {address}, which IPReservation {} keeps and node {} holds for a pod with UID {}, so it is cut off; restart the pod",
                one.name(),
                holder.node,
                holder.pod_uid
            ),
            Some(Keeping::Unheld(one)) => format!(
                "has {address}, which IPReservation {} keeps for it since, and is not its holder, so it has it only in a block of its node; \
                 restart the pod",
                one.name()
            ),
            None => {
                let Some((range, name)) = reserved.by(*address) else { continue };
                format!(
                    "has {address}, which IPReservation {name} reserves since ({range}); it keeps it until it ends: restart it, or take the \
                     address out of that IPReservation"
                )
            }
        };
        found.push(Finding { object: format!("Pod {}", called(pod)), finding });
    }
    found
}

/// Reservations that do not count, and those whose holder is no Pod any more.
fn reservations(world: &World) -> Vec<Finding> {
    let all: Vec<&IPReservation> = world.reservations.iter().collect();
    let (_, rejected) = ip_reservation::accepted(&all);
    let mut found: Vec<Finding> = rejected
        .into_iter()
        .map(|(one, why)| Finding {
            object: format!("IPReservation {}", one.name()),
            finding: format!("keeps nothing for its pod: {why}"),
        })
        .collect();
    let nodes: BTreeSet<&str> = world.nodes.iter().map(Object::name).collect();
    for one in &world.reservations {
        let Some(holder) = one.holder().filter(|holder| !world.uids.contains(&holder.pod_uid)) else { continue };
        let node = &holder.node;
        let finding = if nodes.contains(node.as_str()) {
            format!(
                "is held by node {node} for a pod with UID {}, which is gone; that node gives it up when the pod's container has ended, and any \
                 other takes it once nothing is routed there; if it stays, see on {node} whether felix runs (twill status) and which container \
                 has the address (twill ipam local), and remove that one's sandbox (crictl rmp)",
                holder.pod_uid
            )
        } else {
            format!(
                "is held by node {node}, which is no Node any more, for a pod that is gone; the controller frees it after the whole quarantine"
            )
        };
        found.push(Finding { object: format!("IPReservation {}", one.name()), finding });
    }
    found
}

fn of(block: &IPBlock) -> String {
    format!("IPBlock {}", block.spec.cidr)
}

fn called(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace(), pod.name())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::own_addresses;
    use super::*;
    use serde_json::{Value, json};

    fn object<K: Object>(name: &str, spec: Value) -> K {
        let kind = K::kind();
        let object =
            json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"name": name}, "spec": spec});
        serde_json::from_value(object).unwrap()
    }

    fn block(cidr: &str, node: &str) -> IPBlock {
        object("b", json!({"cidr": cidr, "node": node}))
    }

    fn pod(name: &str, node: &str, ip: &str) -> Vec<(IpAddr, Pod)> {
        let pod = json!({"metadata": {"name": name, "namespace": "a"}, "spec": {"nodeName": node, "containers": []},
            "status": {"phase": "Running", "podIPs": [{"ip": ip}]}});
        own_addresses(serde_json::from_value(pod).unwrap())
    }

    /// Keeps an address of n2's block for a pod that n1 has.
    fn kept(uid: &str) -> IPReservation {
        let mut kept: IPReservation =
            object("db", json!({"addresses": ["10.0.0.70"], "pod": {"namespace": "a", "name": "db-0"}}));
        kept.status.get_or_insert_default().holder =
            Some(ip_reservation::Holder { node: "n1".into(), pod_uid: uid.into(), ..Default::default() });
        kept
    }

    fn meta(name: &str) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
        serde_json::from_value(json!({"name": name})).unwrap()
    }

    /// Two nodes with a block and a pod each, with which nothing is wrong.
    fn sound() -> World {
        World {
            pools: vec![object("p", json!({"cidr": "10.0.0.0/16"}))],
            blocks: vec![block("10.0.0.0/26", "n1"), block("10.0.0.64/26", "n2")],
            addresses: [pod("web", "n1", "10.0.0.1"), pod("db", "n2", "10.0.0.65"), pod("other", "n2", "192.0.2.7")]
                .concat(),
            reservations: vec![object("r", json!({"reservedCIDRs": ["10.0.0.32/28"]}))],
            uids: ["u".to_owned()].into(),
            nodes: ["n1", "n2"].map(|name| object(name, json!({}))).into(),
            networks: ["n1", "n2"].map(|name| object(name, json!({}))).into(),
        }
    }

    /// What is found after this was done.
    fn after(change: impl FnOnce(&mut World)) -> Vec<String> {
        let mut world = sound();
        change(&mut world);
        findings(&world).into_iter().map(|one| format!("{} {}", one.object, one.finding)).collect()
    }

    #[test]
    fn nothing_is_wrong_with_what_is_sound() {
        assert_eq!(after(|_| ()), [""; 0]);
    }

    #[test]
    fn each_fault_is_one_sentence_about_its_object() {
        let found = |change: fn(&mut World), says: &[&str]| {
            let found = after(change);
            assert_eq!(found.len(), says.len(), "{found:?}");
            for (found, says) in found.iter().zip(says) {
                assert!(found.starts_with(says), "{found:?} does not begin with {says:?}");
            }
        };
        found(
            |w| w.pools.push(object("q", json!({"cidr": "10.0.4.0/24"}))),
            &["IPPool q gives no addresses: 10.0.4.0/24 overlaps IPPool p"],
        );
        found(
            |w| w.blocks.push(block("10.9.0.0/26", "n1")),
            &["IPBlock 10.9.0.0/26 lies in no IPPool and 0 pods of it run; node n1 gives it back"],
        );
        found(|w| drop(w.nodes.pop()), &["IPBlock 10.0.0.64/26 is node n2's, and there is no such Node"]);
        found(|w| drop(w.networks.pop()), &["Node n2 owns 1 block and has no NodeNetwork"]);
        found(
            |w| w.blocks.push(block("10.0.0.0/24", "n1")),
            &[
                "IPBlock 10.0.0.0/26 of node n1 overlaps IPBlock 10.0.0.0/24",
                "IPBlock 10.0.0.64/26 of node n2 overlaps IPBlock 10.0.0.0/24",
            ],
        );
        found(
            |w| w.addresses.extend(pod("two", "n1", "10.0.0.1")),
            &["Pod a/two has 10.0.0.1, which Pod a/web has, too"],
        );
        found(
            |w| w.addresses.extend(pod("two", "n1", "10.0.7.1")),
            &["Pod a/two has 10.0.7.1, which lies in no IPBlock"],
        );
        found(
            |w| w.addresses.extend(pod("two", "n1", "10.0.0.66")),
            &["Pod a/two runs on node n1 and has 10.0.0.66, which lies in IPBlock 10.0.0.64/26 of node n2"],
        );
        found(
            |w| w.addresses.extend(pod("two", "n1", "10.0.0.33")),
            &["Pod a/two has 10.0.0.33, which IPReservation r reserves since (10.0.0.32/28)"],
        );
        found(|w| w.reservations.push(kept("u")), &[]);
        found(
            |w| w.reservations.push(kept("gone")),
            &[
                "IPReservation db is held by node n1 for a pod with UID gone, which is gone; that node gives it up when the pod's container has \
                 ended",
            ],
        );
        found(
            |w| w.reservations.extend([kept("u"), IPReservation { metadata: meta("db2"), ..kept("u") }]),
            &[
                "IPReservation db2 keeps nothing for its pod: spec.addresses: the older IPReservation db keeps 10.0.0.70",
            ],
        );
    }

    #[test]
    fn a_kept_address_is_rightly_had_only_by_the_pod_that_holds_it() {
        let found = |holder: Option<&str>, uid: &str, address: &str| {
            let mut one = kept(holder.unwrap_or_default());
            if holder.is_none() {
                one.status = None;
            }
            one.spec.addresses = vec![address.parse().unwrap()];
            let mut moved = pod("db-0", "n1", address);
            moved.iter_mut().for_each(|(_, pod)| pod.metadata.uid = Some(uid.to_owned()));
            after(|w| {
                w.uids.insert(uid.to_owned());
                w.reservations.push(one);
                w.addresses.extend(moved);
            })
        };
        // In n2's block, and in n1's own.
        let (far, near) = ("10.0.0.70", "10.0.0.7");
        assert_eq!(found(Some("v"), "v", far), [""; 0]);
        assert_eq!(found(Some("v"), "v", near), [""; 0]);
        for address in [far, near] {
            assert_eq!(
                found(Some("u"), "v", address),
                [format!(
                    "Pod a/db-0 has {address}, which IPReservation db keeps and node n1 holds for a pod with UID u, so it is cut off; restart the pod"
                )]
            );
        }
        let unheld = |address: &str| {
            format!(
                "Pod a/db-0 has {address}, which IPReservation db keeps for it since, and is not its holder, so it has it only in a block of its \
                 node; restart the pod"
            )
        };
        assert_eq!(found(None, "v", near), [unheld(near)]);
        let cut_off = "Pod a/db-0 runs on node n1 and has 10.0.0.70, which lies in IPBlock 10.0.0.64/26 of node n2, so it is cut off; restart the pod";
        assert_eq!(found(None, "v", far), [cut_off.to_owned(), unheld(far)]);
    }
}
