//! `core/v1 ContainerPort`, from its text: what a protocol and a port's name mean.

use crate::{Packet, Protocol};
use k8s_openapi::api::core::v1::{Container, Pod};

/// Whether the packet goes to the port of that name at this pod: "each named port in a pod must have a unique name", so there
/// is one number and one protocol, the pod's own.
pub(crate) fn is_named(pod: &Pod, name: &str, packet: &Packet<'_>) -> bool {
    running(pod).iter().flat_map(|c| c.ports.iter().flatten()).any(|p| {
        p.name.as_deref() == Some(name)
            && p.container_port == i32::from(packet.port)
            && protocol_of(p.protocol.as_deref()) == Some(packet.protocol)
    })
}

/// Containers that run as long as the pod: sidecars are init containers that restart always.
fn running(pod: &Pod) -> Vec<&Container> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.containers.iter().chain(sidecars).collect()
}

/// "If not specified, this field defaults to TCP."
pub(crate) fn protocol_of(name: Option<&str>) -> Option<Protocol> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}
