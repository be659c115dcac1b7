//! HostPolicies of this node: from objects, facts and self-tests to the compiler's plan, and what people hear of it.

use super::Agent;
use super::blocks::Done;
use crate::host::failsafe::{Facts, failsafes};
use crate::host::{Kept, OnTrial, Plan, Reverted, State, Step, Trials, ports};
use crate::io::host::{kept, test::Test};
use crate::io::nft;
use crate::model;
use ipnet::IpNet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use twill_crds::host_policy::ConfirmationMode;
use twill_crds::services::ServiceRanges;
use twill_crds::{BGPConfiguration, HostPolicy, Object};
use twill_datastore::event::{Occurrence, Severity, reference};
use twill_datastore::{Followed, Index, Key};

/// The BGPConfiguration that counts.
const BGP_CONFIGURATION: &str = "default";

/// Where what HostPolicies need is.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Directory of what outlives a restart.
    pub state_dir: PathBuf,
    /// Directory of sockets.
    pub run_dir: PathBuf,
    /// The datastore.
    pub url: String,
}

/// HostPolicies, and what is known about them.
#[derive(Debug, Default)]
pub(super) struct Host {
    places: Places,
    policies: Index<HostPolicy>,
    configurations: Index<BGPConfiguration>,
    ports: ports::Followed,
    trials: Trials,
    /// What is in the file.
    kept: Kept,
    facts: Facts,
    /// Whether they are from a look at everything, BGP sessions, too.
    looked: bool,
    testing: bool,
    /// Something that the plan follows from is another.
    changed: bool,
}

impl Host {
    /// `facts` is what was seen at once.
    pub(super) fn new(places: Places, facts: Facts) -> Self {
        let kept = kept::read(&kept::path(&places.state_dir));
        let ports = ports::Followed::new(kept.ports.clone(), Instant::now());
        Self { trials: Trials::new(kept.clone()), kept, ports, places, facts, changed: true, ..Self::default() }
    }
}

impl Agent {
    pub(super) fn hear_host_policies(&mut self, followed: Followed<HostPolicy>) {
        match &followed {
            Followed::Applied(policy, _) => self.host.trials.hear(policy),
            Followed::Synced { items, .. } => items.iter().for_each(|policy| self.host.trials.hear(policy)),
            Followed::Deleted(..) | Followed::Bookmark(_) => {}
        }
        self.host.changed |= !self.host.policies.apply(followed).is_empty();
    }

    pub(super) fn hear_bgp_configuration(&mut self, followed: Followed<BGPConfiguration>) {
        self.host.configurations.apply(followed);
        let configuration = self.host.configurations.get(&Key::cluster(BGP_CONFIGURATION));
        let spec = configuration.map(|object| object.spec.clone()).unwrap_or_default();
        let status = configuration.and_then(|object| object.status.as_ref());
        let chosen = status.map(|status| status.node_addresses.clone()).unwrap_or_default();
        if std::mem::replace(&mut self.supply.chosen, chosen.clone()) != chosen {
            self.refresh_uplinks();
        }
        self.host.ports.hear(spec.listen_port, spec.vxlan_port, Instant::now());
        self.services_untold = true;
        self.follow_ports();
    }

    /// The compiler hears which ranges of Services are advertised, by the rules that bgpd follows.
    pub(super) fn tell_services(&mut self) {
        if !std::mem::take(&mut self.services_untold) {
            return;
        }
        let configuration = self.host.configurations.get(&Key::cluster(BGP_CONFIGURATION));
        let ranges = configuration.map(|object| object.spec.services.clone()).unwrap_or_default();
        let pools = || self.supply.pools().iter().map(|pool| (pool.name(), pool.spec.cidr));
        let of_node = |key: &'_ Key| self.supply.node_addresses(&key.name);
        let nodes: Vec<(&str, IpAddr)> = self
            .supply
            .nodes
            .iter()
            .filter(|_| !ranges.is_empty())
            .flat_map(|(key, _)| of_node(key).into_iter().map(|address| (&*key.name, address)))
            .collect();
        let is_sound = |range: &IpNet| ServiceRanges::conflict(*range, pools(), nodes.iter().copied()).is_none();
        let sound = ranges.all().map(|(_, range)| range).filter(is_sound).collect();
        self.compiler.guard_services(&sound);
    }

    /// The ports of BGP and VXLAN that count now.
    pub(super) fn fabric_ports(&self) -> &ports::Ports {
        self.host.trials.ports()
    }

    /// Brings the guards of tunnels and the failsafes up to the fabric's ports. Says whether they are others.
    pub(super) fn follow_ports(&mut self) -> bool {
        let ports = self.host.ports.at(Instant::now());
        let changed = *self.host.trials.ports() != ports;
        if changed {
            tracing::info!(?ports, "the ports of BGP and VXLAN are others than before");
            self.host.trials.keep_ports(&ports);
            self.settings.vxlan_ports.clone_from(&ports.vxlan);
            self.compiler.guard_tunnels(&self.settings);
            self.host.changed = true;
        }
        changed
    }

