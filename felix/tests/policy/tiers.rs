//! Tiers with denial and Pass, which no NetworkPolicy has: the ruleset against the story.

use crate::cluster::{Cluster, policies};
use crate::differential::{QUESTIONS, raw};
use crate::universe::{State, nodes_of, state};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use twill_felix::evaluate::{Party, Universe};
use twill_felix::model::{Action, NamespaceScope, Pod, Policy, Tier, namespace_labels};

/// How a NetworkPolicy becomes something else.
type Change = (Tier, i32, bool, Vec<Action>);

fn change() -> impl Strategy<Value = Change> {
    let tier = select(vec![Tier::Admin, Tier::NetworkPolicy, Tier::Baseline]);
    let action = select(vec![Action::Allow, Action::Deny, Action::Pass]);
    (tier, 0..3_i32, any::<bool>(), vec(action, 4))
}

fn changed(state: &State, changes: &[Change]) -> Vec<Policy> {
    let mut all = policies(state);
    for (policy, (tier, priority, wide, actions)) in all.iter_mut().zip(changes) {
        policy.tier = *tier;
        policy.priority = *priority;
        if *wide {
            policy.subject.namespaces = NamespaceScope::Matching(policy.subject.pods.clone());
        }
        let rules = policy.ingress.iter_mut().chain(&mut policy.egress).flatten();
        rules.zip(actions).for_each(|(rule, action)| rule.action = *action);
    }
    all
}

fn agree(state: &State, changes: &[Change]) -> Result<(), TestCaseError> {
    let policies = changed(state, changes);
    let rulesets = Cluster::with(state, &policies);
    let objects = raw(state);
    let namespaces =
        objects.namespaces.iter().map(|n| (n.metadata.name.clone().unwrap_or_default(), namespace_labels(n))).collect();
    let pods = objects.pods.iter().map(Pod::read);
    let stories = Universe::of(pods, namespaces, policies, nodes_of(state));
    for (src, dst) in rulesets.pairs() {
        for (protocol, _, port) in QUESTIONS {
            let story = stories.explain(&Party::Address(src), &Party::Address(dst), port, protocol);
            let story = story.map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(story.allowed, rulesets.passes(src, dst, protocol, port), "{}", story);
        }
    }
    Ok(())
}

#[test]
fn ruleset_and_story_agree_on_random_tiers() {
    let config = Config { cases: 500, failure_persistence: None, ..Config::default() };
    let all = (state(true), vec(change(), 5));
    TestRunner::new(config)
        .run(&all, |(state, changes)| agree(&state, &changes))
        .unwrap_or_else(|error| panic!("{error}"));
}
