//! The lab file: in flows its text, out flows a [`LabFile`] in which every name is unique and every address has its place,
//! or one sentence that names the field and the way out.

use crate::routers::Software;
use anyhow::{Context, bail, ensure};
use ipnet::IpNet;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Links between routers are numbered from here; racks and pools stay out of it (RFC 2544's benchmark range).
pub const TRANSIT_V4: IpNet = IpNet::V4(ipnet::Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15));
/// The same for IPv6: a unique local prefix of the lab's own.
pub const TRANSIT_V6: IpNet =
    IpNet::V6(ipnet::Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x7477, 0x696c, 0, 0, 0, 0, 0), 48));

/// A cluster to build.
#[derive(Clone, Debug, PartialEq)]
pub struct LabFile {
    /// `metadata.name`.
    pub name: String,
    /// At least one.
    pub racks: Vec<Rack>,
    /// Joins the ToRs.
    pub spine: Option<Router>,
    /// Who peers with whom.
    pub topology: Topology,
    /// Manifests, relative to the lab file.
    pub resources: Vec<String>,
}

/// One L2 segment.
#[derive(Clone, Debug, PartialEq)]
pub struct Rack {
    /// Its name.
    pub name: String,
    /// One subnet per family at most, at least one; all racks have the same families.
    pub subnets: Vec<IpNet>,
    /// Names of its nodes, in order of their addresses.
    pub nodes: Vec<String>,
    /// Its router; either every rack has one or none.
    pub tor: Option<Router>,
}

/// A router.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Router {
    /// Its AS.
    pub asn: u32,
    /// What it runs.
    pub speaker: Software,
}

/// Who peers with whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Topology {
    /// iBGP between all nodes; ToRs carry only the underlay.
    #[default]
    Mesh,
    /// Nodes peer with their ToR.
    Fabric,
    /// Not built yet.
    RouteReflector,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    #[serde(default)]
    datastore: Datastore,
    racks: Vec<RackSpec>,
    #[serde(default)]
    spine: Option<RouterSpec>,
    #[serde(default)]
    topology: Topology,
    #[serde(default)]
    resources: Vec<String>,
}

