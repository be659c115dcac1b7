//! The static part of table `inet twill`: names, and the skeleton of base chains and sets that policy is hung into.

mod denial;
mod hostport;
mod skeleton;

pub use denial::{Reason, log};
pub use skeleton::{CUT_FOR, Settings, skeleton, tunnel_guards};

use crate::ruleset::Name;

/// Version of the skeleton. Base chains carry it in their names: a changed skeleton brings new, fully populated base chains
/// in one commit and removes the old in a later one, because deleting and re-creating a base chain in one leaks packets.
pub const SCHEMA: u32 = 1;

/// Set of interface names: workload interfaces that felix has set up. What is not in it is closed.
pub const KNOWN: &str = "known";
/// Set `interface . IPv4 address`: what a workload may send from.
pub const SOURCE_V4: &str = "source4";
/// Set `interface . IPv6 address`: what a workload may send from.
pub const SOURCE_V6: &str = "source6";
/// Expiring set `IPv4 source . destination . protocol . source port . destination port`: connections to be cut.
pub const CUT_V4: &str = "cut4";
/// The same for IPv6.
pub const CUT_V6: &str = "cut6";
/// Growing and expiring set `incoming interface . outgoing interface`: between which denied packets were told of lately, each with a
/// rate of its own. Not there where the kernel cannot tell of packets.
pub const LOGGED: &str = "logged";
/// Verdict map by interface name: the egress list of the workload behind it. No element: not isolated.
pub const FROM_POD: &str = "from_pod";
/// Verdict map by interface name: the ingress list of the workload behind it. No element: not isolated.
pub const TO_POD: &str = "to_pod";
/// Interval set: IPv4 pools.
pub const POOLS_V4: &str = "pools4";
/// Interval set: IPv6 pools.
pub const POOLS_V6: &str = "pools6";
/// Interval set: IPv4 pools with natOutgoing.
pub const NAT_V4: &str = "nat4";
/// Interval set: IPv6 pools with natOutgoing.
pub const NAT_V6: &str = "nat6";
/// Interval set: IPv4 ranges of Services that nodes tell their peers.
pub const SERVICES_V4: &str = "services4";
/// The same of IPv6.
pub const SERVICES_V6: &str = "services6";
/// Map `protocol . port` to `IPv4 address . port`: ports of whichever address of this node that lead to workloads.
pub const HOSTPORT_V4: &str = "hostport4";
/// The same to IPv6 addresses.
pub const HOSTPORT_V6: &str = "hostport6";
/// Map `IPv4 address . protocol . port` to `IPv4 address . port`: ports of one address of this node that lead to workloads.
pub const HOSTPORT_AT_V4: &str = "hostport_at4";
/// The same of IPv6.
pub const HOSTPORT_AT_V6: &str = "hostport_at6";
/// Set `IPv4 address . the same`: workloads that ports of this node lead to, which may reach themselves by one.
pub const HAIRPIN_V4: &str = "hairpin4";
/// The same of IPv6.
pub const HAIRPIN_V6: &str = "hairpin6";
/// Hash set: IPv4 addresses of all nodes, which may send us tunnel packets.
pub const NODES_V4: &str = "nodes4";
/// Hash set: IPv6 addresses of all nodes.
pub const NODES_V6: &str = "nodes6";

/// Sets and maps whose keys begin with a workload's interface.
pub const BY_INTERFACE: [&str; 5] = [KNOWN, SOURCE_V4, SOURCE_V6, FROM_POD, TO_POD];
/// Maps that lead from ports of this node to workloads.
pub const HOSTPORTS: [&str; 4] = [HOSTPORT_V4, HOSTPORT_V6, HOSTPORT_AT_V4, HOSTPORT_AT_V6];

/// The skeleton's sets. All others are policy's.
pub const SETS: [&str; 22] = [
    KNOWN,
    SOURCE_V4,
    SOURCE_V6,
    CUT_V4,
    CUT_V6,
    FROM_POD,
    TO_POD,
    POOLS_V4,
    POOLS_V6,
    NAT_V4,
    NAT_V6,
    NODES_V4,
    NODES_V6,
    SERVICES_V4,
    SERVICES_V6,
    HOSTPORT_V4,
    HOSTPORT_V6,
    HOSTPORT_AT_V4,
    HOSTPORT_AT_V6,
    HAIRPIN_V4,
    HAIRPIN_V6,
    LOGGED,
];
/// What the names of policy's chains begin with.
pub const LIST: &str = "list_";
/// The list of workloads whose policy the kernel refuses: nothing passes.
pub const REFUSED: &str = "list_refused";
/// Chain to which packets for the host come that are of no workload. Empty: no HostPolicy closes anything.
pub const HOST_INGRESS: &str = "host_ingress";
/// Chain to which packets of the host come, as long as [`HOST_SENDS`] stands.
pub const HOST_EGRESS: &str = "host_egress";
/// Chain to which new connections come that the host forwards to another destination than theirs was. It returns what passes: the policy
/// of the pod that they go to comes after it.
pub const HOST_THROUGH: &str = "host_through";
/// Chain of what passes before the rules of HostPolicies, to the host.
pub const HOST_FAILSAFE_IN: &str = "host_failsafe_in";
/// The same from the host.
pub const HOST_FAILSAFE_OUT: &str = "host_failsafe_out";
/// Base chain at the postrouting hook; it stands only while a HostPolicy closes something.
pub const HOST_SENDS: &str = "host_sends";
/// How the names of all chains and sets begin that are about the host's own interfaces.
pub const HOST: &str = "host_";

/// The name of a set of the skeleton as the ruleset's type. Sets carry no version: a set's use does not change with its place,
/// and they would have to be loaded twice.
#[must_use]
pub fn name(set: &str) -> Name {
    Name::from(set)
}

/// The name of a chain of the skeleton, with the schema's version. List chains of policy bring names of their own, which begin
/// with `list_`.
#[must_use]
pub fn chain_name(chain: &str) -> Name {
    Name::from(format!("{chain}_v{SCHEMA}"))
}
