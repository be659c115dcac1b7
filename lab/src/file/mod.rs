//! The lab file: in flows its text, out flows a [`LabFile`] in which every name is unique and every address has its place,
//! or one sentence that names the field and the way out.

mod check;

pub use check::short_enough;

use crate::names;
use crate::routers::Software;
use anyhow::{Context, bail, ensure};
use ipnet::IpNet;
use serde::Deserialize;
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
    /// Where its objects are.
    pub datastore: Datastore,
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
    /// Its routers; either every rack has one at least, or none has.
    pub tors: Vec<Router>,
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
    /// iBGP between nodes and those that the controller chooses to reflect.
    RouteReflector,
    /// A mesh in a small lab, reflectors in a large one.
    Auto,
    /// Nodes peer with their ToR.
    Fabric,
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

/// Where a lab's objects are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Datastore {
    /// In a file of the lab's own.
    #[default]
    Sqlite,
    /// In an etcd that the lab starts.
    Etcd,
    /// In the API server of `$KUBECONFIG`, which is there for this lab alone.
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
    #[serde(default)]
    tors: Option<Vec<RouterSpec>>,
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
    let document: Document = twill_crds::manifest::document(text, origin)?;
    lab(document).with_context(|| origin.to_owned())
}

fn lab(document: Document) -> anyhow::Result<LabFile> {
    let Document { api_version, kind, metadata, spec } = document;
    ensure!(
        api_version == "twill.network/v1" && kind == "Lab",
        "this is {api_version} {kind}; a lab file has apiVersion twill.network/v1 and kind Lab"
    );
    lab_name(&metadata.name).context("metadata.name")?;
    ensure!(!spec.racks.is_empty(), "spec.racks: there is no rack; a lab has at least one, with at least one node");
    let spine = spec.spine.map(|s| router(s, "spec.spine")).transpose()?;
    let racks = spec.racks.into_iter().enumerate().map(|(i, r)| rack(i, r)).collect::<anyhow::Result<Vec<_>>>()?;
    let file = LabFile {
        name: metadata.name,
        racks,
        spine,
        topology: spec.topology,
        resources: spec.resources,
        datastore: spec.datastore,
    };
    check::names(&file)?;
    check::subnets(&file.racks)?;
    check::routers(&file)?;
    Ok(file)
}

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
    let tors = tors(spec.tor, spec.tors, &field)?;
    Ok(Rack { name: spec.name, subnets, nodes: spec.nodes, tors })
}

/// Their addresses are `.1` and on, and nodes begin at `.11`.
const TORS: usize = 8;

fn tors(one: Option<RouterSpec>, several: Option<Vec<RouterSpec>>, field: &str) -> anyhow::Result<Vec<Router>> {
    ensure!(one.is_none() || several.is_none(), "{field}: tor and tors are both set; keep one");
    ensure!(
        several.as_ref().is_none_or(|tors| !tors.is_empty()),
        "{field}.tors: the list is empty; write e.g. [{{asn: 65101}}], or leave it out of every rack"
    );
    let several = several.unwrap_or_default();
    ensure!(several.len() <= TORS, "{field}.tors: {} are too many; a rack has up to {TORS}", several.len());
    if let Some(one) = one {
        return Ok(vec![router(one, &format!("{field}.tor"))?]);
    }
    several.into_iter().enumerate().map(|(i, tor)| router(tor, &format!("{field}.tors[{i}]"))).collect()
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
    /// Names of its ToRs.
    pub fn tor_names(&self) -> impl Iterator<Item = String> {
        (0..self.tors.len()).map(|index| names::tor(&self.name, index))
    }

    /// Addresses of the router at `index`, `.1` and on, with the subnet's length.
    #[must_use]
    pub fn gateways(&self, index: usize) -> Vec<IpNet> {
        self.hosts(1 + index)
    }

    /// Addresses of the node at `index`, `.11` and on, with the subnet's length.
    #[must_use]
    pub fn addresses(&self, index: usize) -> Vec<IpNet> {
        self.hosts(first_node() + index)
    }

    fn hosts(&self, n: usize) -> Vec<IpNet> {
        let address = |s: &IpNet| IpNet::new(host(*s, n)?, s.prefix_len()).ok();
        self.subnets.iter().filter_map(address).collect()
    }
}

