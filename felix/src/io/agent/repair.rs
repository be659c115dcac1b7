//! What the kernel has against what it should have: at the start, when the kernel tells of a change, and now and then.

use super::{Agent, Live};
use crate::index::Event;
use crate::io::link::KernelError;
use crate::io::{link, route, upkeep, uplink};
use crate::workload::{Asked, from_alias, interface_name};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::Instant;
use twill_crds::names::{IPVS_DEVICE, WORKLOAD_PREFIX};
use twill_ipam::{Attachment, Kind, Origin, Sandbox, StoreError};

/// Key of a fault.
const IPVS: &str = "ipvs";
pub(super) const IPVS_FAULT: &str = "kube-proxy runs in IPVS mode (kube-ipvs0 is there), where egress policies of pods see addresses of Services in \
                          place of the pods behind them; set its mode to nftables or iptables, run kube-proxy --cleanup and start it again";
/// How many looks in a row must find an attachment without interface and without namespace before it is forgotten.
const OBSERVATIONS: u32 = 3;

/// Whether kube-proxy leads to Services by IPVS, and every one of their addresses is one of this host's.
pub(super) fn is_ipvs_there() -> bool {
    nix::net::if_::if_nametoindex(IPVS_DEVICE).is_ok()
}

impl Agent {
    /// Takes in what the store and the kernel have of earlier attachments. An interface of ours that the store does not know
    /// comes back from its alias and its routes; after a reboot, what has no interface is forgotten.
    pub(super) fn adopt(&mut self) -> anyhow::Result<()> {
        let links: BTreeMap<String, link::Link> =
            self.named_links()?.into_iter().map(|link| (link.name.clone(), link)).collect();
        // A pod that is cut off has no route, and its addresses are its own all the same.
        let mut behind = link::permanent_neighbours(&mut self.rtnl)?;
        behind.extend(route::locals(&mut self.rtnl)?.into_iter().map(|(address, index)| (index, address)));
        for link in links.values().filter(|link| link.name.starts_with(WORKLOAD_PREFIX)) {
            self.adopt_link(link, &behind)?;
        }
        let attachments: Vec<Attachment> = self.store.ledger().attachments().cloned().collect();
        for attachment in attachments {
            let Sandbox { container_id, ifname } = &attachment.sandbox;
            let host_name = interface_name(container_id, ifname);
            match links.get(&host_name) {
                // Half made: it gets its alias last, so its ADD has not returned. It stays closed until DEL, or the next ADD, or
                // until its pod's namespace is gone as well.
                Some(link) if from_alias(&link.alias).is_none() => {}
                Some(link) => {
                    self.compiler.map_ports(&host_name, &Asked::read(&attachment.asked).ports);
                    self.compiler.apply(Event::EndpointAttached(Self::endpoint(&attachment, &host_name)));
                    let live =
                        Live { host_name, index: link.index, addresses: attachment.addresses.clone(), routed: true };
                    self.endpoints.insert(attachment.sandbox.clone(), live);
                }
                None if attachment.boot_id != self.boot_id => {
                    tracing::info!(namespace = %attachment.namespace, pod = %attachment.pod, "address released after a reboot");
                    self.store.release(&attachment.sandbox, super::milliseconds())?;
                }
                None => {}
            }
        }
        Ok(())
    }

    /// `behind`: addresses by the interface behind which they are.
    fn adopt_link(&mut self, link: &link::Link, behind: &BTreeSet<(u32, IpAddr)>) -> anyhow::Result<()> {
        let Some((sandbox, uid)) = from_alias(&link.alias) else { return Ok(()) };
        let name_fits = interface_name(&sandbox.container_id, &sandbox.ifname) == link.name;
        if !name_fits || self.store.ledger().attachment(&sandbox).is_some() {
            return Ok(());
        }
        let addresses: Vec<IpAddr> =
            behind.iter().filter(|(index, _)| *index == link.index).map(|(_, address)| *address).collect();
        if addresses.is_empty() {
            return Ok(());
        }
        tracing::warn!(interface = %link.name, ?addresses, "attachment taken back from the kernel");
        let attachment = Attachment {
            sandbox,
            // Filled in when the pod with this UID is heard of.
            namespace: String::new(),
            pod: String::new(),
            uid,
            netns: String::new(),
            boot_id: self.boot_id.clone(),
            asked: self.asked_by_kernel(link, &addresses)?.text(),
            addresses,
            origin: Origin::default(),
        };
        match self.store.attach(attachment) {
            // No reason not to serve all others, at this start and at each to come.
            Err(error @ StoreError::Held { .. }) => {
                tracing::error!(%error, interface = %link.name, "attachment not taken back from the kernel; its interface is set down, delete its pod");
                link::set_down(&mut self.rtnl, link.index, &link.name)?;
                Ok(())
            }
            taken => Ok(taken?),
        }
    }

