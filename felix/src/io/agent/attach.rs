//! Attaching and releasing a pod: what must be true before its interface exists, and after it is gone.

use super::{Agent, Live, later, milliseconds, namesakes};
use crate::cni::{Add, Failure, Reason};
use crate::index::Event;
use crate::io::{calls, conntrack, route};
use crate::workload::supply::{Choice, NoAddress, Whom, chosen_by_another};
use crate::workload::{Plan, interface_name};
use ipnet::IpNet;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use twill_datastore::Mark;
use twill_ipam::{Attachment, Kind, Sandbox, StoreError};

/// Longest wait of an ADD for its pod to be heard of and for addresses.
const PATIENCE: Duration = Duration::from_secs(10);
/// MTU if the uplink's is not known.
const DEFAULT_MTU: u32 = 1500;

/// What an ADD may go on with: addresses are its own durably, and the table knows its interface.
#[derive(Debug)]
pub struct Prepared {
    /// What the kernel shall have.
    pub plan: Plan,
    /// Whether the attachment was there before.
    pub existed: bool,
    /// Its addresses with their blocks, where another plugin makes the interface.
    pub lent: Vec<(IpAddr, IpNet)>,
}

/// An ADD that waits.
pub(super) struct Pending {
    add: Add,
    /// What must have been heard; none if the datastore does not answer.
    marks: Option<Vec<Mark>>,
    until: Instant,
    reply: oneshot::Sender<Result<Prepared, Failure>>,
}

impl Pending {
    /// Whether it is for the pod with this UID.
    pub(super) fn is_of(&self, uid: &str) -> bool {
        self.add.uid == uid
    }
}

/// What an ADD waits for.
pub(super) enum Wait {
    /// One sentence without its end: "… within 10 s".
    For(String),
    Never(Failure),
}

impl From<Failure> for Wait {
    fn from(failure: Failure) -> Self {
        Self::Never(failure)
    }
}

impl Agent {
    pub(super) async fn prepare(
        &mut self,
        add: Add,
        marks: Option<Vec<Mark>>,
        reply: oneshot::Sender<Result<Prepared, Failure>>,
    ) {
        self.pending.push(Pending { add, marks, until: later(PATIENCE), reply });
        self.retry_pending().await;
    }