/// Whether two prefixes share an address.
#[must_use]
pub fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    pub(crate) const TWO_RACKS: &str = "
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

    pub(crate) fn refused(from: &str, to: &str) -> String {
        let text = TWO_RACKS.replacen(from, to, 1);
        assert_ne!(text, TWO_RACKS, "the replacement must hit");
        format!("{:#}", parse(&text, "lab.yaml").unwrap_err())
    }

    #[test]
    fn the_contracts_file_is_read() {
        let file = parse(TWO_RACKS, "lab.yaml").unwrap();
        assert_eq!(file.name, "two-racks");
        assert_eq!(file.racks[1].addresses(1), ["172.31.2.12/24".parse().unwrap()]);
        assert_eq!(file.racks[0].gateways(0), ["172.31.1.1/24".parse().unwrap()]);
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
        assert_eq!(
            error,
            "lab.yaml:17: spec.ressources: is no field here; there are datastore, racks, spine, topology, resources"
        );
    }

    #[test]
    fn what_is_not_built_yet_is_refused_by_field() {
        assert!(refused("  spine: {asn: 65000}", "  topology: Reflector").contains("spec.topology"));
    }

    #[test]
    fn a_value_of_the_wrong_type_is_refused_with_line_field_and_way_out() {
        for (from, to, words) in [
            ("65102", "fast", "lab.yaml:15: spec.racks[1].tor.asn: is \"fast\"; use a number from 0 to 4294967295"),
            ("172.31.1.0/24", "here", "lab.yaml:9: spec.racks[0].subnet: is \"here\"; use a prefix, e.g. 10.42.0.0/16"),
            (
                "speaker: twill",
                "speaker: cisco",
                "lab.yaml:11: spec.racks[0].tor.speaker: is \"cisco\"; use twill, bird, frr or gobgp",
            ),
            (
                "  spine: {asn: 65000}",
                "  topology: Star",
                "lab.yaml:16: spec.topology: is \"Star\"; use Mesh, RouteReflector, Auto or Fabric",
            ),
            ("  spine: {asn: 65000}", "  spine: 65000", "lab.yaml:16: spec.spine: is 65000; use {asn: NUMBER}"),
            (
                "    subnet: 172.31.1.0/24\n",
                "",
                "lab.yaml: spec.racks[0].subnet: rack r1 has no subnet, e.g. 172.31.1.0/24",
            ),
            (
                "tor: {asn: 65102}",
                "tors: []",
                "lab.yaml: spec.racks[1].tors: the list is empty; write e.g. [{asn: 65101}], or leave it out of every rack",
            ),
        ] {
            assert_eq!(refused(from, to), words);
        }
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
    fn a_rack_has_one_tor_or_a_list_of_them() {
        let two = TWO_RACKS.replace("tor: {asn: 65102}", "tors: [{asn: 65102}, {asn: 65112, speaker: bird}]");
        let file = parse(&two, "l").unwrap();
        assert_eq!(file.racks[1].tor_names().collect::<Vec<_>>(), ["tor-r2", "tor-r2-2"]);
        assert_eq!(file.racks[1].tors[1], Router { asn: 65112, speaker: Software::Bird });
        assert_eq!(file.racks[1].gateways(1), ["172.31.2.2/24".parse().unwrap()]);
        assert!(
            refused("tor: {asn: 65102}", "tor: {asn: 1}\n    tors: [{asn: 2}]").contains("spec.racks[1]: tor and tors")
        );
        let nine = format!("tors: [{}]", ["{asn: 1}"; 9].join(", "));
        assert!(refused("tor: {asn: 65102}", &nine).contains("spec.racks[1].tors: 9 are too many"));
        assert!(refused("tor: {asn: 65102}", "tors: [{asn: 1}, {asn: 0}]").contains("spec.racks[1].tors[1].asn: 0"));
    }

    #[test]
    fn reserved_as_numbers_are_refused() {
        for asn in ["23456", "65535", "4294967295"] {
            assert!(refused("65101", asn).contains("spec.racks[0].tor.asn"));
        }
    }
}
