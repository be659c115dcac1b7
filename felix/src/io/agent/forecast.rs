//! What a change of policy would do to live connections, foretold.
//!
//! A copy of the compiler takes the change in, away from the agent and the kernel; what its ruleset then forbids of the kernel's
//! connections is found by the same look and the same judge that cut after a commit.

use super::cutting::ExistingConnections;
use super::facts::Compiled;
use super::look::{Look, Workloads};
use super::{Agent, NOT_HEARD};
use crate::base::skeleton;
use crate::compile::interpret::Fate;
use crate::compile::{Compiler, Who};
use crate::cut::{Flow, Judge};
use crate::index::Event;
use crate::model::{NAMESPACE_ISOLATION, PolicyKey, Protocol};
use serde_json::Value;
use std::net::SocketAddr;
use tokio::sync::oneshot;
use twill_crds::control::{ConnectionEnd, Denial, DoomedConnection, Forecast, ObjectName, PolicyChange};
use twill_crds::{ClusterNetworkPolicy, Namespace, NamespaceIsolation, NetworkPolicy};

impl Agent {
    /// Answers which live connections a change would cut, beside the agent: compiling all anew takes its time.
    pub(super) fn forecast(&mut self, change: &PolicyChange, reply: oneshot::Sender<Result<Forecast, String>>) {
        if !self.in_sync() {
            return drop(reply.send(Err(NOT_HEARD.to_owned())));
        }
        let events = match events(change) {
            Ok(events) => events,
            Err(problem) => return drop(reply.send(Err(problem))),
        };
        let (node, kept) = (self.node.clone(), self.cutting.existing == ExistingConnections::Keep);
        if kept {
            return drop(reply.send(Ok(Forecast { node, kept, cut: Vec::new() })));
        }
        self.tell_nodes();
        let (snapshot, workloads, settings) = (self.compiler.snapshot(), self.workloads(), self.settings.clone());
        tokio::task::spawn_blocking(move || {
            let compiler = snapshot.compile(skeleton(&settings));
            let cut = doomed(compiler, events, &workloads);
            // Who asked may have gone.
            let _ = reply.send(cut.map(|cut| Forecast { node, kept, cut }));
        });
    }
}

fn doomed(mut compiler: Compiler, events: Vec<Event>, workloads: &Workloads) -> Result<Vec<DoomedConnection>, String> {
    events.into_iter().for_each(|event| compiler.apply(event));
    let delta = compiler.commit();
    let suspects = workloads.suspects(&delta, compiler.ruleset());
    let look = Look::at(&suspects, &workloads.addresses()).map_err(|error| error.to_string())?;
    let judge = look.judge(&compiler, compiler.ruleset(), workloads);
    let mut flows: Vec<Flow> = look.forbidden(&judge).into_iter().map(|one| one.flow).collect();
    flows.sort();
    flows.dedup();
    Ok(flows.iter().map(|flow| told(flow, &judge, &compiler)).collect())
}

fn told(flow: &Flow, judge: &Judge<'_>, compiler: &Compiler) -> DoomedConnection {
    let (chain, comment) = match judge.fate(flow) {
        Fate::Dropped { chain, comment } => (chain, comment),
        Fate::Passed => Default::default(),
    };
    let [from, to] = judge.interfaces(flow);
    DoomedConnection {
        source: end(compiler, flow.source, flow.protocol),
        destination: end(compiler, flow.destination, flow.protocol),
        protocol: Protocol(flow.protocol).to_string(),
        denial: denial(compiler, (&chain, &comment), from, to),
    }
}

/// An end of a connection or packet, with who has its address.
pub(super) fn end(compiler: &Compiler, at: SocketAddr, protocol: u8) -> ConnectionEnd {
    let (pod, node) = match compiler.who(at.ip()) {
        Who::Pod(key) => (Some(key.to_string()), None),
        Who::Node(name) => (None, Some(name.to_owned())),
        Who::Outside => (None, None),
    };
    let port = crate::cut::has_ports(protocol).then_some(at.port());
    ConnectionEnd { address: at.ip(), port, pod, node }
}

/// Why a rule of this chain with this comment denies a packet between these interfaces of workloads.
pub(super) fn denial(
    compiler: &Compiler,
    (chain, comment): (&str, &str),
    from: Option<&str>,
    to: Option<&str>,
) -> Denial {
    let reason = comment.to_owned();
    match compiler.blame(chain, from, to) {
        Some(blame) => Denial {
            direction: Some(blame.direction.to_string()),
            pod: Some(blame.pod.to_string()),
            reason,
            policies: blame.policies.iter().map(ToString::to_string).collect(),
        },
        None => Denial { reason, ..Denial::default() },
    }
}

/// The change as the compiler hears of it.
fn events(change: &PolicyChange) -> Result<Vec<Event>, String> {
    let applied = change.applied.iter().map(applied);
    applied.chain(change.deleted.iter().map(deleted)).collect()
}

fn applied(object: &Value) -> Result<Event, String> {
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
    match kind {
        "NetworkPolicy" => read::<NetworkPolicy>(object),
        "ClusterNetworkPolicy" => read::<ClusterNetworkPolicy>(object),
        NAMESPACE_ISOLATION => read::<NamespaceIsolation>(object),
        "Namespace" => read::<Namespace>(object),
        _ => Err(format!("{kind:?} is no kind of policy, and no Namespace; leave it out")),
    }
}

fn read<K: Compiled>(object: &Value) -> Result<Event, String> {
    let typed: Result<K, _> = serde_json::from_value(object.clone());
    let name = || object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
    typed.map(|one| one.applied()).map_err(|error| format!("{} {} cannot be read: {error}", K::kind().kind, name()))
}

fn deleted(object: &ObjectName) -> Result<Event, String> {
    let key = |kind| PolicyKey { kind, namespace: object.namespace.clone(), name: object.name.clone() };
    match object.kind.as_str() {
        "NetworkPolicy" => Ok(Event::PolicyDeleted(key("NetworkPolicy"))),
        "ClusterNetworkPolicy" => Ok(Event::PolicyDeleted(key("ClusterNetworkPolicy"))),
        NAMESPACE_ISOLATION => Ok(Event::IsolationDeleted(object.name.clone())),
        other => Err(format!("{other:?} {} is no policy; name one to be deleted", object.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_no_policy_is_refused_by_name() {
        let change = |applied, deleted: &[(&str, &str)]| PolicyChange {
            applied,
            deleted: deleted
                .iter()
                .map(|(kind, name)| ObjectName { kind: (*kind).into(), namespace: String::new(), name: (*name).into() })
                .collect(),
        };
        let refused = |change: PolicyChange| events(&change).err().unwrap_or_default();
        assert_eq!(
            refused(change(vec![json!({"kind": "Service"})], &[])),
            "\"Service\" is no kind of policy, and no Namespace; leave it out"
        );
        let broken = json!({"kind": "NetworkPolicy", "apiVersion": "networking.k8s.io/v1", "metadata": {"name": "p"}, "spec": 1});
        assert!(refused(change(vec![broken], &[])).starts_with("NetworkPolicy p cannot be read: "));
        assert!(refused(change(vec![], &[("Pod", "a")])).contains("is no policy"));
        assert!(matches!(
            events(&change(vec![], &[("NamespaceIsolation", "i")])).as_deref(),
            Ok([Event::IsolationDeleted(name)]) if name == "i"
        ));
    }
}
