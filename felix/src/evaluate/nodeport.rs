//! NodePorts of Services: where a connection to a port of a node is sent on to.
//!
//! They are followed as kube-proxy and its like do: to any ready endpoint, to those on the node that it came to alone where the Service's
//! `externalTrafficPolicy` is `Local`. Else the proxy hides the sender: who judges on the endpoint's node sees the node that it came to.

use super::host::Crossing;
use super::judge::Judgement;
use super::party::{Party, Side, UnknownParty};
use super::story::{Entered, Explanation, Note};
use super::universe::Universe;
use crate::model::{Pod, PodKey, Protocol};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use twill_crds::EndpointSlice;

/// Label of an EndpointSlice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// One port of every node that leads to a Service's endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodePort {
    /// NAMESPACE/NAME.
    service: String,
    port: u16,
    protocol: Protocol,
    /// Whether only endpoints of the node that it came to count.
    local: bool,
    /// Where it leads.
    endpoints: Vec<(IpAddr, u16)>,
}

/// Those of all Services.
pub(super) fn node_ports(
    services: &[core::Service],
    slices: &[EndpointSlice],
    pods: &BTreeMap<PodKey, Pod>,
) -> Vec<NodePort> {
    let mut of: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices {
        let name = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
        let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
        if let Some(name) = name {
            of.entry((namespace, name)).or_default().push(slice);
        }
    }
    let of_service = |service: &core::Service| -> Vec<NodePort> {
        let (meta, Some(spec)) = (&service.metadata, &service.spec) else { return Vec::new() };
        let (namespace, name) =
            (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        let local = spec.external_traffic_policy.as_deref() == Some("Local");
        let read = |port: &core::ServicePort| {
            let number = number(port.node_port?)?;
            let endpoints = match of.get(&(namespace, name)) {
                // They have them in no order, and for a moment one in two of them.
                Some(slices) => {
                    let all: BTreeSet<_> = slices.iter().flat_map(|slice| of_slice(slice, port)).collect();
                    all.into_iter().collect()
                }
                None => of_selector(namespace, spec.selector.as_ref()?, port, pods),
            };
            Some(NodePort {
                service: format!("{namespace}/{name}"),
                port: number,
                protocol: Protocol::of_port(port.protocol.as_deref()).ok()?,
                local,
                endpoints,
            })
        };
        spec.ports.iter().flatten().filter_map(read).collect()
    };
    services.iter().flat_map(of_service).collect()
}

/// Ready endpoints of a Service's port.
fn of_slice(slice: &EndpointSlice, port: &core::ServicePort) -> Vec<(IpAddr, u16)> {
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    let own = slice.ports.iter().flatten().find(|own| name(&own.name) == name(&port.name));
    let Some(target) = own.and_then(|own| number(own.port?)) else { return Vec::new() };
    let is_ready = |ready: Option<bool>| ready.unwrap_or(true);
    let ready = slice.endpoints.iter().filter(|one| is_ready(one.conditions.as_ref().and_then(|all| all.ready)));
    ready.flat_map(|one| &one.addresses).filter_map(|address| Some((address.parse().ok()?, target))).collect()
}

/// Where manifests alone are known: what a controller would make of them, all pods being ready.
fn of_selector(
    namespace: &str,
    selector: &BTreeMap<String, String>,
    port: &core::ServicePort,
    pods: &BTreeMap<PodKey, Pod>,
) -> Vec<(IpAddr, u16)> {
    let selected = |pod: &&Pod| {
        let labels = selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value));
        !selector.is_empty() && labels && pod.key.namespace == namespace && !pod.completed
    };
    let target = |pod: &Pod| match &port.target_port {
        Some(IntOrString::Int(target)) => number(*target),
        Some(IntOrString::String(name)) => pod.ports.iter().find(|own| own.name == *name).map(|own| own.port),
        None => number(port.port),
    };
    let of_pod = |pod: &Pod| {
        let target = target(pod);
        pod.addresses.iter().filter_map(|address| Some((*address, target?))).collect::<Vec<_>>()
    };
    pods.values().filter(selected).flat_map(of_pod).collect()
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port > 0)
}

impl Universe {
    /// As [`Universe::explain_by`], once for each receiver that it may be sent on to: where it is sent to a NodePort, these are the
    /// endpoints of the Service.
    ///
    /// # Errors
    /// A pod or a node that is named does not exist.
    pub fn explain_each(
        &self,
        src: &Party,
        dst: &Party,
        port: u16,
        protocol: Protocol,
        way: &Crossing,
    ) -> Result<Vec<Explanation>, UnknownParty> {
        let (from, to) = self.ends(src, dst)?;
        let Some((node, address, found)) = self.node_port(&to, port, protocol).filter(|_| way.came_to.is_none()) else {
            return Ok(vec![self.explain_by(src, dst, port, protocol, way)?]);
        };
        let entered = Entered { node: node.to_owned(), port, service: Some(found.service.clone()) };
        // Whoever is inside, and is seen to be, is sent to all endpoints.
        let is_pod = matches!(from, Side::Pod { .. }) && self.seen_beyond(&from, &to).is_none();
        let local = found.local && !is_pod && !from.is_on(node);
        let of_family = found.endpoints.iter().filter(|(own, _)| own.is_ipv4() == address.is_ipv4());
        let counts = |(own, _): &&(IpAddr, u16)| !local || self.behind(*own).is_on(node);
        let came_to = Some((node.to_owned(), port));
        let way = Crossing { came_to, sent_to: Some(address), hidden: !found.local, ..way.clone() };
        let mut all = Vec::new();
        for (own, target) in of_family.filter(counts) {
            let explained = self.explain_by(src, &Party::Address(*own), *target, protocol, &way)?;
            let hidden = way.hidden && !explained.dst.is_on(node);
            let note = hidden.then(|| Note::Hidden { service: found.service.clone(), node: node.to_owned() });
            let notes = explained.notes.iter().cloned().chain(note).collect();
            all.push(Explanation { entered: Some(entered.clone()), notes, ..explained });
        }
        if all.is_empty() {
            all.push(leads_nowhere(from, to.clone(), protocol, entered, local));
        }
        Ok(all)
    }

    fn node_port<'a>(
        &'a self,
        dst: &'a Side,
        port: u16,
        protocol: Protocol,
    ) -> Option<(&'a str, IpAddr, &'a NodePort)> {
        let Side::Node { node, pod: None, address } = dst else { return None };
        let found = self.node_ports.iter().find(|one| (one.port, one.protocol) == (port, protocol))?;
        Some((node, *address, found))
    }
}

fn leads_nowhere(src: Side, dst: Side, protocol: Protocol, entered: Entered, local: bool) -> Explanation {
    let Entered { node, port, service } = &entered;
    let service = service.as_deref().unwrap_or_default();
    let place = if local {
        format!(" on node {node}, and wants no other (externalTrafficPolicy: Local)")
    } else {
        String::new()
    };
    let why = format!("Service {service} has no ready endpoint of this family{place}");
    let egress = Judgement::NotJudged(format!("it is for node {node}"));
    let (port, ingress, notes) = (*port, Judgement::Impossible(why), Vec::new());
    let (outer, through, entered) = (None, None, Some(entered));
    Explanation { allowed: false, src, dst, port, protocol, egress, outer, ingress, through, entered, notes }
}
