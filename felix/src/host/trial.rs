//! Which HostPolicies are in force, which are on trial, and what becomes of a trial.
//!
//! A change that forbids more is tried for a time that the kernel measures. It becomes permanent when it is confirmed meanwhile; what is
//! not confirmed the kernel itself ends, and here it is only noted, durably, so that it is not tried again. Order matters: that a trial is
//! begun is durable before it is in the kernel, and that it is confirmed is durable before the kernel makes it permanent. So a felix that
//! dies anywhere between leaves either what was in force before, or what was confirmed.

use super::{Plan, Program, Trial, failsafe::Failsafe, is_looser, known::Known, ports::Ports, same, sort};
use crate::model::host_policy;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use twill_crds::HostPolicy;
use twill_crds::host_policy::CONFIRMED_GENERATION;

/// How many self-tests must succeed, one after the other.
const PASSES: u32 = 2;
/// How many attempts that came to nothing are remembered.
const REMEMBERED: usize = 32;

/// What is kept over a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Kept {
    /// What is in force while no trial is.
    pub confirmed: Vec<HostPolicy>,
    /// The attempt that is on trial.
    pub pending: Option<String>,
    /// BGP peers with which there were sessions when it began: its self-test asks for them, whichever felix performs it.
    pub sessions: BTreeSet<IpAddr>,
    /// Attempts that came to nothing, the last one last.
    pub reverted: Vec<Reverted>,
    /// Where the node was served.
    pub known: Known,
    /// The fabric's ports, with HostPolicies or without.
    pub ports: Ports,
}

/// An attempt that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reverted {
    /// Which.
    pub attempt: String,
    /// Why, one sentence.
    pub why: String,
}

/// A trial.
#[derive(Clone, Debug)]
pub struct Running {
    attempt: String,
    objects: Vec<HostPolicy>,
    program: Program,
    within: Duration,
    /// When the kernel ends it; none: it is not in the kernel yet.
    until: Option<Instant>,
    passes: u32,
    /// Why the last self-test failed, if it did.
    failed: Option<String>,
    /// Why its confirmation could not be made durable, if it could not.
    unkept: Option<String>,
    /// Names of its policies that somebody has to confirm; none: self-tests decide.
    awaited: Vec<String>,
    /// Those of them that somebody has confirmed.
    given: BTreeSet<String>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Nothing,
    /// What is kept is another; it must be durable before the plan is followed.
    Keep,
    /// The same, and people must hear that an attempt came to nothing.
    Tell(Reverted),
}

/// What is in force and what is on trial.
#[derive(Clone, Debug, Default)]
pub struct Trials {
    kept: Kept,
    confirmed: Program,
    running: Option<Running>,
    /// The attempt that is wanted and came to nothing.
    held_back: Option<Reverted>,
    /// A trial is wanted that may not begin yet.
    waits: bool,
}

impl Trials {
    /// Goes on with what was kept.
    #[must_use]
    pub fn new(kept: Kept) -> Self {
        Self { confirmed: program(&kept.confirmed), kept, ..Self::default() }
    }

    /// What must be kept.
    #[must_use]
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Where the node is served, to be kept with the rest.
    pub fn know(&mut self, known: &Known) {
        if self.kept.known != *known {
            self.kept.known = known.clone();
        }
    }

    /// The fabric's ports.
    #[must_use]
    pub fn ports(&self) -> &Ports {
        &self.kept.ports
    }

    /// The same, to be kept with the rest.
    pub fn keep_ports(&mut self, ports: &Ports) {
        self.kept.ports.clone_from(ports);
    }

    /// What is in force while no trial is.
    #[must_use]
    pub fn confirmed(&self) -> &Program {
        &self.confirmed
    }

    /// What is on trial.
    #[must_use]
    pub fn running(&self) -> Option<&Running> {
        self.running.as_ref()
    }

    /// Why what is wanted is not in force, if it came to nothing.
    #[must_use]
    pub fn held_back(&self) -> Option<&Reverted> {
        self.held_back.as_ref()
    }

    /// Whether a trial is wanted that may not begin yet.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// What the table shall hold.
    #[must_use]
    pub fn plan(&self, failsafes: Vec<Failsafe>) -> Plan {
        let trial = self.running.as_ref().map(|running| Trial {
            gate: gate(&running.attempt),
            program: running.program.clone(),
            within: running.within,
        });
        Plan { confirmed: self.confirmed.clone(), trial, failsafes }
    }

    /// A state of an object, whether or not it is the last one that is known: who confirms and goes on at once is heard of in one.
    pub fn hear(&mut self, object: &HostPolicy) {
        let Some(running) = self.running.as_mut() else { return };
        let (name, uid) = (&object.metadata.name, &object.metadata.uid);
        let is_it = |tried: &&HostPolicy| (&tried.metadata.name, &tried.metadata.uid) == (name, uid);
        let tried = running.objects.iter().find(is_it).and_then(|tried| tried.metadata.generation);
        let given = object.metadata.annotations.as_ref().and_then(|all| all.get(CONFIRMED_GENERATION));
        if given.is_some() && given == tried.map(|generation| generation.to_string()).as_ref() {
            running.given.extend(name.clone());
        }
    }

