//! The API of Twill: its own kinds, the Kubernetes kinds it reads, and every name, number and message on which two
//! components must agree.
//!
//! In flows nothing; out flow types. This crate is pure: it opens no socket, reads no clock, touches no file.

pub mod add_path;
pub mod bgp;
pub mod bgp_filter;
pub mod bgp_limit;
pub mod bgp_role;
pub mod bmp;
pub mod checksum_offload;
pub mod cluster_network_policy;
pub mod cni;
pub mod community;
pub mod control;
pub mod definitions;
pub mod host_policy;
pub mod ip_reservation;
pub mod ippool;
pub mod kind;
pub mod known;
pub mod manifest;
pub mod names;
pub mod namespace_isolation;
pub mod node_address;
pub mod node_network;
pub mod selector;
pub mod services;
pub mod topology;
pub mod validate;
mod words;
mod written;

pub use bgp::{BGPConfiguration, BGPConfigurationSpec, BGPPeer, BGPPeerSpec};
pub use bgp_filter::{BGPFilter, BGPFilterSpec};
pub use checksum_offload::ChecksumOffload;
pub use cluster_network_policy::ClusterNetworkPolicy;
pub use host_policy::{HostPolicy, HostPolicySpec};
pub use ip_reservation::{IPReservation, IPReservationSpec, PodReference};
pub use ippool::{Encapsulation, IPBlock, IPBlockSpec, IPPool, IPPoolSpec, Protocol, When};
pub use kind::{Kind, Object};
pub use namespace_isolation::{NamespaceIsolation, NamespaceIsolationSpec};
pub use node_network::{NodeNetwork, NodeNetworkSpec, NodeNetworkStatus};

pub use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
pub use k8s_openapi::api::discovery::v1::EndpointSlice;
pub use k8s_openapi::api::networking::v1::NetworkPolicy;
