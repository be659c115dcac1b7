//! Live connections that a change of policy forbids: cut.
//!
//! After a commit that may tighten, a thread looks at the kernel's connections, one look at a time, and the agent judges what it found by
//! the ruleset of that moment. What is forbidden goes into the sets `cut4` and `cut6`, both directions, and only then is it forgotten: else
//! the next segment, from either end, would open it anew. A connection that is allowed again leaves the sets at the next commit.

use super::look::{Look, Workloads};
use super::{Agent, Done};
use crate::base;
use crate::cut::{Flow, Judge, Suspects};
use crate::io::conntrack::{self, Connection};
use crate::io::link;
use crate::ruleset::{Delta, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// What becomes of live connections when policy tightens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ExistingConnections {
    /// Those that policy forbids now are cut.
    #[default]
    Reevaluate,
    /// They go on until they end by themselves.
    Keep,
}

/// What is going on.
#[derive(Debug, Default)]
pub(super) struct Cutting {
    pub(super) existing: ExistingConnections,
    due: Suspects,
    looking: bool,
    not_before: Option<Instant>,
    /// Somebody says when that is.
    waking: bool,
    /// In the sets, until then.
    held: BTreeMap<Flow, Instant>,
    /// What is held must be put into the sets again.
    again: bool,
    /// Since the start.
    pub(super) total: u64,
}

impl Cutting {
    /// Whether every connection that had to be judged has been, and what is forbidden is held back.
    pub(super) fn is_idle(&self) -> bool {
        self.due == Suspects::None && !self.looking
    }
}

impl Agent {
    /// This node's workloads.
    pub(super) fn workloads(&self) -> Workloads {
        Workloads::new(self.endpoints.values().map(|live| (live.host_name.clone(), live.addresses.clone())))
    }

    /// Says what becomes of live connections.
    pub fn treat(&mut self, existing: ExistingConnections) {
        self.cutting.existing = existing;
    }

    /// Notes whom a commit that succeeded may have forbidden something.
    pub(super) fn suspect(&mut self, suspects: Suspects) {
        if self.cutting.existing == ExistingConnections::Reevaluate {
            self.cutting.due.add(suspects);
        }
    }

    /// Whom a delta may forbid something, once it is in the kernel.
    pub(super) fn suspects(&self, delta: &Delta) -> Suspects {
        self.workloads().suspects(delta, self.compiler.ruleset())
    }

    /// Looks at the kernel's connections if somebody is suspect and no look is under way.
    pub(super) fn look_at_connections(&mut self) {
        let cutting = &mut self.cutting;
        if cutting.due == Suspects::None || cutting.looking || self.recall.is_some() {
            return;
        }
        let early = cutting.not_before.map(|at| at.saturating_duration_since(Instant::now()));
        if let Some(pause) = early.filter(|pause| !pause.is_zero()) {
            if !std::mem::replace(&mut cutting.waking, true) {
                let done = self.done.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(pause).await;
                    let _ = done.send(Done::LookDue);
                });
            }
            return;
        }
        cutting.looking = true;
        let suspects = std::mem::take(&mut cutting.due);
        let local = self.workloads().addresses();
        let done = self.done.clone();
        tokio::task::spawn_blocking(move || {
            let _ = done.send(Done::Looked(Look::at(&suspects, &local).map_err(|error| (error.to_string(), suspects))));
        });
    }

    /// The pause after a look is over.
    pub(super) fn look_due(&mut self) {
        self.cutting.waking = false;
        self.look_at_connections();
    }

    /// Cuts what a look found and policy forbids.
    pub(super) async fn looked(&mut self, outcome: Result<Look, (String, Suspects)>) {
        self.cutting.looking = false;
        let look = match outcome {
            Ok(look) => look,
            Err((error, suspects)) => {
                tracing::warn!(%error, "live connections cannot be looked at; tried again");
                self.cutting.not_before = Some(Instant::now() + Duration::from_secs(1));
                return self.cutting.due.add(suspects);
            }
        };
        // A table of millions of connections must not keep a core busy.
        self.cutting.not_before = Some(Instant::now() + (look.took() * 4).min(Duration::from_secs(1)));
        let forbidden = look.forbidden(&look.judge(self.meant(), &self.compiler, &self.workloads()));
        if !forbidden.is_empty() && self.hold(&forbidden).await {
            self.cutting.total += forbidden.len() as u64;
            tracing::info!(connections = forbidden.len(), first = ?forbidden[0].flow, "policy forbids live connections; cut");
            tokio::task::spawn_blocking(move || {
                if let Err(error) = conntrack::forget(&forbidden) {
                    tracing::warn!(%error, "cut connections are not forgotten; their packets are dropped all the same");
                }
            });
        }
        self.look_at_connections();
        self.answer_reached();
    }

    /// Puts connections into the sets; whether the kernel has them there.
    async fn hold(&mut self, connections: &[Connection]) -> bool {
        let Some(table) = self.table.clone() else { return false };
        let mut delta = Delta::default();
        let elements = connections.iter().flat_map(|one| one.flow.elements());
        elements.for_each(|(set, key)| delta.add_element(&base::name(set), key, Value::Plain));
        if delta.is_empty() {
            return true;
        }
        match table.commit(delta).await {
            Ok(_) => {
                let until = Instant::now() + base::CUT_FOR;
                self.cutting.held.extend(connections.iter().map(|one| (one.flow.clone(), until)));
                true
            }
            Err(error) => {
                tracing::warn!(%error, "connections that policy forbids are not cut; tried again");
                self.cutting.due.add(Suspects::Of(connections.iter().flat_map(|one| one.flow.ends()).collect()));
                false
            }
        }
    }

    /// Adds to a delta that what may be again is held no longer.
    pub(super) fn with_released(&mut self, mut delta: Delta) -> Delta {
        if self.cutting.held.is_empty() {
            return delta;
        }
        // One that has expired is removed by the kernel a little before or after; removing what is not there would fail a batch.
        let soon = Instant::now() + Duration::from_secs(5);
        self.cutting.held.retain(|_, until| *until > soon);
        let host = self.host_addresses();
        let workloads = self.workloads();
        let judge = Judge::new(self.meant(), workloads.iter(), &host);
        let released: Vec<Flow> = self.cutting.held.keys().filter(|flow| !judge.forbids(flow)).cloned().collect();
        for flow in released {
            self.cutting.held.remove(&flow);
            flow.elements().for_each(|(set, key)| delta.remove_element(&base::name(set), key, Value::Plain));
        }
        delta
    }

    /// The table was changed by somebody else, so what was held may be in it no more: it is put in again.
    pub(super) fn hold_again(&mut self) {
        self.cutting.again = !self.cutting.held.is_empty();
    }

    /// What is due by the clock.
    pub(super) async fn cut_due(&mut self) {
        if let Some(table) = self.table.clone().filter(|_| self.cutting.again) {
            let mut delta = Delta::default();
            let elements = self.cutting.held.keys().flat_map(Flow::elements);
            elements.for_each(|(set, key)| delta.add_element(&base::name(set), key, Value::Plain));
            self.cutting.again = table.commit(delta).await.is_err();
        }
        self.look_at_connections();
    }

    fn host_addresses(&mut self) -> BTreeSet<IpAddr> {
        link::addresses(&mut self.rtnl)
            .map(|all| all.into_iter().map(|(_, address)| address).collect())
            .unwrap_or_default()
    }
}
