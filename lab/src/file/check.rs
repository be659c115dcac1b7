//! What must hold across a whole lab file: names that are unique, subnets that are apart, routers that can get on.

use super::{LabFile, Rack, TRANSIT_V4, TRANSIT_V6, Topology, is_name, overlap};
use crate::names::V6;
use anyhow::{bail, ensure};
use std::collections::{BTreeMap, BTreeSet};

/// Whether the sockets of all machines have paths that a Unix socket can have.
///
/// # Errors
/// Which name is too long.
pub fn short_enough(file: &LabFile) -> anyhow::Result<()> {
    let nodes = file.racks.iter().enumerate().flat_map(|(r, rack)| {
        let nodes = rack.nodes.iter().enumerate();
        let tors = rack.tor_names().map(move |tor| (format!("spec.racks[{r}].name"), tor));
        nodes.map(move |(n, node)| (format!("spec.racks[{r}].nodes[{n}]"), node.clone())).chain(tors)
    });
    for (field, machine) in nodes {
        let path = crate::names::lab_dir(&file.name).join(machine).join(twill_crds::names::FELIX_SOCKET);
        let length = path.as_os_str().len();
        ensure!(
            length <= SOCKET_PATH,
            "{field}: with a lab named {} the path of a socket would have {length} characters, and {SOCKET_PATH} are \
             possible; shorten one of the two names",
            file.name
        );
    }
    Ok(())
}

/// What fits `sockaddr_un.sun_path` beside its final zero.
const SOCKET_PATH: usize = 107;

/// Files beside the directories of machines.
const FILES: [&str; 9] = [
    "controller",
    "controller.log",
    "state.json",
    "state.json.new",
    "datastore.db",
    "datastore.db-wal",
    "datastore.db-shm",
    "datastore.db-journal",
    "pods.log",
];

pub(super) fn names(file: &LabFile) -> anyhow::Result<()> {
    let routers = router_names(file)?;
    let mut nodes = BTreeSet::new();
    for (r, rack) in file.racks.iter().enumerate() {
        for (n, node) in rack.nodes.iter().enumerate() {
            let field = format!("spec.racks[{r}].nodes[{n}]");
            ensure!(is_name(node), "{field}: {node:?} is no name for a node: a-z, 0-9, inner dashes and dots");
            ensure!(!routers.contains_key(node), "{field}: {node} is the name of a router of the lab; choose another");
            ensure!(
                !FILES.contains(&node.as_str()),
                "{field}: {node} is the name of a file of the lab; choose another"
            );
            ensure!(nodes.insert(node), "{field}: two nodes are named {node}; rename one");
        }
    }
    let dual_stack = file.racks[0].subnets.len() > 1;
    let peers = routers.keys().chain(nodes.into_iter().filter(|_| file.topology == Topology::Fabric));
    let peers = peers.map(String::as_str).collect::<BTreeSet<_>>();
    let taken = |name: &&&str| name.strip_suffix(V6).is_some_and(|other| peers.contains(other));
    if let Some(name) = peers.iter().find(taken).filter(|_| dual_stack) {
        bail!(
            "spec.racks: {name} would be a machine, and the IPv6 session with {}; rename a rack or a node",
            &name[..name.len() - V6.len()]
        );
    }
    Ok(())
}

/// Names of all routers, each with that of its rack, empty for those outside.
fn router_names(file: &LabFile) -> anyhow::Result<BTreeMap<String, &str>> {
    let mut racks = BTreeSet::new();
    let mut routers = BTreeMap::from([("spine".to_owned(), ""), ("router".to_owned(), "")]);
    for (r, rack) in file.racks.iter().enumerate() {
        ensure!(racks.insert(&rack.name), "spec.racks[{r}].name: two racks are named {}; rename one", rack.name);
        for tor in rack.tor_names() {
            if let Some(other) = routers.insert(tor.clone(), &rack.name) {
                bail!("spec.racks[{r}].name: racks {other} and {} would both have a {tor}; rename one", rack.name);
            }
        }
    }
    Ok(routers)
}

pub(super) fn subnets(racks: &[Rack]) -> anyhow::Result<()> {
    let families = |rack: &Rack| rack.subnets.iter().map(|s| s.addr().is_ipv4()).collect::<BTreeSet<_>>();
    for (i, rack) in racks.iter().enumerate() {
        ensure!(
            families(rack) == families(&racks[0]),
            "spec.racks[{i}]: racks {} and {} have different address families; give both the same",
            racks[0].name,
            rack.name
        );
        for subnet in &rack.subnets {
            for transit in [TRANSIT_V4, TRANSIT_V6] {
                ensure!(
                    !overlap(*subnet, transit),
                    "spec.racks[{i}]: {subnet} overlaps {transit}, which the lab uses between routers; choose another"
                );
            }
            for earlier in &racks[..i] {
                if let Some(other) = earlier.subnets.iter().find(|o| overlap(**o, *subnet)) {
                    bail!(
                        "spec.racks[{i}]: {subnet} of rack {} overlaps {other} of rack {}; choose another",
                        rack.name,
                        earlier.name
                    );
                }
            }
        }
    }
    Ok(())
}