    /// Names the pods of attachments that were taken back from the kernel, once they have been heard of.
    pub(super) fn name_adopted(&mut self) {
        let nameless = |held: &&Attachment| held.pod.is_empty() && held.origin.kind != Kind::Lent;
        let nameless: Vec<Attachment> = self.store.ledger().attachments().filter(nameless).cloned().collect();
        for attachment in nameless {
            let pod = self.compiler.pods().find(|pod| pod.uid == attachment.uid);
            let Some(key) = pod.map(|pod| pod.key.clone()) else { continue };
            let named = Attachment { namespace: key.namespace, pod: key.name, ..attachment };
            if let Some(live) = self.endpoints.get(&named.sandbox) {
                self.compiler.apply(Event::EndpointAttached(Self::endpoint(&named, &live.host_name)));
            }
            if let Err(error) = self.store.attach(named) {
                tracing::error!(%error, "store of addresses");
            }
        }
    }

    /// Reads links and routes and puts back what is missing.
    pub async fn repair(&mut self) {
        if !self.may_judge() {
            return;
        }
        self.look_for_ipvs();
        let outcome = self.repair_routes();
        match outcome {
            Ok(gone) => {
                self.failing.forget_others();
                match self.failing.sentence() {
                    Some(sentence) => self
                        .faults
                        .insert("routes", format!("interfaces or routes are not as they should be: {sentence}")),
                    None => self.faults.remove("routes"),
                };
                self.forget_vanished(gone).await;
            }
            Err(error) => {
                tracing::warn!(%error, "routes not repaired");
                self.faults.insert("routes", format!("local routes are not as they should be: {error}"));
            }
        }
    }

    /// Where IPVS leads to Services, what a pod sends there is for the host itself as long as egress lists see it: the node has to be seen as
    /// one that does not do what policies say. It never opens more: the output hook judges what comes to a pod that way.
    fn look_for_ipvs(&mut self) {
        if !is_ipvs_there() {
            if self.faults.remove(IPVS).is_some() {
                tracing::info!("kube-proxy does not use IPVS any more");
            }
        } else if self.faults.insert(IPVS, IPVS_FAULT.to_owned()).is_none() {
            tracing::warn!("{IPVS_FAULT}");
        }
    }

    /// Returns the endpoints whose interface is gone. What fails of one does not hinder the others.
    fn repair_routes(&mut self) -> Result<Vec<Sandbox>, KernelError> {
        self.mend_forwarding();
        let seen = upkeep::Seen::read(&mut self.rtnl)?;
        let links: BTreeMap<u32, link::Link> = self.named_links()?.into_iter().map(|link| (link.index, link)).collect();
        self.mend_uplinks(&links);
        self.come_back(&links);
        let actual = route::locals(&mut self.rtnl)?;
        let mut gone = Vec::new();
        let mut wanted: BTreeSet<IpAddr> = BTreeSet::new();
        let routed = self.endpoints.iter().filter(|(_, live)| live.routed);
        let routed: Vec<(Sandbox, Live)> = routed.map(|(sandbox, live)| (sandbox.clone(), live.clone())).collect();
        for (sandbox, live) in routed {
            let Some(link) = links.get(&live.index).filter(|link| link.name == live.host_name) else {
                gone.push(sandbox);
                continue;
            };
            if !link.up {
                self.attempt(&live.host_name, |agent| link::set_up(&mut agent.rtnl, link.index, &link.name));
            }
            self.mend_interface(&seen, link, &links, &sandbox, &live);
            if self.isolation.holds(&sandbox) || self.stays_closed(&live.host_name) {
                continue;
            }
            wanted.extend(&live.addresses);
            for address in live.addresses.iter().filter(|address| actual.get(address) != Some(&live.index)) {
                self.attempt(&address.to_string(), |agent| agent.put_back(*address, &live));
            }
        }
        self.repair_shaping(&links);
        // A route of ours that leads to nobody: of an attachment that ended while no felix ran, or of one that is cut off.
        let attachments = self.store.ledger().attachments().filter(|held| !self.isolation.holds(&held.sandbox));
        let held: BTreeSet<IpAddr> = attachments.flat_map(|held| held.addresses.iter().copied()).collect();
        for address in actual.keys().filter(|address| !wanted.contains(address) && !held.contains(address)) {
            self.attempt(&address.to_string(), |agent| route::delete(&mut agent.rtnl, *address));
        }
        Ok(gone)
    }

    fn put_back(&mut self, address: IpAddr, live: &Live) -> Result<(), KernelError> {
        route::add(&mut self.rtnl, address, live.index)?;
        self.repairs += 1;
        tracing::warn!(%address, interface = %live.host_name, "local route was missing; put back");
        Ok(())
    }

    /// Does what may fail for this one thing alone. What fails is said once. It costs one question to the kernel and changes nothing, so it is
    /// tried at every look; what does change something on its way is asked for with [`Self::attempt_now_and_then`].
    fn attempt<T>(&mut self, what: &str, act: impl FnOnce(&mut Self) -> Result<T, KernelError>) -> Option<T> {
        match act(self) {
            Ok(done) => {
                if self.failing.succeeded(what) {
                    tracing::info!(%what, "put right at last");
                }
                Some(done)
            }
            Err(error) => {
                if self.failing.failed(what, error.to_string(), Instant::now()) {
                    tracing::warn!(%error, "not put right; tried again");
                }
                None
            }
        }
    }

