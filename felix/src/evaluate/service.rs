//! Services: where a connection to a port of a node (NodePort), to a Service's own address, or to one by which it is known outside (`externalIPs`, a load balancer's) is sent on to.
//!
//! They are followed as kube-proxy and its like do: to any ready endpoint, to those on the node that it came to alone where the Service's
//! `externalTrafficPolicy` is `Local`. Else the proxy hides the sender: who judges on the endpoint's node sees the node that it came to. What a pod
//! or a node sends to the Service's own address is led to an endpoint before it leaves, so policy knows that endpoint alone. What it sends to one that is known outside has come
//! to its own node; what comes from outside, to one that a router or a balancer has chosen.

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

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServicePort {
    /// NAMESPACE/NAME.
    service: String,
    /// The Service's own addresses.
    addresses: BTreeSet<IpAddr>,
    /// Those by which it is known outside, and nodes answer for.
    external: BTreeSet<IpAddr>,
    /// The port there.
    port: u16,
    /// The same port as one of every node.
    node_port: Option<u16>,
    protocol: Protocol,
    /// Whether only endpoints of the node that it came to count, if it came to one.
    local: bool,
    /// Whether only endpoints of the sender's node count, if it was sent to the Service's address.
    internal: bool,
    /// Where it leads.
    endpoints: Vec<(IpAddr, u16)>,
}

/// Those of all Services.
pub(super) fn service_ports(
    services: &[core::Service],
    slices: &[EndpointSlice],
    pods: &BTreeMap<PodKey, Pod>,
) -> Vec<ServicePort> {
    let mut of: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices {
        let name = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
        let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
        if let Some(name) = name {
            of.entry((namespace, name)).or_default().push(slice);
        }
    }
    let of_service = |service: &core::Service| -> Vec<ServicePort> {
        let (meta, Some(spec)) = (&service.metadata, &service.spec) else { return Vec::new() };
        let (namespace, name) =
            (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        let [local, internal] = [&spec.external_traffic_policy, &spec.internal_traffic_policy]
            .map(|policy| policy.as_deref() == Some("Local"));
        let addresses: BTreeSet<IpAddr> =
            spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip).filter_map(|text| text.parse().ok()).collect();
        let external = external(service);
        let read = |port: &core::ServicePort| {
            let endpoints = match of.get(&(namespace, name)) {
                // They have them in no order, and for a moment one in two of them.
                Some(slices) => {
                    let all: BTreeSet<_> = slices.iter().flat_map(|slice| of_slice(slice, port)).collect();
                    all.into_iter().collect()
                }
                None => of_selector(namespace, spec.selector.as_ref()?, port, pods),
            };
            Some(ServicePort {
                service: format!("{namespace}/{name}"),
                addresses: addresses.clone(),
                external: external.clone(),
                port: number(port.port)?,
                node_port: port.node_port.and_then(number),
                protocol: Protocol::of_port(port.protocol.as_deref()).ok()?,
                local,
                internal,
                endpoints,
            })
        };
        spec.ports.iter().flatten().filter_map(read).collect()
    };
    services.iter().flat_map(of_service).collect()
}

