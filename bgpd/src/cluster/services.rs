//! Services as last heard, and which of their addresses this node tells by themselves: those of Services that want local endpoints alone and have
//! one here. In flow Services and EndpointSlices; out flow those addresses, and those that nobody is to tell ([`super::hidden`]).
//!
//! Only remembers, cut down to what is read ([`super::exposed`]): a slice costs what it touches, its Service and the slices of that. A node counts
//! while it has a ready endpoint; while no node has one, one that still serves though it terminates counts, as kube-proxy sends to such then
//! (KEP-1669). A node whose last ready endpoint goes is left before that is gone, if there are others.

use super::exposed::Exposed;
use super::hidden::hidden;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use twill_crds::services::{ADVERTISE, ServiceRanges};
use twill_crds::{EndpointSlice, Object, Service};
use twill_datastore::{Followed, Key};

/// Label of an EndpointSlice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Services that are named in a sentence.
const NAMED: usize = 3;

/// What is known of Services.
#[derive(Debug, Default)]
pub(super) struct Services {
    /// Name of this node.
    node: String,
    known: BTreeMap<Key, Exposed>,
    slices: BTreeMap<Key, Slice>,
    /// Slices by the Service that they are of.
    of: BTreeMap<Key, BTreeSet<Key>>,
    /// Services with an endpoint here that counts, by family: IPv4, IPv6.
    here: [BTreeSet<Key>; 2],
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

    /// Takes in Services; whether anything that decides is other than before.
    pub(super) fn hear_services(&mut self, step: Followed<Service>) -> bool {
        match step {
            Followed::Synced { items, .. } => {
                let first = !std::mem::replace(&mut self.heard.0, true);
                let known = items.iter().map(|service| (key(service), Exposed::of(service))).collect();
                let before = std::mem::replace(&mut self.known, known);
                first || before != self.known
            }
            Followed::Applied(service, _) => {
                let exposed = Exposed::of(&service);
                self.known.insert(key(&service), exposed.clone()) != Some(exposed)
            }
            Followed::Deleted(service, _) => self.known.remove(&key(&service)).is_some(),
            Followed::Bookmark(_) => false,
        }
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

    /// The addresses that nobody is to tell, with the Service that has each.
    pub(super) fn hidden(&self) -> BTreeMap<IpAddr, &Key> {
        hidden(self.known.iter())
    }

    /// The addresses inside of ranges that this node tells by themselves, but for those that are hidden.
    pub(super) fn told(&self, ranges: &ServiceRanges, hidden: &BTreeMap<IpAddr, &Key>) -> BTreeSet<IpNet> {
        let mut told = BTreeSet::new();
        for (key, service) in self.known.iter().filter(|(_, service)| !service.hides) {
            let here = service.local().filter(|(address, _)| self.here[usize::from(address.is_ipv6())].contains(key));
            let inside = here.filter(|(address, kind)| kind.is_inside(ranges, *address));
            told.extend(
                inside.map(|(address, _)| address).filter(|address| !hidden.contains_key(address)).map(IpNet::from),
            );
        }
        told
    }

    /// The addresses for which a Service wants local endpoints alone.
    pub(super) fn local(&self) -> BTreeSet<IpAddr> {
        self.known.values().flat_map(Exposed::local).map(|(address, _)| address).collect()
    }

    /// What is odd, in one sentence. It names few and repeats no value: anybody who has a Service may write there what he likes.
    pub(super) fn remark(&self) -> Option<String> {
        let odd: Vec<&Key> = self.known.iter().filter(|(_, service)| service.is_odd).map(|(key, _)| key).collect();
        let names: Vec<String> = odd.iter().take(NAMED).map(ToString::to_string).collect();
        let (noun, more) = if odd.len() == 1 { ("Service", "") } else { ("Services", ", and more") };
        let more = if odd.len() > NAMED { more } else { "" };
        (!names.is_empty()).then(|| {
            format!(
                "{} {noun} ({}{more}): {ADVERTISE} has a value that means nothing; write \"false\" for addresses that no peer is to hear of, or \
                 leave it out",
                odd.len(),
                names.join(", ")
            )
        })
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

    /// Whether this node has endpoints of a Service that count; says whether that is news of one that wants local endpoints alone.
    fn judge(&mut self, service: &Key) -> bool {
        let slices = self.of.get(service).into_iter().flatten().filter_map(|name| self.slices.get(name));
        let slices: Vec<&Slice> = slices.collect();
        let mut changed = false;
        for (v6, here) in [false, true].into_iter().zip(&mut self.here) {
            let of_family = || slices.iter().filter(|slice| slice.v6 == v6);
            let ready: usize = of_family().map(|slice| slice.ready).sum();
            let counts = of_family().any(|slice| if ready > 0 { slice.ready_here } else { slice.serving_here });
            changed |= if counts { here.insert(service.clone()) } else { here.remove(service) };
        }
        changed && self.known.get(service).is_some_and(|service| service.local().next().is_some())
    }
}

fn key<K: Object>(object: &K) -> Key {
    Key::namespaced(object.namespace(), object.name())
}