#[derive(Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Datastore {
    #[default]
    Sqlite,
    Etcd,
    Kubernetes,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RackSpec {
    name: String,
    #[serde(default)]
    subnet: Option<IpNet>,
    #[serde(default)]
    subnets: Vec<IpNet>,
    nodes: Vec<String>,
    #[serde(default)]
    tor: Option<RouterSpec>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RouterSpec {
    asn: u32,
    #[serde(default)]
    speaker: Software,
}

/// Reads a lab file; `origin` names it in errors.
///
/// # Errors
/// One sentence: file, line or field, what is wrong, what would be right.
pub fn parse(text: &str, origin: &str) -> anyhow::Result<LabFile> {
    let document: Document = match serde_saphyr::from_str(text) {
        Ok(document) => document,
        Err(error) => {
            let line = error.location().map(|l| format!(" line {}", l.line())).unwrap_or_default();
            let problem = error.without_snippet().to_string();
            let problem = problem.lines().next().unwrap_or_default();
            // The line is said in front already.
            bail!("{origin}{line}: {}", problem.rsplit_once(" at line ").map_or(problem, |(text, _)| text));
        }
    };
    lab(document).with_context(|| origin.to_owned())
}

fn lab(document: Document) -> anyhow::Result<LabFile> {
    let Document { api_version, kind, metadata, spec } = document;
    ensure!(
        api_version == "twill.network/v1" && kind == "Lab",
        "this is {api_version} {kind}; a lab file has apiVersion twill.network/v1 and kind Lab"
    );
    lab_name(&metadata.name).context("metadata.name")?;
    match spec.datastore {
        Datastore::Sqlite => {}
        Datastore::Etcd => bail!("spec.datastore: etcd is not possible yet; use sqlite"),
        Datastore::Kubernetes => bail!("spec.datastore: kubernetes is not possible yet; use sqlite"),
    }
    ensure!(
        spec.topology != Topology::RouteReflector,
        "spec.topology: RouteReflector is not possible yet; use Mesh or Fabric"
    );
    ensure!(!spec.racks.is_empty(), "spec.racks: there is no rack; a lab has at least one, with at least one node");
    let spine = spec.spine.map(|s| router(s, "spec.spine")).transpose()?;
    let racks = spec.racks.into_iter().enumerate().map(|(i, r)| rack(i, r)).collect::<anyhow::Result<Vec<_>>>()?;
    let file = LabFile { name: metadata.name, racks, spine, topology: spec.topology, resources: spec.resources };
    names(&file)?;
    subnets(&file.racks)?;
    routers(&file)?;
    Ok(file)
}

/// Whether the sockets of all machines have paths that a Unix socket can have.
///
/// # Errors
/// Which name is too long.
pub fn short_enough(file: &LabFile) -> anyhow::Result<()> {
    let nodes = file.racks.iter().enumerate().flat_map(|(r, rack)| {
        let nodes = rack.nodes.iter().enumerate();
        let tor = rack.tor.map(|_| (format!("spec.racks[{r}].name"), format!("tor-{}", rack.name)));
        nodes.map(move |(n, node)| (format!("spec.racks[{r}].nodes[{n}]"), node.clone())).chain(tor)
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
const FILES: [&str; 7] = [
    "state.json",
    "state.json.new",
    "datastore.db",
    "datastore.db-wal",
    "datastore.db-shm",
    "datastore.db-journal",
    "pods.log",
];

/// A lab's name becomes part of file and namespace names.
///
/// # Errors
/// What a name looks like.
pub fn lab_name(name: &str) -> anyhow::Result<()> {
    ensure!(
        is_name(name) && name.len() <= 32 && !name.contains('.'),
        "{name:?} is no name for a lab: up to 32 of a-z, 0-9 and inner dashes"
    );
    Ok(())
}

fn is_name(name: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = name.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= 63
        && bytes.iter().all(|c| inner(*c) || *c == b'-' || *c == b'.')
        && bytes.first().copied().is_some_and(inner)
        && bytes.last().copied().is_some_and(inner)
}

fn router(spec: RouterSpec, field: &str) -> anyhow::Result<Router> {
    ensure!(spec.asn != 0, "{field}.asn: 0 is reserved (RFC 7607); private numbers start at 64512");
    ensure!(
        ![23456, 65535, u32::MAX].contains(&spec.asn),
        "{field}.asn: {} is reserved (RFC 6793, RFC 7300); private numbers start at 64512",
        spec.asn
    );
    Ok(Router { asn: spec.asn, speaker: spec.speaker })
}

fn rack(index: usize, spec: RackSpec) -> anyhow::Result<Rack> {
    let field = format!("spec.racks[{index}]");
    ensure!(is_name(&spec.name), "{field}.name: {:?} is no name: a-z, 0-9, inner dashes and dots", spec.name);
    let subnets = match (spec.subnet, spec.subnets) {
        (Some(_), more) if !more.is_empty() => bail!("{field}: subnet and subnets are both set; keep one"),
        (Some(one), _) => vec![one],
        (None, several) => several,
    };
    ensure!(!subnets.is_empty(), "{field}.subnet: rack {} has no subnet, e.g. 172.31.1.0/24", spec.name);
    ensure!(!spec.nodes.is_empty(), "{field}.nodes: rack {} has no node", spec.name);
    for subnet in &subnets {
        ensure!(subnet.trunc() == *subnet, "{field}: {subnet} has host bits set; it would be {}", subnet.trunc());
        ensure!(
            is_for_hosts(subnet.addr()),
            "{field}: {subnet} is not for hosts (unspecified, loopback, link-local or multicast); use e.g. 172.31.1.0/24"
        );
        ensure!(
            subnets.iter().filter(|s| s.addr().is_ipv4() == subnet.addr().is_ipv4()).count() == 1,
            "{field}.subnets: rack {} has two subnets of one family; one per family is possible",
            spec.name
        );
        let last = host(*subnet, first_node() + spec.nodes.len() - 1);
        ensure!(
            last.is_some_and(|a| usable(*subnet, a)),
            "{field}: {subnet} has no room for {} nodes from .11 on; use a larger subnet",
            spec.nodes.len()
        );
    }
    let tor = spec.tor.map(|t| router(t, &format!("{field}.tor"))).transpose()?;
    Ok(Rack { name: spec.name, subnets, nodes: spec.nodes, tor })
}

fn is_for_hosts(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.octets()[0] != 0 && !a.is_loopback() && !a.is_link_local() && !a.is_multicast(),
        IpAddr::V6(a) => a.segments()[0] != 0 && !a.is_unicast_link_local() && !a.is_multicast(),
    }
}

fn first_node() -> usize {
    11
}

fn usable(subnet: IpNet, address: IpAddr) -> bool {
    subnet.contains(&address) && address != subnet.broadcast() && address != subnet.network()
}

/// Address number `n` of a subnet: `.n` for IPv4; for IPv6 the same digits, so that node `.11` is also `::11`.
#[must_use]
pub fn host(subnet: IpNet, n: usize) -> Option<IpAddr> {
    let address = match subnet {
        IpNet::V4(net) => IpAddr::V4(Ipv4Addr::from(u32::from(net.network()).checked_add(u32::try_from(n).ok()?)?)),
        IpNet::V6(net) => {
            let digits = u128::from_str_radix(&n.to_string(), 16).ok()?;
            IpAddr::V6(Ipv6Addr::from(u128::from(net.network()).checked_add(digits)?))
        }
    };
    subnet.contains(&address).then_some(address)
}

impl Rack {
    /// The router's addresses, `.1`.
    #[must_use]
    pub fn gateways(&self) -> Vec<IpAddr> {
        self.subnets.iter().filter_map(|s| host(*s, 1)).collect()
    }

    /// Addresses of the node at `index`, `.11` and on, with the subnet's length.
    #[must_use]
    pub fn addresses(&self, index: usize) -> Vec<IpNet> {
        let address = |s: &IpNet| IpNet::new(host(*s, first_node() + index)?, s.prefix_len()).ok();
        self.subnets.iter().filter_map(address).collect()
    }
}

fn names(file: &LabFile) -> anyhow::Result<()> {
    let mut racks = BTreeSet::new();
    let mut taken = BTreeSet::from(["spine".to_owned(), "router".to_owned()]);
    for (r, rack) in file.racks.iter().enumerate() {
        ensure!(racks.insert(&rack.name), "spec.racks[{r}].name: two racks are named {}; rename one", rack.name);
        taken.insert(format!("tor-{}", rack.name));
    }
    let mut nodes = BTreeSet::new();
    for (r, rack) in file.racks.iter().enumerate() {
        for (n, node) in rack.nodes.iter().enumerate() {
            let field = format!("spec.racks[{r}].nodes[{n}]");
            ensure!(is_name(node), "{field}: {node:?} is no name for a node: a-z, 0-9, inner dashes and dots");
            ensure!(!taken.contains(node), "{field}: {node} is the name of a router of the lab; choose another");
            ensure!(
                !FILES.contains(&node.as_str()),
                "{field}: {node} is the name of a file of the lab; choose another"
            );
            ensure!(nodes.insert(node), "{field}: two nodes are named {node}; rename one");
        }
    }
    Ok(())
}

fn subnets(racks: &[Rack]) -> anyhow::Result<()> {
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

fn routers(file: &LabFile) -> anyhow::Result<()> {
    let tors = file.racks.iter().filter(|r| r.tor.is_some()).count();
    if let (true, Some(i)) = (tors > 0, file.racks.iter().position(|r| r.tor.is_none())) {
        bail!("spec.racks[{i}].tor: rack {} has no tor and another rack has; give every rack one or none", {
            &file.racks[i].name
        });
    }
    ensure!(
        tors > 0 || file.spine.is_none(),
        "spec.spine: a spine joins ToRs; give every rack a tor, or leave the spine out"
    );
    ensure!(
        tors > 0 || file.topology != Topology::Fabric,
        "spec.topology: in a Fabric nodes peer with their ToR; give every rack a tor, or use Mesh"
    );
    let mut seen = BTreeSet::new();
    let asns = file.spine.iter().map(|s| ("spec.spine".to_owned(), s.asn)).chain(
        file.racks.iter().enumerate().filter_map(|(i, r)| r.tor.map(|t| (format!("spec.racks[{i}].tor"), t.asn))),
    );
    for (field, asn) in asns {
        ensure!(
            seen.insert(asn),
            "{field}.asn: two routers have AS {asn}, and neither would take the other's routes (RFC 4271 section 9.1.2); \
             give each its own"
        );
    }
    Ok(())
}

/// Whether two prefixes share an address.
#[must_use]
pub fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TWO_RACKS: &str = "
apiVersion: twill.network/v1
kind: Lab
metadata:
  name: two-racks
spec:
  racks:
  - name: r1
    subnet: 172.31.1.0/24
    nodes: [n1, n2]
    tor: {asn: 65101, speaker: twill}
  - name: r2
    subnets: [172.31.2.0/24]
    nodes: [n3, n4]
    tor: {asn: 65102}
  spine: {asn: 65000}
  resources: [app.yaml]
";

    fn refused(from: &str, to: &str) -> String {
        let text = TWO_RACKS.replacen(from, to, 1);
        assert_ne!(text, TWO_RACKS, "the replacement must hit");
        format!("{:#}", parse(&text, "lab.yaml").unwrap_err())
    }

    #[test]
    fn the_contracts_file_is_read() {
        let file = parse(TWO_RACKS, "lab.yaml").unwrap();
        assert_eq!(file.name, "two-racks");
        assert_eq!(file.racks[1].addresses(1), ["172.31.2.12/24".parse().unwrap()]);
        assert_eq!(file.racks[0].gateways(), ["172.31.1.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(file.spine, Some(Router { asn: 65000, speaker: Software::Twill }));
        assert_eq!(file.topology, Topology::Mesh);
    }

    #[test]
    fn ipv6_hosts_have_the_same_digits_as_ipv4_hosts() {
        assert_eq!(host("fd31:1::/64".parse().unwrap(), 20), Some("fd31:1::20".parse().unwrap()));
        assert_eq!(host("172.31.1.0/28".parse().unwrap(), 20), None);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let error = refused("  resources:", "  ressources:");
        assert!(error.contains("lab.yaml line 17") && error.contains("ressources"), "{error}");
    }

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
    fn what_is_not_built_yet_is_refused_by_field() {
        assert!(refused("  spine: {asn: 65000}", "  datastore: etcd").contains("spec.datastore: etcd"));
        assert!(refused("  spine: {asn: 65000}", "  topology: RouteReflector").contains("spec.topology"));
    }

    #[test]
    fn a_subnet_without_room_is_refused() {
        assert!(refused("172.31.1.0/24", "172.31.1.0/29").contains("no room for 2 nodes"));
        assert!(refused("172.31.1.0/24", "172.31.1.7/24").contains("it would be 172.31.1.0/24"));
    }

    #[test]
    fn a_subnet_that_is_not_for_hosts_is_refused() {
        for subnet in
            ["127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/24", "0.0.0.0/8", "'fe80::/64'", "'ff02::/64'", "'::/64'"]
        {
            let error = refused("172.31.1.0/24", subnet);
            assert!(error.contains("spec.racks[0]: ") && error.contains("is not for hosts"), "{error}");
        }
    }

    #[test]
    fn reserved_as_numbers_are_refused() {
        for asn in ["23456", "65535", "4294967295"] {
            assert!(refused("65101", asn).contains("spec.racks[0].tor.asn"));
        }
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
}