/// Addresses by which a Service is known outside: not those of a balancer that sends on by itself, with a node's port (`ipMode: Proxy`).
fn external(service: &core::Service) -> BTreeSet<IpAddr> {
    let own = service.spec.iter().flat_map(|spec| spec.external_ips.iter().flatten());
    let balancers =
        service.status.iter().filter_map(|status| status.load_balancer.as_ref()?.ingress.as_ref()).flatten();
    let balancers = balancers.filter(|one| one.ip_mode.as_deref() != Some("Proxy")).filter_map(|one| one.ip.as_ref());
    own.chain(balancers).filter_map(|text| text.parse().ok()).collect()
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
    /// As [`Universe::explain_by`], once for each receiver that it may be sent on to: where it is sent to a NodePort or to a
    /// Service's address, these are the endpoints of the Service.
    ///
    /// # Errors
    /// A pod or a node that is named does not exist, or the node that something from outside comes to has to be named.
    pub fn explain_each(
        &self,
        src: &Party,
        dst: &Party,
        port: u16,
        protocol: Protocol,
        way: &Crossing,
    ) -> Result<Vec<Explanation>, UnknownParty> {
        let (from, to) = self.ends(src, dst)?;
        let asked = At { src, from: &from, to: &to, port, protocol, way };
        // What has come to a port of a node already is sent on once.
        let fresh = way.came_to.is_none();
        if let Some((home, address, found)) = self.cluster_ip(&asked).filter(|_| fresh) {
            return self.led(&asked, (home, address), found);
        }
        if let Some((node, address, found)) = self.node_port(&asked).filter(|_| fresh) {
            let entered = Entered::NodePort { node: node.to_owned(), port, service: found.service.clone() };
            return self.sent_on(&asked, (node, address), found, &entered);
        }
        if let Some((address, found)) = self.external_address(&asked) {
            return self.known_outside(&asked, address, found);
        }
        match self.not_followed(&asked).filter(|_| fresh) {
            Some(why) => Err(why),
            None => Ok(vec![self.explain_by(src, dst, port, protocol, way)?]),
        }
    }

    /// To whom a Service's own address leads from a node.
    fn led(
        &self,
        asked: &At<'_>,
        (home, address): (&str, IpAddr),
        found: &ServicePort,
    ) -> Result<Vec<Explanation>, UnknownParty> {
        let At { src, port, protocol, way, .. } = *asked;
        let entered = Entered::ClusterIp { address, port, service: found.service.clone() };
        let counts = |own: IpAddr| !found.internal || self.behind(own).is_on(home);
        let receivers = found.endpoints.iter().filter(|(own, _)| own.is_ipv4() == address.is_ipv4() && counts(*own));
        let way = Crossing { led: true, ..way.clone() };
        let stories = receivers.map(|(own, target)| {
            let explained = self.explain_by(src, &Party::Address(*own), *target, protocol, &way)?;
            Ok(Explanation { entered: Some(entered.clone()), ..explained })
        });
        let all: Vec<Explanation> = stories.collect::<Result<_, UnknownParty>>()?;
        let place = found.internal.then_some((home, "internal"));
        Ok(if all.is_empty() { vec![asked.leads_nowhere(&entered, found, place)] } else { all })
    }

    /// To whom an address leads by which a Service is known outside.
    fn known_outside(
        &self,
        asked: &At<'_>,
        address: IpAddr,
        found: &ServicePort,
    ) -> Result<Vec<Explanation>, UnknownParty> {
        let (port, service) = (asked.port, found.service.clone());
        let nodes = self.comes_to(asked, found);
        if nodes.is_empty() && !found.local {
            return Err(UnknownParty::SomeNode { address, port, service });
        }
        let entered = Entered::External { address, port, service };
        let mut all = Vec::new();
        for node in &nodes {
            all.extend(self.sent_on(asked, (node, address), found, &entered)?);
        }
        Ok(if all.is_empty() { vec![asked.leads_nowhere(&entered, found, None)] } else { all })
    }

    /// To whom a Service's port leads at a node that it was asked for at, by an address.
    fn sent_on(
        &self,
        asked: &At<'_>,
        (node, address): (&str, IpAddr),
        found: &ServicePort,
        entered: &Entered,
    ) -> Result<Vec<Explanation>, UnknownParty> {
        let At { src, from, to, port, protocol, way } = *asked;
        // Whoever is inside, and is seen to be, is sent to all endpoints.
        let is_pod = matches!(from, Side::Pod { .. }) && self.seen_beyond(from, to).is_none();
        let local = found.local && !is_pod && !from.is_on(node);
        let of_family = found.endpoints.iter().filter(|(own, _)| own.is_ipv4() == address.is_ipv4());
        let counts = |(own, _): &&(IpAddr, u16)| !local || self.behind(*own).is_on(node);
        let came_to = Some((node.to_owned(), port));
        // What a node sends to its own port is hidden in any case: it would leave in the name of that address.
        let hidden = !found.local || matches!(from, Side::Node { .. }) && from.is_on(node);
        let way = Crossing { came_to, sent_to: Some(address), hidden, ..way.clone() };
        let mut all = Vec::new();
        for (own, target) in of_family.filter(counts) {
            let explained = self.explain_by(src, &Party::Address(*own), *target, protocol, &way)?;
            let hidden = !found.local && !explained.dst.is_on(node);
            let note = hidden.then(|| Note::Hidden { service: found.service.clone(), node: node.to_owned() });
            let notes = explained.notes.iter().cloned().chain(note).collect();
            all.push(Explanation { entered: Some(entered.clone()), notes, ..explained });
        }
        if all.is_empty() {
            let place = local.then_some((node, "external"));
            all.push(asked.leads_nowhere(entered, found, place));
        }
        Ok(all)
    }

    /// The nodes to which a connection to an address comes by which a Service is known outside: the sender's own, or the one that was named; else those with an endpoint where
    /// others let nothing in. None: it may be any.
    fn comes_to<'a>(&'a self, asked: &At<'a>, found: &ServicePort) -> BTreeSet<&'a str> {
        match (asked.home(), &asked.way.came_to) {
            (Some(node), _) => [node].into(),
            (None, Some((node, _))) => [node.as_str()].into(),
            _ if !found.local => BTreeSet::new(),
            _ => {
                let v4 = asked.to.address().is_none_or(|address| address.is_ipv4());
                let own = found.endpoints.iter().filter(|(own, _)| own.is_ipv4() == v4);
                own.filter_map(|(own, _)| self.node_of(*own)).collect()
            }
        }
    }

    /// The node of whom an address is.
    fn node_of(&self, address: IpAddr) -> Option<&str> {
        let of_pod = self.owners.get(&address).and_then(|pod| self.pods.get(pod)).map(|pod| pod.node.as_str());
        of_pod.or_else(|| self.hosts.get(&address).map(String::as_str))
    }

    /// Why a pod of that name is not found.
    pub(super) fn no_pod(&self, key: &PodKey) -> UnknownParty {
        let service = key.to_string();
        let of_service = self.services.iter().filter(|one| one.service == service);
        match of_service.flat_map(|one| &one.addresses).next() {
            Some(address) => UnknownParty::Service { service, address: *address },
            None => UnknownParty::Pod(key.clone()),
        }
    }

    /// Why nothing can be said of a connection to a Service's address that leads to none of its ports from here.
    fn not_followed(&self, asked: &At<'_>) -> Option<UnknownParty> {
        let (At { port, protocol, .. }, address) = (*asked, asked.outside()?);
        let has = |one: &&ServicePort| one.addresses.contains(&address) || one.external.contains(&address);
        let all: Vec<&ServicePort> = self.services.iter().filter(has).collect();
        let service = all.first()?.service.clone();
        if all.iter().any(|one| asked.is_for(one)) {
            return Some(UnknownParty::OwnAddress { address, service });
        }
        let has: Vec<String> = all.iter().map(|one| format!("{}/{}", one.port, one.protocol)).collect();
        Some(UnknownParty::NoPort { address, port, protocol, service, has: has.join(", ") })
    }

    /// The Service that is known outside by the address that is asked for.
    fn external_address(&self, asked: &At<'_>) -> Option<(IpAddr, &ServicePort)> {
        let address = asked.outside()?;
        let mut services = self.services.iter();
        Some((address, services.find(|one| asked.is_for(one) && one.external.contains(&address))?))
    }

    /// The Service of which a node's port is asked for, with the node and the address.
    fn node_port<'a>(&'a self, asked: &At<'a>) -> Option<(&'a str, IpAddr, &'a ServicePort)> {
        let Side::Node { node, pod: None, address } = asked.to else { return None };
        let is_it = |one: &&ServicePort| (one.node_port, one.protocol) == (Some(asked.port), asked.protocol);
        Some((node, *address, self.services.iter().find(is_it)?))
    }

    /// The Service whose address is asked for from inside, with the sender's node and the address.
    fn cluster_ip<'a>(&'a self, asked: &At<'a>) -> Option<(&'a str, IpAddr, &'a ServicePort)> {
        let (home, address) = (asked.home()?, asked.outside()?);
        let mut services = self.services.iter();
        Some((home, address, services.find(|one| asked.is_for(one) && one.addresses.contains(&address))?))
    }
}

