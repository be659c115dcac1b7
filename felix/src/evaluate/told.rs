//! What nodes say of themselves: what they need, and which HostPolicies they enforce, which need not be those that the datastore has.

use super::host::{AtHost, has_failsafes};
use super::judge::Judgement;
use super::party::Side;
use super::story::Note;
use super::universe::Universe;
use crate::host::{Failsafe, OnTrial, State};
use crate::model::{HostPolicy, host_policy};
use twill_crds::host_policy::ConfirmationMode;

/// What is known of a node by its own word.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) failsafes: Vec<Failsafe>,
    /// By which HostPolicies it is judged.
    pub(super) by: By,
}

/// By which HostPolicies a node is judged.
#[derive(Clone, Debug, Default)]
pub(super) enum By {
    /// Those that the datastore has.
    #[default]
    Stored,
    /// The same, because the node does not say which it enforces.
    StoredForWant,
    /// Those that it enforces.
    Enforced(Enforced),
}

/// HostPolicies as a node enforces them, in the order in which they are judged.
#[derive(Clone, Debug)]
pub(super) struct Enforced {
    pub(super) now: Vec<HostPolicy>,
    /// The trial that is under way, and what is in force without it.
    trial: Option<(OnTrial, Vec<HostPolicy>)>,
    /// Why it does not enforce what the datastore has.
    reverted: Option<String>,
}

impl Universe {
    /// The same with what a node says that it needs. Its HostPolicies stay those of the datastore, as for what does not exist yet.
    #[must_use]
    pub fn needing(mut self, node: &str, failsafes: Vec<Failsafe>) -> Self {
        self.told.insert(node.to_owned(), Told { failsafes, by: By::Stored });
        self
    }

    /// The same with all that a node says of itself: its connections are judged by what it enforces.
    #[must_use]
    pub fn told(mut self, state: &State) -> Self {
        let by = enforced(state).map_or(By::StoredForWant, By::Enforced);
        self.told.insert(state.node.clone(), Told { failsafes: state.failsafes.clone(), by });
        self
    }

    /// What people should know beside what was judged at a node.
    pub(super) fn remarks(&self, at: &AtHost<'_>, peer: &Side, judged: &Judgement) -> Vec<Note> {
        match self.told.get(at.node) {
            None => self.assumption(at, judged).into_iter().collect(),
            Some(Told { by: By::Stored, .. }) => Vec::new(),
            Some(Told { by: By::StoredForWant, .. }) => vec![Note::Enforced(of_an_older_felix(at.node))],
            Some(Told { by: By::Enforced(enforced), .. }) => {
                self.difference(enforced, at, peer).map(Note::Enforced).into_iter().collect()
            }
        }
    }

    /// What cannot be known of a node that was not asked, where the verdict may depend on it.
    fn assumption(&self, at: &AtHost<'_>, judged: &Judgement) -> Option<Note> {
        let is_needed = matches!(judged, Judgement::Needed { .. });
        let may_depend = has_failsafes(&self.program(at.node), at.way) && (is_needed || !judged.allows());
        may_depend.then(|| Note::Assumed { node: at.node.to_owned() })
    }

    /// How what a node enforces differs from what the datastore has, or will soon.
    fn difference(&self, enforced: &Enforced, at: &AtHost<'_>, peer: &Side) -> Option<String> {
        let node = at.node;
        if let Some((trial, otherwise)) = &enforced.trial {
            let otherwise = self.judge_by_program(at, peer, &otherwise.iter().collect::<Vec<_>>());
            let verdict = otherwise.to_string().lines().next().unwrap_or_default().to_owned();
            return Some(format!("{}; without it: {verdict}", under_way(trial, node)));
        }
        let stored = self.stored_program(node);
        let same = stored.len() == enforced.now.len()
            && stored.iter().zip(&enforced.now).all(|(stored, own)| stored.says_what(own));
        if same {
            return None;
        }
        let names: Vec<&str> = enforced.now.iter().map(|policy| policy.rules.key.name.as_str()).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let judged = format!("but what was before ({names}), by which this is judged");
        Some(match &enforced.reverted {
            Some(why) => format!("node {node} does not enforce what the datastore has, {judged}: {why}"),
            None => format!("node {node} does not enforce yet what the datastore has, {judged}"),
        })
    }
}

/// What a node enforces, if it says so.
fn enforced(state: &State) -> Option<Enforced> {
    let trial = match state.trial.as_ref().filter(|trial| trial.begun) {
        Some(trial) => Some((trial.clone(), read(state.confirmed()?))),
        None => None,
    };
    let reverted = state.reverted.as_ref().map(|reverted| reverted.why.clone());
    Some(Enforced { now: read(state.in_force()?), trial, reverted })
}

/// Why a node is judged by what the datastore has, though it was asked.
fn of_an_older_felix(node: &str) -> String {
    format!(
        "node {node} runs an older felix, which does not say what it enforces: judged by what the datastore has; upgrade felix there"
    )
}

fn under_way(trial: &OnTrial, node: &str) -> String {
    let OnTrial { policies, seconds_left, .. } = trial;
    let policies = policies.join(", ");
    let policies = if policies.is_empty() { "to have none".to_owned() } else { policies };
    let unless = match (trial.confirmation, &trial.last_failure) {
        (ConfirmationMode::Manual, _) => "somebody confirms it (`twill policy confirm NAME`)".to_owned(),
        (ConfirmationMode::SelfTest, None) => "its self-test succeeds".to_owned(),
        (ConfirmationMode::SelfTest, Some(why)) => format!("its self-test succeeds, which has failed ({why})"),
    };
    format!("on trial at node {node}: {policies}, which ends in {seconds_left} s unless {unless}")
}

fn read(objects: &[twill_crds::HostPolicy]) -> Vec<HostPolicy> {
    let mut program: Vec<HostPolicy> = objects.iter().map(host_policy).collect();
    program.sort_by(|a, b| a.rules.order().cmp(&b.rules.order()));
    program
}
