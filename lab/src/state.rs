//! What a lab remembers between commands, as its `state.json` has it.

use crate::io::process::Process;
use crate::names;
use crate::plan::{Plan, Speaker};
use crate::routers::Software;
use anyhow::{Context, bail};
use clap::ValueEnum;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// A lab that is up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Its name.
    pub name: String,
    /// URL of its datastore.
    pub datastore: String,
    /// Port on this machine's loopback of the server behind it; none where it is a file.
    #[serde(default)]
    pub server: Option<u16>,
    /// Whether nodes peer with their ToR instead of with each other.
    pub fabric: bool,
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// Its routers.
    pub routers: Vec<Router>,
    /// Daemons that were started, by machine and daemon; a killed one stays until it is started again.
    pub daemons: BTreeMap<String, Process>,
    /// Pods that the scheduler has placed so far.
    pub scheduled: usize,
    /// Its wires, which a reboot needs again.
    pub plan: Plan,
}

/// Where a lab's objects are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Store {
    /// URL, as daemons and commands take it.
    pub url: String,
    /// Port on this machine's loopback of the server behind it; none where it is a file.
    pub server: Option<u16>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub netns: String,
    /// Its addresses, one per family.
    pub addresses: Vec<IpAddr>,
    /// Its rack.
    pub rack: String,
    /// How often it was booted; daemons, and the identities of sandboxes, know one boot from another.
    pub boots: u32,
    /// Its links are cut.
    pub partitioned: bool,
}

/// A router.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Router {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub netns: String,
    /// Its AS; none with static routes only.
    pub asn: Option<u32>,
    /// What it runs; none with static routes only.
    pub software: Option<Software>,
    /// Its programs, as [`State::daemons`] names them.
    pub programs: Vec<String>,
    /// Sessions that it has before nodes are started.
    pub peers: u32,
    /// What must be reachable through it before nodes are started.
    pub prefixes: Vec<IpNet>,
}

/// A daemon of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Daemon {
    /// The speaker.
    Bgpd,
    /// The node agent.
    Felix,
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bgpd => "bgpd",
            Self::Felix => "felix",
        })
    }
}

impl State {
    /// The state of a lab whose underlay is `plan`.
    #[must_use]
    pub fn of(plan: &Plan, fabric: bool, store: &Store) -> Self {
        let nodes = plan.nodes().map(|(m, rack)| Node {
            name: m.name.clone(),
            netns: m.netns.clone(),
            addresses: m.addresses.iter().map(|(_, a)| a.addr()).collect(),
            rack: rack.to_owned(),
            boots: 1,
            partitioned: false,
        });
        let racks = plan.routers().filter_map(|(_, s)| s).flat_map(|s| s.originate.clone()).collect::<BTreeSet<_>>();
        let router = |(m, speaker): (&crate::plan::Machine, Option<&Speaker>)| Router {
            name: m.name.clone(),
            netns: m.netns.clone(),
            asn: speaker.map(|s| s.asn),
            software: speaker.map(|s| s.software),
            programs: Vec::new(),
            peers: speaker.map_or(0, Speaker::sessions),
            prefixes: speaker
                .map(|s| racks.iter().filter(|r| !s.originate.contains(r)).copied().collect())
                .unwrap_or_default(),
        };
        Self {
            name: plan.lab.clone(),
            datastore: store.url.clone(),
            server: store.server,
            fabric,
            nodes: nodes.collect(),
            routers: plan.routers().map(router).collect(),
            daemons: BTreeMap::new(),
            scheduled: 0,
            plan: plan.clone(),
        }
    }

    /// Key of a daemon in [`State::daemons`].
    #[must_use]
    pub fn key(machine: &str, daemon: Daemon) -> String {
        format!("{machine}/{daemon}")
    }

    /// Whether a daemon runs.
    #[must_use]
    pub fn runs(&self, machine: &str, daemon: Daemon) -> bool {
        self.daemons.get(&Self::key(machine, daemon)).is_some_and(Process::runs)
    }

    /// The node of that name.
    ///
    /// # Errors
    /// There is none; says which there are.
    pub fn node(&self, name: &str) -> anyhow::Result<&Node> {
        self.nodes.iter().find(|n| n.name == name).with_context(|| {
            let names = self.nodes.iter().map(|n| n.name.as_str()).collect::<Vec<_>>().join(", ");
            format!("lab {} has no node {name}; it has {names}", self.name)
        })
    }

    /// The node of that name, to change.
    ///
    /// # Errors
    /// Those of [`State::node`].
    pub fn node_mut(&mut self, name: &str) -> anyhow::Result<&mut Node> {
        self.node(name)?;
        self.nodes.iter_mut().find(|n| n.name == name).context("no such node")
    }

    /// Where a node is in the plan.
    ///
    /// # Errors
    /// There is no such node.
    pub fn position(&self, node: &str) -> anyhow::Result<usize> {
        self.node(node)?;
        self.plan.position(node).with_context(|| format!("{node} is not in the plan of lab {}", self.name))
    }

    /// Whether others can have a session with a node.
    #[must_use]
    pub fn speaks(&self, node: &Node) -> bool {
        !node.partitioned && self.runs(&node.name, Daemon::Bgpd)
    }

    /// How many routers a node has sessions with: its ToRs, in a Fabric.
    #[must_use]
    pub fn tors(&self, node: &Node) -> usize {
        let awaits = |speaker: &Speaker| speaker.peers.iter().any(|peer| peer.node && peer.name == node.name);
        self.plan.routers().filter(|(_, speaker)| speaker.is_some_and(awaits)).count()
    }

    /// Namespace of a node, a router, or of `NAMESPACE/POD`.
    ///
    /// # Errors
    /// There is none.
    pub fn netns(&self, target: &str) -> anyhow::Result<String> {
        let machines =
            self.nodes.iter().map(|n| (&n.name, &n.netns)).chain(self.routers.iter().map(|r| (&r.name, &r.netns)));
        if let Some((_, netns)) = machines.clone().find(|(name, _)| *name == target) {
            return Ok(netns.clone());
        }
        if let Some((namespace, pod)) = target.split_once('/') {
            return Ok(names::pod_netns(&self.name, namespace, pod));
        }
        let known = machines.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        bail!("lab {} has no node or router {target}; it has {known}, and pods as NAMESPACE/NAME", self.name)
    }

    /// Directory of a machine's sockets, state and logs.
    #[must_use]
    pub fn machine_dir(&self, machine: &str) -> PathBuf {
        names::lab_dir(&self.name).join(machine)
    }

    /// Control socket of a daemon.
    #[must_use]
    pub fn socket(&self, machine: &str, daemon: Daemon) -> PathBuf {
        self.machine_dir(machine).join(match daemon {
            Daemon::Bgpd => twill_crds::names::BGPD_SOCKET,
            Daemon::Felix => twill_crds::names::FELIX_SOCKET,
        })
    }
}
