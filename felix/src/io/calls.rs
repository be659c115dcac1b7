//! The steps of ADD and DEL. Decisions and everything that must not race are the agent's; what takes long (a barrier in the
//! datastore, work inside the pod's namespace, deleting an interface) happens here, beside it.

use crate::cni::{self, Add, Failure, Reason};
use crate::io::agent::{Ask, Prepared};
use crate::io::heard::scopes_of;
use crate::io::link::{self, KernelError};
use crate::io::netns::Netns;
use crate::io::rtnl::Rtnl;
use crate::workload::{Plan, interface_name};
use serde_json::Value;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedMutexGuard, mpsc, oneshot};
use twill_crds::cni::CniRequest;
use twill_datastore::{Datastore, Key, Mark, Scope};
use twill_ipam::Sandbox;

/// Longest wait for the datastore to say how late it is.
const BARRIER: Duration = Duration::from_secs(5);

/// What a call needs.
#[derive(Clone)]
pub struct Calls {
    agent: mpsc::UnboundedSender<Ask>,
    datastore: Datastore,
    locks: Arc<Mutex<HashMap<Sandbox, Arc<tokio::sync::Mutex<()>>>>>,
}

impl Calls {
    /// Calls that ask this agent.
    #[must_use]
    pub fn new(agent: mpsc::UnboundedSender<Ask>, datastore: Datastore) -> Self {
        Self { agent, datastore, locks: Arc::default() }
    }

    /// What must have been heard to know all that the datastore has now; none if it does not answer in time.
    pub(super) async fn marks(&self, scopes: &[Scope], limit: Duration) -> Option<Vec<Mark>> {
        tokio::time::timeout(limit, self.datastore.barrier(scopes)).await.ok()?.ok()
    }

    /// Asks the agent and waits for its answer; none while it stops.
    pub async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.tell(ask(reply));
        answer.await.ok()
    }

    /// Tells the agent.
    pub fn tell(&self, ask: Ask) {
        // It stops: the connection's other end will see it.
        let _ = self.agent.send(ask);
    }

    /// One call per sandbox at a time: a runtime may give up on an ADD and send DEL while it still runs.
    async fn lock(&self, sandbox: &Sandbox) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            locks.entry(sandbox.clone()).or_default().clone()
        };
        lock.lock_owned().await
    }
}

/// Performs a call.
///
/// # Errors
/// A failure; then nothing of an ADD is left.
pub async fn call(calls: &Calls, request: CniRequest) -> Result<Value, Failure> {
    // Not tied to the connection: a runtime that gives up must not leave half an attachment behind.
    let calls = calls.clone();
    let task = tokio::spawn(async move {
        match request.command.as_str() {
            "ADD" => add(&calls, &request).await,
            "DEL" => del(&calls, &request).await,
            other => {
                Err(Failure::new(Reason::InvalidEnvironment, format!("CNI_COMMAND {other} is not one of ADD, DEL")))
            }
        }
    });
    task.await.unwrap_or_else(|e| Err(Failure::new(Reason::Io, format!("the call failed inside felix: {e}"))))
}

async fn add(calls: &Calls, request: &CniRequest) -> Result<Value, Failure> {
    let add = cni::add(request)?;
    let _guard = calls.lock(&add.sandbox).await;
    let netns = Arc::new(open(&add)?);
    let marks = calls.marks(&scopes_of(&Key::namespaced(&add.namespace, &add.pod)), BARRIER).await;
    let call = Box::new(add.clone());
    let prepared = calls.ask(|reply| Ask::Prepare { add: call, marks, reply }).await;
    let Prepared { plan } = prepared.unwrap_or_else(|| Err(stopping()))?;
    let attached = match make(&plan, &netns).await {
        Ok(index) => {
            let (sandbox, plan) = (add.sandbox.clone(), plan.clone());
            calls.ask(|reply| Ask::Finish { sandbox, plan, index, reply }).await.unwrap_or_else(|| Err(stopping()))
        }
        Err(failure) => Err(failure),
    };
    match attached {
        Ok(()) => {
            let version = request.config.get("cniVersion").and_then(Value::as_str).unwrap_or("1.1.0");
            tracing::info!(namespace = %add.namespace, pod = %add.pod, interface = %plan.host_name,
                addresses = ?plan.addresses, "pod attached");
            Ok(cni::result(version, &plan, &add.netns))
        }
        Err(failure) => {
            if let Err(undo) = detach(calls, &add.sandbox).await {
                tracing::warn!(error = %undo, "rollback of a failed ADD is not complete; the runtime's DEL completes it");
            }
            Err(failure)
        }
    }
}

