//! Outages: a node's power cut and restored, its links cut and restored. Every step may be repeated, also after it was interrupted.

use crate::io::cluster::Cluster;
use crate::io::{daemons, health, kubelet, labs, relay, underlay};
use crate::resources::Wanted;
use crate::state::Daemon;
use std::fs;
use std::time::{Duration, Instant};

/// How long a rebooted node may take to settle.
const SETTLE: Duration = Duration::from_secs(60);

/// How long sessions may take to come back after a partition: a peer that gave up tries again with growing patience.
const RECONNECT: Duration = Duration::from_secs(180);

/// A node that was booted again.
pub struct Booted {
    /// Pods that were attached again.
    pub pods: usize,
    /// From the start of its daemons until everything was applied and routed.
    pub took: Duration,
    /// Sentences that a person should read.
    pub notes: Vec<String>,
}

/// Cuts a node's power and boots it: what the kernel and processes knew is gone, the disk (the daemons' state directory) is as it was.
/// Pods are the same, their sandboxes are new. A partitioned node stays partitioned.
///
/// # Errors
/// The kernel refuses, a daemon does not start, a pod cannot be attached. A second attempt begins from the start.
pub fn reboot(cluster: &mut Cluster, name: &str) -> anyhow::Result<Booted> {
    let machine = cluster.state.position(name)?;
    let pods = cluster.running_on(name)?;
    // First the wires: processes that are killed must not say goodbye by closing their connections.
    underlay::set_carrier(&cluster.state.plan, machine, false)?;
    kubelet::cut_power(&cluster.state, cluster.state.node(name)?, &pods)?;
    // Its listener would keep the namespace.
    relay::stop(&cluster.state, name)?;
    underlay::unplug(&cluster.state.plan, machine)?;
    for daemon in [Daemon::Bgpd, Daemon::Felix] {
        let _ = fs::remove_file(cluster.state.socket(name, daemon));
    }
    // Noted before anything of the new boot exists, so that no two boots can have one number.
    cluster.state.node_mut(name)?.boots += 1;
    labs::save(&cluster.state)?;
    let node = cluster.state.node(name)?.clone();
    underlay::plug(&cluster.state.plan, machine, !node.partitioned)?;
    if !node.partitioned {
        relay::start(&cluster.state, name)?;
    }
    let began = Instant::now();
    for daemon in [Daemon::Bgpd, Daemon::Felix] {
        daemons::start(&mut cluster.state, name, daemon)?;
        labs::save(&cluster.state)?;
    }
    daemons::in_sync(&cluster.state, name, Daemon::Felix, SETTLE)?;
    if !node.partitioned {
        daemons::in_sync(&cluster.state, name, Daemon::Bgpd, SETTLE)?;
    }
    kubelet::forget_sandboxes(&cluster.state, &node, &pods)?;
    let count = pods.len();
    cluster.attach(pods.into_iter().map(|pod| Wanted { pod, ended: None }).collect())?;
    let mut notes: Vec<String> = cluster.followed()?.iter().map(|d| format!("{d} does not run")).collect();
    cluster.settled(SETTLE)?;
    notes.extend(cluster.routed(SETTLE)?);
    Ok(Booted { pods: count, took: began.elapsed(), notes })
}

/// Cuts a node's links, and its way to the datastore's server. Its daemons run on; a datastore that is a file they reach as before.
///
/// # Errors
/// The kernel refuses.
pub fn partition(cluster: &mut Cluster, name: &str) -> anyhow::Result<()> {
    let machine = cluster.state.position(name)?;
    cluster.state.node_mut(name)?.partitioned = true;
    labs::save(&cluster.state)?;
    relay::stop(&cluster.state, name)?;
    underlay::set_carrier(&cluster.state.plan, machine, false)
}

/// Restores a node's links and waits until packets pass, and sessions and routes are back. Says what is wrong all the same.
///
/// # Errors
/// The kernel refuses, or something does not come back in time.
pub fn heal(cluster: &mut Cluster, name: &str) -> anyhow::Result<Vec<String>> {
    let machine = cluster.state.position(name)?;
    underlay::set_carrier(&cluster.state.plan, machine, true)?;
    relay::start(&cluster.state, name)?;
    cluster.state.node_mut(name)?.partitioned = false;
    labs::save(&cluster.state)?;
    // A session that outlived the partition says nothing about the wire.
    let mut problems = health::unreached(&cluster.state, cluster.state.node(name)?);
    cluster.settled(RECONNECT)?;
    problems.extend(cluster.routed(RECONNECT)?);
    Ok(problems)
}
