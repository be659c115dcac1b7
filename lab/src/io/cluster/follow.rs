//! When the daemons have followed: routes are in the kernels, sessions are up, everything told is applied.

use super::{Cluster, FOLLOW, PATIENCE};
use crate::io::{controller, daemons, process};
use crate::state::{Daemon, Node as LabNode};
use anyhow::ensure;
use std::time::{Duration, Instant};
use twill_crds::bgp::Topology;
use twill_crds::{BGPConfiguration, IPBlock, Object};
use twill_ipam::io::identity;
use twill_ipam::io::store::DIRECTORY;

impl Cluster {
    /// Waits until every running daemon has applied what is in the datastore now; names the daemons that do not run.
    ///
    /// # Errors
    /// One of them does not follow.
    pub fn followed(&self) -> anyhow::Result<Vec<String>> {
        daemons::applied(&self.state, FOLLOW)
    }

    /// Waits until every node that can speak to others has their blocks in its kernel, or says for [`PATIENCE`] why it will not:
    /// that is then a note. As long it waits in a Fabric for those of its ToRs that tell them later than others.
    ///
    /// # Errors
    /// A node has not heard of a block in time.
    pub fn routed(&self, limit: Duration) -> anyhow::Result<Vec<String>> {
        let mut blocks = self.list::<IPBlock>()?;
        let speaking: Vec<&LabNode> = self.state.nodes.iter().filter(|node| self.takes_part(node)).collect();
        let speaking = || speaking.iter().copied();
        blocks.retain(|block| speaking().any(|node| self.tells(node, block)));
        let mut notes = Vec::new();
        // Time that passes for one node passes for all.
        let began = Instant::now();
        for node in speaking() {
            let tors = self.state.tors(node);
            let mut refused = Vec::new();
            daemons::awaited(&self.state, &node.name, Daemon::Bgpd, limit, |socket| {
                let routes = daemons::routes(socket)?;
                let (mut unknown, mut few) = (None, None);
                refused.clear();
                for block in &blocks {
                    let paths = || routes.iter().filter(|r| r.prefix == block.spec.cidr);
                    let what = format!("{} of {}", block.spec.cidr, block.spec.node);
                    if paths().any(|r| r.installed) {
                        if block.spec.node != node.name && paths().count() < tors {
                            few = Some(format!("not all of its {tors} ToRs have told it {what}"));
                        }
                        continue;
                    }
                    match paths().find(|r| !r.reason.is_empty()) {
                        Some(path) => refused.push(format!("{} has no route to {what}: {}", node.name, path.reason)),
                        None => unknown = Some(format!("it has no route to {what}")),
                    }
                }
                let waiting = began.elapsed() < PATIENCE;
                Ok(unknown.or_else(|| refused.first().cloned().or(few).filter(|_| waiting)))
            })?;
            notes.append(&mut refused);
        }
        Ok(notes)
    }

    /// Whether others can have a session with a node: it is not drained either.
    fn takes_part(&self, node: &LabNode) -> bool {
        let drained =
            || daemons::bgpd_status(&self.state.socket(&node.name, Daemon::Bgpd)).is_ok_and(|status| status.drained);
        self.state.speaks(node) && !drained()
    }

    /// Whether a block is one that this node tells. One that its store of addresses did not claim rests: its disk was lost, say.
    fn tells(&self, node: &LabNode, block: &IPBlock) -> bool {
        let claimant = || identity::kept(&self.state.machine_dir(&node.name).join(DIRECTORY));
        node.name == block.spec.node && (block.spec.claimant.is_none() || block.spec.claimant == claimant())
    }

    /// Who peers with whom, as the controller decided; none while nobody has.
    fn configuration(&self) -> anyhow::Result<Option<BGPConfiguration>> {
        Ok(self.list::<BGPConfiguration>()?.into_iter().find(|configuration| configuration.name() == "default"))
    }

    /// Where reflectors are asked for, sees that somebody chooses them.
    pub(super) fn decide(&self) -> anyhow::Result<bool> {
        let configuration = self.configuration()?;
        let needed = configuration.is_some_and(|asked| controller::is_needed(&asked, self.state.nodes.len()));
        if needed {
            controller::start(&self.state)?;
        }
        Ok(needed)
    }

    /// Waits until reflectors are chosen, where they are asked for, and nothing else is there beside them.
    ///
    /// # Errors
    /// It is not so in time.
    pub fn decided(&self, limit: Duration) -> anyhow::Result<()> {
        if !self.decide()? {
            return Ok(());
        }
        let mut said = String::new();
        let done = process::until(limit, || {
            let status = self.configuration().ok().flatten().and_then(|configuration| configuration.status);
            let conditions = status.iter().flat_map(|status| &status.conditions);
            said = conditions.filter(|one| one.type_ == "Converged").map(|one| one.message.clone()).collect();
            let sessions = status.and_then(|status| status.sessions);
            sessions
                .is_some_and(|sessions| sessions.topology == Topology::RouteReflector && sessions.retiring.is_none())
        });
        ensure!(done, "reflectors are not in force after {} s: {said}", limit.as_secs());
        Ok(())
    }

    /// Waits until every running daemon is in sync and every session is established that can be.
    ///
    /// # Errors
    /// It is not so in time.
    pub fn settled(&self, limit: Duration) -> anyhow::Result<()> {
        let sessions = self.configuration()?.and_then(|configuration| configuration.status?.sessions);
        let speak = |node: &LabNode, other: &LabNode| {
            !self.state.fabric
                && node.name != other.name
                && sessions
                    .as_ref()
                    .is_none_or(|all| all.is_meshed() || all.reflects(&node.name) || all.reflects(&other.name))
        };
        for node in &self.state.nodes {
            if self.state.runs(&node.name, Daemon::Felix) {
                daemons::in_sync(&self.state, &node.name, Daemon::Felix, limit)?;
            }
            if !self.takes_part(node) {
                continue;
            }
            let others = self.state.nodes.iter().filter(|other| speak(node, other));
            let (taking_part, silent): (Vec<_>, Vec<_>) = others.partition(|other| self.takes_part(other));
            let silent = u32::try_from(silent.len())?;
            let least = u32::try_from(taking_part.len())? + silent;
            daemons::awaited(&self.state, &node.name, Daemon::Bgpd, limit, |socket| {
                let status = daemons::bgpd_status(socket)?;
                if status.in_sync
                    && status.established + silent >= status.peers
                    && status.peers >= least.max(u32::from(self.state.fabric))
                {
                    return Ok(None);
                }
                let problem = status.problems.first().map(|p| format!(": {p}")).unwrap_or_default();
                Ok(Some(format!(
                    "{} of {} sessions are established{problem}",
                    status.established,
                    status.peers.max(least)
                )))
            })?;
        }
        Ok(())
    }
}