    /// These objects select the node. `alive` says how long the kernel goes on with a trial of an earlier felix, by the name of its gate;
    /// a new trial begins with the BGP sessions that there are, and has to wait without `sessions`.
    pub fn want(
        &mut self,
        wanted: Vec<HostPolicy>,
        now: Instant,
        sessions: Option<&BTreeSet<IpAddr>>,
        alive: impl Fn(&str) -> Option<Duration>,
    ) -> Step {
        self.waits = false;
        let program = program(&wanted);
        if same(&program, &self.confirmed) || is_looser(&program, &self.confirmed) {
            return self.settle_for(wanted, program);
        }
        let attempt = attempt(&program);
        if let Some(running) = self.running.as_mut().filter(|running| running.attempt == attempt) {
            // The same state of the same objects; only a confirmation may have come.
            running.program = program;
            running.objects = wanted.into_iter().map(trimmed).collect();
            return Step::Nothing;
        }
        if let Some(reverted) = self.kept.reverted.iter().find(|one| one.attempt == attempt) {
            self.held_back = Some(reverted.clone());
            return if self.running.take().is_some() { self.abandon() } else { Step::Nothing };
        }
        let running = self.trial(attempt, wanted, program);
        if self.kept.pending.as_ref() == Some(&running.attempt) {
            return self.go_on(running, now, alive);
        }
        let Some(sessions) = sessions else {
            self.waits = true;
            return Step::Nothing;
        };
        self.kept.pending = Some(running.attempt.clone());
        self.kept.sessions = sessions.clone();
        self.held_back = None;
        self.running = Some(running);
        Step::Keep
    }

    /// The plan is in the kernel.
    pub fn committed(&mut self, now: Instant) {
        if let Some(running) = self.running.as_mut() {
            running.until.get_or_insert(now + running.within);
        }
    }

    /// What the clock and a confirmation make of a trial. `alive` is asked before anything becomes permanent: whether the kernel does hold
    /// the trial.
    pub fn judge(&mut self, now: Instant, alive: impl Fn(&str) -> Option<Duration>) -> Step {
        let Some(running) = self.running.as_ref() else { return Step::Nothing };
        let Some(until) = running.until else { return Step::Nothing };
        if now >= until {
            let why = running.why();
            return self.revert(why);
        }
        if !running.is_confirmed() {
            return Step::Nothing;
        }
        if alive(&gate(&running.attempt)).is_none() {
            return self.revert("the trial was no longer in the kernel when it was confirmed".to_owned());
        }
        let Some(running) = self.running.take() else { return Step::Nothing };
        self.settle_for(running.objects, running.program)
    }

    /// How a self-test went that was begun while this attempt was on trial.
    pub fn tested(&mut self, attempt: &str, outcome: Result<(), String>) {
        let Some(running) = self.running.as_mut().filter(|running| running.attempt == attempt) else { return };
        match outcome {
            Ok(()) => running.passes += 1,
            Err(why) => {
                running.passes = 0;
                running.failed = Some(why);
            }
        }
    }

    /// That it is confirmed could not be made durable, so it is not; this state is the one from before.
    pub fn not_kept(&mut self, why: String) {
        if let Some(running) = self.running.as_mut() {
            running.unkept = Some(why);
        }
    }

    /// The kernel refused what was to begin. It would again, so that is over.
    pub fn refused(&mut self, why: String) -> Step {
        match self.running.as_ref().is_some_and(|running| running.until.is_none()) {
            true => self.revert(why),
            false => Step::Nothing,
        }
    }

    /// What could not be made durable is not begun; who wants it tries again.
    pub fn not_begun(&mut self) {
        if self.running.as_ref().is_some_and(|running| running.until.is_none()) {
            self.running = None;
            self.end();
        }
    }

    /// Nothing is on trial any more.
    fn end(&mut self) {
        self.kept.pending = None;
        self.kept.sessions.clear();
    }

    /// What is wanted becomes what is in force.
    fn settle_for(&mut self, objects: Vec<HostPolicy>, program: Program) -> Step {
        self.held_back = None;
        let was = self.kept.clone();
        let changed = self.running.take().is_some() || !same(&program, &self.confirmed);
        self.end();
        if changed || self.kept.confirmed.len() != objects.len() {
            self.kept.confirmed = objects.into_iter().map(trimmed).collect();
        }
        self.confirmed = program;
        if self.kept == was && !changed { Step::Nothing } else { Step::Keep }
    }

