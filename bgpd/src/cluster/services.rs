//! Addresses of Services with endpoints on this node. In flow Services and EndpointSlices; out flow the addresses that this node is to tell
//! by themselves, of Services that want local endpoints alone, and those that nobody is to tell ([`super::hidden`]).
//!
//! Only remembers, cut down to what is read: a change costs what it touches, one Service and its slices. A node counts while it has a ready
//! endpoint; while no node has one, one that still serves though it terminates counts, as kube-proxy sends to such then (KEP-1669).
//! A node whose last ready endpoint goes is left before that is gone, if there are others.

use super::hidden::Hidden;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use twill_crds::services::ServiceRanges;
use twill_crds::{EndpointSlice, Object, Service};
use twill_datastore::{Followed, Key};

/// Label of an EndpointSlice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Kind of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Cluster,
    External,
    LoadBalancer,
}

/// What is known of Services.
#[derive(Debug, Default)]
pub(super) struct Services {
    /// Name of this node.
    node: String,
    /// Addresses of Services that want local endpoints alone.
    local: BTreeMap<Key, BTreeSet<(IpAddr, Kind)>>,
    slices: BTreeMap<Key, Slice>,
    /// Slices by the Service that they are of.
    of: BTreeMap<Key, BTreeSet<Key>>,
    /// By address, Services with an endpoint here.
    here: BTreeMap<(IpAddr, Kind), BTreeSet<Key>>,
    /// By address, Services that want local endpoints alone.
    wanted: BTreeMap<IpAddr, usize>,
    /// Addresses that nobody is to tell.
    pub(super) hidden: Hidden,
    heard: (bool, bool),
}

/// Endpoints of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slice {
    service: Key,
    v6: bool,
    ready: usize,
    ready_here: bool,
    serving_here: bool,
}

impl Services {
    pub(super) fn of(node: &str) -> Self {
        Self { node: node.to_owned(), ..Self::default() }
    }

    /// Whether all there is has been heard.
    pub(super) fn is_complete(&self) -> bool {
        self.heard == (true, true)
    }

    /// Takes in Services; whether this node has others to tell of.
    pub(super) fn hear_services(&mut self, step: Followed<Service>) -> bool {
        match step {
            Followed::Synced { items, .. } => {
                let first = !std::mem::replace(&mut self.heard.0, true);
                let kept: BTreeSet<Key> = items.iter().map(key).collect();
                let gone: Vec<Key> = self.local.keys().filter(|key| !kept.contains(key)).cloned().collect();
                let gone = gone.into_iter().map(|key| self.set_addresses(key, BTreeSet::new()));
                let gone = gone.fold(false, |any, one| any | one) | self.hidden.retain(|key| kept.contains(key));
                items.iter().fold(first | gone, |any, service| self.hear(service) | any)
            }
            Followed::Applied(service, _) => self.hear(&service),
            Followed::Deleted(service, _) => {
                let shown = self.hidden.forget(&key(&service));
                self.set_addresses(key(&service), BTreeSet::new()) | shown
            }
            Followed::Bookmark(_) => false,
        }
    }

    fn hear(&mut self, service: &Service) -> bool {
        let hidden = self.hidden.hear(key(service), service);
        self.set_addresses(key(service), addresses(service)) | hidden
    }

    /// Takes in slices; whether this node has others to tell of.
    pub(super) fn hear_slices(&mut self, step: Followed<EndpointSlice>) -> bool {
        match step {
            Followed::Synced { items, .. } => {
                let first = !std::mem::replace(&mut self.heard.1, true);
                let kept: BTreeSet<Key> = items.iter().map(key).collect();
                let gone: Vec<Key> = self.slices.keys().filter(|key| !kept.contains(key)).cloned().collect();
                let gone = gone.into_iter().fold(false, |any, key| self.set_slice(key, None) | any);
                items.iter().fold(first | gone, |any, slice| {
                    let read = self.read(slice);
                    self.set_slice(key(slice), read) | any
                })
            }
            Followed::Applied(slice, _) => {
                let read = self.read(&slice);
                self.set_slice(key(&slice), read)
            }
            Followed::Deleted(slice, _) => self.set_slice(key(&slice), None),
            Followed::Bookmark(_) => false,
        }
    }

    /// The addresses inside of ranges that this node tells by themselves.
    pub(super) fn told(&self, ranges: &ServiceRanges) -> BTreeSet<IpNet> {
        let range = |kind: Kind| match kind {
            Kind::Cluster => &ranges.cluster_ips,
            Kind::External => &ranges.external_ips,
            Kind::LoadBalancer => &ranges.load_balancer_ips,
        };
        let inside = |(address, kind): &&(IpAddr, Kind)| range(*kind).iter().any(|range| range.contains(address));
        let shown = |((address, _), services): &(&(IpAddr, Kind), &BTreeSet<Key>)| {
            services.iter().any(|service| !self.hidden.hides(service, *address))
        };
        let here = self.here.iter().filter(|(address, _)| inside(address));
        here.filter(shown).map(|((address, _), _)| IpNet::from(*address)).collect()
    }