    /// The same after growing pauses: the kernel tells of each change, which is a reason for the next look.
    pub(super) fn attempt_now_and_then<T>(
        &mut self,
        what: &str,
        act: impl FnOnce(&mut Self) -> Result<T, KernelError>,
    ) -> Option<T> {
        if self.failing.may_try(what, Instant::now()) { self.attempt(what, act) } else { None }
    }

    /// All links. The table knows workloads by their names, so under another one an interface of ours would be nobody's: such a
    /// one gets its name back, or is set down and left out.
    fn named_links(&mut self) -> Result<Vec<link::Link>, KernelError> {
        let mut links = Vec::new();
        for mut link in link::all(&mut self.rtnl)? {
            let ours = from_alias(&link.alias);
            let name = ours.map(|(sandbox, _)| interface_name(&sandbox.container_id, &sandbox.ifname));
            let Some(name) = name.filter(|name| *name != link.name) else {
                links.push(link);
                continue;
            };
            match link::rename(&mut self.rtnl, link.index, &name) {
                Ok(()) => {
                    self.repairs += 1;
                    tracing::warn!(interface = %name, called = %link.name, "workload interface was renamed; named as before");
                    // Whether it is still up depends on the kernel; setting it up twice costs nothing.
                    (link.name, link.up) = (name, false);
                    links.push(link);
                }
                // Down already: said already.
                Err(_) if !link.up => {}
                Err(error) => {
                    self.repairs += 1;
                    tracing::error!(%error, called = %link.name, "workload interface has another name; set down");
                    self.attempt(&name, |agent| link::set_down(&mut agent.rtnl, link.index, &link.name));
                }
            }
        }
        Ok(links)
    }

    /// An interface that was away, in another namespace for one, and is whole and back: open again as policy says.
    fn come_back(&mut self, links: &BTreeMap<u32, link::Link>) {
        for link in links.values().filter(|link| link.name.starts_with(WORKLOAD_PREFIX)) {
            let Some((sandbox, uid)) = from_alias(&link.alias) else { continue };
            let held = self.store.ledger().attachment(&sandbox).filter(|held| held.uid == uid);
            let Some(held) = held.filter(|_| !self.endpoints.contains_key(&sandbox)) else { continue };
            if interface_name(&sandbox.container_id, &sandbox.ifname) != link.name {
                continue;
            }
            tracing::info!(interface = %link.name, "workload interface is back");
            self.compiler.map_ports(&link.name, &Asked::read(&held.asked).ports);
            self.compiler.apply(Event::EndpointAttached(Self::endpoint(held, &link.name)));
            let live = Live {
                host_name: link.name.clone(),
                index: link.index,
                addresses: held.addresses.clone(),
                routed: true,
            };
            self.endpoints.insert(sandbox, live);
        }
    }

    /// Endpoints without interface are closed at once; their addresses stay theirs until DEL, or until the pod's namespace is
    /// found gone several times as well.
    async fn forget_vanished(&mut self, gone: Vec<Sandbox>) {
        for sandbox in gone {
            if let Some(live) = self.endpoints.remove(&sandbox) {
                tracing::info!(interface = %live.host_name, "workload interface is gone");
                self.compiler.apply(Event::EndpointDetached { ifname: live.host_name });
            }
        }
        // Those that came back are in it as well; without either it is empty, and costs nothing.
        let _ = self.commit().await;
    }

    /// Addresses of sandboxes that ended without DEL.
    pub(super) async fn collect(&mut self) {
        let dead: Vec<Sandbox> = self
            .store
            .ledger()
            .attachments()
            .filter(|held| !self.endpoints.contains_key(&held.sandbox))
            .filter(|held| held.netns.is_empty() || !Path::new(&held.netns).exists())
            .map(|held| held.sandbox.clone())
            .collect();
        self.missing.retain(|sandbox, _| dead.contains(sandbox));
        for sandbox in dead {
            let seen = self.missing.entry(sandbox.clone()).or_insert(0);
            *seen += 1;
            if *seen >= OBSERVATIONS && self.release(&sandbox).await.is_ok() {
                tracing::info!(container = %sandbox.container_id, "address of a vanished sandbox released");
            }
        }
    }

    /// Pods that are attached from now on have the uplink's MTU; those that are there keep theirs.
    pub(crate) fn refresh_uplinks(&mut self) {
        let read = |agent: &mut Self| {
            let (supply, node) = (&agent.supply, &agent.node);
            let others = supply.nodes.iter().map(|(key, _)| key.name.as_str()).filter(|name| *name != node);
            // Of each one, what it is in tunnels: its other addresses may be on links that are its operator's.
            let others = others.filter_map(|name| uplink::outer(&supply.node_addresses(name)));
            uplink::read(&mut agent.rtnl, &supply.node_addresses(node), others)
        };
        if let Some(found) = self.attempt("the node's uplinks", read) {
            self.mtu = found.mtu.or(self.mtu);
            self.uplinks = found.indices;
        }
    }
}