/// What is asked of a Service's port.
#[derive(Clone, Copy)]
struct At<'a> {
    src: &'a Party,
    from: &'a Side,
    to: &'a Side,
    port: u16,
    protocol: Protocol,
    way: &'a Crossing,
}

impl<'a> At<'a> {
    /// The sender's node.
    fn home(&self) -> Option<&'a str> {
        match self.from {
            Side::Pod { pod: Pod { node, .. }, .. } | Side::Node { node, .. } => Some(node),
            Side::Outside(_) | Side::Nowhere { .. } => None,
        }
    }

    /// The receiver's address, if neither a pod nor a node has it.
    fn outside(&self) -> Option<IpAddr> {
        if let Side::Outside(address) = self.to { Some(*address) } else { None }
    }

    /// Whether it is for this port of a Service.
    fn is_for(&self, one: &ServicePort) -> bool {
        (one.port, one.protocol) == (self.port, self.protocol)
    }

    /// `place`: the only node whose endpoints count, and by which of the Service's two policies of traffic.
    fn leads_nowhere(&self, entered: &Entered, found: &ServicePort, place: Option<(&str, &str)>) -> Explanation {
        let place =
            place.map(|(node, which)| format!(" on node {node}, and wants no other ({which}TrafficPolicy: Local)"));
        let why =
            format!("Service {} has no ready endpoint of this family{}", found.service, place.unwrap_or_default());
        Explanation {
            allowed: false,
            src: self.from.clone(),
            dst: self.to.clone(),
            port: self.port,
            protocol: self.protocol,
            egress: Judgement::NotJudged("it is led to nobody".to_owned()),
            outer: None,
            ingress: Judgement::Impossible(why),
            through: None,
            entered: Some(entered.clone()),
            notes: Vec::new(),
        }
    }
}
