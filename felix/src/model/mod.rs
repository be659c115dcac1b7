//! Policy as the agent thinks of it, whatever kind of object it came from: ordered tiers of ordered policies, each with
//! ordered rules per direction, and an action at the end of a tier.
//!
//! In flow objects exactly as the datastore has them; out flow values in which nothing is optional, defaulted or invalid
//! any more. What cannot be read becomes a sentence, and a policy that denies.

mod address;
mod cluster_network_policy;
mod few;
mod host_policy;
mod namespace_isolation;
mod network_policy;
mod pod;
mod policy;
mod protocol;
mod selector;

pub use address::Ranges;
pub use cluster_network_policy::cluster_network_policy;
pub use few::Few;
pub use host_policy::{Confirmation, HOST_POLICY, HostPolicy, InterfaceName, Way, host_policy};
pub use namespace_isolation::{CONTROL_PLANE, Isolation, NAMESPACE_ISOLATION, namespace_isolation};
pub use network_policy::network_policy;
pub use pod::{NamedPort, Node, Pod, PodKey, namespace_labels, nodes};
pub use policy::{Action, Direction, Peer, Peers, Policy, PolicyKey, Port, PortNumber, Ports, Rule, Tier};
pub use protocol::Protocol;
pub use selector::{Labels, NamespaceScope, PodSelector, Requirement, Selector, Test};
