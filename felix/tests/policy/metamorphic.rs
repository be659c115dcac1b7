//! Changes of the policies that must change nothing.

use crate::cluster::{Cluster, compiled, policies};
use crate::differential::QUESTIONS;
use crate::universe::{State, state};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::json;
use twill_felix::model::{Peers, Policy, Ports, Rule};

fn check(test: impl Fn(&State) -> Result<(), TestCaseError>) {
    let config = Config { cases: 150, failure_persistence: None, ..Config::default() };
    TestRunner::new(config).run(&state(true), |state| test(&state)).unwrap_or_else(|error| panic!("{error}"));
}

fn same(state: &State, change: impl Fn(Vec<Policy>) -> Vec<Policy>) -> Result<(), TestCaseError> {
    let (one, other) = (Cluster::with(state, &policies(state)), Cluster::with(state, &change(policies(state))));
    for (src, dst) in one.pairs() {
        for (protocol, _, port) in QUESTIONS {
            let (a, b) = (one.passes(src, dst, protocol, port), other.passes(src, dst, protocol, port));
            prop_assert_eq!(a, b, "{} -> {} {}/{}", src, dst, port, protocol);
        }
    }
    Ok(())
}

fn each_rule(mut all: Vec<Policy>, change: impl Fn(Rule) -> Vec<Rule>) -> Vec<Policy> {
    for policy in &mut all {
        for rules in policy.ingress.iter_mut().chain(&mut policy.egress) {
            *rules = std::mem::take(rules).into_iter().flat_map(&change).collect();
        }
    }
    all
}

#[test]
fn the_order_of_policies() {
    let renamed = |mut all: Vec<Policy>| {
        let last = all.len();
        all.iter_mut().enumerate().for_each(|(i, p)| p.key.name = format!("q{}", last - i));
        all
    };
    check(|state| same(state, renamed));
}

#[test]
fn a_rule_per_peer_instead_of_a_rule_with_several() {
    let split = |rule: Rule| match &rule.peers {
        Peers::Of(peers) => peers.iter().map(|p| Rule { peers: Peers::Of(vec![p.clone()]), ..rule.clone() }).collect(),
        Peers::Any => vec![rule],
    };
    check(|state| same(state, |all| each_rule(all, split)));
}

#[test]
fn a_rule_per_port_instead_of_a_rule_with_several() {
    let split = |rule: Rule| match &rule.ports {
        Ports::Of(ports) => ports.iter().map(|p| Rule { ports: Ports::Of(vec![p.clone()]), ..rule.clone() }).collect(),
        Ports::All => vec![rule],
    };
    check(|state| same(state, |all| each_rule(all, split)));
}

#[test]
fn every_rule_written_twice() {
    check(|state| same(state, |all| each_rule(all, |rule| vec![rule.clone(), rule])));
}

#[test]
fn a_policy_about_nobody_leaves_the_very_ruleset() {
    check(|state| {
        let mut more = state.clone();
        let raw = json!({"metadata": {"namespace": "x", "name": "other"},
            "spec": {"podSelector": {"matchLabels": {"a": "nobody"}}, "ingress": [{"from": [{"podSelector": {}}]}]}});
        let policy = serde_json::from_value(raw).unwrap();
        more.policies.insert(("x".to_owned(), "other".to_owned()), policy);
        for node in ["n1", "n2"] {
            let (one, other) = (compiled(state, node), compiled(&more, node));
            prop_assert_eq!(one.ruleset(), other.ruleset());
        }
        Ok(())
    });
}