    /// Tries every ADD that waits.
    pub(super) async fn retry_pending(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            if pending.reply.is_closed() {
                continue;
            }
            let answer = match self.try_prepare(&pending.add, pending.marks.as_deref()).await {
                Ok(prepared) => Ok(prepared),
                Err(Wait::For(_)) if Instant::now() < pending.until => {
                    self.pending.push(pending);
                    continue;
                }
                Err(Wait::For(what)) => {
                    let message = format!("{what} within {} s", PATIENCE.as_secs());
                    Err(Failure::new(Reason::TryAgain, message))
                }
                Err(Wait::Never(failure)) => Err(failure),
            };
            let sandbox = pending.add.sandbox.clone();
            match pending.reply.send(answer) {
                // Nobody waits any more; what was prepared is undone.
                Err(Ok(Prepared { existed: false, .. })) => drop(self.release(&sandbox).await),
                Err(Ok(Prepared { existed: true, .. })) => self.resume(&sandbox),
                _ => {}
            }
        }
    }

    async fn try_prepare(&mut self, add: &Add, marks: Option<&[Mark]>) -> Result<Prepared, Wait> {
        self.fresh_enough(add, marks)?;
        let away = marks.is_none() || self.recall.is_some();
        let lent = add.origin.kind == Kind::Lent;
        if !lent && self.pod_of(&add.namespace, &add.pod, &add.uid).is_none() {
            return Err(Wait::For(format!(
                "pod {}/{} with UID {} did not appear in the datastore",
                add.namespace, add.pod, add.uid
            )));
        }
        self.refuse_taken_ports(add)?;
        let (attachment, existed) = self.attachment_for(add, away).await?;
        if lent {
            let ledger = self.store.ledger();
            let block = |address: &IpAddr| Some((*address, ledger.block_of(*address)?));
            let lent = attachment.addresses.iter().filter_map(block).collect();
            let plan = Plan::of(&attachment, &self.supply.owner().claimant, 0);
            return Ok(Prepared { plan, existed, lent });
        }
        self.open(add, &attachment, existed).await
    }

    /// What the store has for this container and interface, or something new. Whether it was there before.
    async fn attachment_for(&mut self, add: &Add, away: bool) -> Result<(Attachment, bool), Wait> {
        let Some(held) = self.store.ledger().attachment(&add.sandbox).cloned() else {
            return Ok((self.allocate(add, away, None)?, false));
        };
        let (theirs, ours) = (&held.origin.network, &add.origin.network);
        if !theirs.is_empty() && !ours.is_empty() && theirs != ours {
            let Sandbox { container_id, ifname } = &add.sandbox;
            let message = format!(
                "container {container_id} has {ifname} in network {theirs} already; DEL that first, or name another CNI_IFNAME for {ours}"
            );
            return Err(Failure::new(Reason::InvalidEnvironment, message).into());
        }
        let asked = add.given.iter().chain(&add.runtime_config.ips);
        let same = held.uid == add.uid
            && held.origin.kind == add.origin.kind
            && !held.addresses.is_empty()
            && asked.into_iter().all(|address| held.addresses.contains(address))
            && !self.isolation.holds(&add.sandbox);
        if !same {
            // What was there goes once there is something in its place.
            let renewed = self.allocate(add, away, Some(&held))?;
            if !self.close(&add.sandbox, &held.addresses).await? {
                forget_connections(held);
            }
            return Ok((renewed, false));
        }
        let asked = add.runtime_config.asked.text();
        if (&held.origin, &held.asked) == (&add.origin, &asked) {
            return Ok((held, true));
        }
        // This call's from now on: an earlier DEL does not mean it.
        let renewed = Attachment { origin: add.origin.clone(), asked, ..held };
        self.store.attach(renewed.clone()).map_err(|error| store_failed(&error))?;
        Ok((renewed, true))
    }

    /// The table knows its interface, which need not be there yet.
    async fn open(&mut self, add: &Add, attachment: &Attachment, existed: bool) -> Result<Prepared, Wait> {
        let ifname = interface_name(&add.sandbox.container_id, &add.sandbox.ifname);
        if self.stays_closed(&ifname) {
            return Err(Wait::For(format!(
                "pod {}/{} was closed before felix was started again, and the datastore did not say why",
                add.namespace, add.pod
            )));
        }
        self.recall_attached(&ifname, &attachment.addresses);
        let mtu = add.mtu.or(self.mtu).unwrap_or(DEFAULT_MTU);
        let plan = Plan::of(attachment, &self.supply.owner().claimant, mtu).with_mac(add.runtime_config.mac);
        // Blocks of ours have it already; addresses of another's plugin need none.
        if plan.ipv6() {
            self.forward_ipv6();
        }
        self.compiler.apply(Event::EndpointAttached(Self::endpoint(attachment, &plan.host_name)));
        self.compiler.map_ports(&plan.host_name, &add.runtime_config.asked.ports);
        let live = self.endpoints.entry(add.sandbox.clone()).or_insert_with(|| Live {
            host_name: plan.host_name.clone(),
            index: 0,
            addresses: Vec::new(),
            routed: false,
        });
        live.addresses.clone_from(&plan.addresses);
        // While its interface may be made anew, a look at the kernel must not take it for gone.
        live.routed = false;
        if let Err(sentence) = self.commit().await {
            if existed {
                self.resume(&add.sandbox);
            } else {
                let _ = self.release(&add.sandbox).await;
            }
            return Err(Failure::new(Reason::Kernel, sentence).into());
        }
        if !self.compiler.is_live(&plan.host_name) {
            let _ = self.release(&add.sandbox).await;
            let message = format!("pod {}/{} uses its node's network; it gets no interface", add.namespace, add.pod);
            return Err(Failure::new(Reason::InvalidEnvironment, message).into());
        }
        Ok(Prepared { plan, existed, lent: Vec::new() })
    }

    /// Whether enough has been heard to judge the pod by.
    fn fresh_enough(&self, add: &Add, marks: Option<&[Mark]>) -> Result<(), Wait> {
        if !(self.in_sync() || marks.is_none() && self.is_recalling()) {
            return Err(Wait::For("felix did not get in sync with the datastore and the kernel".to_owned()));
        }
        match marks {
            Some(marks) if !self.heard.reached(marks) => {
                Err(Wait::For("felix did not hear from the datastore what it had when the call began".to_owned()))
            }
            Some(_) => Ok(()),
            None if add.origin.kind == Kind::Lent => Ok(()),
            // The datastore is away. A pod that was heard of before is served by what was heard; others cannot be judged.
            None if self.pod_of(&add.namespace, &add.pod, &add.uid).is_some() => Ok(()),
            None => {
                let message = format!(
                    "the datastore does not answer, and pod {}/{} has not been heard of before",
                    add.namespace, add.pod
                );
                Err(Failure::new(Reason::TryAgain, message).into())
            }
        }
    }

    /// Gives the pod addresses, durably. While the datastore is away only of blocks that a pod's status speaks for: another may be taken
    /// for unused and given back, and nobody here would hear of it.
    ///
    /// `held` is what the sandbox has, which ends in the same transaction; if there is nothing to give, it stays as it is.
    fn allocate(&mut self, add: &Add, away: bool, held: Option<&Attachment>) -> Result<Attachment, Wait> {
        let kept = self.kept_for(add, away)?;
        let now = self.now();
        let told: Vec<IpAddr> =
            if away { self.compiler.pods().flat_map(namesakes::addresses).collect() } else { Vec::new() };
        // What is lent to another plugin's interface may be of a pod that was not heard of.
        let pools = self.pod_of(&add.namespace, &add.pod, &add.uid).and_then(|pod| pod.pools.clone());
        let whom = Whom { namespace: &add.namespace, pod: &add.pod, pools: pools.as_deref(), kept: kept.as_deref() };
        let without = held.map(|held| self.store.ledger().without(&held.sandbox, now.at));
        let ledger = without.as_ref().unwrap_or(self.store.ledger());
        let own = held.map(|held| held.addresses.as_slice()).unwrap_or_default();
        let spoken_for =
            |address| !away || ledger.block_of(address).is_some_and(|cidr| told.iter().any(|told| cidr.contains(told)));
        let (rtnl, supply, mut broken) = (&mut self.rtnl, &self.supply, None);
        // An address that the node still has, whatever the store says, is not given to anybody.
        let is_kept = |address| kept.as_ref().is_some_and(|one| one.spec.addresses.contains(&address));
        // What a pod somewhere has by a reservation is its own, whatever that says by now.
        let is_held = |address| !is_kept(address) && supply.holders(address).next().is_some();
        let busy = |address| match route::in_use(rtnl, address, is_kept(address)) {
            Ok(used) => {
                (used || is_held(address)) && !own.contains(&address) || !is_kept(address) && !spoken_for(address)
            }
            Err(error) => {
                broken = Some(error);
                true
            }
        };
        let choice = match add.given.as_slice() {
            [] => supply.choose(whom, &add.runtime_config.ips, ledger, now, busy),
            given => chosen_by_another(given, ledger, busy),
        };
        if let Some(error) = broken {
            return Err(calls::refused(&error).into());
        }
        let addresses = match choice {
            Ok(Choice::Addresses(addresses)) => addresses,
            Ok(Choice::Claim(pool)) => {
                let what = match self.blocks.refusal(&pool.name) {
                    Some(problem) => format!("no block of IPPool {} could be claimed ({problem})", pool.name),
                    None => format!("no block of IPPool {} was claimed", pool.name),
                };
                // While the datastore is away nothing speaks for a new block: one after the other would be claimed for nothing.
                if !away {
                    self.claim(pool);
                }
                return Err(Wait::For(what));
            }
            Ok(Choice::Until(what)) => return Err(Wait::For(what)),
            Ok(Choice::Wait(cidr)) => {
                let reason = self.blocks.ready.reason(cidr).map(|reason| format!(" ({reason})")).unwrap_or_default();
                return Err(Wait::For(format!("{} did not become ready{reason}", super::name(cidr))));
            }
            Err(none @ NoAddress::Refused(_)) => {
                return Err(Failure::new(Reason::AddressRefused, none.to_string()).into());
            }
            Err(none) => {
                let told = std::iter::once(none.to_string()).chain(self.blocks.unusable()).collect::<Vec<_>>();
                return Err(Failure::new(Reason::NoAddress, told.join("; ")).into());
            }
        };
        let attachment = Attachment {
            sandbox: add.sandbox.clone(),
            namespace: add.namespace.clone(),
            pod: add.pod.clone(),
            uid: add.uid.clone(),
            netns: add.netns.display().to_string(),
            boot_id: self.boot_id.clone(),
            addresses,
            origin: add.origin.clone(),
            asked: add.runtime_config.asked.text(),
        };
        self.store.replace(attachment.clone(), milliseconds()).map_err(|error| store_failed(&error))?;
        self.warm();
        Ok(attachment)
    }

    /// An ADD of what was there before ended without success: what there is of it is looked after as before.
    pub(super) fn resume(&mut self, sandbox: &Sandbox) {
        if let Some(live) = self.endpoints.get_mut(sandbox) {
            // If its interface is gone, the next look at the kernel finds that.
            live.routed = true;
        }
    }

    pub(super) fn finish(&mut self, sandbox: &Sandbox, plan: &Plan, index: u32) -> Result<(), Failure> {
        let Some(live) = self.endpoints.get_mut(sandbox) else {
            return Err(Failure::new(Reason::TryAgain, "the sandbox was released while it was attached"));
        };
        if self.isolation.holds(sandbox) {
            return Err(Failure::new(Reason::TryAgain, "the address became another node's while it was given"));
        }
        for address in &plan.addresses {
            route::add(&mut self.rtnl, *address, index).map_err(|error| calls::refused(&error))?;
        }
        (live.index, live.routed) = (index, true);
        Ok(())
    }

    /// Forgets an attachment whose interface is gone: routes, table, then the address, which rests. Unknown ones are fine.
    pub(super) async fn release(&mut self, sandbox: &Sandbox) -> Result<(), Failure> {
        let held = self.store.ledger().attachment(sandbox).map(|held| held.addresses.clone()).unwrap_or_default();
        let isolated = self.close(sandbox, &held).await?;
        let released = self.store.release(sandbox, milliseconds()).map_err(|error| store_failed(&error))?;
        // Of one that was cut off they are forgotten already; those that there are now are of the address's new owner.
        if let Some(released) = &released {
            self.kept_ended(&released.uid);
        }
        released.filter(|_| !isolated).into_iter().for_each(forget_connections);
        Ok(())
    }

    /// Ends routes and table of what a sandbox had: these addresses. Whether it was cut off.
    async fn close(&mut self, sandbox: &Sandbox, addresses: &[IpAddr]) -> Result<bool, Failure> {
        let host_name = interface_name(&sandbox.container_id, &sandbox.ifname);
        for address in addresses {
            route::delete(&mut self.rtnl, *address).map_err(|error| calls::refused(&error))?;
        }
        self.endpoints.remove(sandbox);
        self.missing.remove(sandbox);
        let isolated = self.isolation_ends(sandbox);
        self.recall_ended(&host_name, addresses);
        self.compiler.map_ports(&host_name, &[]);
        self.compiler.apply(Event::EndpointDetached { ifname: host_name });
        // With nothing to go by the table is left as it is; an interface that is gone lets nothing through.
        if self.is_informed() {
            let _ = self.commit().await;
        }
        Ok(isolated)
    }
}

/// Long before the next owner can have the addresses; beside the agent, since it reads the whole table of connections.
fn forget_connections(ended: Attachment) {
    tokio::task::spawn_blocking(move || match conntrack::forget_addresses(&ended.addresses) {
        Ok(0) => {}
        Ok(connections) => tracing::debug!(addresses = ?ended.addresses, connections, "connections forgotten"),
        Err(error) => tracing::warn!(%error, addresses = ?ended.addresses, "connections not forgotten"),
    });
}

pub(super) fn store_failed(error: &StoreError) -> Failure {
    tracing::error!(%error, "store of addresses");
    Failure::new(Reason::Store, error.to_string())
}
