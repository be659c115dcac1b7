//! Names and numbers that two components, or two releases, must agree on. Changing one is a change of the protocol
//! between them.

/// API group of Twill's own kinds.
pub const GROUP: &str = "twill.network";
/// API group of the cluster's own policies (network-policy-api).
pub const POLICY_GROUP: &str = "policy.networking.k8s.io";
/// Version of [`GROUP`] that this release reads and writes.
pub const VERSION: &str = "v1";

/// `rtm_protocol` of every route that bgpd writes (`linux/rtnetlink.h`, RTPROT range for user space). A label only:
/// ownership is (table, metric), see [`METRIC_LEARNED`] and [`METRIC_UNREACHABLE`].
pub const RTPROT_BGPD: u8 = 84;
/// `rtm_protocol` of every route that felix writes.
pub const RTPROT_FELIX: u8 = 85;
/// Metric (RTA_PRIORITY) of a learned route, written by bgpd alone.
pub const METRIC_LEARNED: u32 = 512;
/// Metric of the unreachable route that covers the unused part of an own block, written by bgpd alone.
pub const METRIC_UNREACHABLE: u32 = 4096;
/// Metric of a local IPv4 workload route, written by felix alone.
pub const METRIC_LOCAL_V4: u32 = 0;
/// Metric of a local IPv6 workload route, written by felix alone. The kernel reads 0 as 1024 for IPv6, hence another value.
pub const METRIC_LOCAL_V6: u32 = 64;

/// How the names of tunnel devices begin.
pub const TUNNEL_PREFIX: &str = "twill-";
/// The collect-metadata VXLAN device of a node.
pub const VXLAN_DEVICE: &str = "twill-vxlan";
/// UDP port of [`VXLAN_DEVICE`] unless configured otherwise (RFC 7348).
pub const VXLAN_PORT: u16 = 4789;
/// VXLAN network identifier.
pub const VXLAN_VNI: u32 = 4096;
/// Bytes that VXLAN over IPv4 adds to a packet: Ethernet 14, IPv4 20, UDP 8, VXLAN 8.
pub const VXLAN_OVERHEAD: u32 = 50;
/// The same over IPv6, whose header has 40.
pub const VXLAN_OVERHEAD_V6: u32 = 70;
/// The collect-metadata IP-in-IP device of a node.
pub const IPIP_DEVICE: &str = "twill-ipip";
/// Bytes that IP-in-IP adds to a packet: one IPv4 header (RFC 2003).
pub const IPIP_OVERHEAD: u32 = 20;
/// TTL of the outer header. 0, the kernel's default for lightweight tunnels, sends packets that do not arrive.
pub const TUNNEL_TTL: u8 = 64;

/// The device on which kube-proxy in IPVS mode keeps all addresses of Services.
pub const IPVS_DEVICE: &str = "kube-ipvs0";

/// Prefix of the host side of every workload interface; 11 hex digits of a hash of container ID and interface name follow.
pub const WORKLOAD_PREFIX: &str = "twl";
/// Prefix of the device through which a workload's packets go whose sending is limited; the same digits follow.
pub const SHAPER_PREFIX: &str = "twb";
/// The link-local gateway that every IPv4 pod routes through. No interface has it: a permanent neighbour in the pod names the
/// host side's MAC.
pub const GATEWAY_V4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(169, 254, 1, 1);
/// The link-local gateway that every IPv6 pod routes through; an address of the host side.
pub const GATEWAY_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The nftables table of Twill, family inet. Nothing else is ever written.
pub const NFT_TABLE: &str = "twill";

/// NFLOG group that the table tells denied packets to, and felix alone listens to.
pub const NFLOG_GROUP: u16 = 21_591;

/// Namespace of Twill's own objects unless it is installed in another: Secrets with passwords of sessions, say.
pub const NAMESPACE: &str = "twill-system";

/// BGP's default AS for a cluster (RFC 6996 private range).
pub const DEFAULT_ASN: u32 = 64512;
/// TCP port of BGP (RFC 4271 section 4).
pub const BGP_PORT: u16 = 179;
/// Hold time in seconds that a speaker proposes unless configured otherwise (RFC 4271 section 10).
pub const HOLD_TIME: u16 = 90;

/// Annotation of a Pod or a Namespace: a JSON list of IPPools, the only ones that may give IPv4 addresses, the first to be used first.
pub const IPV4_POOLS: &str = "twill.network/ipv4-pools";
/// The same of IPv6.
pub const IPV6_POOLS: &str = "twill.network/ipv6-pools";

/// Directory of the sockets of a node's daemons.
pub const RUN_DIR: &str = "/run/twill";
/// Directory of what a node's daemons keep over a restart.
pub const STATE_DIR: &str = "/var/lib/twill";
/// Control and CNI socket of felix, inside the run directory.
pub const FELIX_SOCKET: &str = "felix.sock";
/// Control socket of bgpd, inside the run directory.
pub const BGPD_SOCKET: &str = "bgpd.sock";
/// Control socket of `twill bfd`, inside the run directory.
pub const BFD_SOCKET: &str = "bfd.sock";
/// What a `twill bfd` leaves to its successor, inside the run directory.
pub const BFD_HANDOVER: &str = "bfd.json";
/// Control socket of the controller, inside the run directory.
pub const CONTROLLER_SOCKET: &str = "controller.sock";
/// The Lease whose holder is the controller that acts.
pub const CONTROLLER_LEASE: &str = "twill-controller";

/// Directory of a runtime's network configurations (containerd's and CRI-O's default).
pub const CNI_CONF_DIR: &str = "/etc/cni/net.d";
/// Directory of a runtime's plugins (containerd's and CRI-O's default).
pub const CNI_BIN_DIR: &str = "/opt/cni/bin";
/// Network name in the CNI configuration list.
pub const CNI_NETWORK: &str = "twill";
/// Plugin type, and so the name of the executable.
pub const CNI_PLUGIN: &str = "twill-cni";
/// Address plugin type, and so the other name of the executable: for interfaces that other plugins make.
pub const CNI_IPAM_PLUGIN: &str = "twill-ipam";
/// Directory inside the state directory, or beside felix's socket, where the plugin leaves calls of DEL until felix has heard them.
pub const CNI_DELETED: &str = "cni-deleted";
/// File of our network configuration in the runtime's directory. The runtime takes the first by name.
pub const CNI_CONFLIST: &str = "10-twill.conflist";

/// MAC address of the VXLAN device of the node with IPv4 address `node`: derived, so that peers need no exchange.
/// Locally administered (02) and unicast; one MAC for all nodes does not work, the receiver would see its own.
#[must_use]
pub fn vxlan_mac(node: std::net::Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = node.octets();
    [0x02, 0x00, a, b, c, d]
}

/// The same of a node that has no IPv4 address: 06, which no address of the other kind begins with, and a digest (FNV-1a, folded to 40 bits), since nodes
/// of different subnets may have equal last octets, and those of one equal first ones.
#[must_use]
pub fn vxlan_mac_v6(node: std::net::Ipv6Addr) -> [u8; 6] {
    let step = |digest: u64, octet: &u8| (digest ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3);
    let digest = node.octets().iter().fold(0xcbf2_9ce4_8422_2325, step);
    let [_, _, _, a, b, c, d, e] = (digest ^ digest >> 40).to_be_bytes();
    [0x06, a, b, c, d, e]
}

/// Object name of a block: its CIDR with dots, colons and the slash as dashes. One-way, and never to be changed.
#[must_use]
pub fn block_name(cidr: ipnet::IpNet) -> String {
    cidr.to_string().replace(['.', ':', '/'], "-")
}
