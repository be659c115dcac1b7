//! The kubelet's part: a namespace, listeners and an address for every pod, and all of it gone again.

use crate::capabilities::capabilities;
use crate::io::{cni, holder, netns, process, underlay};
use crate::names;
use crate::ports::declared;
use crate::resources::{Ended, Wanted};
use crate::state::{Node, State};
use anyhow::{Context, anyhow};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use twill_crds::{Object, Pod};

/// What became of a pod.
#[derive(Debug)]
pub struct Started {
    /// The pod, as the datastore has it.
    pub pod: Pod,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// How it ended, if it did: then its sandbox is gone again.
    pub ended: Option<Ended>,
}

/// Starts pods, nodes side by side, the pods of a node one after the other; tells of each as soon as it is attached. A pod that has
/// ended gets its address and gives it back, as kubelet tears down the sandbox of a pod whose containers are done.
///
/// # Errors
/// The first that failed, after all nodes have stopped; what was made for it is gone.
pub fn start(
    state: &State,
    pods: Vec<Wanted>,
    mut told: impl FnMut(Started) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut by_node: BTreeMap<String, Vec<Wanted>> = BTreeMap::new();
    for wanted in pods {
        by_node.entry(node_name(&wanted.pod).to_owned()).or_default().push(wanted);
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for (node, pods) in by_node {
            let sender = sender.clone();
            scope.spawn(move || {
                for Wanted { pod, ended } in pods {
                    let started = start_one(state, &node, pod, ended);
                    let failed = started.is_err();
                    if sender.send(started).is_err() || failed {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut failure = None;
        for started in receiver {
            let done = started.and_then(&mut told);
            failure = failure.or(done.err());
        }
        failure.map_or(Ok(()), Err)
    })
}

fn start_one(state: &State, node: &str, pod: Pod, ended: Option<Ended>) -> anyhow::Result<Started> {
    let node = state.node(node)?;
    let what = format!("Pod {}/{} on {}", pod.namespace(), pod.name(), node.name);
    let addresses = attach(state, node, &pod).with_context(|| what.clone())?;
    if ended.is_some() {
        stop_one(state, &pod).context(what)?;
    }
    Ok(Started { pod, addresses, ended })
}

fn attach(state: &State, node: &Node, pod: &Pod) -> anyhow::Result<Vec<IpAddr>> {
    let answer = format!("{}/{}", pod.namespace(), pod.name());
    let log = names::lab_dir(&state.name).join("pods.log");
    // What an attempt that was killed half way has left is in the way of this one.
    stop_one(state, pod)?;
    if host_network(pod) {
        holder::start(&node.netns, &answer, &node.addresses, &declared(pod), &log)?;
        return Ok(node.addresses.clone());
    }
    let sandbox = sandbox(state, pod, node.boots);
    let space = names::pod_netns(&state.name, pod.namespace(), pod.name());
    netns::create(&space, || {
        netns::as_host()?;
        underlay::loopback_up()
    })?;
    // Listeners first: whoever sees the pod's address may talk to it at once.
    let attached = holder::start(&space, &answer, &[], &declared(pod), &log)
        .and_then(|_| cni::add(&state.machine_dir(&node.name), &sandbox));
    attached.inspect_err(|_| {
        // As kubelet does after a failed ADD. What fails here was not there.
        let _ = cni::del(&state.machine_dir(&node.name), &sandbox);
        let _ = process::kill_inside(std::slice::from_ref(&space));
        let _ = netns::remove(&space);
    })
}

/// Stops pods, nodes side by side.
///
/// # Errors
/// The first that failed; the others are stopped.
pub fn stop(state: &State, pods: &[Pod]) -> anyhow::Result<()> {
    let mut by_node: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    for pod in pods {
        by_node.entry(node_name(pod)).or_default().push(pod);
    }
    std::thread::scope(|scope| {
        let threads = by_node
            .into_values()
            .map(|pods| {
                scope.spawn(move || {
                    let stopped = pods.into_iter().map(|pod| stop_one(state, pod)).collect::<Vec<_>>();
                    stopped.into_iter().collect::<anyhow::Result<Vec<()>>>()
                })
            })
            .collect::<Vec<_>>();
        let mut failure = None;
        for thread in threads {
            failure = failure.or(thread
                .join()
                .map_err(|_| anyhow!("a kubelet thread failed"))
                .and_then(|r| r.map(drop))
                .err());
        }
        failure.map_or(Ok(()), Err)
    })
}

/// Takes away what a power cut leaves nothing of: the sandboxes of a node's pods. Nobody is told. Twice is no error.
///
/// # Errors
/// The kernel refuses.
pub fn cut_power(state: &State, node: &Node, pods: &[Pod]) -> anyhow::Result<()> {
    let mut spaces = vec![node.netns.clone()];
    let own = pods.iter().filter(|p| !host_network(p));
    spaces.extend(own.map(|p| names::pod_netns(&state.name, p.namespace(), p.name())));
    process::kill_inside(&spaces)?;
    spaces.iter().skip(1).try_for_each(|space| netns::remove(space))
}

/// DEL for the sandboxes of the boot before, which have no namespace any more, as a kubelet does before it makes new ones.
///
/// # Errors
/// What the plugin says.
pub fn forget_sandboxes(state: &State, node: &Node, pods: &[Pod]) -> anyhow::Result<()> {
    for pod in pods.iter().filter(|p| !host_network(p)) {
        let gone = cni::Sandbox { netns: PathBuf::new(), ..sandbox(state, pod, node.boots.saturating_sub(1)) };
        cni::del(&state.machine_dir(&node.name), &gone)
            .with_context(|| format!("Pod {}/{}", pod.namespace(), pod.name()))?;
    }
    Ok(())
}

/// Ends the listeners, then DEL, then the namespace goes: in the order of a kubelet. Twice is no error.
fn stop_one(state: &State, pod: &Pod) -> anyhow::Result<()> {
    let what = || format!("Pod {}/{}", pod.namespace(), pod.name());
    if host_network(pod) {
        let node = state.node(node_name(pod))?;
        return holder::stop(&node.netns, &format!("{}/{}", pod.namespace(), pod.name())).with_context(what);
    }
    let space = names::pod_netns(&state.name, pod.namespace(), pod.name());
    if netns::inode(&space).is_none() {
        return Ok(());
    }
    process::kill_inside(std::slice::from_ref(&space)).with_context(what)?;
    let node = state.node(node_name(pod))?;
    cni::del(&state.machine_dir(&node.name), &sandbox(state, pod, node.boots)).with_context(what)?;
    netns::remove(&space).with_context(what)
}

fn sandbox(state: &State, pod: &Pod, boot: u32) -> cni::Sandbox {
    let uid = pod.meta().uid.clone().unwrap_or_default();
    // Unique to the boot of its node, as a runtime's identities are: after a reboot the same pod has another sandbox.
    let digits = uid.replace('-', "");
    let container_id = format!("{digits}{:032x}", boot);
    let netns: PathBuf = names::netns_path(&names::pod_netns(&state.name, pod.namespace(), pod.name()));
    let (namespace, name) = (pod.namespace().to_owned(), pod.name().to_owned());
    cni::Sandbox { container_id, netns, namespace, pod: name, uid, capabilities: capabilities(pod) }
}

/// Name of the node that a pod is placed on.
#[must_use]
pub fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default()
}

/// Whether a pod lives in its node's network.
#[must_use]
pub fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or_default()
}

/// The status that a kubelet writes. A pod that ended keeps the addresses that it had, as with a real one: whoever reads them
/// must look at the phase.
#[must_use]
pub fn status(node: &Node, started: &Started, now: &str) -> Value {
    let ip = |address: &IpAddr| json!({"ip": address.to_string()});
    let ready = if started.ended.is_none() { "True" } else { "False" };
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "lastTransitionTime": now});
    json!({
        "phase": started.ended.map_or("Running", Ended::phase),
        "podIP": started.addresses.first().map(ToString::to_string),
        "podIPs": started.addresses.iter().map(ip).collect::<Vec<_>>(),
        "hostIP": node.addresses.first().map(ToString::to_string),
        "hostIPs": node.addresses.iter().map(ip).collect::<Vec<_>>(),
        "startTime": now,
        "conditions": [condition("PodScheduled", "True"), condition("Initialized", "True"), condition("Ready", ready)],
    })
}
