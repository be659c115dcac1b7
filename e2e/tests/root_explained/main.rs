//! What `twill explain` says, held against what the kernel does.
//!
//! ```text
//!            router ── outside (192.0.2.9 to the first rack, .10 to the second; has a route to each pod by its node)
//!           /      \
//!        n1, n2   n3, n4     pods of five namespaces, one listener on each node, Services with the rules of kube-proxy
//! ```
//! 1. Whoever sends (pod, node, outside) to whom (pod, node, a node's address in tunnels, hostPort, NodePort, a Service's address), in both
//!    families: the packet arrives exactly when the evaluator allows it.
//! 2. Where it says that this depends on the interface, it does so only where objects cannot tell: and with the interface named it is
//!    right again.
//! 3. The same where tunnels are between subnets alone, and where they are always.
//!
//! The evaluator is asked once for all, as `twill policy test`, with what was seen as what is expected. Of each kind of question some are
//! chosen; the seed is in the failure, and `TWILL_EXPLAINED_SEED` takes it.
#![allow(clippy::unwrap_used)]

mod answers;
mod cluster;
mod proxy;
mod questions;
#[path = "../root_storm/random.rs"]
#[allow(dead_code)]
mod random;

use answers::{Told, ask};
use cluster::{Stage, When};
use questions::{Question, choose};
use random::Random;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};
use twill_lab::io::prober::{self, Attempt, Outcome};

/// How long silence is listened to.
const PATIENCE: Duration = Duration::from_millis(1500);
/// The same where something that may come has not: the machine is busy.
const SECOND_PATIENCE: Duration = Duration::from_secs(6);
/// Of each kind of question.
const OF_A_KIND: usize = 120;

/// What came of a question.
struct Seen {
    question: Question,
    outcome: Outcome,
}

impl Seen {
    fn arrived(&self) -> bool {
        matches!(self.outcome, Outcome::Answered(_) | Outcome::Refused)
    }

    /// The sentence, if somebody else answered than was asked.
    fn stranger(&self) -> Option<String> {
        let Outcome::Answered(Some(line)) = &self.outcome else { return None };
        let wrong = self.question.answers.as_ref().is_some_and(|who| who != line);
        wrong.then(|| format!("{}: {line} answered", self.question))
    }
}

fn tried(questions: &[&Question], patience: Duration) -> Vec<Outcome> {
    let attempts: Vec<Attempt> = questions.iter().map(|question| question.attempt.clone()).collect();
    prober::probe(&attempts, patience).unwrap()
}

/// Stories that are not as was seen, of those that are asked about, by their place. What may arrive and has not gets a second chance.
fn differing(stage: &Stage, seen: &mut [Seen], which: &[usize], named: bool) -> BTreeMap<usize, Told> {
    let mut told = ask(stage, seen, which, named);
    let late: Vec<usize> =
        told.iter().filter(|(i, told)| told.allowed && !seen[**i].arrived()).map(|(i, _)| *i).collect();
    let questions: Vec<&Question> = late.iter().map(|i| &seen[*i].question).collect();
    for (i, outcome) in late.iter().zip(tried(&questions, SECOND_PATIENCE)) {
        seen[*i].outcome = outcome;
        if seen[*i].arrived() {
            told.remove(i);
        }
    }
    // Of what leads nowhere nobody asserts anything; that nothing came of it is as it should be.
    told.retain(|i, told| told.depends || told.allowed != seen[*i].arrived());
    told
}

fn holds(name: &str, when: When) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed =
        std::env::var("TWILL_EXPLAINED_SEED").map_or(u64::from(now.subsec_nanos()), |text| text.parse().unwrap());
    let stage = Stage::up(name, when);
    let began = Instant::now();
    let questions = choose(stage.questions(), OF_A_KIND, &mut Random::new(seed, 0));
    let outcomes = tried(&questions.iter().collect::<Vec<_>>(), PATIENCE);
    let mut seen: Vec<Seen> =
        questions.into_iter().zip(outcomes).map(|(question, outcome)| Seen { question, outcome }).collect();

    let all: Vec<usize> = (0..seen.len()).collect();
    let mut told = differing(&stage, &mut seen, &all, false);
    let depending: Vec<usize> = told.iter().filter(|(_, told)| told.depends).map(|(i, _)| *i).collect();
    let surprising: Vec<usize> = depending.iter().copied().filter(|i| !stage.may_depend(&seen[*i].question)).collect();
    told.retain(|i, told| !told.depends || surprising.contains(i));
    let named = differing(&stage, &mut seen, &depending, true);
    let unnameable = named.values().filter(|told| told.depends).count();
    told.extend(named.into_iter().filter(|(i, told)| !told.depends || !seen[*i].question.is_led));

    let mut differences: Vec<String> =
        told.iter().map(|(i, told)| format!("{}: {:?}, but\n{told}", seen[*i].question, seen[*i].outcome)).collect();
    differences.extend(seen.iter().filter_map(Seen::stranger));
    let arrived = seen.iter().filter(|seen| seen.arrived()).count();
    let (asked, silent, dependent) = (seen.len(), seen.len() - arrived, depending.len());
    let seconds = began.elapsed().as_secs_f64();
    let summary = format!(
        "{name}, TWILL_EXPLAINED_SEED={seed}: {asked} asked in {seconds:.0} s, {arrived} arrived, {silent} did not, {dependent} depend on the interface, of which {unnameable} by one that cannot be named"
    );
    println!("{summary}");
    assert!(differences.is_empty(), "{summary}; {} differ:\n{}", differences.len(), differences.join("\n"));
    assert!(arrived > asked / 5 && silent > asked / 5, "{summary}");
    assert!(dependent * 100 <= asked * stage.dependent_at_most(), "{summary}");
}

#[test]
#[ignore = "needs root: make test"]
fn the_kernel_does_what_is_explained_with_tunnels_between_subnets() {
    holds("explained-cross", When::CrossSubnet);
}

#[test]
#[ignore = "needs root: make test"]
fn the_kernel_does_what_is_explained_with_tunnels_always() {
    holds("explained-always", When::Always);
}
