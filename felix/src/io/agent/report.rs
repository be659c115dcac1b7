//! What felix says of itself: on its socket, and as conditions of the NodeNetwork.

use super::Agent;
use super::ask::Shown;
use serde_json::{Value, json};
use twill_crds::control::FelixStatus;

/// The conditions of felix in the node's NodeNetwork: type, whether it holds, and a sentence.
pub type Conditions = Vec<(&'static str, bool, String)>;

pub(super) const NOT_HEARD: &str = "felix has not heard all of the datastore yet";
pub(super) const TABLE_NOT_OURS: &str = "table inet twill is not ours yet: another process owns it";

impl Agent {
    pub(super) fn status(&self) -> FelixStatus {
        let unready = self.unready();
        FelixStatus {
            node: self.node.clone(),
            in_sync: self.in_sync(),
            ready: unready.is_none(),
            unready,
            revision: self.applied,
            endpoints: u32::try_from(self.endpoints.len()).unwrap_or(u32::MAX),
            repairs: self.repairs,
            connections_cut: self.cutting.total,
            problems: self.problems(),
        }
    }

    /// Why a probe should say that this node is not ready.
    fn unready(&self) -> Option<String> {
        self.hindrance().or_else(|| self.announcement.failure.clone())
    }

    /// Why a pod cannot be attached here, or would be without its policy. Blocks that are full are no reason: pods are attached again
    /// when others have gone, and an upgrade must not wait for that.
    pub(super) fn hindrance(&self) -> Option<String> {
        self.hindrance_of_any().or_else(|| self.hindrance_of_ours())
    }

    /// The same of a pod whose addresses another's plugin gives.
    pub(super) fn hindrance_of_any(&self) -> Option<String> {
        if let Some(fault) = self.faults.values().next() {
            return Some(fault.clone());
        }
        if self.table.is_none() {
            return Some(TABLE_NOT_OURS.to_owned());
        }
        if !self.in_sync() && !self.is_recalling() {
            return Some(NOT_HEARD.to_owned());
        }
        None
    }

    /// Why there is no address of ours.
    fn hindrance_of_ours(&self) -> Option<String> {
        let ledger = self.store.ledger();
        if self.supply.own().iter().any(|cidr| ledger.block(*cidr).is_some_and(|block| block.ready)) {
            return None;
        }
        Some(match self.supply.pools().len() {
            0 => "there is no IPPool, so pods get no addresses; apply one".to_owned(),
            _ => format!(
                "no IPBlock gives addresses on node {} yet: one must be claimed from an IPPool that selects it, and routed; twill ipam show",
                self.node
            ),
        })
    }

    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.faults.values().cloned().collect();
        if self.heard_up_to().is_none() {
            let goes_on = "; it goes on with what it heard before its restart: pods that it knows are attached, others are not, and \
                           policy stays as it was";
            let goes_on = if self.recall.is_some() { goes_on } else { "" };
            problems.push(format!("{NOT_HEARD}{goes_on}"));
        }
        problems.extend(self.memory.problem());
        if self.table.is_none() {
            problems.push(TABLE_NOT_OURS.to_owned());
        }
        problems.extend(self.announcement.failure.iter().chain(&self.announcement.overruled).cloned());
        problems.extend(self.isolation_problems());
        problems.extend(self.blocks.problems());
        problems.extend(self.supply.rejected().iter().cloned());
        problems.extend(self.compiler.problems());
        problems.extend(self.refused_problems());
        problems.extend(self.host_problems());
        problems
    }

    /// What the node's NodeNetwork should say; none before all has been heard. Nothing while there is no Node of our name: the
    /// NodeNetwork of a node that is gone goes, and is not made again.
    #[must_use]
    pub fn conditions(&self) -> Option<Conditions> {
        self.heard_up_to()?;
        if !self.node_exists() {
            return Some(Conditions::new());
        }
        let policy: Vec<String> = self.compiler.problems().into_iter().chain(self.refused_problems()).collect();
        let synced = self.in_sync();
        let unready = self.unready();
        let addresses: Vec<String> = self.blocks.problems().chain(self.supply.rejected().iter().cloned()).collect();
        let sentence = |problems: &[String], fine: &str| {
            if problems.is_empty() { fine.to_owned() } else { problems.join("; ") }
        };
        let taken = self.isolation_problems();
        let host = self.host_problems();
        let of_the_host = self.has_host_policies().then(|| {
            (
                "HostPolicyInForce",
                host.is_empty(),
                sentence(&host, "the node's interfaces are closed as HostPolicies say"),
            )
        });
        let of_pods = vec![
            ("NetworkReady", unready.is_none(), unready.unwrap_or_else(|| "pods can be attached".to_owned())),
            ("PolicySynced", synced && policy.is_empty(), sentence(&policy, "the kernel holds all policy")),
            ("AddressesOwned", taken.is_empty(), sentence(&taken, "no pod has an address of another node")),
            ("AddressesAvailable", addresses.is_empty(), sentence(&addresses, "blocks have room")),
        ];
        Some(of_pods.into_iter().chain(of_the_host).collect())
    }

    pub(super) fn addresses(&self) -> Value {
        let one = |held: &twill_ipam::Attachment| {
            let (sandbox, namespace, pod) = (held.sandbox.clone(), held.namespace.clone(), held.pod.clone());
            held.addresses.clone().into_iter().map(move |address| {
                json!({
                    "address": address, "namespace": namespace, "pod": pod,
                    "container_id": sandbox.container_id, "ifname": sandbox.ifname,
                })
            })
        };
        Value::Array(self.store.ledger().attachments().flat_map(one).collect())
    }

    /// What tells what the table is to hold, and where the kernel does not. Reading and comparing is not for this loop.
    pub(super) fn shown(&self) -> Shown {
        let table = self.table.clone().ok_or_else(|| TABLE_NOT_OURS.to_owned());
        // What was committed last is asked of the table.
        let meant = (table.is_err() || !self.equal).then(|| self.meant().clone());
        Shown { table, meant, users: self.compiler.users() }
    }

    /// What others did to the table was undone.
    pub fn table_event(&mut self, event: crate::io::nft::Event) {
        use crate::io::nft::Event;
        match event {
            Event::Repaired { by, took } => {
                self.repairs += 1;
                self.hold_again();
                tracing::warn!(%by, ?took, "table inet twill was changed by another process; put right");
            }
            Event::Failing { problem } => {
                tracing::error!(%problem, "table inet twill is not as wanted");
                self.faults.insert("foreign", problem);
            }
            Event::Recovered => {
                self.faults.remove("foreign");
            }
        }
    }
}
