//! ADD: the order that the README names, and the way back from each of its steps.

use super::ports::forget_untranslated;
use super::stop::{Held, Stop};
use super::{BARRIER, Calls, blocking, detach, open, socket, stopping};
use crate::cni::{self, Add, Failure};
use crate::io::agent::{Ask, Prepared};
use crate::io::heard::scopes_of;
use crate::io::link::{self, Link};
use crate::io::netns::Netns;
use crate::io::rtnl::Rtnl;
use crate::io::shaping;
use crate::workload::Plan;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::{oneshot, watch};
use twill_crds::cni::CniRequest;
use twill_datastore::Key;
use twill_ipam::{Kind, Sandbox};

/// Something that is attached, as long as who asked has heard of it.
pub struct Attached {
    /// What is to be printed.
    pub(super) result: Value,
    sandbox: Sandbox,
    /// Whether it was attached before this call.
    existed: bool,
    stop: Stop,
    _held: Held,
}

impl Attached {
    /// Waits until it need not be waited for any more that who asked says to have the result.
    pub async fn stopped(&mut self) {
        self.stop.wait().await;
    }

    /// Who asked has it. Without that it is taken back: the runtime counts the ADD as failed.
    pub async fn settle(self, calls: &Calls, delivered: bool) {
        if !delivered && !self.existed {
            tracing::warn!(container = %self.sandbox.container_id, interface = %self.sandbox.ifname,
                "the plugin ended before it had the result of its ADD; taken back");
            undo(calls, &self.sandbox).await;
        }
    }
}

pub(super) async fn add(calls: &Calls, request: &CniRequest, gone: watch::Receiver<bool>) -> Result<Attached, Failure> {
    let add = cni::add(request)?;
    let mut stop = calls.sandboxes.stop(&add.sandbox, request.generation.clone(), gone);
    tracing::debug!(container = %add.sandbox.container_id, interface = %add.sandbox.ifname, pod = %add.pod, "ADD begins");
    let held = tokio::select! {
        held = calls.sandboxes.hold(&add.sandbox) => held,
        why = stop.wait() => return Err(why),
    };
    let netns = Arc::new(open(&add.netns)?);
    let scopes = scopes_of(&Key::namespaced(&add.namespace, &add.pod));
    let marks = tokio::select! {
        marks = calls.marks(&scopes, BARRIER) => marks,
        why = stop.wait() => return Err(why),
    };
    let (reply, answer) = oneshot::channel();
    calls.tell(Ask::Prepare { add: Box::new(add.clone()), marks, reply });
    let prepared = prepared(calls, &add, answer, &mut stop).await?;
    let existed = prepared.existed;
    let version = request.config.get("cniVersion").and_then(Value::as_str).unwrap_or("1.1.0");
    let attached = match add.origin.kind {
        Kind::Lent => Ok(cni::lent(version, &prepared.lent, &request.config["ipam"]["routes"])),
        _ => attach(calls, &add, prepared.plan, &netns, &stop).await.map(|made| result(version, &add, &made)),
    };
    match attached {
        Ok(result) => Ok(Attached { result, sandbox: add.sandbox, existed, stop, _held: held }),
        Err(failure) => {
            take_back(calls, &add.sandbox, existed).await;
            Err(failure)
        }
    }
}

/// The agent's answer. If it comes when nobody waits any more, what it stands for is undone.
async fn prepared(
    calls: &Calls,
    add: &Add,
    mut answer: oneshot::Receiver<Result<Prepared, Failure>>,
    stop: &mut Stop,
) -> Result<Prepared, Failure> {
    tokio::select! {
        prepared = &mut answer => prepared.unwrap_or_else(|_| Err(stopping())),
        why = stop.wait() => {
            answer.close();
            if let Ok(Ok(prepared)) = answer.try_recv() {
                take_back(calls, &add.sandbox, prepared.existed).await;
            }
            Err(why)
        }
    }
}

/// Gives the plan back as it was carried out: an interface that is kept has the MTU of the moment when it was made.
async fn attach(calls: &Calls, add: &Add, plan: Plan, netns: &Arc<Netns>, stop: &Stop) -> Result<Plan, Failure> {
    let link = make(&plan, netns).await?;
    let plan = Plan { mtu: link.mtu, ..plan };
    if let Some(why) = stop.now() {
        return Err(why);
    }
    let (sandbox, its, index) = (add.sandbox.clone(), plan.clone(), link.index);
    let finished = calls.ask(|reply| Ask::Finish { sandbox, plan: its, index, reply }).await;
    finished.unwrap_or_else(|| Err(stopping()))?;
    forget_untranslated(&add.runtime_config.asked.ports).await;
    tracing::info!(namespace = %add.namespace, pod = %add.pod, interface = %plan.host_name, addresses = ?plan.addresses,
        "pod attached");
    Ok(plan)
}

fn result(version: &str, add: &Add, plan: &Plan) -> Value {
    let mut result = cni::result(version, plan, &add.netns);
    if add.dns.is_object() {
        result["dns"] = add.dns.clone();
    }
    add.previous.prepend_to(&mut result);
    result
}

/// What was there before outlives an ADD that fails; the runtime's DEL takes it.
async fn take_back(calls: &Calls, sandbox: &Sandbox, existed: bool) {
    if existed {
        calls.tell(Ask::Resume(sandbox.clone()));
    } else {
        undo(calls, sandbox).await;
    }
}

async fn undo(calls: &Calls, sandbox: &Sandbox) {
    if let Err(error) = detach(calls, sandbox).await {
        tracing::warn!(%error, "rollback of a failed ADD is not complete; the runtime's DEL completes it");
    }
}

/// The interface as planned: kept if it is, else made anew. Returns its host side.
async fn make(plan: &Plan, netns: &Arc<Netns>) -> Result<Link, Failure> {
    let (plan, netns) = (plan.clone(), netns.clone());
    let made = blocking(move || {
        let mut rtnl = Rtnl::open().map_err(socket)?;
        if let Some(link) = link::verify(&mut rtnl, &plan, &netns)? {
            let (limits, wanted) = (shaping::Found::read(&mut rtnl)?, plan.bandwidth.as_ref());
            if limits.difference(&mut rtnl, link.index, &link.name, wanted)?.is_some() {
                shaping::apply(&mut rtnl, link.index, &link.name, wanted)?;
            }
            return Ok(link);
        }
        link::delete(&mut rtnl, &plan.host_name)?;
        link::create(&mut rtnl, &plan, &netns)
    });
    made.await
}