    /// Whether a Service wants local endpoints alone for this address.
    pub(super) fn wants_local(&self, address: IpAddr) -> bool {
        self.wanted.contains_key(&address)
    }

    fn read(&self, slice: &EndpointSlice) -> Option<Slice> {
        let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
        let mut read = Slice {
            service: Key::namespaced(slice.namespace(), name),
            v6: slice.address_type == "IPv6",
            ready: 0,
            ready_here: false,
            serving_here: false,
        };
        for endpoint in &slice.endpoints {
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            let ready = conditions.ready.unwrap_or(true);
            let serving = conditions.serving.unwrap_or(ready);
            let here = endpoint.node_name.as_deref() == Some(&self.node);
            read.ready += usize::from(ready);
            read.ready_here |= here && ready;
            read.serving_here |= here && serving;
        }
        Some(read)
    }

    fn set_addresses(&mut self, service: Key, new: BTreeSet<(IpAddr, Kind)>) -> bool {
        let old = self.local.get(&service).cloned().unwrap_or_default();
        if old == new {
            return false;
        }
        new.iter().for_each(|(address, _)| *self.wanted.entry(*address).or_default() += 1);
        for (address, _) in &old {
            let count = self.wanted.entry(*address).or_default();
            *count -= 1;
            if *count == 0 {
                self.wanted.remove(address);
            }
        }
        for address in old.difference(&new) {
            self.leave(&service, address);
        }
        if new.is_empty() {
            self.local.remove(&service);
        } else {
            self.local.insert(service.clone(), new);
        }
        self.judge(&service);
        // Also where there is no endpoint here: a range of this one address is told by nobody then.
        true
    }

    fn set_slice(&mut self, name: Key, new: Option<Slice>) -> bool {
        let old = match &new {
            Some(slice) => self.slices.insert(name.clone(), slice.clone()),
            None => self.slices.remove(&name),
        };
        if old == new {
            return false;
        }
        let mut services = BTreeSet::new();
        if let Some(old) = old {
            let slices = self.of.entry(old.service.clone()).or_default();
            slices.remove(&name);
            if slices.is_empty() {
                self.of.remove(&old.service);
            }
            services.insert(old.service);
        }
        if let Some(new) = new {
            self.of.entry(new.service.clone()).or_default().insert(name);
            services.insert(new.service);
        }
        services.iter().fold(false, |any, service| self.judge(service) | any)
    }

    /// Whether this node has endpoints for the addresses of a Service; says whether that is news.
    fn judge(&mut self, service: &Key) -> bool {
        let Some(addresses) = self.local.get(service).cloned() else { return false };
        let counts = |v6: bool| {
            let slices = self.of.get(service).into_iter().flatten().filter_map(|name| self.slices.get(name));
            let slices: Vec<&Slice> = slices.filter(|slice| slice.v6 == v6).collect();
            let ready: usize = slices.iter().map(|slice| slice.ready).sum();
            slices.iter().any(|slice| if ready > 0 { slice.ready_here } else { slice.serving_here })
        };
        let here = [counts(false), counts(true)];
        let mut changed = false;
        for address in addresses {
            changed |= match here[usize::from(address.0.is_ipv6())] {
                true => self.here.entry(address).or_default().insert(service.clone()),
                false => self.leave(service, &address),
            };
        }
        changed
    }

    fn leave(&mut self, service: &Key, address: &(IpAddr, Kind)) -> bool {
        let Some(services) = self.here.get_mut(address) else { return false };
        let left = services.remove(service);
        if services.is_empty() {
            self.here.remove(address);
        }
        left
    }
}

fn key<K: Object>(object: &K) -> Key {
    Key::namespaced(object.namespace(), object.name())
}

/// Its addresses, if it wants local endpoints alone: of the cluster's by either policy, of the others by that about traffic from outside.
fn addresses(service: &Service) -> BTreeSet<(IpAddr, Kind)> {
    let mut found = BTreeSet::new();
    let Some(spec) = &service.spec else { return found };
    let is_local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    let (outside, inside) = (is_local(&spec.external_traffic_policy), is_local(&spec.internal_traffic_policy));
    let mut add = |text: &str, kind: Kind| found.extend(text.parse::<IpAddr>().ok().map(|address| (address, kind)));
    if outside || inside {
        let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        all.for_each(|text| add(text, Kind::Cluster));
    }
    if outside {
        spec.external_ips.iter().flatten().for_each(|text| add(text, Kind::External));
        let ingress = service.status.iter().filter_map(|status| status.load_balancer.as_ref()?.ingress.as_ref());
        // One that is a proxy hands connections on to nodes' own addresses.
        let direct = ingress.flatten().filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
        direct.filter_map(|ingress| ingress.ip.as_ref()).for_each(|text| add(text, Kind::LoadBalancer));
    }
    found
}