async fn del(calls: &Calls, request: &CniRequest) -> Result<Value, Failure> {
    let del = cni::del(request)?;
    let _guard = calls.lock(&del.sandbox).await;
    detach(calls, &del.sandbox).await?;
    Ok(Value::Null)
}

/// Interface first, so that the address is silent before anybody else can have it.
async fn detach(calls: &Calls, sandbox: &Sandbox) -> Result<(), Failure> {
    let name = interface_name(&sandbox.container_id, &sandbox.ifname);
    blocking(move || Rtnl::open().map_err(socket).and_then(|mut rtnl| link::delete(&mut rtnl, &name))).await?;
    calls.ask(|reply| Ask::Release { sandbox: sandbox.clone(), reply }).await.unwrap_or_else(|| Err(stopping()))
}

/// The interface as planned: kept if it is, else made anew. Returns the index of its host side.
async fn make(plan: &Plan, netns: &Arc<Netns>) -> Result<u32, Failure> {
    let (plan, netns) = (plan.clone(), netns.clone());
    let made = blocking(move || {
        let mut rtnl = Rtnl::open().map_err(socket)?;
        if let Some(link) = link::verify(&mut rtnl, &plan, &netns)? {
            return Ok(link.index);
        }
        link::delete(&mut rtnl, &plan.host_name)?;
        link::create(&mut rtnl, &plan, &netns).map(|link| link.index)
    });
    made.await
}

fn open(add: &Add) -> Result<Netns, Failure> {
    let path = add.netns.display();
    let netns = Netns::open(&add.netns).map_err(|e| {
        let reason =
            if e.kind() == ErrorKind::NotFound { Reason::UnknownContainer } else { Reason::InvalidEnvironment };
        let problem = if e.kind() == ErrorKind::NotFound { "does not exist".to_owned() } else { e.to_string() };
        Failure::new(reason, format!("CNI_NETNS: network namespace {path} {problem}"))
    })?;
    if !netns.is_namespace().unwrap_or(false) {
        return Err(Failure::new(Reason::InvalidEnvironment, format!("CNI_NETNS: {path} is no network namespace")));
    }
    if netns.is_own().unwrap_or(false) {
        let message = format!("CNI_NETNS: {path} is the node's own network namespace, not a pod's");
        return Err(Failure::new(Reason::InvalidEnvironment, message));
    }
    Ok(netns)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KernelError> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(refused(&error)),
        Err(error) => Err(Failure::new(Reason::Io, format!("the call failed inside felix: {error}"))),
    }
}

/// The kernel's refusal as a failure. An interface of that name in the pod is the caller's doing.
pub(crate) fn refused(error: &KernelError) -> Failure {
    let reason = match error.source.raw_os_error() {
        Some(libc::EEXIST) => Reason::InvalidEnvironment,
        _ => Reason::Kernel,
    };
    Failure::new(reason, format!("{} failed: {}", error.what, error.source))
}

fn socket(source: std::io::Error) -> KernelError {
    KernelError { what: "opening a netlink socket".to_owned(), source }
}

fn stopping() -> Failure {
    Failure::new(Reason::TryAgain, "felix is stopping")
}