    /// What the node is seen to do.
    pub(super) fn host_facts(&self) -> &Facts {
        &self.host.facts
    }

    pub(super) fn hear_host_facts(&mut self, facts: Facts) {
        tracing::debug!(?facts, "the node needs other things than before");
        self.host.facts = facts;
        self.host.looked = true;
        self.host.changed = true;
    }

    /// Nodes are others than before.
    pub(super) fn host_hears_of_nodes(&mut self) {
        self.host.changed = true;
    }

    /// Brings the compiler's plan up to what is known. A trial begins only while the table is equal to what is wanted: its gate is written
    /// by a difference, once. Says whether anything is to be committed.
    pub(super) fn settle_host(&mut self) -> bool {
        if !self.host.changed {
            return false;
        }
        // A trial that may not begin yet is looked at again.
        let sessions = self.host.facts.established.clone().filter(|_| self.equal && self.host.looked);
        self.host.changed = sessions.is_none();
        // What was confirmed is in force, also where something else is wanted already.
        self.is_host_judged();
        let now = Instant::now();
        if self.heard_up_to().is_some() && self.node_exists() {
            let wanted = self.host_policies_here();
            if !wanted.is_empty() || self.has_host_policies() {
                self.host.trials.know(&self.host.facts.known);
            }
            let step = self.host.trials.want(wanted, now, sessions.as_ref(), lasts);
            // What could not be kept is not begun. What loosens is followed all the same: who opens a node with a full disk must get in.
            let _ = self.follow(step);
        }
        let plan = self.host_plan();
        self.compiler.plan_host(plan)
    }

    /// The table does not hold the plan: a trial that was to begin with it came to nothing.
    pub(super) fn host_not_committed(&mut self, why: String) {
        let step = self.host.trials.refused(why);
        // Kept or not: this felix does not begin it again.
        let _ = self.follow(step);
        self.host.changed = true;
    }

    /// The table holds the plan.
    pub(super) fn host_committed(&mut self) {
        let Some(running) = self.host.trials.running() else { return };
        if !running.is_begun() {
            tracing::info!(
                attempt = running.attempt(),
                seconds = running.left(Instant::now()).as_secs(),
                "HostPolicies on trial"
            );
            self.host.trials.committed(Instant::now());
        }
    }

    /// What the clock makes of a trial, and the next self-test, if one is due: only ticks begin them, so they are a second apart.
    pub(super) async fn tick_host(&mut self) {
        self.judge_host().await;
        self.test_host();
    }

    async fn judge_host(&mut self) {
        if self.is_host_judged() {
            self.host.changed = true;
            self.settle().await;
        }
    }

    /// Whether a trial is over.
    fn is_host_judged(&mut self) -> bool {
        let before = self.host.trials.clone();
        let step = self.host.trials.judge(Instant::now(), lasts);
        let (over, confirmed) = (step != Step::Nothing, step == Step::Keep);
        // Also what could not be kept before.
        match self.follow(step) {
            // The kernel makes permanent only what is kept; else its gate ends.
            Err(why) if confirmed => {
                self.host.trials = before;
                self.host.trials.not_kept(why);
                false
            }
            _ => over,
        }
    }

    pub(super) async fn host_tested(&mut self, attempt: &str, outcome: Result<(), String>) {
        self.host.testing = false;
        if let Err(why) = &outcome {
            tracing::warn!(%why, "the self-test of HostPolicies failed");
        }
        self.host.trials.tested(attempt, outcome);
        self.judge_host().await;
    }

    fn test_host(&mut self) {
        let wants = |running: &&crate::host::Running| running.wants_test();
        let Some(running) = self.host.trials.running().filter(wants) else { return };
        if std::mem::replace(&mut self.host.testing, true) {
            return;
        }
        let (attempt, done) = (running.attempt().to_owned(), self.done.clone());
        let test = Test {
            url: self.host.places.url.clone(),
            run_dir: self.host.places.run_dir.clone(),
            sessions: self.host.trials.kept().sessions.clone(),
        };
        tokio::spawn(async move {
            let outcome = test.run().await;
            // Nobody listens only while felix stops.
            let _ = done.send(Done::HostTested { attempt, outcome });
        });
    }

    fn host_policies_here(&self) -> Vec<HostPolicy> {
        let labels = self.supply.nodes.get(&Key::cluster(&self.node)).map(|node| model::Node::read(node).labels);
        let Some(labels) = labels else { return Vec::new() };
        let here = |policy: &&HostPolicy| model::host_policy(policy).selects(&labels);
        self.host.policies.iter().map(|(_, policy)| policy.as_ref()).filter(here).cloned().collect()
    }