pub(super) fn routers(file: &LabFile) -> anyhow::Result<()> {
    let tors = file.racks.iter().any(|r| !r.tors.is_empty());
    if let (true, Some(i)) = (tors, file.racks.iter().position(|r| r.tors.is_empty())) {
        bail!("spec.racks[{i}].tor: rack {} has no tor and another rack has; give every rack one or none", {
            &file.racks[i].name
        });
    }
    ensure!(
        tors || file.spine.is_none(),
        "spec.spine: a spine joins ToRs; give every rack a tor, or leave the spine out"
    );
    ensure!(
        tors || file.topology != Topology::Fabric,
        "spec.topology: in a Fabric nodes peer with their ToR; give every rack a tor, or use Mesh"
    );
    // ToRs of one rack may share an AS: they do not need each other's routes.
    let mut homes = file.spine.iter().map(|s| (s.asn, None)).collect::<BTreeMap<_, _>>();
    for (r, rack) in file.racks.iter().enumerate() {
        for (t, tor) in rack.tors.iter().enumerate() {
            let field = if rack.tors.len() == 1 { "tor".to_owned() } else { format!("tors[{t}]") };
            ensure!(
                homes.insert(tor.asn, Some(r)).is_none_or(|home| home == Some(r)),
                "spec.racks[{r}].{field}.asn: two routers have AS {}, and neither would take the other's routes (RFC 4271 \
                 section 9.1.2); give each its own, or one to ToRs of the same rack",
                tor.asn
            );
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::parse;
    use super::super::tests::{TWO_RACKS, refused};
    use super::*;

    #[test]
    fn two_nodes_with_one_name_are_refused() {
        let error = refused("[n3, n4]", "[n3, n1]");
        assert_eq!(error, "lab.yaml: spec.racks[1].nodes[1]: two nodes are named n1; rename one");
    }

    #[test]
    fn a_node_named_as_a_router_is_refused() {
        assert!(refused("[n3, n4]", "[n3, tor-r1]").contains("the name of a router"));
    }

    #[test]
    fn overlapping_racks_are_refused() {
        let error = refused("172.31.2.0/24", "172.31.0.0/16");
        assert!(error.contains("172.31.0.0/16 of rack r2 overlaps 172.31.1.0/24 of rack r1"), "{error}");
    }

    #[test]
    fn names_that_the_labs_files_leave_no_room_for_are_refused() {
        assert!(
            refused("[n3, n4]", "[n3, datastore.db]")
                .contains("spec.racks[1].nodes[1]: datastore.db is the name of a file")
        );
        let long = |length: usize| {
            let mut file = parse(&TWO_RACKS.replace("n4", &"n".repeat(length)), "l").unwrap();
            file.name = "l".repeat(32);
            short_enough(&file)
        };
        assert!(long(48).is_ok());
        let error = long(49).unwrap_err().to_string();
        assert!(error.contains("spec.racks[1].nodes[1]") && error.contains("108 characters, and 107"), "{error}");
    }

    #[test]
    fn racks_with_and_without_tor_do_not_mix() {
        assert!(refused("    tor: {asn: 65102}\n", "").contains("rack r2 has no tor"));
    }

    #[test]
    fn two_routers_with_one_as_are_refused() {
        assert!(refused("65102", "65101").contains("two routers have AS 65101"));
    }

    #[test]
    fn a_fabric_needs_tors_and_a_spine_too() {
        let bare =
            TWO_RACKS.replace("    tor: {asn: 65101, speaker: twill}\n", "").replace("    tor: {asn: 65102}\n", "");
        assert!(format!("{:#}", parse(&bare, "l").unwrap_err()).contains("spec.spine"));
        let fabric = bare.replace("  spine: {asn: 65000}", "  topology: Fabric");
        assert!(format!("{:#}", parse(&fabric, "l").unwrap_err()).contains("spec.topology"));
    }

    #[test]
    fn tors_of_one_rack_may_share_an_as_and_no_others() {
        let two = |asn: u32| TWO_RACKS.replace("tor: {asn: 65102}", &format!("tors: [{{asn: 65102}}, {{asn: {asn}}}]"));
        assert!(parse(&two(65102), "l").is_ok());
        for other in [65101, 65000] {
            let error = format!("{:#}", parse(&two(other), "l").unwrap_err());
            assert!(error.contains(&format!("spec.racks[1].tors[1].asn: two routers have AS {other}")), "{error}");
        }
    }

    #[test]
    fn names_that_routers_and_sessions_would_share_are_refused() {
        let two = TWO_RACKS.replace("tor: {asn: 65102}", "tors: [{asn: 65102}, {asn: 65112}]");
        let error = format!("{:#}", parse(&two.replace("name: r1", "name: r2-2"), "l").unwrap_err());
        assert!(error.contains("spec.racks[1].name: racks r2-2 and r2 would both have a tor-r2-2"), "{error}");
        let dual = TWO_RACKS
            .replace("subnet: 172.31.1.0/24", "subnets: [172.31.1.0/24, 'fd31:1::/64']")
            .replace("[172.31.2.0/24]", "[172.31.2.0/24, 'fd31:2::/64']");
        let error = |text: &str| format!("{:#}", parse(text, "l").unwrap_err());
        assert!(error(&dual.replace("name: r2", "name: r1-v6")).contains("tor-r1-v6 would be a machine"));
        let node = dual.replace("n2]", "n1-v6]");
        assert!(parse(&node, "l").is_ok(), "only in a Fabric routers peer with nodes");
        assert!(error(&node.replace("  resources", "  topology: Fabric\n  resources")).contains("session with n1"));
    }
}