    /// A trial that an earlier felix began: the kernel's clock goes on, and has the last word.
    fn go_on(&mut self, mut running: Running, now: Instant, alive: impl Fn(&str) -> Option<Duration>) -> Step {
        match alive(&gate(&running.attempt)) {
            Some(left) => {
                running.until = Some(now + left);
                self.held_back = None;
                self.running = Some(running);
                Step::Nothing
            }
            None => {
                self.running = Some(running);
                self.revert(
                    "felix was not running when the time for its confirmation was over, or did not hear of it again"
                        .to_owned(),
                )
            }
        }
    }

    fn abandon(&mut self) -> Step {
        self.end();
        Step::Keep
    }

    fn revert(&mut self, why: String) -> Step {
        let Some(running) = self.running.take() else { return Step::Nothing };
        let reverted = Reverted { attempt: running.attempt, why };
        self.end();
        self.kept.reverted.push(reverted.clone());
        let surplus = self.kept.reverted.len().saturating_sub(REMEMBERED);
        self.kept.reverted.drain(..surplus);
        self.held_back = Some(reverted.clone());
        Step::Tell(reverted)
    }

    fn trial(&self, attempt: String, objects: Vec<HostPolicy>, program: Program) -> Running {
        let is_new = |policy: &&Arc<crate::model::HostPolicy>| !self.confirmed.iter().any(|old| old.says_what(policy));
        let changed: Vec<_> = program.iter().filter(is_new).collect();
        // Where one was only taken away, what is left decides.
        let deciding = || changed.iter().copied().chain(program.iter().filter(|_| changed.is_empty()));
        let within = deciding().map(|policy| policy.confirmation.within).min();
        Running {
            attempt,
            objects: objects.into_iter().map(trimmed).collect(),
            within: within.unwrap_or(Duration::from_secs(60)),
            until: None,
            passes: 0,
            failed: None,
            unkept: None,
            given: BTreeSet::new(),
            awaited: deciding()
                .filter(|policy| policy.confirmation.manual)
                .map(|policy| name(policy).to_owned())
                .collect(),
            program,
        }
    }
}

impl Running {
    /// Which attempt it is.
    #[must_use]
    pub fn attempt(&self) -> &str {
        &self.attempt
    }

    /// Names of its policies.
    pub fn policies(&self) -> impl Iterator<Item = &str> {
        self.program.iter().map(|policy| name(policy))
    }

    /// Its policies, as the datastore has them, trimmed to what is read of them.
    #[must_use]
    pub fn objects(&self) -> &[HostPolicy] {
        &self.objects
    }

    /// Whether it is in the kernel.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        self.until.is_some()
    }

    /// Whether it waits for self-tests.
    #[must_use]
    pub fn wants_test(&self) -> bool {
        !self.is_manual() && self.until.is_some()
    }

    /// Whether it waits for an operator.
    #[must_use]
    pub fn is_manual(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// How long it goes on unless it is confirmed.
    #[must_use]
    pub fn left(&self, now: Instant) -> Duration {
        self.until.map_or(self.within, |until| until.saturating_duration_since(now))
    }

    /// Why the last self-test failed, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    fn is_confirmed(&self) -> bool {
        if self.is_manual() {
            let awaited = |policy: &&Arc<crate::model::HostPolicy>| self.awaited.iter().any(|one| one == name(policy));
            let given =
                |policy: &Arc<crate::model::HostPolicy>| policy.confirmation.given || self.given.contains(name(policy));
            self.program.iter().filter(awaited).all(given)
        } else {
            self.passes >= PASSES
        }
    }

    fn why(&self) -> String {
        let within = self.within.as_secs();
        if let Some(unkept) = &self.unkept {
            return format!("it was confirmed, but that could not be kept within {within} s: {unkept}");
        }
        match (&self.failed, self.is_manual()) {
            (_, true) => format!("nobody confirmed it within {within} s; twill policy confirm NAME does that"),
            (Some(failed), false) => format!("the self-test did not succeed within {within} s: {failed}"),
            (None, false) => format!("no self-test was completed within {within} s"),
        }
    }
}

fn name(policy: &crate::model::HostPolicy) -> &str {
    &policy.rules.key.name
}

/// Name of the set that gates an attempt: of no other one.
fn gate(attempt: &str) -> String {
    let hash = Sha256::digest(attempt.as_bytes());
    let text: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("host_trial_{text}")
}

fn program(objects: &[HostPolicy]) -> Program {
    let mut program: Program = objects.iter().map(|object| Arc::new(host_policy(object))).collect();
    sort(&mut program);
    program
}

fn attempt(program: &Program) -> String {
    program.iter().map(|policy| policy.attempt.as_str()).collect::<Vec<_>>().join(", ")
}

/// What is read of an object, and nothing that changes for other reasons.
fn trimmed(mut object: HostPolicy) -> HostPolicy {
    let meta = std::mem::take(&mut object.metadata);
    object.metadata.name = meta.name;
    object.metadata.uid = meta.uid;
    object.metadata.generation = meta.generation;
    object
}