    fn host_plan(&self) -> Plan {
        let nodes = self.supply.nodes.iter().map(|(_, node)| model::Node::read(node));
        let control_plane =
            nodes.filter(|node| node.labels.contains_key(model::CONTROL_PLANE)).flat_map(|node| node.addresses);
        let ports = self.host.trials.ports().clone();
        let facts = Facts { control_plane: control_plane.collect(), ports, ..self.host.facts.clone() };
        self.host.trials.plan(failsafes(&facts))
    }

    /// Makes durable what must be, and tells people.
    ///
    /// # Errors
    /// Why that failed. What was to begin is not begun then, and the rest is tried again with the next tick.
    fn follow(&mut self, step: Step) -> Result<(), String> {
        if let Step::Tell(reverted) = &step {
            self.tell_reverted(reverted);
        }
        if *self.host.trials.kept() == self.host.kept {
            // A trial may wait for its confirmation to be kept.
            if self.host.trials.running().is_none() {
                self.faults.remove("host");
            }
            return Ok(());
        }
        match kept::write(&kept::path(&self.host.places.state_dir), self.host.trials.kept()) {
            Ok(()) => {
                self.host.kept = self.host.trials.kept().clone();
                self.faults.remove("host");
                Ok(())
            }
            Err(error) => {
                self.host.trials.not_begun();
                self.host.changed = true;
                let sentence = format!(
                    "what is in force of HostPolicies cannot be kept, so no change of them is tried or confirmed: {error}; make room"
                );
                tracing::error!(%error, "state of HostPolicies not written");
                self.faults.insert("host", sentence);
                Err(error.to_string())
            }
        }
    }

    fn tell_reverted(&self, reverted: &Reverted) {
        tracing::error!(attempt = %reverted.attempt, why = %reverted.why, "HostPolicies reverted");
        for policy in self.host_policies_here() {
            let note = self.reverted(policy.name(), reverted);
            let (reason, action) = ("HostPolicyReverted".to_owned(), "Revert".to_owned());
            // Nobody listens only while felix stops.
            let _ = self.events.send(Occurrence {
                regarding: reference(&policy),
                severity: Severity::Warning,
                reason,
                action,
                note,
            });
        }
    }

    fn reverted(&self, name: &str, reverted: &Reverted) -> String {
        format!(
            "HostPolicy {name} is not in force on node {} as it stands, but what was before: {}; change it, or twill policy retry {name}",
            self.node, reverted.why
        )
    }

    /// What is wrong, one sentence each.
    pub(super) fn host_problems(&self) -> Vec<String> {
        let names = || self.host_policies_here().iter().map(|one| one.name().to_owned()).collect::<Vec<_>>().join(", ");
        let mut problems: Vec<String> =
            self.host.trials.confirmed().iter().flat_map(|policy| policy.rules.problems.clone()).collect();
        if let Some(reverted) = self.host.trials.held_back() {
            problems.push(self.reverted(&names(), reverted));
        }
        if self.host.trials.waits() && self.host.looked && self.host.facts.established.is_none() {
            problems.push(format!(
                "HostPolicy {} is not tried yet on node {}: bgpd does not answer, so which sessions must outlive the trial is not known; see to bgpd, then it begins by itself",
                names(),
                self.node
            ));
        }
        problems
    }

    /// Whether any HostPolicy is about this node.
    pub(super) fn has_host_policies(&self) -> bool {
        !self.host.trials.confirmed().is_empty()
            || self.host.trials.running().is_some()
            || self.host.trials.held_back().is_some()
    }

    /// What is in force, on trial, and passes before.
    pub(super) fn host_state(&self) -> State {
        let trials = &self.host.trials;
        let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
        let trial = trials.running().map(|running| OnTrial {
            policies: owned(running.policies().collect()),
            objects: Some(running.objects().to_vec()),
            begun: running.is_begun(),
            seconds_left: running.left(Instant::now()).as_secs(),
            confirmation: if running.is_manual() { ConfirmationMode::Manual } else { ConfirmationMode::SelfTest },
            last_failure: running.failure().map(str::to_owned),
        });
        let plan = self.host_plan();
        State {
            node: self.node.clone(),
            confirmed: owned(trials.confirmed().iter().map(|policy| policy.rules.key.name.as_str()).collect()),
            confirmed_policies: Some(trials.kept().confirmed.clone()),
            trial,
            reverted: trials.held_back().cloned(),
            failsafes_despite_none: owned(plan.failsafes_despite_none()),
            failsafes: plan.failsafes,
        }
    }
}

/// How long the kernel goes on with a trial. What cannot be read counts as over.
fn lasts(gate: &str) -> Option<Duration> {
    nft::lasts(gate).unwrap_or_else(|error| {
        tracing::warn!(%error, gate, "whether a trial of HostPolicies lasts could not be read");
        None
    })
}
