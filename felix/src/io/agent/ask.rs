//! Questions to the agent, and who answers them.

use super::{Agent, MeantAttachment, Prepared};
use crate::cni::{Add, Failure};
use crate::compile::Users;
use crate::host;
use crate::io::nft;
use crate::ruleset::Ruleset;
use crate::workload::Plan;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::{broadcast, oneshot};
use twill_crds::control::{DropLine, Drops, FelixStatus, Forecast, PolicyChange};
use twill_datastore::Mark;
use twill_ipam::{Attachment, Sandbox};

/// A question to the agent, with the place for its answer.
pub enum Ask {
    /// An ADD: find the pod, give it addresses durably, close its interface in the table and open what policy allows.
    Prepare {
        /// The call.
        add: Box<Add>,
        /// What must have been heard of the datastore as it was when the ADD began; none if it did not answer.
        marks: Option<Vec<Mark>>,
        /// The plan, or why there is none.
        reply: oneshot::Sender<Result<Prepared, Failure>>,
    },
    /// The interface is there: give it its routes.
    Finish {
        /// Container and interface.
        sandbox: Sandbox,
        /// As prepared.
        plan: Plan,
        /// Index of the host side.
        index: u32,
        /// Done, or why not.
        reply: oneshot::Sender<Result<(), Failure>>,
    },
    /// An ADD of what was there before ended without success: look after it as before.
    Resume(Sandbox),
    /// The interface is gone: forget the rest.
    Release {
        /// Container and interface.
        sandbox: Sandbox,
        /// Done, or why not.
        reply: oneshot::Sender<Result<(), Failure>>,
    },
    /// What is attached for a container and interface, if anything is.
    Attachment {
        /// Container and interface.
        sandbox: Sandbox,
        /// The answer.
        reply: oneshot::Sender<Option<Attachment>>,
    },
    /// All that is attached.
    Attachments(oneshot::Sender<Vec<Attachment>>),
    /// What an attachment is meant to be, for a CHECK.
    Meant {
        /// Container and interface.
        sandbox: Sandbox,
        /// The answer; none if nothing is attached.
        reply: oneshot::Sender<Option<MeantAttachment>>,
    },
    /// Whether an ADD would succeed now.
    Available {
        /// Whether another's plugin gives the addresses.
        foreign: bool,
        /// The answer.
        reply: oneshot::Sender<Result<(), Failure>>,
    },
    /// Answered when everything up to some marks is in the kernel.
    Reached {
        /// The marks.
        marks: Vec<Mark>,
        /// The answer.
        reply: oneshot::Sender<()>,
    },
    /// The state.
    Status(oneshot::Sender<FelixStatus>),
    /// Addresses in use.
    Addresses(oneshot::Sender<Value>),
    /// What tells the ruleset as it is meant, and where the kernel is not that.
    Ruleset(oneshot::Sender<Shown>),
    /// Which live connections a change of policy would cut, or why that cannot be said.
    Forecast {
        /// The change.
        change: PolicyChange,
        /// The answer.
        reply: oneshot::Sender<Result<Forecast, String>>,
    },
    /// HostPolicies of this node, what is on trial, and what passes before.
    HostPolicies(oneshot::Sender<host::State>),
    /// Packets that were denied, and those that will be from now on.
    Drops {
        /// What rules have counted.
        counted: Vec<nft::Dropped>,
        /// The answer.
        reply: oneshot::Sender<(Drops, broadcast::Receiver<Arc<DropLine>>)>,
    },
    /// The state, after which nothing is written any more: the daemon ends.
    Leave(oneshot::Sender<FelixStatus>),
}

/// What tells what the table is to hold.
pub struct Shown {
    /// The table, or why there is none.
    pub table: Result<nft::Table, String>,
    /// What it is to hold, where that is not what was committed last.
    pub meant: Option<Ruleset>,
    /// Whose lists its chains are.
    pub users: Arc<Users>,
}

impl Agent {
    /// Answers a question.
    pub async fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Prepare { add, marks, reply } => self.prepare(*add, marks, reply).await,
            Ask::Finish { sandbox, plan, index, reply } => drop(reply.send(self.finish(&sandbox, &plan, index))),
            Ask::Resume(sandbox) => self.resume(&sandbox),
            Ask::Release { sandbox, reply } => {
                let released = self.release(&sandbox).await;
                drop(reply.send(released));
            }
            Ask::Attachment { sandbox, reply } => drop(reply.send(self.store.ledger().attachment(&sandbox).cloned())),
            Ask::Attachments(reply) => drop(reply.send(self.store.ledger().attachments().cloned().collect())),
            Ask::Meant { sandbox, reply } => drop(reply.send(self.meant_attachment(&sandbox))),
            Ask::Available { foreign, reply } => drop(reply.send(self.available(foreign))),
            Ask::Reached { marks, reply } if self.in_sync() && self.is_in_force(&marks) => drop(reply.send(())),
            Ask::Reached { marks, reply } => self.reached.push((marks, reply)),
            Ask::Status(reply) | Ask::Leave(reply) => drop(reply.send(self.status())),
            Ask::Addresses(reply) => drop(reply.send(self.addresses())),
            Ask::Drops { counted, reply } => drop(reply.send(self.drops(counted))),
            Ask::Ruleset(reply) => drop(reply.send(self.shown())),
            Ask::Forecast { change, reply } => self.forecast(&change, reply),
            Ask::HostPolicies(reply) => drop(reply.send(self.host_state())),
        }
    }

    /// Answers who waited for what is in force now.
    pub(super) fn answer_reached(&mut self) {
        self.reached.retain(|(_, reply)| !reply.is_closed());
        for (marks, reply) in std::mem::take(&mut self.reached) {
            if self.is_in_force(&marks) {
                let _ = reply.send(());
            } else {
                self.reached.push((marks, reply));
            }
        }
    }
}
