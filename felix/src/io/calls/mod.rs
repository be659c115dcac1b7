//! The runtime's calls, step by step. Decisions and everything that must not race are the agent's; what takes long (a barrier in the
//! datastore, work inside the pod's namespace, deleting an interface) happens here, beside it.

mod add;
mod check;
mod deleted;
mod gc;
mod ports;
mod stop;

pub use add::Attached;
pub(crate) use deleted::means;
pub use deleted::{Tombstone, Tombstones, replay};

use crate::cni::{self, Del, Failure, Reason};
use crate::io::agent::Ask;
use crate::io::link::{self, KernelError};
use crate::io::netns::Netns;
use crate::io::rtnl::Rtnl;
use crate::io::shaping;
use crate::workload::interface_name;
use serde_json::Value;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;
use stop::Sandboxes;
use tokio::sync::{mpsc, oneshot, watch};
use twill_crds::cni::CniRequest;
use twill_datastore::{Datastore, Mark, Scope};
use twill_ipam::{Attachment, Sandbox};

/// Longest wait for the datastore to say how late it is.
const BARRIER: Duration = Duration::from_secs(5);

/// What a call needs.
#[derive(Clone)]
pub struct Calls {
    agent: mpsc::UnboundedSender<Ask>,
    datastore: Datastore,
    sandboxes: Sandboxes,
}

/// What a call has come to.
pub enum Done {
    /// Something is attached, as long as who asked has heard of it.
    Attached(Box<Attached>),
    /// There is nothing to say.
    Nothing,
}

impl Done {
    /// The result as it is printed; null if nothing is.
    #[must_use]
    pub fn result(&self) -> Value {
        match self {
            Self::Attached(attached) => attached.result.clone(),
            Self::Nothing => Value::Null,
        }
    }
}

impl Calls {
    /// Calls that ask this agent.
    #[must_use]
    pub fn new(agent: mpsc::UnboundedSender<Ask>, datastore: Datastore) -> Self {
        Self { agent, datastore, sandboxes: Sandboxes::default() }
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

    async fn attachment(&self, sandbox: &Sandbox) -> Result<Option<Attachment>, Failure> {
        let sandbox = sandbox.clone();
        self.ask(|reply| Ask::Attachment { sandbox, reply }).await.ok_or_else(stopping)
    }
}

/// Performs a call. `gone` tells that nobody waits for its outcome any more.
///
/// # Errors
/// A failure; then nothing of an ADD is left.
pub async fn call(calls: &Calls, request: CniRequest, gone: watch::Receiver<bool>) -> Result<Done, Failure> {
    // Not tied to the connection: a runtime that gives up must not leave half an attachment behind.
    let calls = calls.clone();
    let task = tokio::spawn(async move {
        match request.command.as_str() {
            "ADD" => add::add(&calls, &request, gone).await.map(|attached| Done::Attached(Box::new(attached))),
            "DEL" => del(&calls, &cni::del(&request)?).await.map(|()| Done::Nothing),
            "CHECK" => check::check(&calls, &request).await.map(|()| Done::Nothing),
            "GC" => gc::gc(&calls, &request).await.map(|()| Done::Nothing),
            "STATUS" => status(&calls, cni::foreign_ipam(&request).is_some()).await.map(|()| Done::Nothing),
            other => {
                let message = format!("CNI_COMMAND {other} is not one of ADD, DEL, CHECK, STATUS, GC");
                Err(Failure::new(Reason::InvalidEnvironment, message))
            }
        }
    });
    task.await.unwrap_or_else(|e| Err(Failure::new(Reason::Io, format!("the call failed inside felix: {e}"))))
}

async fn status(calls: &Calls, foreign: bool) -> Result<(), Failure> {
    calls.ask(|reply| Ask::Available { foreign, reply }).await.unwrap_or_else(|| Err(stopping()))
}

/// Ends an ADD that runs, and what was attached up to the DEL. What is of another network, or was attached later, is not meant.
async fn del(calls: &Calls, del: &Del) -> Result<(), Failure> {
    let _held = calls.sandboxes.delete(&del.sandbox, del.generation.as_ref()).await;
    match calls.attachment(&del.sandbox).await? {
        Some(held) if !means(del, &held) => {
            tracing::info!(container = %del.sandbox.container_id, interface = %del.sandbox.ifname, network = %del.network,
                "DEL of what is no longer there: it is another network's now, or was attached later");
            Ok(())
        }
        _ => detach(calls, &del.sandbox).await,
    }
}

/// Interface first, so that the address is silent before anybody else can have it. An interface that another plugin makes has no such name.
async fn detach(calls: &Calls, sandbox: &Sandbox) -> Result<(), Failure> {
    let name = interface_name(&sandbox.container_id, &sandbox.ifname);
    let gone = blocking(move || {
        let mut rtnl = Rtnl::open().map_err(socket)?;
        link::delete(&mut rtnl, &name)?;
        shaping::remove(&mut rtnl, &name)
    });
    gone.await?;
    calls.ask(|reply| Ask::Release { sandbox: sandbox.clone(), reply }).await.unwrap_or_else(|| Err(stopping()))
}

fn open(path: &Path) -> Result<Netns, Failure> {
    let shown = path.display();
    let netns = Netns::open(path).map_err(|e| {
        let reason =
            if e.kind() == ErrorKind::NotFound { Reason::UnknownContainer } else { Reason::InvalidEnvironment };
        let problem = if e.kind() == ErrorKind::NotFound { "does not exist".to_owned() } else { e.to_string() };
        Failure::new(reason, format!("CNI_NETNS: network namespace {shown} {problem}"))
    })?;
    if !netns.is_namespace().unwrap_or(false) {
        return Err(Failure::new(Reason::InvalidEnvironment, format!("CNI_NETNS: {shown} is no network namespace")));
    }
    if netns.is_own().unwrap_or(false) {
        let message = format!("CNI_NETNS: {shown} is the node's own network namespace, not a pod's");
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
